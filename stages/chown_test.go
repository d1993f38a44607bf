package stages

import (
	"os"
	"testing"
)

func TestChown(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const passwd = "root:x:0:0::/:/bin/sh\nwww:x:33:34::/:/bin/sh\n77:x:78:78::/:/bin/sh\n"
	const group = "root:x:0:\nweb:x:44:\nbroken:x\n"
	with := func(m map[string]string) map[string]string {
		m["/etc/passwd"], m["/etc/group"], m["/usr/lib/group"] = passwd, group, "alt:x:55:\n"
		return m
	}
	tree := func() map[string]string {
		return with(map[string]string{"/d/f": "x", "/d/s": "[4755] x", "/f": "y", "/d/l": "-> ../f", "/ld": "-> /d"})
	}
	runCases(t, "org.osbuild.chown", []stageCase{
		{
			name:    "names and numbers",
			options: `{"items": {"/f": {"user": "www", "group": "web"}, "/d": {"user": 5}, "/d/f": {"group": "alt"}, "/d/s": {"user": 77}}}`,
			tree:    tree(),
			want:    with(map[string]string{"/d": "[0755 5:0] dir", "/d/f": "[0644 0:55] x", "/d/s": "[0755 78:0] x", "/f": "[0644 33:44] y", "/d/l": "-> ../f", "/ld": "-> /d"}),
		},
		{
			name:    "recursive",
			options: `{"items": {"/d": {"user": 5, "group": "6", "recursive": true}, "/d/f": {"user": 0}}}`,
			tree:    tree(),
			want:    with(map[string]string{"/d": "[0755 5:6] dir", "/d/f": "[0644 0:6] x", "/d/s": "[0755 5:6] x", "/f": "y", "/d/l": "[0777 5:6] -> ../f", "/ld": "-> /d"}),
		},
		{
			name:    "a link is followed",
			options: `{"items": {"/d/l": {"user": 5}}}`,
			tree:    tree(),
			want:    with(map[string]string{"/d/f": "x", "/d/s": "[4755] x", "/f": "[0644 5:0] y", "/d/l": "-> ../f", "/ld": "-> /d"}),
		},
		{
			name:    "but not when recursive",
			options: `{"items": {"/ld": {"user": 5, "recursive": true}}}`,
			tree:    tree(),
			want:    with(map[string]string{"/d/f": "x", "/d/s": "[4755] x", "/f": "y", "/d/l": "-> ../f", "/ld": "[0777 5:0] -> /d"}),
		},
		{name: "unknown user", options: `{"items": {"/f": {"user": "nobody"}}}`, tree: tree(), wantErr: `the image has no user "nobody"`},
		{name: "unknown group", options: `{"items": {"/f": {"group": "x"}}}`, tree: tree(), wantErr: "or give its number"},
		{name: "broken entry", options: `{"items": {"/f": {"group": "broken"}}}`, tree: tree(), wantErr: "has 2 fields"},
		{name: "too large", options: `{"items": {"/f": {"user": 4294967295}}}`, tree: tree(), wantErr: "no user"},
		{name: "missing", options: `{"items": {"/no": {"user": 5}}}`, tree: tree(), wantErr: "/no is not in the tree"},
	})
}
