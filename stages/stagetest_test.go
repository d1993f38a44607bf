// Helpers of the stage tests: a context on a temporary tree, and a comparison of
// the whole tree with what is expected.
package stages

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// testContext makes a context for a stage on an empty tree.
func testContext(t *testing.T, options any) *Context {
	t.Helper()
	dir := t.TempDir()
	raw, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	c := &Context{
		Context: context.Background(), Tree: filepath.Join(dir, "tree"), Options: raw, Arch: "x86_64",
		Inputs: map[string]InputArg{}, Devices: map[string]DeviceArg{}, Mounts: map[string]MountArg{},
		Paths: PathsArg{Devices: "/dev", Inputs: filepath.Join(dir, "inputs"), Mounts: filepath.Join(dir, "mounts")},
		Log:   &bytes.Buffer{},
	}
	for _, d := range []string{c.Tree, c.Paths.Inputs, c.Paths.Mounts} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// writeTree puts files into the tree of c: path → content.
func writeTree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for p, s := range files {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readTree returns the content of every regular file, and "-> target" of every
// link, below root.
func readTree(t *testing.T, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := "/" + filepath.ToSlash(mustRel(root, p))
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			got[rel] = "-> " + to
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			got[rel] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustRel(root, p string) string {
	r, err := filepath.Rel(root, p)
	if err != nil {
		panic(err)
	}
	return r
}
