// Views of /var: what the runner prepared, and above it a directory on disk for what
// a program writes.
package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"golang.org/x/sys/unix"
)

// viewsDir is where the agent mounts views, each at its name; a worker takes one to
// its own /var.
const viewsDir = runDir + "/.views"

// varViews are those that no worker has. To mount one costs a file system on disk
// about ten files, most of which it removes again: one that is as it was made is
// given to the next program.
type varViews struct {
	mu   sync.Mutex
	free []*varView
	last int
}

// varView is a view for one program at a time.
type varView struct {
	name  string
	upper string // takes the changes
	fresh dirState

	copied bool // upper is all of it, and its root does not tell of changes
}

// start makes the place that views are mounted at, which a worker can take away with
// all of them.
func (v *varViews) start() error {
	if err := os.MkdirAll(viewsDir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", viewsDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return fmt.Errorf("mounting %s: %w", viewsDir, err)
	}
	return nil
}

// take returns a view that nobody has, with nothing in it but what was prepared.
func (v *varViews) take() (*varView, error) {
	v.mu.Lock()
	if n := len(v.free); n > 0 {
		w := v.free[n-1]
		v.free = v.free[:n-1]
		v.mu.Unlock()
		return w, nil
	}
	v.last++
	name := strconv.Itoa(v.last)
	v.mu.Unlock()
	w := &varView{name: name, upper: filepath.Join(wire.VarDirs, name, "upper")}
	at := filepath.Join(viewsDir, name)
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	err := view("/var", at, filepath.Join(wire.VarDirs, name))
	if err != nil {
		// Where the place for /var is on an overlay itself: a container's own root.
		if cerr := copyView("/var", at, w.upper); cerr == nil {
			w.copied, err = true, nil
		} else {
			err = errors.Join(err, cerr)
		}
	}
	if err == nil {
		w.fresh, err = dirStateOf(w.upper)
	}
	if err != nil {
		w.remove()
		return nil, err
	}
	return w, nil
}

// put gives a view back when every process that had it is gone. One that was written
// to is removed.
func (v *varViews) put(w *varView) {
	if now, err := dirStateOf(w.upper); err != nil || now != w.fresh || w.copied {
		w.remove()
		return
	}
	v.mu.Lock()
	v.free = append(v.free, w)
	v.mu.Unlock()
}

// remove takes the view away. What cannot be removed goes with the build root.
func (w *varView) remove() {
	at := filepath.Join(viewsDir, w.name)
	unix.Unmount(at, unix.MNT_DETACH)
	os.Remove(at)
	os.RemoveAll(filepath.Dir(w.upper))
}

// dirState is what can be changed of a directory. The time of change alone does not
// tell: clocks of files tick a few hundred times in a second.
type dirState struct {
	empty          bool
	mode, uid, gid uint32
	mtime, ctime   unix.Timespec
	xattrs         string // names
}

func dirStateOf(dir string) (s dirState, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return s, err
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	s.empty = errors.Is(err, io.EOF)
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return s, &os.PathError{Op: "fstat", Path: dir, Err: err}
	}
	s.mode, s.uid, s.gid, s.mtime, s.ctime = st.Mode, st.Uid, st.Gid, st.Mtim, st.Ctim
	names := make([]byte, 64<<10) // the kernel's limit
	n, err := unix.Flistxattr(int(f.Fd()), names)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return s, &os.PathError{Op: "listxattr", Path: dir, Err: err}
	}
	s.xattrs = string(names[:max(n, 0)])
	return s, nil
}
