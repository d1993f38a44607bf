// Package scratch makes temporary directories that clean up after a crash: each is
// locked by the process that uses it, and whoever makes the next one removes those
// that nobody holds.
package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is a temporary directory in use.
type Dir struct {
	Path string
	lock *os.File
}

// New makes a directory below parent whose name starts with prefix. Directories of
// the same prefix that belong to no living process are removed first.
func New(parent, prefix string) (*Dir, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	Sweep(parent, prefix)
	for range 100 {
		p, err := os.MkdirTemp(parent, prefix)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(p)
		if err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if err == nil {
			// A sweep may have come between making it and locking it.
			if _, serr := os.Stat(p); serr == nil {
				return &Dir{Path: p, lock: f}, nil
			}
		}
		if f != nil {
			f.Close()
		}
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("locking %s: %w", p, err)
		}
	}
	return nil, fmt.Errorf("cannot make a temporary directory below %s", parent)
}

// Sweep removes the directories below parent with that prefix which no process
// holds. What cannot be removed is left for the next time.
func Sweep(parent, prefix string) {
	ents, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range ents {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		p := filepath.Join(parent, e.Name())
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			RemoveAll(p)
		}
		f.Close()
	}
}

// Close removes the directory.
func (d *Dir) Close() error {
	err := RemoveAll(d.Path)
	d.lock.Close()
	return err
}

// RemoveAll removes a tree like os.RemoveAll, but never goes into another file
// system: a mount there or below is an error, not something to empty. Files that
// carry the immutable or append-only flag lose it first.
func RemoveAll(path string) error {
	err := checkMounts(path)
	if err != nil {
		return err
	}
	err = os.RemoveAll(path)
	if errors.Is(err, unix.EPERM) {
		clearFlags(path)
		err = os.RemoveAll(path)
	}
	return err
}

func checkMounts(path string) error {
	var root unix.Statx_t
	if err := statx(path, &root); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &os.PathError{Op: "statx", Path: path, Err: err}
	}
	var above unix.Statx_t
	// "/." follows a link to the directory above, as the path itself does.
	if err := statx(filepath.Dir(filepath.Clean(path))+"/.", &above); err == nil && above.Mnt_id != root.Mnt_id {
		return fmt.Errorf("not removing %s: %s is a mount", path, path)
	}
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // what cannot be read, RemoveAll tells
		}
		var st unix.Statx_t
		if err := statx(p, &st); err == nil && st.Mnt_id != root.Mnt_id {
			return fmt.Errorf("not removing %s: %s is a mount", path, p)
		}
		return nil
	})
}

func statx(p string, st *unix.Statx_t) error {
	return unix.Statx(unix.AT_FDCWD, p, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, st)
}

func clearFlags(path string) {
	const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !(d.IsDir() || d.Type().IsRegular()) {
			return nil
		}
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil
		}
		defer unix.Close(fd)
		if fl, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS); err == nil && fl&(immutable|appendOnly) != 0 {
			unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(fl&^(immutable|appendOnly)))
		}
		return nil
	})
}
