// Workspaces: the folder that MODULE.star marks, and what it says.

package starlark

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.starlark.net/starlark"
)

// A Workspace is a tree of rule files. Its root is the folder with MODULE.star:
//
//	module(
//	    name = "fleet",
//	    min_version = "1.2",        # of osbuild-star
//	    source_epoch = 1700000000,  # seconds since 1970, for all images
//	    libdir = "/usr/lib/osbuild",  # upstream osbuild's executables, below the root if it is relative
//	    release = "bookworm",       # any further name: a parameter, with its default
//	)
//
// All of it is optional, and so is the call itself.
type Workspace struct {
	Root        string  // absolute, without symbolic links
	Name        string  // "" if MODULE.star gives none
	MinVersion  string  // "1.2.3"; "" if any version serves
	SourceEpoch *int64  // nil if there is none
	Libdir      string  // directory of executables, absolute; "" if there is none
	Params      []Param // in the order written
}

// A Param is one value that MODULE.star sets for the workspace.
type Param struct {
	Name  string
	Value starlark.Value // string, bool or int
	Pos   Position
}

// Param returns the value of that name, or nil.
func (w *Workspace) Param(name string) starlark.Value {
	for _, p := range w.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return nil
}

// FindWorkspace finds the workspace that dir is in, by walking up to the nearest
// MODULE.star, and reads that. Symbolic links in dir are resolved first.
func FindWorkspace(dir string) (*Workspace, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, &Error{Msg: fmt.Sprintf("cannot look for a workspace: %v", err), Err: err}
	}
	for root := abs; ; root = filepath.Dir(root) {
		info, err := os.Stat(filepath.Join(root, moduleFile))
		switch {
		case err == nil && info.Mode().IsRegular():
			return openWorkspace(root)
		case err == nil:
			return nil, &Error{Msg: fmt.Sprintf("%s is not a regular file", filepath.Join(root, moduleFile))}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, &Error{Msg: fmt.Sprintf("cannot look for a workspace: %v", err), Err: err}
		}
		if filepath.Dir(root) == root {
			return nil, &Error{
				Msg:  fmt.Sprintf("%s is not in a workspace: neither it nor a folder above it has a %s", abs, moduleFile),
				Hint: fmt.Sprintf("in the top folder of your rule files, run: echo 'module(name = \"mine\")' > %s", moduleFile),
				Err:  fs.ErrNotExist,
			}
		}
	}
}

func openWorkspace(root string) (*Workspace, error) {
	w := &Workspace{Root: root}
	called := false
	module := starlark.NewBuiltin("module", func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if called {
			return nil, HintError(t, "module() is called twice", "")
		}
		called = true
		if len(args) > 0 {
			return nil, PosArgError(t, "module", 0, "module() takes no positional arguments", `write module(name = "…")`)
		}
		for _, kv := range kwargs {
			if err := w.set(t, string(kv[0].(starlark.String)), kv[1]); err != nil {
				return nil, err
			}
		}
		return starlark.None, nil
	})
	l := NewLoader(w, Options{
		Predeclared: func(FileKind) starlark.StringDict { return starlark.StringDict{"module": module} },
		MaxSteps:    1_000_000,
		Timeout:     10 * time.Second,
	})
	defer l.Close() //nolint:errcheck // read only
	e, err := l.get(context.Background(), file{name: moduleFile, kind: ModuleFile})
	if err != nil {
		return nil, err
	}
	return w, e.err
}

