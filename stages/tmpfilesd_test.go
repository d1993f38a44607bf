package stages

import "testing"

func TestTmpfilesd(t *testing.T) {
	runCases(t, "org.osbuild.tmpfilesd", []stageCase{
		{
			name: "lines",
			options: `{"filename": "x.conf", "config": [
				{"type": "x", "path": "/tmp/.sap*"},
				{"type": "L+", "path": "/etc/l", "argument": "/etc/target of it"},
				{"type": "d", "path": "/run/x", "mode": "0755", "user": "app"},
				{"type": "d", "path": "/var/tmp", "age": "30d", "group": "g"}]}`,
			want: map[string]string{"/usr/lib/tmpfiles.d/x.conf": "x /tmp/.sap*\n" +
				"L+ /etc/l - - - - /etc/target of it\n" +
				"d /run/x 0755 app\n" +
				"d /var/tmp - - g 30d\n"},
		},
	})
}
