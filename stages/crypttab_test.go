package stages

import "testing"

func TestCrypttab(t *testing.T) {
	runCases(t, "org.osbuild.crypttab", []stageCase{
		{
			name: "volumes",
			options: `{"volumes": [
				{"volume": "luks-1", "uuid": "6e4f", "options": "discard"},
				{"volume": "swap", "path": "/dev/vda3", "keyfile": "/dev/urandom", "options": "swap"},
				{"volume": "x", "path": "/dev/vdb", "keyfile": ""}]}`,
			tree: map[string]string{"/etc/crypttab": "old\n"},
			want: map[string]string{"/etc/crypttab": "luks-1\tUUID=6e4f\tnone\tdiscard\n" +
				"swap\t/dev/vda3\t/dev/urandom\tswap\n" +
				"x\t/dev/vdb\t\t\n"},
		},
		{name: "no device", options: `{"volumes": [{"volume": "x"}]}`, wantErr: "set uuid or path"},
	})
}
