// Reading the files of the workspace and of the library, and nothing outside.

package starlark

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// MaxFileSize is the size in bytes of the largest file that is read into memory.
const MaxFileSize = 16 << 20

// fsRoot is the workspace's root, opened once. os.Root keeps every access below it:
// ".." and symbolic links that lead out are errors, also while somebody else
// changes the tree.
func (l *Loader) fsRoot() (*os.Root, error) {
	l.rootOnce.Do(func() {
		l.root, l.rootErr = os.OpenRoot(l.w.Root)
		if l.rootErr != nil {
			l.rootErr = &Error{Msg: fmt.Sprintf("cannot open the workspace: %v", l.rootErr), Err: l.rootErr}
		}
	})
	return l.root, l.rootErr
}

// open opens a regular file by its Position.File form. Errors from the system are
// returned as they are: fileError makes messages of them.
func (l *Loader) open(name string) (fs.File, error) {
	if rel, ok := strings.CutPrefix(name, "@"+LibraryRepo+"//"); ok {
		if l.o.Library == nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return regular(l.o.Library.Open(rel))
	}
	root, err := l.fsRoot()
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK: a named pipe must not make us wait for its writer.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return regular(f, nil)
}

var errNotRegular = errors.New("not a regular file")

func regular(f fs.File, err error) (fs.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
		if info.IsDir() {
			err = syscall.EISDIR
		}
	}
	if err != nil {
		f.Close() //nolint:errcheck // read only
		return nil, err
	}
	return f, nil
}

var errTooLarge = fmt.Errorf("larger than %d MiB", MaxFileSize>>20)

// read reads a file whole and notes that it was read.
func (l *Loader) read(name string) ([]byte, error) {
	f, err := l.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	data, err := readBounded(f)
	if err != nil {
		return nil, err
	}
	l.note(name)
	return data, nil
}

// readBounded reads a file of at most MaxFileSize bytes.
func readBounded(f fs.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxFileSize {
		return nil, errTooLarge
	}
	data := make([]byte, 0, info.Size()+1)
	for {
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if len(data) > MaxFileSize {
			return nil, errTooLarge
		}
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		if len(data) == cap(data) {
			data = slices.Grow(data, 4096)
		}
	}
}

func (l *Loader) note(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wasRead[name] = true
}

// fileError says why a file cannot be read.
func (l *Loader) fileError(name string, err error) *Error {
	e := &Error{Err: err}
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		e.Msg = fmt.Sprintf("there is no file %s", name)
		e.Hint = didYouMean(l.nearFile(name))
	case errors.Is(err, errTooLarge):
		e.Msg = fmt.Sprintf("%s is %v", name, errTooLarge)
		e.Hint = "large files are sources: name them by URL and checksum"
	case errors.Is(err, errNotRegular):
		e.Msg = name + " is not a regular file"
	case errors.Is(err, syscall.EISDIR):
		e.Msg = name + " is a folder and a file is needed"
	case escapes(err):
		e.Msg = name + " leads out of the workspace by a symbolic link"
		e.Hint = "copy what it points to into the workspace; links must be relative and stay inside"
	case errors.Is(err, fs.ErrPermission):
		e.Msg = fmt.Sprintf("%s may not be read", name)
		e.Hint = "see its permissions: ls -l " + name
	default:
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		e.Msg = fmt.Sprintf("cannot read %s: %v", name, err)
	}
	return e
}

// escapes reports whether os.Root refused because the path leads out of the root;
// the standard library does not export that error.
func escapes(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe) && pe.Err.Error() == "path escapes from parent"
}

// readDir lists a folder by its Position.File form; nil if it cannot be read.
func (l *Loader) readDir(name string) []fs.DirEntry {
	if rel, ok := strings.CutPrefix(name, "@"+LibraryRepo+"//"); ok {
		if l.o.Library == nil {
			return nil
		}
		list, _ := fs.ReadDir(l.o.Library, path.Clean("./"+rel))
		return list
	}
	root, err := l.fsRoot()
	if err != nil {
		return nil
	}
	list, _ := fs.ReadDir(root.FS(), path.Clean("./"+name))
	return list
}

// nearFile is the file of the same folder that was probably meant, or "".
func (l *Loader) nearFile(name string) string {
	i := strings.LastIndex(name, "/") + 1
	dir, base := name[:i], name[i:]
	var names []string
	for _, e := range l.readDir(dir) {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if near := Suggest(base, names); near != "" {
		return dir + near
	}
	return ""
}

// A dirInfo says what a folder is to the workspace.
type dirInfo struct{ isPackage, isWorkspace bool }

func (l *Loader) dir(name string) dirInfo {
	if d, ok := l.dirs.Load(name); ok {
		return d.(dirInfo)
	}
	var d dirInfo
	if root, err := l.fsRoot(); err == nil {
		_, err := root.Lstat(path.Join(name, buildFile))
		d.isPackage = err == nil
		_, err = root.Lstat(path.Join(name, moduleFile))
		d.isWorkspace = err == nil && name != ""
	}
	l.dirs.Store(name, d)
	return d
}

// checkInside says, as an *Error, if a folder belongs to a workspace inside of this
// one.
func (l *Loader) checkInside(dir string) error {
	for i := 0; i <= len(dir); i++ {
		if i > 0 && (i == len(dir) || dir[i] == '/') && l.dir(dir[:i]).isWorkspace {
			return &Error{
				Msg:  fmt.Sprintf("%s is a workspace of its own: it has a %s", dir[:i], moduleFile),
				Hint: "nothing in it can be named from here",
			}
		}
	}
	return nil
}

// packagesBelow lists the packages in dir and below, parents first, in the order of
// the alphabet. Folders whose name begins with a dot, the workspace's own out/,
// workspaces inside of this one and symbolic links are not entered.
func (l *Loader) packagesBelow(ctx context.Context, dir string) ([]string, error) {
	root, err := l.fsRoot()
	if err != nil {
		return nil, err
	}
	var pkgs []string
	var visit func(dir string) error
	visit = func(dir string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		entries, err := fs.ReadDir(root.FS(), path.Clean("./"+dir))
		if err != nil {
			return l.fileError(dir, err)
		}
		var d dirInfo
		for _, e := range entries {
			switch e.Name() {
			case buildFile:
				d.isPackage = !e.IsDir()
			case moduleFile:
				d.isWorkspace = dir != ""
			}
		}
		l.dirs.Store(dir, d)
		if d.isWorkspace {
			return nil
		}
		if d.isPackage {
			pkgs = append(pkgs, dir)
		}
		for _, e := range entries {
			if !e.IsDir() || strings.HasPrefix(e.Name(), ".") || dir == "" && e.Name() == "out" {
				continue
			}
			if checkPackage(e.Name()) != nil {
				continue // no label can name what is in it
			}
			if err := visit(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		return nil
	}
	if err := visit(dir); err != nil {
		return nil, err
	}
	return pkgs, nil
}
