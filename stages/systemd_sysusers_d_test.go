package stages

import "testing"

func TestSysusersD(t *testing.T) {
	const head = `{"config": {"filename": "my.conf", "entries": [`
	entry := func(s string) string { return head + s + "]}}" }
	refuse := func(s, err string) stageCase { return stageCase{name: s, options: entry(s), wantErr: err} }
	runCases(t, "org.osbuild.systemd-sysusers.d", []stageCase{
		{
			name: "all types",
			options: entry(`{"type": "g", "name": "grp", "id": "555"},
				{"type": "u", "name": "usr", "id": "556:555", "gecos": "A user", "home": "/var/lib/usr", "shell": "/bin/sh", "unknown": 1},
				{"type": "u!", "name": "locked-1"}, {"type": "m", "name": "usr", "id": "grp"},
				{"type": "r", "name": "-", "id": "500-900"}, {"type": "u", "name": "e", "gecos": "", "shell": ""}`),
			want: map[string]string{"/usr/lib/sysusers.d/my.conf": `g grp 555 - - -
u usr 556:555 "A user" /var/lib/usr /bin/sh
u! locked-1 - - - -
m usr grp - - -
r - 500-900 - - -
u e - "" -
`},
		},
		{
			name:    "in /etc",
			options: `{"config": {"path-prefix": "etc", "filename": "../x.conf", "entries": [{"type": "g", "name": "a"}]}}`,
			want:    map[string]string{"/etc/sysusers.d/x.conf": "g a - - - -\n"},
		},
		{name: "no entries", options: entry(""), wantErr: "at least one"},
		{name: "no .conf", options: `{"config": {"filename": "x", "entries": [{"type": "g", "name": "a"}]}}`, wantErr: ".conf"},
		refuse(`{"type": "x", "name": "a"}`, "one of u"),
		refuse(`{"type": "u", "name": "A"}`, "small letters"),
		refuse(`{"type": "r", "name": "a", "id": "5"}`, `for the type r`),
		refuse(`{"type": "r", "name": "-"}`, "with a dash"),
		refuse(`{"type": "r", "name": "-", "id": "1-2-3"}`, "with a dash"),
		refuse(`{"type": "m", "name": "a", "id": "5"}`, "name of a group"),
		refuse(`{"type": "u", "name": "a", "id": "65535"}`, "65535"),
		refuse(`{"type": "u", "name": "a", "id": "5:4294967295"}`, "4294967295"),
		refuse(`{"type": "g", "name": "a", "gecos": "x"}`, "type u"),
		refuse(`{"type": "u!", "name": "a", "home": "/x"}`, "type u"),
	})
}
