// The directory of the host that backs /var of a build root.
package buildroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// VarError is a directory that cannot back /var: what programs write there would be
// kept in memory. Build roots write gigabytes to /var/tmp.
type VarError struct {
	Dir string // the directory asked for
	FS  string // the file system that it is on, "tmpfs"
}

func (e *VarError) Error() string {
	return fmt.Sprintf("/var of a build root cannot be in %s: that is a %s, which keeps everything in memory", e.Dir, e.FS)
}

// Hint says what can be done.
func (e *VarError) Hint() string {
	return "name a directory on a disk: --var-dir DIR, or var = of the buildroot in the rule file; for tests, set TMPDIR to one"
}

// CheckVar tells whether a directory can back /var of build roots ("" is the default,
// /var/tmp): a *[VarError] if it would be in memory. It need not exist yet.
func CheckVar(dir string) error {
	if dir == "" {
		dir = DefaultVar
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for p := abs; ; p = filepath.Dir(p) {
		var st unix.Statfs_t
		err := unix.Statfs(p, &st)
		if errors.Is(err, fs.ErrNotExist) && p != "/" {
			if _, lerr := os.Lstat(p); lerr == nil {
				return fmt.Errorf("/var of a build root cannot be in %s: %s is a link to nothing", dir, p)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("/var of a build root cannot be in %s: %w", dir, &os.PathError{Op: "statfs", Path: p, Err: err})
		}
		switch st.Type {
		case unix.TMPFS_MAGIC:
			return &VarError{Dir: dir, FS: "tmpfs"}
		case unix.RAMFS_MAGIC:
			return &VarError{Dir: dir, FS: "ramfs"}
		}
		return nil
	}
}

// DefaultVar is where /var of build roots is when nobody says otherwise.
const DefaultVar = "/var/tmp"
