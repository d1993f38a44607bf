package stages

import "testing"

func TestResolvConf(t *testing.T) {
	const file, comment = "/etc/resolv.conf", "# This file was created by osbuild\n"
	runCases(t, "org.osbuild.resolv-conf", []stageCase{
		{name: "nothing", options: `{}`, want: map[string]string{file: comment}},
		{
			name:    "instead of a link",
			options: `{"nameserver": ["192.0.2.1", "2001:db8::1"], "search": ["a.example", "b.example"]}`,
			tree:    map[string]string{file: "-> ../run/systemd/resolve/stub-resolv.conf"},
			want:    map[string]string{file: comment + "search a.example b.example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"},
		},
	})
}
