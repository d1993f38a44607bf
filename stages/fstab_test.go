package stages

import (
	"strings"
	"testing"
)

func TestFstab(t *testing.T) {
	const file = "/etc/fstab"
	commit := strings.Repeat("a", 64)
	deployed := "/ostree/deploy/os/deploy/" + commit
	runCases(t, "org.osbuild.fstab", []stageCase{
		{
			name: "all kinds",
			options: `{"filesystems": [
				{"uuid": "76a2-f153", "path": "/", "vfs_type": "ext4", "options": "ro", "freq": 1, "passno": 2},
				{"label": "data", "path": "/data", "unknown": "member"},
				{"partlabel": "EFI", "path": "/efi", "options": ""},
				{"device": "tmpfs", "path": "/tmp", "vfs_type": "tmpfs", "passno": 0}]}`,
			tree: map[string]string{file: "[0600] old\n"},
			want: map[string]string{file: "[0600] UUID=76a2-f153\t/\text4\tro\t1\t2\n" +
				"LABEL=data\t/data\tnone\tdefaults\t0\t0\n" +
				"PARTLABEL=EFI\t/efi\tnone\t\t0\t0\n" +
				"tmpfs\t/tmp\ttmpfs\tdefaults\t0\t0\n"},
		},
		{name: "empty", options: `{"filesystems": []}`, want: map[string]string{file: ""}},
		{name: "no device", options: `{"filesystems": [{"path": "/"}]}`, wantErr: "partlabel"},
		{
			name:    "deployment by commit",
			options: `{"filesystems": [], "ostree": {"deployment": {"osname": "os", "ref": "` + commit + `", "serial": 1}}}`,
			tree:    map[string]string{deployed + ".1/etc": "dir", deployed + ".0/etc": "dir"},
			want:    map[string]string{deployed + ".1/etc/fstab": "", deployed + ".0/etc": "dir"},
		},
		{
			name:    "only deployment",
			options: `{"filesystems": [], "ostree": {"deployment": {"default": true}}}`,
			tree:    map[string]string{deployed + ".0/etc": "dir", deployed + ".0.origin": "x"},
			want:    map[string]string{deployed + ".0/etc/fstab": "", deployed + ".0.origin": "x"},
		},
		{
			name:    "two deployments",
			options: `{"filesystems": [], "ostree": {"deployment": {"default": true}}}`,
			tree:    map[string]string{deployed + ".0/etc": "dir", "/ostree/deploy/other/deploy/b.0/etc": "dir"},
			wantErr: "osname and ref",
		},
		{
			name:    "no deployment",
			options: `{"filesystems": [], "ostree": {"deployment": {"default": true}}}`,
			wantErr: "no OSTree deployment",
		},
		{
			name:    "another deployment",
			options: `{"filesystems": [], "ostree": {"deployment": {"osname": "os", "ref": "` + commit + `"}}}`,
			wantErr: "no deployment",
		},
	})
}
