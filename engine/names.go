// Files that have several names in the layers below, of which a stage changed one.
//
// While an overlay is mounted its index ties the names together: changing the file by
// one of them changes it by all. In a layer there is no index, and names that are not
// in the layer too would show the file as it was. So they are brought there.
package engine

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// indexed lists the entries of the index: hard links of the files in the upper directory
// that have several names below. None for most stages.
func (w *worktree) indexed() ([]string, error) {
	dir := filepath.Join(w.work, "index")
	ents, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, ent := range ents {
		// The directory is also that for the kernel's work, with such names.
		if !strings.HasPrefix(ent.Name(), "#") {
			out = append(out, filepath.Join(dir, ent.Name()))
		}
	}
	return out, err
}

// bringNames brings the other names of files that have changed to the upper directory.
// The tree is still mounted, and it is called inside of its Space.
func (w *worktree) bringNames(index []string) error {
	// By inode of the file below: how many of its names are not in the upper directory.
	missing := map[uint64]int{}
	left := 0
	for _, p := range index {
		ino, n, err := w.namesBelow(p)
		if err != nil {
			return fmt.Errorf("names of a file: %w", err)
		}
		if n > 0 {
			missing[ino] = n
			left += n
		}
	}
	if left == 0 {
		return nil
	}
	err := filepath.WalkDir(w.tree, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		if missing[st.Ino] == 0 {
			return nil
		}
		rel, err := filepath.Rel(w.tree, p)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(w.upper, rel)); err == nil {
			return nil
		}
		// Any change of the attributes does it; this one changes nothing.
		ts := []unix.Timespec{unix.Timespec(st.Atim), {Nsec: unix.UTIME_OMIT}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "utimensat", Path: p, Err: err}
		}
		missing[st.Ino]--
		if left--; left == 0 {
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && left > 0 {
		err = fmt.Errorf("%d names of files that have changed are nowhere", left)
	}
	return err
}

// namesBelow reads an entry of the index, at p: the inode of the file below that it stands
// for, and how many names the file has in the tree that are not in the upper directory.
func (w *worktree) namesBelow(p string) (ino uint64, n int, err error) {
	var now unix.Stat_t
	if err := unix.Lstat(p, &now); err != nil {
		return 0, 0, &os.PathError{Op: "lstat", Path: p, Err: err}
	}
	// How many names there are is kept relative to the links of the one file or the other.
	const attr = overlayMark + "nlink"
	var buf [32]byte
	size, err := unix.Lgetxattr(p, attr, buf[:])
	if err != nil {
		return 0, 0, &os.PathError{Op: "getxattr " + attr, Path: p, Err: err}
	}
	var of rune
	var diff int
	if _, err := fmt.Sscanf(string(buf[:size]), "%c%d", &of, &diff); err != nil || of != 'U' && of != 'L' {
		return 0, 0, fmt.Errorf("%s of %s is %q", attr, p, buf[:size])
	}
	inUpper := int(now.Nlink) - 1 // without this one
	if of == 'U' && int(now.Nlink)+diff <= inUpper {
		return 0, 0, nil
	}
	// The name is a struct ovl_fb: version, magic, length, flags, type, UUID, file handle.
	b, err := hex.DecodeString(filepath.Base(p))
	if err != nil || len(b) < 21 || b[0] != 0 || b[1] != 0xfb {
		return 0, 0, fmt.Errorf("%s is no entry of an index", strings.TrimPrefix(p, w.dir+"/"))
	}
	mount, err := unix.Open(w.upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, &os.PathError{Op: "open", Path: w.upper, Err: err}
	}
	defer unix.Close(mount)
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(int32(b[4]), b[21:]), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return 0, 0, fmt.Errorf("opening a file of the layers below by its handle: %w", err)
	}
	defer unix.Close(fd)
	var below unix.Stat_t
	if err := unix.Fstat(fd, &below); err != nil {
		return 0, 0, err
	}
	all := int(now.Nlink) + diff
	if of == 'L' {
		all = int(below.Nlink) + diff
	}
	return below.Ino, all - inUpper, nil
}
