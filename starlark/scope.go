// Scope: what a builtin may ask about the file that called it.

package starlark

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"sync/atomic"

	"go.starlark.net/starlark"
)

const scopeKey = "osbuild-star scope"

// A Scope is the run of one file, or of one function by Call, as builtins see it.
type Scope struct {
	Repo    string   // "" or "osbuild": whose file this is
	Package string   // which labels are relative to, also in functions it loaded
	File    Label    // the file that is run, not the one a function comes from
	Kind    FileKind // of File
	Loader  *Loader
	Ctx     context.Context // ends when the run must

	what      string      // of Call: what Error.In says
	declaring *Package    // what Declare adds to; nil except in a BUILD.star
	closed    atomic.Bool // the run is over
}

// FromThread returns the scope of a thread that a Loader made; nil for others.
func FromThread(t *starlark.Thread) *Scope {
	s, _ := t.Local(scopeKey).(*Scope)
	return s
}

// Declare adds a target to the package whose BUILD.star is being run. Names must be
// new; the target's label must be in the package.
func (s *Scope) Declare(t Target) error {
	label := t.Label()
	fail := func(msg, hint string) error {
		e := &Error{Msg: msg, Hint: hint, Pos: t.Pos(), Width: 1}
		s.Loader.mark(e)
		return e
	}
	if s.declaring == nil || s.closed.Load() {
		return fail(fmt.Sprintf("%s %q can be declared only while a BUILD.star is run", t.Kind(), label.Name),
			"put the call into a function, and call that from a BUILD.star")
	}
	if err := checkName(label.Name); err != nil {
		return fail(fmt.Sprintf("%q is no good name for a target: %v", label.Name, err), "")
	}
	if label != (Label{Package: s.Package, Name: label.Name}) {
		return fail(fmt.Sprintf("%s is declared in package //%s", label, s.Package), "")
	}
	if before := s.declaring.byName[label.Name]; before != nil {
		at := before.Pos()
		m := &Error{Pos: at}
		s.Loader.mark(m)
		return fail(fmt.Sprintf("target %q is declared twice", label.Name),
			fmt.Sprintf("the first, %s, is at %s", before.Kind(), m.Pos))
	}
	s.declaring.byName[label.Name] = t
	s.declaring.Targets = append(s.declaring.Targets, t)
	return nil
}

// ParseLabel reads a label as it is meant in this scope.
func (s *Scope) ParseLabel(label string) (Label, error) {
	l, err := ParseLabel(label, s.Package)
	if err == nil && !strings.HasPrefix(label, "@") {
		l.Repo = s.Repo
	}
	return l, err
}

// filePath says which file "//images:motd", ":motd", "motd", "conf/motd" or
// "@osbuild//files:motd" is, in Position.File form. Names of files may hold what
// those of targets may not, as "getty@tty1.service".
func (s *Scope) filePath(label string) (string, error) {
	bad := func(why, hint string) (string, error) { return "", labelError(label, why, hint) }
	repo, pkg, rest := s.Repo, s.Package, label
	if strings.HasPrefix(rest, "@") && strings.Contains(rest, "//") {
		l, err := ParseLabel(label, "")
		if err != nil {
			return "", err
		}
		return l.File(), nil
	}
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		var colon bool
		pkg, rest, colon = strings.Cut(after, ":")
		if !colon {
			return bad("it names no file", fmt.Sprintf("write %q", "//"+strings.TrimSuffix(path.Dir(pkg), ".")+":"+path.Base(pkg)))
		}
		if err := checkPackage(pkg); err != nil {
			return bad(err.Error(), "")
		}
	} else {
		rest = strings.TrimPrefix(rest, ":")
	}
	if rest == "" {
		return bad("it names no file", "")
	}
	if strings.HasPrefix(rest, "/") {
		return bad("files are named from the workspace, not from the root of this machine",
			"copy the file into the workspace, or declare it as a source by URL")
	}
	for part := range strings.SplitSeq(rest, "/") {
		switch {
		case part == "..":
			return bad(`".." is not allowed`, `name a file of another folder by its label, as "//images:motd"`)
		case part == "" || part == "." || strings.ContainsRune(part, 0):
			return bad(fmt.Sprintf("%q is not a path", rest), "")
		}
	}
	if repo == "" {
		dir := path.Join(pkg, path.Dir(rest))
		if dir == "." {
			dir = ""
		}
		if err := s.Loader.checkInside(dir); err != nil {
			return "", err
		}
		// As in Bazel, a file belongs to the nearest package above it, so that there
		// is one way to name it.
		for i := len(pkg) + 1; i <= len(dir); i++ {
			if (i == len(dir) || dir[i] == '/') && s.Loader.dir(dir[:i]).isPackage && i > len(pkg) {
				full := path.Join(pkg, rest)
				return bad(fmt.Sprintf("%s is a package of its own", dir[:i]), fmt.Sprintf("write %q", "//"+dir[:i]+":"+full[i+1:]))
			}
		}
	}
	return Label{Repo: repo, Package: pkg, Name: rest}.File(), nil
}

// ReadFile reads a file of the workspace, or of the library, of at most MaxFileSize
// bytes. label is as in file("//images:motd") or a path relative to the package.
// The path is relative to the workspace, with slashes. Neither ".." nor symbolic
// links lead out of the workspace. Errors are *Error without a position.
func (s *Scope) ReadFile(label string) (path string, data []byte, err error) {
	if path, err = s.filePath(label); err != nil {
		return "", nil, err
	}
	if data, err = s.Loader.read(path); err != nil {
		return "", nil, s.fileError(label, path, err)
	}
	return path, data, nil
}

// fileError says why a file cannot be read, with a hint that can be pasted in place
// of the label.
func (s *Scope) fileError(label, file string, err error) error {
	e := s.Loader.fileError(file, err)
	if near := s.Loader.nearFile(file); near != "" && e.Hint == didYouMean(near) {
		// The label and the path end in the same name.
		old := path.Base(file)
		e.Hint = didYouMean(strings.TrimSuffix(label, old) + path.Base(near))
	}
	return e
}

// OpenFile is ReadFile for files of the workspace of any size. The file is open for
// reading and regular, and the caller closes it.
func (s *Scope) OpenFile(label string) (path string, f *os.File, err error) {
	if path, err = s.filePath(label); err != nil {
		return "", nil, err
	}
	opened, err := s.Loader.open(path)
	if err != nil {
		return "", nil, s.fileError(label, path, err)
	}
	f, ok := opened.(*os.File)
	if !ok {
		opened.Close() //nolint:errcheck // read only
		return "", nil, &Error{Msg: fmt.Sprintf("%s is inside the command and cannot be opened as a file", path)}
	}
	s.Loader.note(path)
	return path, f, nil
}

// Call runs a Starlark function after its file was run: the cell of a matrix, a
// test. It gets a thread of its own with the loader's limits, and the package of s;
// nothing can be declared in it. in is what Error.In of its errors says, as
// "image //images:server@rhel94". Values that are passed in must be frozen if
// several calls share them.
func (s *Scope) Call(ctx context.Context, in string, fn starlark.Value, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	own := &Scope{Repo: s.Repo, Package: s.Package, File: s.File, Kind: s.Kind, Loader: s.Loader, what: in}
	what := in
	if what == "" {
		what = fn.String()
	}
	r, end := s.Loader.begin(ctx, own, what)
	defer end()
	v, err := starlark.Call(r.thread, fn, args, kwargs)
	own.closed.Store(true)
	if err != nil {
		return nil, own.evalError(err, r.why.Load())
	}
	return v, nil
}
