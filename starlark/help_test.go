// Helpers of the tests: a small set of builtins, and workspaces out of txtar.

package starlark

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"go.starlark.net/starlark"
)

type testTarget struct {
	kind  string
	label Label
	pos   Position
}

func (t *testTarget) Kind() string  { return t.kind }
func (t *testTarget) Label() Label  { return t.label }
func (t *testTarget) Pos() Position { return t.pos }

type testMatrix struct {
	testTarget
	variants []Variant
	made     *[]string // names passed to Variant
}

func (m *testMatrix) Variants() []Variant { return m.variants }
func (m *testMatrix) Whole() []Variant    { return m.variants }

func (m *testMatrix) Variant(name string) (Target, error) {
	*m.made = append(*m.made, name)
	l := m.label
	l.Variant = name
	return &testTarget{"image", l, m.pos}, nil
}

// testBuiltins are what the rule files of the tests call:
// target(name, hostname = "", size = 0), matrix(name, arch = [], cloud = []), value(**kw) (no
// target), read(label), glob(include, exclude, allow_empty), pkg(name), go_error(text).
func testBuiltins(made *[]string) func(FileKind) starlark.StringDict {
	type fn = func(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error)
	unpack := func(t *starlark.Thread, name string, args starlark.Tuple, kwargs []starlark.Tuple, known ...string) (map[string]starlark.Value, error) {
		got := map[string]starlark.Value{}
		for i, a := range args {
			if i >= len(known) {
				return nil, PosArgError(t, name, i, fmt.Sprintf("%s takes %d positional arguments at most", name, len(known)), "")
			}
			got[known[i]] = a
		}
	next:
		for _, kv := range kwargs {
			k := string(kv[0].(starlark.String))
			for _, n := range known {
				if n == k {
					got[k] = kv[1]
					continue next
				}
			}
			return nil, ArgError(t, name, k, fmt.Sprintf("%s has no option %q", name, k), didYouMean(Suggest(k, known)))
		}
		return got, nil
	}
	str := func(v starlark.Value) string { s, _ := starlark.AsString(v); return s }
	list := func(v starlark.Value) (out []string) {
		if l, ok := v.(*starlark.List); ok {
			for x := range l.Elements() {
				out = append(out, str(x))
			}
		}
		return out
	}
	target := func(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		got, err := unpack(t, b.Name(), args, kwargs, "name", "hostname", "size")
		if err != nil {
			return nil, err
		}
		if size, ok := got["size"]; ok && size.Type() != "int" {
			return nil, ArgError(t, b.Name(), "size", fmt.Sprintf("%s: size is a %s, not an int", b.Name(), size.Type()), "")
		}
		s := FromThread(t)
		return starlark.None, s.Declare(&testTarget{b.Name(), Label{Package: s.Package, Name: str(got["name"])}, CallerPos(t)})
	}
	fns := map[string]fn{
		"target": target,
		"image":  target,
		"matrix": func(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			got, err := unpack(t, b.Name(), args, kwargs, "name", "arch", "cloud")
			if err != nil {
				return nil, err
			}
			s := FromThread(t)
			m := &testMatrix{testTarget{"matrix", Label{Package: s.Package, Name: str(got["name"])}, CallerPos(t)}, nil, made}
			for _, a := range list(got["arch"]) {
				for _, c := range list(got["cloud"]) {
					m.variants = append(m.variants, Variant{a + "-" + c, []Axis{{"arch", a}, {"cloud", c}}})
				}
			}
			return starlark.None, s.Declare(m)
		},
		"value": func(_ *starlark.Thread, _ *starlark.Builtin, _ starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			d := starlark.NewDict(len(kwargs))
			for _, kv := range kwargs {
				if err := d.SetKey(kv[0], kv[1]); err != nil {
					return nil, err
				}
			}
			return d, nil
		},
		"read": func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			_, data, err := FromThread(t).ReadFile(str(args[0]))
			if err != nil {
				return nil, err
			}
			return starlark.String(data), nil
		},
		"glob": func(t *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			got, err := unpack(t, b.Name(), args, kwargs, "include", "exclude", "allow_empty")
			if err != nil {
				return nil, err
			}
			files, err := FromThread(t).Glob(list(got["include"]), list(got["exclude"]), got["allow_empty"] == starlark.True)
			if err != nil {
				return nil, err
			}
			var vals []starlark.Value
			for _, f := range files {
				vals = append(vals, starlark.String(f))
			}
			return starlark.NewList(vals), nil
		},
		"pkg": func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			s := FromThread(t)
			p, err := s.Loader.Package(s.Ctx, str(args[0]))
			if err != nil {
				return nil, err
			}
			return starlark.MakeInt(len(p.Targets)), nil
		},
		"go_error": func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			return nil, fmt.Errorf("%s: %w", str(args[0]), fs.ErrPermission)
		},
	}
	return func(kind FileKind) starlark.StringDict {
		d := starlark.StringDict{}
		for name, f := range fns {
			d[name] = starlark.NewBuiltin(name, f)
		}
		return d
	}
}

// An archive is several files in one text, in the txtar format: "-- name --" on a line
// of its own begins a file.
type archive []archived

type archived struct {
	name string
	data []byte
}

func parseArchive(text string) archive {
	var ar archive
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(name, " --") {
			ar = append(ar, archived{name: strings.TrimSuffix(name, " --")})
		} else if len(ar) > 0 {
			last := &ar[len(ar)-1]
			last.data = append(last.data, line...)
		}
	}
	return ar
}

// library turns the files of an archive below "@osbuild/" into the library.
func library(ar archive) fs.FS {
	lib := fstest.MapFS{}
	for _, f := range ar {
		if rel, ok := cutLibrary(f.name); ok {
			lib[rel] = &fstest.MapFile{Data: f.data}
		}
	}
	return lib
}

func cutLibrary(name string) (string, bool) {
	const dir = "@osbuild/"
	if len(name) > len(dir) && name[:len(dir)] == dir {
		return name[len(dir):], true
	}
	return "", false
}

// unpack writes the files of an archive, other than the library, to a new folder.
func unpack(t testing.TB, ar archive) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(moduleFile, []byte("module(name = \"test\")\n"))
	for _, f := range ar {
		if _, ok := cutLibrary(f.name); !ok {
			write(f.name, f.data)
		}
	}
	return root
}

// newLoader makes a loader for the workspace in the text of an archive.
func newLoader(t testing.TB, text string, set ...func(*Options)) *Loader {
	t.Helper()
	ar := parseArchive(text)
	w, err := FindWorkspace(unpack(t, ar))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Predeclared: testBuiltins(new([]string)), Library: library(ar)}
	for _, f := range set {
		f(&o)
	}
	l := NewLoader(w, o)
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // read only
	return l
}

// expand is Expand for patterns as text, in package pkg.
func expand(l *Loader, pkg string, patterns ...string) ([]string, error) {
	var ps []Pattern
	for _, s := range patterns {
		p, err := ParsePattern(s, pkg)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	targets, err := l.Expand(context.Background(), ps)
	var out []string
	for _, t := range targets {
		out = append(out, t.Label().String())
	}
	return out, err
}
