// Package starlark runs the rule files of a workspace: it finds them, reads them by
// load(), each once and in parallel, bounds what they may use, and says where in
// them something is wrong. It knows nothing of images: the functions that rule files
// call are given to it.
//
// The dialect is Starlark without while, recursion and reassignment of globals, and
// with set. As in Buck2, "if" and "for" may stand at the top level.
package starlark

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A FileKind says what a rule file is for, and so which functions it sees.
type FileKind int

// The kinds of files, which their names tell.
const (
	BuildFile  FileKind = iota // BUILD.star: declares targets
	LibFile                    // any other *.star: read by load()
	ModuleFile                 // MODULE.star: sees only module()
	TestFile                   // *_test.star: cannot be loaded
)

// String names the kind.
func (k FileKind) String() string {
	return [...]string{buildFile, "library", moduleFile, "test"}[k]
}

func kindOf(file string) FileKind {
	switch base := path.Base(file); {
	case base == buildFile:
		return BuildFile
	case base == moduleFile:
		return ModuleFile
	case strings.HasSuffix(base, testSuffix):
		return TestFile
	}
	return LibFile
}

// Limits of a run of one file, where Options has none.
const (
	DefaultMaxSteps = 100_000_000
	DefaultTimeout  = time.Minute
)

// Options say how rule files are run. The zero Options are good for a workspace
// that uses nothing but Starlark itself.
type Options struct {
	// Predeclared gives the functions that files of a kind see. It is called once
	// for each kind; what it returns gets frozen.
	Predeclared func(kind FileKind) starlark.StringDict
	// Library holds the files of @osbuild//; nil is an empty library.
	Library fs.FS
	// MaxSteps bounds the steps of computation of one file (or Scope.Call), and
	// Timeout its time. 0 means the defaults above.
	MaxSteps uint64
	Timeout  time.Duration
	// Print gets what rule files print, one call at a time; nil discards it.
	Print func(pos Position, msg string)
	// Jobs bounds how many files run at once; 0 means as many as there are CPUs.
	Jobs int
}

// A Loader runs the rule files of one workspace, each of them once. Its methods may
// be called from several goroutines. What it read it never reads again.
type Loader struct {
	w *Workspace
	o Options

	sem chan struct{} // one element for each file that is computing

	rootOnce sync.Once
	root     *os.Root
	rootErr  error
	dirs     sync.Map // of dirInfo, by folder

	printMu sync.Mutex

	predeclMu sync.Mutex
	predecl   map[FileKind]starlark.StringDict

	mu      sync.Mutex
	entries map[string]*entry
	loads   map[string][]string // which file waits for which, for cycles
	wasRead map[string]bool
	sources map[string][]byte
	trees   map[string]*syntax.File // see parsed
}

// NewLoader makes a Loader for the workspace. Nothing is read yet.
func NewLoader(w *Workspace, o Options) *Loader {
	if o.MaxSteps == 0 {
		o.MaxSteps = DefaultMaxSteps
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	return &Loader{
		w: w, o: o,
		sem:     make(chan struct{}, o.Jobs),
		predecl: map[FileKind]starlark.StringDict{},
		entries: map[string]*entry{},
		loads:   map[string][]string{},
		wasRead: map[string]bool{},
		sources: map[string][]byte{},
		trees:   map[string]*syntax.File{},
	}
}

// Close lets go of the workspace's folder. The values that were loaded stay good.
func (l *Loader) Close() error {
	l.rootOnce.Do(func() { l.rootErr = &Error{Msg: "the loader is closed"} })
	if l.root == nil {
		return nil
	}
	return l.root.Close()
}

// Workspace is the workspace that the loader is for.
func (l *Loader) Workspace() *Workspace { return l.w }

// Files lists the files of the workspace that were read so far, rule files and
// others, relative to its root and sorted.
func (l *Loader) Files() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var files []string
	for name := range l.wasRead {
		if !strings.HasPrefix(name, "@") {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files
}

// Source is the text of a rule file that was read, by Position.File.
func (l *Loader) Source(file string) ([]byte, error) {
	l.mu.Lock()
	src, ok := l.sources[file]
	l.mu.Unlock()
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: file, Err: fs.ErrNotExist}
	}
	return src, nil
}

// predeclared is what files of the kind see.
func (l *Loader) predeclared(kind FileKind) starlark.StringDict {
	l.predeclMu.Lock()
	defer l.predeclMu.Unlock()
	d, ok := l.predecl[kind]
	if !ok {
		if l.o.Predeclared != nil {
			d = l.o.Predeclared(kind)
		}
		d.Freeze()
		l.predecl[kind] = d
	}
	return d
}

// Package runs the BUILD.star of a package, or returns what running it gave before.
func (l *Loader) Package(ctx context.Context, pkg string) (*Package, error) {
	if err := checkPackage(pkg); err != nil {
		return nil, &Error{Msg: fmt.Sprintf("bad package %q: %v", "//"+pkg, err)}
	}
	if err := l.checkInside(pkg); err != nil {
		return nil, err
	}
	e, err := l.get(ctx, file{name: path.Join(pkg, buildFile), kind: BuildFile, pkg: pkg})
	if err != nil {
		return nil, err
	}
	if missing(e.err) {
		return nil, l.unknownPackage(ctx, pkg)
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.pkg, nil
}

// File runs a library or test file, or returns what running it gave before: its
// globals, frozen.
func (l *Loader) File(ctx context.Context, label Label) (starlark.StringDict, error) {
	f, err := l.fileOf(label)
	if err != nil {
		return nil, err
	}
	e, err := l.get(ctx, f)
	if err != nil {
		return nil, err
	}
	if missing(e.err) {
		return nil, l.fileError(f.name, e.err.(*missingFile).err)
	}
	return e.globals, e.err
}

// fileOf says what file a label names; it is a .star file that is not run for its
// targets.
func (l *Loader) fileOf(label Label) (file, error) {
	f := file{name: label.File(), repo: label.Repo, pkg: label.Package}
	f.kind = kindOf(f.name)
	dir := path.Dir(path.Join(label.Package, label.Name))
	if dir == "." {
		dir = ""
	}
	f.pkg = dir // so that a file is the same whatever label it was named by
	switch {
	case label.Variant != "":
		return f, &Error{Msg: fmt.Sprintf("%s: a file has no variants", label)}
	case !strings.HasSuffix(label.Name, starExt):
		return f, &Error{Msg: fmt.Sprintf("%s is not a %s file", label, starExt)}
	case f.kind == BuildFile || f.kind == ModuleFile:
		return f, &Error{
			Msg:  fmt.Sprintf("%s cannot be loaded", f.name),
			Hint: "move what is shared into a file of another name, as //lib:common.star",
		}
	}
	if label.Repo == "" {
		if err := l.checkInside(dir); err != nil {
			return f, err
		}
	}
	return f, nil
}

// missing reports whether running a file failed because there is no such file at
// all, and not because something that it loads is missing.
func missing(err error) bool {
	_, ok := err.(*missingFile) //nolint:errorlint // the wrapped ones are other files'
	return ok
}

// A missingFile is what running a file that is not there gives: who asked for it
// makes a better message of it.
type missingFile struct{ err error }

func (m *missingFile) Error() string { return m.err.Error() }
func (m *missingFile) Unwrap() error { return m.err }
