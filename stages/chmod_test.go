package stages

import "testing"

func TestChmod(t *testing.T) {
	needTools(t, "chmod")
	tree := map[string]string{"/d/f": "x", "/d/x": "[0700] x", "/f": "[0600] y", "/d/l": "-> ../f", "/abs": "-> /f"}
	runCases(t, "org.osbuild.chmod", []stageCase{
		{
			name:    "numbers and letters",
			options: `{"items": {"/f": {"mode": "4755"}, "/d/f": {"mode": "-r"}, "/d": {"mode": "1777"}}}`,
			tree:    tree,
			want:    map[string]string{"/d": "[1777] dir", "/d/f": "[0200] x", "/d/x": "[0700] x", "/f": "[4755] y", "/d/l": "-> ../f", "/abs": "-> /f"},
		},
		{
			name:    "recursive, then one in order",
			options: `{"items": {"/d": {"mode": "a+rX,o-x", "recursive": true}, "/d/f": {"mode": "0640"}}}`,
			tree:    tree,
			want:    map[string]string{"/d": "[0754] dir", "/d/f": "[0640] x", "/d/x": "[0754] x", "/f": "[0600] y", "/d/l": "-> ../f", "/abs": "-> /f"},
		},
		{
			name:    "links are followed in the tree",
			options: `{"items": {"/abs": {"mode": "0640"}}}`,
			tree:    tree,
			want:    map[string]string{"/d/f": "x", "/d/x": "[0700] x", "/f": "[0640] y", "/d/l": "-> ../f", "/abs": "-> /f"},
		},
		{name: "missing", options: `{"items": {"/no": {"mode": "0640"}}}`, wantErr: "/no is not in the tree"},
		{name: "bad mode", options: `{"items": {"/f": {"mode": "rw"}}}`, tree: tree, wantErr: "invalid mode"},
	})
}
