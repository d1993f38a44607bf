package stages

import "testing"

func TestBLSAppend(t *testing.T) {
	const dir = "/boot/loader/entries/"
	runCases(t, "org.osbuild.kernel-cmdline.bls-append", []stageCase{
		{
			name:    "entries",
			options: `{"kernel_opts": ["quiet", "console=ttyS0"]}`,
			tree: map[string]string{
				dir + "a.conf":  "[0600] title A\r\noptions root=x\nlinux /v\noptions y\n",
				dir + "b.conf":  "title B",
				dir + ".c.conf": "options c\n", dir + "d.txt": "options d\n",
			},
			want: map[string]string{
				dir + "a.conf":  "title A\noptions root=x quiet console=ttyS0\nlinux /v\noptions y\n",
				dir + "b.conf":  "title B\noptions quiet console=ttyS0\n",
				dir + ".c.conf": "options c\n", dir + "d.txt": "options d\n",
			},
		},
		{
			name:       "in a mount",
			options:    `{"kernel_opts": ["q"], "bootpath": "mount:///boot"}`,
			mounts:     map[string]string{"boot/loader/entries/a.conf": "options x\n"},
			wantMounts: map[string]string{"boot/loader/entries/a.conf": "options x q\n"},
		},
		{name: "none", options: `{"kernel_opts": ["q"]}`, wantErr: "no boot loader entry in tree:///boot/loader/entries"},
	})
}
