package stages

import (
	"strings"
	"testing"
)

func TestLocale(t *testing.T) {
	const (
		program = "/usr/bin/systemd-firstboot"
		plain   = "…\x00/etc/locale.conf\x00…"
		debian  = "…\x00/etc/default/locale\x00/etc/locale.conf\x00…"
	)
	runCases(t, "org.osbuild.locale", []stageCase{
		{
			name:    "replaces",
			options: `{"language": "en_US.UTF-8"}`,
			tree:    map[string]string{program: plain, "/etc/locale.conf": "LANG=C\n"},
			want:    map[string]string{program: plain, "/etc/locale.conf": "LANG=en_US.UTF-8\n"},
		},
		{
			name:    "the systemd of Debian 12",
			options: `{"language": "C.UTF-8"}`,
			tree:    map[string]string{program: debian, "/etc/locale.conf": "LANG=C\n", "/etc/default/locale": "LANG=x\n"},
			want:    map[string]string{program: debian, "/etc/default/locale": "LANG=C.UTF-8\n"},
		},
		{
			name:    "quotes",
			options: `{"language": "a b$c"}`,
			tree:    map[string]string{program: plain},
			want:    map[string]string{program: plain, "/etc/locale.conf": "LANG=\"a b\\$c\"\n"},
		},
		{name: "no name", options: `{"language": ""}`, wantErr: "invalid locale"},
		{name: "path", options: `{"language": "../x"}`, wantErr: "write it like"},
		{name: "quote", options: `{"language": "a\"b"}`, wantErr: "invalid locale"},
		{name: "line", options: `{"language": "a\nb"}`, wantErr: "invalid locale"},
		{name: "long", options: `{"language": "` + strings.Repeat("x", 128) + `"}`, wantErr: "invalid locale"},
	})
}
