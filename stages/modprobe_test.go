package stages

import "testing"

func TestModprobe(t *testing.T) {
	runCases(t, "org.osbuild.modprobe", []stageCase{
		{
			name: "lines",
			options: `{"filename": "x.conf", "commands": [
				{"command": "blacklist", "modulename": "floppy"},
				{"command": "install", "modulename": "usb-storage", "cmdline": "/bin/true x"}]}`,
			want: map[string]string{"/usr/lib/modprobe.d/x.conf": "blacklist floppy\ninstall usb-storage /bin/true x\n"},
		},
		{name: "unknown", options: `{"filename": "x.conf", "commands": [{"command": "alias", "modulename": "a"}]}`, wantErr: "alias"},
	})
}
