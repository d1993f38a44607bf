package stages

import "testing"

func TestKeymap(t *testing.T) {
	const xorg = "/etc/X11/xorg.conf.d/00-keyboard.conf"
	runCases(t, "org.osbuild.keymap", []stageCase{
		{
			name:    "console",
			options: `{"keymap": "us"}`,
			tree:    map[string]string{"/etc/vconsole.conf": "KEYMAP=de\nFONT=x\n"},
			want:    map[string]string{"/etc/vconsole.conf": "KEYMAP=us\n"},
		},
		{
			name:    "everything",
			options: `{"keymap": "de-latin1", "font": "eurlatgr", "x11-keymap": {"layouts": ["de", "us"]}}`,
			want: map[string]string{
				"/etc/vconsole.conf": "KEYMAP=de-latin1\nFONT=eurlatgr\n",
				xorg: `# Created by osbuild. Do not edit manually, use localectl(1).
Section "InputClass"
        Identifier "system-keyboard"
        MatchIsKeyboard "on"
        Option "XkbLayout" "de,us"
EndSection
`,
			},
		},
		{name: "no name", options: `{"keymap": "a/b"}`, wantErr: "invalid keymap"},
	})
}