// set takes one keyword of module().
func (w *Workspace) set(t *starlark.Thread, name string, v starlark.Value) error {
	bad := func(want string) error {
		return ArgError(t, "module", name, fmt.Sprintf("module: %s is of type %s, not %s", name, v.Type(), want), "")
	}
	str := func(to *string) error {
		s, ok := starlark.AsString(v)
		if !ok {
			return bad("a string")
		}
		*to = s
		return nil
	}
	known := []string{"name", "min_version", "source_epoch", "libdir"}
	switch name {
	case "name":
		if err := str(&w.Name); err != nil {
			return err
		}
		if w.Name != "" && (checkName(w.Name) != nil || strings.Contains(w.Name, "/")) {
			return ArgError(t, "module", name, fmt.Sprintf("module: %q is no good name", w.Name), "letters, digits and any of _ - . + ~ are allowed")
		}
		return nil
	case "min_version":
		if err := str(&w.MinVersion); err != nil {
			return err
		}
		if _, ok := parseVersion(w.MinVersion); !ok && w.MinVersion != "" {
			return ArgError(t, "module", name, fmt.Sprintf("module: %q is not a version", w.MinVersion), `write it as in "1.2" or "1.2.3"`)
		}
		return nil
	case "libdir":
		if err := str(&w.Libdir); err != nil {
			return err
		}
		if w.Libdir != "" && !filepath.IsAbs(w.Libdir) {
			w.Libdir = filepath.Join(w.Root, w.Libdir)
		}
		return nil
	case "source_epoch":
		if v == starlark.None {
			return nil
		}
		i, ok := v.(starlark.Int)
		if !ok {
			return bad("an int")
		}
		n, ok := i.Int64()
		if !ok || n < 0 || n > math.MaxUint32 {
			return ArgError(t, "module", name, fmt.Sprintf("module: source_epoch = %v is not a time", i), "seconds since 1970-01-01 are meant")
		}
		w.SourceEpoch = &n
		return nil
	}
	if near := Suggest(name, known); near != "" {
		return ArgError(t, "module", name, fmt.Sprintf("module has no argument %q", name), didYouMean(near))
	}
	switch v.(type) {
	case starlark.String, starlark.Bool, starlark.Int:
	default:
		return bad("a string, bool or int, as the value of a parameter must be")
	}
	pos := ArgError(t, "module", name, "", "").Pos
	w.Params = append(w.Params, Param{name, v, pos})
	return nil
}

// RequireVersion says, as an *Error, if the version is lower than MODULE.star's
// min_version. A version that is not of numbers ("devel") satisfies all.
func (w *Workspace) RequireVersion(have string) error {
	want, ok := parseVersion(w.MinVersion)
	got, known := parseVersion(strings.TrimPrefix(have, "v"))
	if !ok || !known {
		return nil
	}
	for i := range want {
		if got[i] > want[i] {
			return nil
		}
		if got[i] < want[i] {
			return &Error{
				Msg:  fmt.Sprintf("this workspace needs osbuild-star %s and this is %s", w.MinVersion, have),
				Hint: "install a newer osbuild-star, or lower min_version in " + moduleFile,
				Pos:  Position{File: moduleFile},
			}
		}
	}
	return nil
}

// parseVersion reads "1", "1.2" or "1.2.3", with anything after a "-" or "+".
func parseVersion(s string) (v [3]uint64, ok bool) {
	if i := strings.IndexAny(s, "-+"); i >= 0 {
		s = s[:i]
	}
	parts := strings.Split(s, ".")
	if len(parts) > 3 {
		return v, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

// PackageOf is the package of a folder of the workspace: "images" for
// <root>/images, "" for the root. The folder need not have a BUILD.star.
func (w *Workspace) PackageOf(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", &Error{Msg: fmt.Sprintf("cannot find the package: %v", err), Err: err}
	}
	rel, err := filepath.Rel(w.Root, abs)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return "", &Error{
			Msg:  fmt.Sprintf("%s is outside of the workspace %s", abs, w.Root),
			Hint: "go to a folder of the workspace, or name targets by //package:name",
		}
	}
	if rel == "." {
		return "", nil
	}
	for inner := abs; inner != w.Root; inner = filepath.Dir(inner) {
		if _, err := os.Lstat(filepath.Join(inner, moduleFile)); err == nil {
			return "", &Error{
				Msg:  fmt.Sprintf("%s is in the workspace %s, which lies inside of %s", abs, inner, w.Root),
				Hint: "work on one workspace at a time",
			}
		}
	}
	pkg := filepath.ToSlash(rel)
	if err := checkPackage(pkg); err != nil {
		return "", &Error{Msg: fmt.Sprintf("the folder %s cannot be a package: %v", rel, err), Hint: "rename the folder"}
	}
	return pkg, nil
}
