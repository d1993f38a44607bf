// Tests of workspaces and MODULE.star.

package starlark

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.starlark.net/starlark"
)

func TestFindWorkspace(t *testing.T) {
	root := unpack(t, parseArchive(`
-- MODULE.star --
module(
    name = "fleet",
    min_version = "1.2",
    source_epoch = 1700000000,
    libdir = "lib/osbuild",
    release = "bookworm",
    debug = False,
    size = 3,
)
-- images/deep/x --
-- inner/MODULE.star --
-- inner/pkg/x --
-- od d/x --
`))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(root, "images"), link); err != nil {
		t.Fatal(err)
	}
	var w *Workspace
	for _, dir := range []string{root, filepath.Join(root, "images", "deep"), link, filepath.Join(root, "images", "..")} {
		var err error
		if w, err = FindWorkspace(dir); err != nil {
			t.Fatal(err)
		}
		if w.Root != root {
			t.Errorf("%s: root %s, want %s", dir, w.Root, root)
		}
	}
	if w.Name != "fleet" || w.MinVersion != "1.2" || w.SourceEpoch == nil || *w.SourceEpoch != 1700000000 {
		t.Errorf("got %+v", w)
	}
	if w.Libdir != filepath.Join(root, "lib/osbuild") {
		t.Errorf("libdir %s", w.Libdir)
	}
	if len(w.Params) != 3 || w.Params[0].Name != "release" || w.Param("size") != starlark.Value(starlark.MakeInt(3)) ||
		w.Param("debug") != starlark.Value(starlark.False) || w.Param("none") != nil {
		t.Errorf("params %v", w.Params)
	}
	if got := w.Params[1].Pos.String(); got != "MODULE.star:7:5" {
		t.Errorf("debug is at %s", got)
	}

	for dir, want := range map[string]string{"": "", "images": "images", "images/deep": "images/deep"} {
		if got, err := w.PackageOf(filepath.Join(root, dir)); got != want || err != nil {
			t.Errorf("PackageOf(%q) = %q, %v", dir, got, err)
		}
	}
	if got, err := w.PackageOf(link); got != "images" || err != nil {
		t.Errorf("through a link: %q, %v", got, err)
	}
	for dir, want := range map[string]string{"..": "outside of the workspace", "inner/pkg": "lies inside of", "od d": "cannot be a package", "none": "no such file"} {
		if got, err := w.PackageOf(filepath.Join(root, dir)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("PackageOf(%q) = %q, %v; want %q", dir, got, err, want)
		}
	}
	if inner, err := FindWorkspace(filepath.Join(root, "inner", "pkg")); err != nil || inner.Root != filepath.Join(root, "inner") || inner.Name != "" {
		t.Errorf("inner: %+v, %v", inner, err)
	}
}

func TestNoWorkspace(t *testing.T) {
	_, err := FindWorkspace(t.TempDir())
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(e.Hint, "MODULE.star") {
		t.Errorf("got %v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "MODULE.star"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := FindWorkspace(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder MODULE.star: %v", err)
	}
	if _, err := FindWorkspace(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there is no error")
	}
}

func TestBadModule(t *testing.T) {
	for _, tt := range []struct{ src, want, hint string }{
		{`module("x")`, "MODULE.star:1:8: module() takes no positional arguments", "name ="},
		{`module(name = 3)`, `MODULE.star:1:8: module: name is of type int, not a string`, ""},
		{`module(name = "a b")`, `MODULE.star:1:8: module: "a b" is no good name`, "letters"},
		{`module(nmae = "x")`, `MODULE.star:1:8: module has no argument "nmae"`, `"name"`},
		{`module(min_version = "new")`, `MODULE.star:1:8: module: "new" is not a version`, "1.2"},
		{`module(source_epoch = "x")`, `MODULE.star:1:8: module: source_epoch is of type string, not an int`, ""},
		{`module(libdir = 1)`, `MODULE.star:1:8: module: libdir is of type int, not a string`, ""},
		{`module(source_epoch = -1)`, `MODULE.star:1:8: module: source_epoch = -1 is not a time`, ""},
		{`module(list = [1])`, `MODULE.star:1:8: module: list is of type list, not a string, bool or int`, ""},
		{"module()\nmodule()", `MODULE.star:2:1: module() is called twice`, ""},
		{`image()`, `MODULE.star:1:1: undefined: image`, ""},
		{"for x in [1]:\n  pass", `MODULE.star:1:1: for loop not within a function`, ""},
		{`load("//a.star", "x")`, `MODULE.star:1:1: MODULE.star cannot load files`, ""},
		{"[0 for a in range(10000) for b in range(10000)]", `ran for more than 1000000 steps`, ""},
	} {
		_, err := FindWorkspace(unpack(t, archive{{"MODULE.star", []byte(tt.src)}}))
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(e.Hint, tt.hint) {
			t.Errorf("%s: %v, want %s", tt.src, err, tt.want)
		}
	}
}

func TestRequireVersion(t *testing.T) {
	for _, tt := range []struct {
		min, have string
		ok        bool
	}{
		{"", "1.0", true}, {"1.2", "1.2.0", true}, {"1.2", "v1.10.0", true}, {"1.2", "1.1.9", false},
		{"2", "1.9", false}, {"1.2.3", "1.2.2-rc1", false}, {"1.2", "devel", true}, {"1.2", "(devel)", true},
	} {
		if err := (&Workspace{MinVersion: tt.min}).RequireVersion(tt.have); (err == nil) != tt.ok {
			t.Errorf("%s of %s: %v", tt.have, tt.min, err)
		}
	}
}
