package stages

import (
	"strings"
	"testing"
)

func TestHostname(t *testing.T) {
	runCases(t, "org.osbuild.hostname", []stageCase{
		{
			name:    "replaces",
			options: `{"hostname": "web-1.example.org"}`,
			tree:    map[string]string{"/etc/hostname": "[0600] old\n"},
			want:    map[string]string{"/etc/hostname": "web-1.example.org\n"},
		},
		{
			name:    "empty tree",
			options: `{"hostname": "Web"}`,
			want:    map[string]string{"/etc/hostname": "Web\n"},
		},
		{
			name:    "replaces a link, not what it leads to",
			options: `{"hostname": "new"}`,
			tree:    map[string]string{"/etc/hostname": "-> other", "/etc/other": "x"},
			want:    map[string]string{"/etc/hostname": "new\n", "/etc/other": "x"},
		},
		{
			name:    "dot at the end",
			options: `{"hostname": "a.example."}`,
			want:    map[string]string{"/etc/hostname": "a.example\n"},
		},
		{
			name:    "/etc is a link",
			options: `{"hostname": "a--b"}`,
			tree:    map[string]string{"/etc": "-> /private/etc"},
			want:    map[string]string{"/etc": "-> /private/etc", "/private/etc/hostname": "a--b\n"},
		},
	})
}

func TestHostnameRefuses(t *testing.T) {
	for _, bad := range []string{
		"", "a b", "a/b", "a\nb", "a_b", "ü", ".", ".a", "a.", "a..b", "-a", "a-", "a-.b", "a.-b",
		strings.Repeat("x", 65), strings.Repeat("x", 31) + "." + strings.Repeat("x", 31) + ".y",
	} {
		if err := runHostname(testContext(t, map[string]any{"hostname": bad})); err == nil {
			t.Errorf("hostname %q was taken", bad)
		}
	}
}
