// Finding files in the layers of an object, as the kernel's overlay shows them:
// without mounting anything, and with a path that lasts.
package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// The marks of overlayfs (Documentation/filesystems/overlayfs.rst). They can be
// read with CAP_SYS_ADMIN only; without it a file that a later stage renamed, or
// whose owner it changed, is not found as what it is.
const (
	overlayMark     = "trusted.overlay."
	overlayOpaque   = overlayMark + "opaque"   // "y": nothing below shows through
	overlayRedirect = overlayMark + "redirect" // where a directory, or the data of a file, is below
	overlayMetacopy = overlayMark + "metacopy" // a file that has no data: it is below
)

// place is a file or directory of one layer.
type place struct {
	layer int    // its index, bottom first
	rel   string // below the layer
}

// layers are the directories of an object, bottom first.
type layers struct {
	dirs  []string
	plain bool // nothing in them is a mark
}

func layersOf(o *store.Object) layers { return layers{o.LayerDirs(), o.Plain} }

func (l layers) path(p place) string { return filepath.Join(l.dirs[p.layer], p.rel) }

// root is the root of the tree: the roots of all layers, top first.
func (l layers) root() []place { return l.below(len(l.dirs), ".") }

func (l layers) below(layer int, rel string) []place {
	var out []place
	for i := layer - 1; i >= 0; i-- {
		out = append(out, place{i, rel})
	}
	return out
}

// lstat looks at a place, without following a link on the way.
func (l layers) lstat(p place) (fs.FileInfo, error) {
	dir, err := unix.Open(l.dirs[p.layer], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: l.dirs[p.layer], Err: err}
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, p.rel, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: l.path(p), Err: err}
	}
	f := os.NewFile(uintptr(fd), l.path(p))
	defer f.Close()
	return f.Stat()
}

func (l layers) mark(p place, name string) (string, bool) {
	if l.plain {
		return "", false
	}
	var buf [4096]byte
	n, err := unix.Lgetxattr(l.path(p), name, buf[:])
	if err != nil {
		return "", false
	}
	return string(buf[:n]), true
}

// step finds the entry of that name of a directory, which is in several layers
// perhaps: one place when it is no directory; the parts of it, top first, when it
// is one; none when there is none.
func (l layers) step(dir []place, name string) ([]place, error) {
	var out []place
	for _, d := range dir {
		p := place{d.layer, path.Join(d.rel, name)}
		st, err := l.lstat(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			// A whiteout, or what a directory above it hides.
			if !l.plain && isWhiteout(st) || len(out) > 0 {
				return out, nil
			}
			return []place{p}, nil
		}
		out = append(out, p)
		if v, ok := l.mark(p, overlayOpaque); ok && v == "y" {
			return out, nil
		}
		to, ok := l.mark(p, overlayRedirect)
		if !ok {
			continue
		}
		// It was renamed: it has another name below, or is in another directory.
		if _, absolute := strings.CutPrefix(to, "/"); !absolute {
			name = to
			continue
		}
		parent, name, err := l.redirected(p, to)
		if err != nil {
			return nil, err
		}
		below, err := l.step(parent, name)
		if err != nil || len(below) == 0 {
			return out, err
		}
		if st, err := l.lstat(below[0]); err != nil || !st.IsDir() {
			return out, err
		}
		return append(out, below...), nil
	}
	return out, nil
}

// redirected finds where a mark of p, the path of something in the tree that the layers
// below make, leads: the directory and the name in it.
func (l layers) redirected(p place, to string) (dir []place, name string, err error) {
	dir = l.below(p.layer, ".")
	names := strings.Split(to[1:], "/")
	last := len(names) - 1
	for _, n := range names[:last] {
		if dir, err = l.step(dir, n); err != nil {
			return nil, "", err
		}
	}
	return dir, names[last], nil
}

func isWhiteout(st fs.FileInfo) bool {
	u, ok := st.Sys().(*syscall.Stat_t)
	return ok && st.Mode()&fs.ModeCharDevice != 0 && u.Rdev == 0
}

// found is a regular file of a tree. Its mode and times are those of meta; its data
// are in another layer's file when a later stage changed only those.
type found struct {
	meta, data string
}

// find finds a regular file. Links in the path are not followed.
func (l layers) find(file string) (found, error) {
	names := strings.Split(strings.TrimPrefix(path.Clean("/"+file), "/"), "/")
	dir := l.root()
	for i, name := range names {
		parent := dir
		next, err := l.step(parent, name)
		if err != nil {
			return found{}, err
		}
		if len(next) == 0 {
			break
		}
		st, err := l.lstat(next[0])
		if err != nil {
			return found{}, err
		}
		if i < len(names)-1 {
			if st.Mode()&fs.ModeSymlink != 0 {
				return found{}, fmt.Errorf("%s: %s is a link; name the file by where it is", file, strings.Join(names[:i+1], "/"))
			}
			if !st.IsDir() {
				break
			}
			dir = next
			continue
		}
		if !st.Mode().IsRegular() {
			return found{}, fmt.Errorf("%s is no regular file", file)
		}
		data, err := l.data(parent, name, next[0])
		return found{meta: l.path(next[0]), data: data}, err
	}
	return found{}, &fs.PathError{Op: "find", Path: file, Err: fs.ErrNotExist}
}

// data finds the file that holds the data of the file at p, which is the entry of
// that name of a directory.
func (l layers) data(dir []place, name string, p place) (string, error) {
	for {
		if _, ok := l.mark(p, overlayMetacopy); !ok {
			return l.path(p), nil
		}
		// As for a directory: in the same one, under the same name or another.
		i := slices.IndexFunc(dir, func(d place) bool { return d.layer == p.layer })
		dir = dir[i+1:]
		if to, ok := l.mark(p, overlayRedirect); ok && strings.HasPrefix(to, "/") {
			var err error
			if dir, name, err = l.redirected(p, to); err != nil {
				return "", err
			}
		} else if ok {
			name = to
		}
		next, err := l.step(dir, name)
		if err != nil {
			return "", err
		}
		if len(next) == 0 {
			return "", fmt.Errorf("the data of %s are in no layer", l.path(p))
		}
		p = next[0]
	}
}

// files lists the regular files below a directory, by their paths.
func (l layers) files(dir []place, prefix string, out []string) ([]string, error) {
	names := map[string]bool{}
	for _, p := range dir {
		ents, err := os.ReadDir(l.path(p))
		if err != nil {
			return nil, err
		}
		for _, e := range ents {
			names[e.Name()] = true
		}
	}
	for name := range names {
		next, err := l.step(dir, name)
		if err != nil {
			return nil, err
		}
		if len(next) == 0 {
			continue
		}
		st, err := l.lstat(next[0])
		switch {
		case err != nil:
			return nil, err
		case st.IsDir():
			if out, err = l.files(next, path.Join(prefix, name), out); err != nil {
				return nil, err
			}
		case st.Mode().IsRegular():
			out = append(out, path.Join(prefix, name))
		}
	}
	return out, nil
}

// Find returns a path of the data of a file in the tree of an object: that of the
// layer that has them. Only regular files are found, and no link in the path is
// followed. Its mode and times are not always those of the file in the tree.
func Find(o *store.Object, path string) (string, error) {
	f, err := layersOf(o).find(path)
	return f.data, err
}

// Files lists the regular files of a small tree (an artifact), by their paths.
func (e *Engine) Files(o *store.Object) ([]string, error) {
	l := layersOf(o)
	out, err := l.files(l.root(), "", nil)
	if err != nil {
		return nil, err
	}
	slices.Sort(out)
	return out, nil
}
