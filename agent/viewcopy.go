// Views where overlayfs cannot serve: a copy of what was prepared, which is small.
package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// copyView copies dir to upper and shows that at target.
func copyView(dir, target, upper string) error {
	if err := copyDir(dir, upper); err != nil {
		return fmt.Errorf("copying %s: %w", dir, err)
	}
	if err := unix.Mount(upper, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding the copy of %s: %w", dir, err)
	}
	return nil
}

// copyDir makes to, which is there, the like of the directory from: files, directories
// and links, with their attributes.
func copyDir(from, to string) error {
	ents, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, ent := range ents {
		a, b := filepath.Join(from, ent.Name()), filepath.Join(to, ent.Name())
		switch ent.Type() {
		case fs.ModeDir:
			if err = os.Mkdir(b, 0o700); err == nil {
				err = copyDir(a, b)
			}
		case fs.ModeSymlink:
			var target string
			if target, err = os.Readlink(a); err == nil {
				err = os.Symlink(target, b)
			}
			if err == nil {
				err = copyAttributes(a, b)
			}
		case 0:
			if err = copyFile(a, b); err == nil {
				err = copyAttributes(a, b)
			}
		}
		if err != nil {
			return err
		}
	}
	return copyAttributes(from, to)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func copyAttributes(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: from, Err: err}
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	names := make([]byte, 64<<10) // the kernel's limit, as of values
	n, _ := unix.Llistxattr(from, names)
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:max(n, 0)]), "\x00"), "\x00") {
		// As cp does it: what a file system does not have is left out.
		if size, err := unix.Lgetxattr(from, name, value); err == nil {
			_ = unix.Lsetxattr(to, name, value[:size], 0)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	ts := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: to, Err: err}
	}
	return nil
}
