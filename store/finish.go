// What is done to a layer before it is committed: times are clamped, and it is
// measured.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Finish clamps, where epoch is given, the modification time of everything in dir
// that is not older than since (when the step began) to epoch, seconds since 1970,
// as upstream osbuild does; immutable files are left alone. It returns the number
// of bytes that dir takes on disk.
func Finish(dir string, since time.Time, epoch *int64) (int64, error) {
	var size int64
	var dirs []string // last, since their times are changed by what is in them
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if s, ok := st.Sys().(*syscall.Stat_t); ok && (s.Nlink < 2 || d.IsDir()) {
			size += s.Blocks * 512
		} else if ok {
			size += s.Blocks * 512 / int64(s.Nlink)
		}
		if epoch == nil || st.ModTime().Unix() < since.Unix() {
			return nil
		}
		if d.IsDir() {
			dirs = append(dirs, p)
			return nil
		}
		return clamp(p, *epoch)
	})
	if err != nil {
		return 0, fmt.Errorf("finishing a layer: %w", err)
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := clamp(dirs[i], *epoch); err != nil {
			return 0, fmt.Errorf("finishing a layer: %w", err)
		}
	}
	return size, nil
}

func clamp(p string, epoch int64) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: epoch}}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		return nil // immutable
	}
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: p, Err: err}
	}
	return nil
}
