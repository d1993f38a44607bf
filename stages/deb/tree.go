// The tree that packages are unpacked into: names are looked up here, never by the
// kernel, so that a link in the tree cannot lead out of it.
package deb

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// implicit is the rank of a directory that no package has named yet, existing that of
// one that was there before.
const (
	implicit = 1 << 30
	existing = -1
)

// tree is the root of a tree. Its methods may be called by many workers at once. It
// trusts that nobody else changes directories and links meanwhile; a new tree is made
// after scripts have run.
type tree struct {
	fd    int
	root  *dir
	merge map[string]bool // top-level directories that are made as links into /usr
}

// dir is a directory of the tree: the real one, found through links.
type dir struct {
	path   string // from the root, without a leading slash: "" is the root
	parent *dir   // nil for the root

	mu      sync.Mutex
	kids    map[string]kid
	claims  map[string]claim // files that packages of this run have put here
	rank    int              // of the package that its attributes are from
	attr    attr
	touched bool // something was made in it
	setgid  bool // what is made in it inherits its group
}

// kid is what a name in a directory leads to: a directory, or a link.
type kid struct {
	dir  *dir
	link string
}

// attr are the attributes of something that is made.
type attr struct {
	mode     uint32 // permission bits
	uid, gid uint32
	mtime    int64
}

func openTree(path string) (*tree, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &tree{fd: fd, root: &dir{rank: existing}}, nil
}

func (t *tree) close() { unix.Close(t.fd) }

func join(d *dir, name string) string {
	if d.path == "" {
		return name
	}
	return d.path + "/" + name
}

// at is a path that system calls take: "." is the root.
func (d *dir) at() string {
	if d.path == "" {
		return "."
	}
	return d.path
}

var errNotDir = errors.New("not a directory")

const maxLinks = 40

// lookup finds the directory of a clean absolute path. One that is not there is made,
// with the rank implicit, if create is set; else the error wraps ENOENT.
func (t *tree) lookup(path string, create bool) (*dir, error) {
	return t.walk(t.root, path, create, new(int))
}

func (t *tree) walk(d *dir, path string, create bool, links *int) (*dir, error) {
	if strings.HasPrefix(path, "/") {
		d = t.root
	}
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			if d.parent != nil {
				d = d.parent
			}
			continue
		}
		k, err := t.kid(d, name, create)
		if err != nil {
			return nil, err
		}
		if k.dir != nil {
			d = k.dir
			continue
		}
		if *links++; *links > maxLinks {
			return nil, &os.PathError{Op: "open", Path: "/" + join(d, name), Err: unix.ELOOP}
		}
		if d, err = t.walk(d, k.link, create, links); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// kid looks a name up in a directory.
func (t *tree) kid(d *dir, name string, create bool) (kid, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k, ok := d.kids[name]; ok {
		return k, nil
	}
	p := join(d, name)
	var k kid
	if create && d == t.root && t.merge[name] {
		if err := t.mergeDir(name); err != nil {
			return kid{}, err
		}
		create = false
	}
	if create {
		switch err := unix.Mkdirat(t.fd, p, 0o755); err {
		case nil:
			k.dir = d.adopt(p, implicit)
			k.dir.attr = attr{mode: 0o755, mtime: unix.UTIME_OMIT}
			if d.setgid { // a directory inherits it
				k.dir.setgid = true
			}
			d.touched = true
		case unix.EEXIST:
		default:
			return kid{}, &os.PathError{Op: "mkdir", Path: "/" + p, Err: err}
		}
	}
	if k.dir == nil {
		var st unix.Stat_t
		if err := unix.Fstatat(t.fd, p, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return kid{}, &os.PathError{Op: "open", Path: "/" + p, Err: err}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			k.dir = d.adopt(p, existing)
			k.dir.setgid = st.Mode&unix.S_ISGID != 0
		case unix.S_IFLNK:
			var err error
			if k.link, err = t.readlink(p); err != nil {
				return kid{}, err
			}
		default:
			return kid{}, &os.PathError{Op: "open", Path: "/" + p, Err: errNotDir}
		}
	}
	d.set(name, k)
	return k, nil
}

// mergeDir makes /NAME a link to usr/NAME, if there is nothing yet.
func (t *tree) mergeDir(name string) error {
	var st unix.Stat_t
	if unix.Fstatat(t.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return nil
	}
	for _, p := range []string{"usr", "usr/" + name} {
		if err := unix.Mkdirat(t.fd, p, 0o755); err != nil && err != unix.EEXIST {
			return &os.PathError{Op: "mkdir", Path: "/" + p, Err: err}
		}
	}
	if err := unix.Symlinkat("usr/"+name, t.fd, name); err != nil {
		return &os.PathError{Op: "symlink", Path: "/" + name, Err: err}
	}
	return nil
}

func (d *dir) adopt(path string, rank int) *dir {
	return &dir{path: path, parent: d, rank: rank}
}

func (d *dir) set(name string, k kid) {
	if d.kids == nil {
		d.kids = map[string]kid{}
	}
	d.kids[name] = k
}

func (t *tree) readlink(p string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(t.fd, p, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: "/" + p, Err: err}
	}
	return string(buf[:n]), nil
}

// split returns the directory and the last part of a clean absolute path.
func split(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:i], path[i+1:]
}

