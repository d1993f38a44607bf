// Package libdir knows a tree of executables of the kind that upstream osbuild
// installs: stages, assemblers, inputs, devices, mounts, sources and runners, each
// a program in a directory named for its kind, most with a description beside it.
//
//	DIR/stages/org.osbuild.hostname            the program
//	DIR/stages/org.osbuild.hostname.meta.json  summary, capabilities, schemas
//	DIR/runners/org.osbuild.fedora38           sets up a build root, then starts its arguments
//	DIR/osbuild/                               the Python package that the programs import
//
// A tour: [Open] takes the directory; [Dir.Find] finds a module and reads its
// description (meta.go), which for a program without a .meta.json is in constants of
// its Python source (python.go); [Dir.Modules] offers the schemas to checks of
// manifests; [Dir.Runner] picks a runner; [Module.Digest] names what a program is
// made of, for cache keys. Nothing here starts a program.
package libdir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Kind is a kind of module: the name of its directory.
type Kind string

// The kinds of modules.
const (
	Stages     Kind = "stages"
	Assemblers Kind = "assemblers"
	Inputs     Kind = "inputs"
	Devices    Kind = "devices"
	Mounts     Kind = "mounts"
	Sources    Kind = "sources"
	Runners    Kind = "runners"
)

// kinds are those of modules that manifests name.
var kinds = []Kind{Stages, Assemblers, Inputs, Devices, Mounts, Sources}

// metaSuffix is what the name of a description has behind that of its program.
const metaSuffix = ".meta.json"

// Error is a directory that is none of executables, with what to do about it.
type Error struct {
	Msg  string
	Hint string
}

func (e *Error) Error() string { return e.Msg }

// Dir is a tree of executables. It is safe for concurrent use, and sees files that
// come and go, but for the descriptions of modules, which are read once.
type Dir struct {
	Path string // absolute

	// Installed is the Python package "osbuild" of this machine, for a tree that comes
	// without one; "" looks for it.
	Installed string

	mu    sync.Mutex
	known map[string]*found // by kind and name
}

// found is a module that was looked for.
type found struct {
	module *Module
	err    error
}

// Open takes the tree at path. The error is an *[Error] when there is no such
// directory, or one that holds no modules.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Error{
			Msg:  fmt.Sprintf("the library directory %s does not exist", path),
			Hint: "name the directory that holds stages/ and runners/; packages of upstream osbuild have it at " + Default,
		}
	case err != nil:
		return nil, fmt.Errorf("opening the library directory: %w", err)
	case !st.IsDir():
		return nil, &Error{
			Msg:  fmt.Sprintf("the library directory %s is no directory", path),
			Hint: "name the directory that holds stages/ and runners/",
		}
	}
	d := &Dir{Path: abs, known: map[string]*found{}}
	for _, k := range append([]Kind{Runners}, kinds...) {
		if st, err := os.Stat(filepath.Join(abs, string(k))); err == nil && st.IsDir() {
			return d, nil
		}
	}
	return nil, &Error{
		Msg:  fmt.Sprintf("the library directory %s holds no modules", path),
		Hint: "it has none of stages/, assemblers/, inputs/, devices/, mounts/, sources/ and runners/: name the directory above them",
	}
}

// Default is where packages of upstream osbuild put the tree.
const Default = "/usr/lib/osbuild"

// Module is one program of the tree.
type Module struct {
	Kind Kind
	Name string // "org.osbuild.hostname"
	Path string // of the program, absolute

	Summary      string
	Description  string
	Capabilities []string // without "CAP_", sorted
	Schema       []byte   // JSON of upstream's "schema", nil when there is none
	Schema2      []byte   // of "schema_2"
}

// Find finds a module. It returns nil when the tree has no such program, and an
// error when it has one that cannot be described.
func (d *Dir) Find(kind Kind, name string) (*Module, error) {
	if d == nil || !validName(name) {
		return nil, nil
	}
	key := string(kind) + "/" + name
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.known[key]
	if f == nil {
		f = &found{}
		f.module, f.err = d.read(kind, name)
		if f.module == nil && f.err == nil {
			return nil, nil // it may come yet
		}
		d.known[key] = f
	}
	return f.module, f.err
}

// validName refuses what would lead out of the directory, or to a description.
func validName(name string) bool {
	return name != "" && !strings.ContainsAny(name, "/\x00") && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, metaSuffix)
}

// program returns the path of a program of the tree, "" when there is none.
func (d *Dir) program(kind Kind, name string) (string, error) {
	p := filepath.Join(d.Path, string(kind), name)
	st, err := os.Stat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid):
		return "", nil
	case err != nil:
		return "", err
	case !st.Mode().IsRegular():
		return "", nil
	}
	return p, nil
}

// Names lists the modules of a kind, sorted; those of a directory that is not there
// are none.
func (d *Dir) Names(kind Kind) []string {
	if d == nil {
		return nil
	}
	ents, err := os.ReadDir(filepath.Join(d.Path, string(kind)))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range ents {
		if !validName(e.Name()) {
			continue
		}
		if p, err := d.program(kind, e.Name()); err == nil && p != "" {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out
}

// Python returns the Python package "osbuild" that the programs import and that is
// not in the tree: where the tree's osbuild/ is there and empty, the one that is
// installed on this machine. Inside a build root it belongs on the tree's osbuild/.
// "" means that the tree has its own, or none at all.
func (d *Dir) Python() (string, error) {
	ents, err := os.ReadDir(filepath.Join(d.Path, "osbuild"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(ents) > 0 {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the library directory: %w", err)
	}
	if p := cmp.Or(d.Installed, installedPython(pythonPlaces)); p != "" {
		return p, nil
	}
	return "", &Error{
		Msg:  fmt.Sprintf("%s is empty, and the Python package osbuild is not installed", filepath.Join(d.Path, "osbuild")),
		Hint: "install the package that has it (python3-osbuild), or use a --libdir that is complete",
	}
}

// PythonPath is what PYTHONPATH is for programs that run on this machine: the
// directory that has the package "osbuild" in it.
func (d *Dir) PythonPath() (string, error) {
	p, err := d.Python()
	if err != nil || p == "" {
		return d.Path, err
	}
	return filepath.Dir(p), nil
}

// pythonPlaces are where Python packages are installed, first those of the machine.
var pythonPlaces = []string{
	"/usr/local/lib/python3*/dist-packages", "/usr/local/lib/python3*/site-packages",
	"/usr/lib/python3/dist-packages", "/usr/lib/python3*/site-packages", "/usr/lib64/python3*/site-packages",
}

// installedPython finds the package in the places that the patterns name; of several
// versions of Python the newest counts.
func installedPython(patterns []string) string {
	for _, pattern := range patterns {
		all, err := filepath.Glob(filepath.Join(pattern, "osbuild", "__init__.py"))
		if err != nil || len(all) == 0 {
			continue
		}
		slices.SortFunc(all, func(a, b string) int { return compareVersions(b, a) })
		return filepath.Dir(all[0])
	}
	return ""
}

// compareVersions compares names in which numbers count as such: 3.9 is older than
// 3.11.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, y := leadingDigits(a), leadingDigits(b)
		if x != "" && y != "" {
			a, b = a[len(x):], b[len(y):]
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
