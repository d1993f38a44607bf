// Mounts, by the calls that make them: each function is to be called inside a Space.
package buildroot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Overlay describes an overlay mount of directories; Lower is bottom first.
type Overlay struct {
	Lower []string
	Upper string // "" for a read-only view
	Work  string
	Empty string // an empty directory, to be below what nothing else is below
}

// A mount's option string has to fit in one page.
const maxMountData = 4095

// escapeOption escapes a path in the options of an overlay.
var escapeOption = strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)

// MountTree mounts a chain of layers at target. With an upper directory the view can be
// written. Also one layer alone is an overlay: only overlayfs keeps its own marks from
// being made in a layer, and from being seen.
//
// Names in the options of what is in dir, a clean path, or in the directory above it are
// relative to it, so that long chains fit wherever dir is.
func MountTree(dir string, o Overlay, target string) error {
	rel := func(p string) string {
		if r, below := strings.CutPrefix(p, dir+"/"); below {
			p = r
		} else if r, beside := strings.CutPrefix(p, filepath.Dir(dir)+"/"); beside {
			p = "../" + r
		}
		return escapeOption.Replace(p)
	}
	if len(o.Lower) == 0 || len(o.Lower) == 1 && o.Upper == "" {
		o.Lower = append([]string{o.Empty}, o.Lower...)
	}
	lower := make([]string, 0, len(o.Lower))
	for i := len(o.Lower) - 1; i >= 0; i-- {
		lower = append(lower, rel(o.Lower[i]))
	}
	data := "lowerdir=" + strings.Join(lower, ":")
	index := "off"
	if o.Upper != "" {
		data += ",upperdir=" + rel(o.Upper) + ",workdir=" + rel(o.Work) + ",volatile"
		index = "on"
	}
	// A stage that changes the owner or label of a whole tree must not copy its
	// data, nor make several files of one that has several names; and one that
	// renames a directory must not be told EXDEV.
	data += ",redirect_dir=on,metacopy=on,xino=off,index=" + index
	if len(data) > maxMountData {
		return fmt.Errorf("overlay of %d layers: %w", len(o.Lower), unix.E2BIG)
	}
	if err := unix.Chdir(dir); err != nil {
		return &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	defer unix.Chdir("/")
	// The kernel lets go of a mount a moment after its last user, and refuses until
	// then to show what was written to it as a layer.
	err := unix.Mount("overlay", target, "overlay", 0, data)
	for wait := time.Millisecond; errors.Is(err, unix.EBUSY) && wait < 5*time.Second; wait *= 2 {
		time.Sleep(wait)
		// What was refused has left the mark of a mount that was not ended in order.
		if o.Upper != "" {
			if rerr := os.RemoveAll(filepath.Join(o.Work, "work")); rerr != nil {
				return rerr
			}
		}
		err = unix.Mount("overlay", target, "overlay", 0, data)
	}
	if err != nil {
		return fmt.Errorf("mounting an overlay on %s: %w", target, err)
	}
	return nil
}

// bind mounts source at target, with what is mounted below it when recursive.
func bind(source, target string, readonly, recursive bool) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_NO_AUTOMOUNT)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: source, Err: err}
	}
	defer unix.Close(fd)
	if readonly {
		if err := setReadonly(fd, recursive); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: target, Err: err}
	}
	return nil
}

func setReadonly(fd int, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", flags, &attr); err != nil {
		return fmt.Errorf("making a mount read-only: %w", err)
	}
	return nil
}

// detach returns a file that stands for a copy of the mount at path and of those
// below it. The copy is in no namespace: it can be sent to a process in another
// one, which puts it where it likes, and it goes away when nobody holds it.
func detach(path string, readonly bool) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	if readonly {
		if err := setReadonly(fd, true); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// tmpfs mounts a new one at target; size is in bytes, 0 for the kernel's default.
func tmpfs(target, mode string, size int64) error {
	data := "mode=" + mode
	if size > 0 {
		data += fmt.Sprintf(",size=%d", size)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID, data); err != nil {
		return fmt.Errorf("mounting a tmpfs on %s: %w", target, err)
	}
	return nil
}

// Unmount takes away the mount at target and all that is below it; one that is not
// there is no error.
func Unmount(target string) error {
	err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &os.PathError{Op: "umount", Path: target, Err: err}
}

// Bind shows source, with what is mounted below it, at target.
func Bind(source, target string, readonly bool) error { return bind(source, target, readonly, true) }

// MountTmpfs mounts an empty tmpfs, whose root has that mode (octal).
func MountTmpfs(target, mode string) error { return tmpfs(target, mode, 0) }