// makeDir makes a directory for the package of the given rank, or takes one that is
// there already: the package that comes first gives it its attributes.
func (t *tree) makeDir(path string, a attr, rank int) error {
	if path == "/." {
		return nil
	}
	d, err := t.lookup(path, true)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rank <= rank {
		return nil
	}
	have := d.attr
	d.rank, d.attr = rank, a
	if have.uid != a.uid || have.gid != a.gid || d.setgid {
		if err := unix.Fchownat(t.fd, d.path, int(a.uid), int(a.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: path, Err: err}
		}
		have.mode = 1 << 31 // changing the owner, or inheriting, may have changed the mode
	}
	if have.mode != a.mode {
		if err := unix.Fchmodat(t.fd, d.path, a.mode, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	d.setgid = a.mode&unix.S_ISGID != 0
	return nil
}

// finish gives the directories that were made, and that nothing was put into, the
// times that their packages have for them.
func (t *tree) finish() error { return t.root.finish(t.fd) }

func (d *dir) finish(fd int) error {
	if !d.touched && d.rank != existing && d.attr.mtime != unix.UTIME_OMIT {
		if err := setTime(fd, d.path, d.attr.mtime); err != nil {
			return err
		}
	}
	for _, k := range d.kids {
		if k.dir != nil {
			if err := k.dir.finish(fd); err != nil {
				return err
			}
		}
	}
	return nil
}

// setTime sets the time of modification of a path, not following a link.
func setTime(fd int, path string, mtime int64) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: mtime}}
	if err := unix.UtimesNanoAt(fd, path, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: "/" + path, Err: err}
	}
	return nil
}

// setTimeFd is setTime of an open file.
func setTimeFd(fd int, mtime int64) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: mtime}}
	// x/sys has no futimens, which is this call without a path.
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// A place is a name in a directory: where something is or is to be made.
type place struct {
	dir  *dir
	name string
}

func (p place) path() string { return join(p.dir, p.name) }

// place finds the directory that a clean absolute path has its last part in, and
// makes it if it is not there.
func (t *tree) place(path string) (place, error) {
	parent, name := split(path)
	d, err := t.lookup(parent, true)
	return place{d, name}, err
}

// follow finds where a path ends if its last part is a link, or a chain of links.
func (t *tree) follow(p place) (place, error) {
	for range maxLinks {
		var st unix.Stat_t
		err := unix.Fstatat(t.fd, p.path(), &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
			return p, nil
		}
		target, err := t.readlink(p.path())
		if err != nil {
			return p, err
		}
		target = strings.TrimRight(target, "/")
		i := strings.LastIndexByte(target, '/')
		name := target[i+1:]
		if name == "" || name == "." || name == ".." {
			return p, nil
		}
		d, err := t.walk(p.dir, target[:i+1], false, new(int))
		if err != nil {
			return p, err
		}
		p = place{d, name}
	}
	return p, fmt.Errorf("/%s: %w", p.path(), unix.ELOOP)
}

// read returns the content of a regular file of the tree. The error wraps
// os.ErrNotExist when it, or a directory before it, is not there.
func (t *tree) read(path string) ([]byte, error) {
	f, err := t.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	b := make([]byte, st.Size())
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	return b, nil
}

func (t *tree) open(path string) (*os.File, error) {
	parent, name := split(path)
	d, err := t.lookup(parent, false)
	if err != nil {
		return nil, err
	}
	p, err := t.follow(place{d, name})
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(t.fd, p.path(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// write makes or replaces a regular file by a rename. Missing directories are made.
func (t *tree) write(path string, data []byte, mode uint32) error {
	p, err := t.place(path)
	if err != nil {
		return err
	}
	tmp := p.path() + ".osbuild-new"
	fd, err := unix.Openat(t.fd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	_, err = f.Write(data)
	if err == nil {
		err = unix.Fchmod(fd, mode)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = unix.Renameat(t.fd, tmp, t.fd, p.path())
	}
	if err != nil {
		unix.Unlinkat(t.fd, tmp, 0)
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	p.dir.mu.Lock()
	p.dir.touched = true
	p.dir.mu.Unlock()
	return nil
}

// list returns the names in a directory of the tree, none when it is not there.
func (t *tree) list(path string) ([]string, error) {
	d, err := t.lookup(path, false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(t.fd, d.at(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return f.Readdirnames(-1)
}

// exists reports whether there is anything at a path, a dangling link included.
func (t *tree) exists(path string) bool {
	parent, name := split(path)
	d, err := t.lookup(parent, false)
	if err != nil {
		return false
	}
	var st unix.Stat_t
	return unix.Fstatat(t.fd, join(d, name), &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// remove deletes a file or link, which may be missing.
func (t *tree) remove(path string) error {
	parent, name := split(path)
	d, err := t.lookup(parent, false)
	if err == nil {
		err = unix.Unlinkat(t.fd, join(d, name), 0)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// removeDir deletes a directory of the tree that has no directories in it, if it is
// there.
func (t *tree) removeDir(path string) error {
	names, err := t.list(path)
	if err != nil || names == nil && !t.exists(path) {
		return err
	}
	for _, name := range names {
		if err := t.remove(path + "/" + name); err != nil {
			return err
		}
	}
	parent, name := split(path)
	d, err := t.lookup(parent, false)
	if err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.kids, name)
	d.mu.Unlock()
	if err := unix.Unlinkat(t.fd, join(d, name), unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}
