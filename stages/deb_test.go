package stages

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// debArchive makes a small package, named as a source of files names it.
func debArchive(t *testing.T, dir, control string, files map[string]string) string {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip(err)
	}
	root := t.TempDir()
	writeTree(t, root, files)
	writeTree(t, root, map[string]string{"/DEBIAN/control": control + "Maintainer: A Tester <tester@example.org>\nDescription: test\n"})
	name := "sha256:" + strings.Fields(control)[1]
	out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", root, filepath.Join(dir, name)).CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return name
}

func debContext(t *testing.T, options any, names ...string) *Context {
	c := testContext(t, options)
	c.Inputs["packages"] = InputArg{Path: c.Paths.Inputs, Data: InputData{Files: map[string]json.RawMessage{}}}
	for _, n := range names {
		c.Inputs["packages"].Data.Files[n] = json.RawMessage("{}")
	}
	return c
}

func TestDeb(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	c := debContext(t, map[string]any{
		"configure": false, "arch": "amd64", "exclude": []string{"/usr/share/doc/*"}, "include": []string{"/usr/share/doc/*/copyright"},
	})
	for _, control := range []string{"Package: one\nVersion: 1:2-3\nArchitecture: amd64\n", "Package: two\nVersion: 7\nArchitecture: all\n"} {
		name := debArchive(t, c.Paths.Inputs, control, map[string]string{
			"/bin/" + strings.Fields(control)[1]: "x", "/usr/share/doc/" + strings.Fields(control)[1] + "/copyright": "c", "/usr/share/doc/changes-" + strings.Fields(control)[1]: "c",
		})
		c.Inputs["packages"].Data.Files[name] = json.RawMessage("{}")
	}
	var meta any
	c.SetMeta = func(v any) error { meta = v; return nil }
	if err := runDeb(c); err != nil {
		t.Fatal(err)
	}
	got := readTree(t, c.Tree)
	for path, want := range map[string]string{
		"/usr/bin/one": "x", "/usr/bin/two": "x", "/bin": "-> usr/bin", "/usr/share/doc/one/copyright": "c", "/usr/share/doc/changes-one": "",
		"/etc/dpkg/dpkg.cfg.d/osbuild-star": "path-exclude=/usr/share/doc/*\npath-include=/usr/share/doc/*/copyright\n",
	} {
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
	b, err := json.Marshal(meta)
	want := `{"packages":[{"name":"one","version":"1:2-3","arch":"amd64"},{"name":"two","version":"7","arch":"all"}]}`
	if diff := cmp.Diff(want, string(b)); err != nil || diff != "" {
		t.Errorf("metadata: %v\n%s", err, diff)
	}
}

func TestDebRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		c    *Context
		want string
	}{
		"no input":     {testContext(t, map[string]any{}), "input"},
		"path":         {debContext(t, map[string]any{}, "../x"), "../x"},
		"missing file": {debContext(t, map[string]any{}, "sha256:none"), "sha256:none"},
		"newline":      {debContext(t, map[string]any{"exclude": []string{"/a\nlog=/b"}}), "newline"},
		"architecture": {debContext(t, map[string]any{"arch": "x/y"}), ""},
	} {
		err := runDeb(tt.c)
		if name == "architecture" { // nothing is to be installed: it is not looked at
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
	c := debContext(t, map[string]any{}, "sha256:bad")
	writeTree(t, c.Paths.Inputs, map[string]string{"/sha256:bad": "no package"})
	var e *Error
	if err := runDeb(c); !errors.As(err, &e) || !strings.Contains(e.Msg, "sha256:bad") || e.Hint == "" {
		t.Errorf("a file that is no package: %v", err)
	}
}
