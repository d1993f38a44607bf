package stages

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLn(t *testing.T) {
	runCases(t, "org.osbuild.ln", []stageCase{
		{
			name: "symbolic",
			options: `{"paths": [
				{"target": "tool", "link_name": "tree:///bin/alias", "symbolic": true},
				{"target": "/nowhere/at/all", "link_name": "tree:///l", "symbolic": true}]}`,
			tree: map[string]string{"/bin/tool": "x"},
			want: map[string]string{"/bin/tool": "x", "/bin/alias": "-> tool", "/l": "-> /nowhere/at/all"},
		},
		{
			name:       "in a mount",
			options:    `{"paths": [{"target": "q", "link_name": "mount://m/l", "symbolic": true}]}`,
			mounts:     map[string]string{"m/q": "x"},
			wantMounts: map[string]string{"m/q": "x", "m/l": "-> q"},
		},
		{name: "exists", options: `{"paths": [{"target": "q", "link_name": "tree:///l", "symbolic": true}]}`, tree: map[string]string{"/l": "x"}, wantErr: "exists already"},
		{name: "no file", options: `{"paths": [{"target": "/bin-of-nobody", "link_name": "tree:///l"}]}`, wantErr: "tree:///PATH"},
	})
}

func TestLnHard(t *testing.T) {
	for _, target := range []string{"tree:///f", "%TREE%/f"} {
		c := testContext(t, nil)
		runCase(t, c, "org.osbuild.ln", stageCase{
			options: `{"paths": [{"target": "` + target + `", "link_name": "tree:///h"}]}`,
			tree:    map[string]string{"/f": "x"},
			want:    map[string]string{"/f": "x", "/h": "x"},
		})
		f, _ := os.Stat(filepath.Join(c.Tree, "f"))
		h, _ := os.Stat(filepath.Join(c.Tree, "h"))
		if !os.SameFile(f, h) {
			t.Errorf("target %s: the link is another file", target)
		}
	}
}
