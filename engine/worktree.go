// Mounted trees that steps change: made ahead, and kept while nothing changes them.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// worktree is a tree that can be changed: layers, and a directory above them that
// takes the changes.
//
// What remains of it is removed at the end of the build, not step by step: a file
// system that has just removed many directories is slow to make others.
type worktree struct {
	e           *Engine
	dir         string // in the store, for what is on the way
	upper, work string // below dir
	at          string // for mount points
	tree        string // below at
	chain       string // the layers it stands on, as chainOf has them
	mounted     bool
	fresh       rootState // before any stage

	copied bool          // upper is not what changes, but the tree
	since  unix.Timespec // what was changed since the copy was made is later than this
}

// newWorktree makes the directories of one.
func (e *Engine) newWorktree() (*worktree, error) {
	n := e.number()
	w := &worktree{e: e, dir: e.run.Path}
	w.upper, w.work = filepath.Join(w.dir, fmt.Sprintf("upper-%d", n)), filepath.Join(w.dir, fmt.Sprintf("work-%d", n))
	e.mu.Lock()
	if last := len(e.places) - 1; last >= 0 {
		w.at, e.places = e.places[last], e.places[:last]
	}
	e.mu.Unlock()
	dirs := []string{w.upper, w.work}
	if w.at == "" {
		w.at = filepath.Join(e.work.Path, fmt.Sprintf("step-%d", n))
		dirs = append(dirs, w.at, filepath.Join(w.at, "tree"))
	}
	w.tree = filepath.Join(w.at, "tree")
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// chainOf names the layers of an object, all in one.
func chainOf(base *store.Object) string {
	if base == nil {
		return ""
	}
	return strings.Join(base.Layers, "/")
}

// worktree returns a tree with the content of base (nil: an empty one) and has the
// directories of the next one made meanwhile.
func (e *Engine) worktree(ctx context.Context, base *store.Object) (*worktree, error) {
	chain := chainOf(base)
	e.mu.Lock()
	w := e.unchanged[chain]
	delete(e.unchanged, chain)
	e.mu.Unlock()
	if w != nil {
		return w, nil
	}
	select {
	case w = <-e.ahead:
	default:
		var err error
		if w, err = e.newWorktree(); err != nil {
			return nil, err
		}
	}
	if err := w.mount(ctx, base); err != nil {
		w.close()
		return nil, err
	}
	e.making.Add(1)
	go func() {
		defer e.making.Done()
		if next, err := e.newWorktree(); err == nil { // else the next step tells
			select {
			case e.ahead <- next:
			default:
				next.close()
			}
		}
	}()
	return w, nil
}

func (w *worktree) mount(ctx context.Context, base *store.Object) error {
	w.chain = chainOf(base)
	if w.copied = w.e.copies || base != nil && base.Odd; w.copied {
		return w.mountCopy(ctx, base)
	}
	if err := initUpper(base, w.upper); err != nil {
		return err
	}
	overlay := buildroot.Overlay{Upper: w.upper, Work: w.work, Empty: w.e.empty}
	if base != nil {
		overlay.Lower = base.LayerDirs()
	}
	err := w.e.space.Do(func() error { return buildroot.MountTree(w.e.cfg.Store.LayersDir(), overlay, w.tree) })
	if err != nil {
		return err
	}
	w.mounted = true
	w.fresh, err = rootStateOf(w.upper)
	return err
}

// mountCopy does without overlayfs.
func (w *worktree) mountCopy(ctx context.Context, base *store.Object) (err error) {
	if base == nil {
		err = initUpper(nil, w.upper)
	} else {
		err = w.e.copyObject(ctx, base, w.upper, w.tree)
	}
	if err != nil {
		return fmt.Errorf("copying a tree: %w", err)
	}
	if w.since, err = fileClock(w.work); err != nil {
		return err
	}
	err = w.e.space.Do(func() error { return buildroot.Bind(w.upper, w.tree, false) })
	w.mounted = err == nil
	return err
}

// rootState is what can be changed of the root of a tree.
type rootState struct {
	Mode, UID, GID uint32
	MTime, CTime   unix.Timespec
	Xattrs         map[string]string
}

func rootStateOf(dir string) (r rootState, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return r, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	attrs, err := readXattrs(dir)
	return rootState{Mode: st.Mode, UID: st.Uid, GID: st.Gid, MTime: st.Mtim, CTime: st.Ctim, Xattrs: attrs}, err
}

func (w *worktree) unmount() error {
	if !w.mounted {
		return nil
	}
	w.mounted = false
	return w.e.space.Do(func() error { return buildroot.Unmount(w.tree) })
}

// isUnchanged tells whether a step that began at that time left the tree exactly as
// its base is: then a layer of its own would say nothing. Nothing runs any more
// that could change it.
func (w *worktree) isUnchanged(base *store.Object, began time.Time, epoch *int64) (bool, error) {
	if base == nil {
		return false, nil
	}
	if w.copied {
		changed, err := anyEntry(w.upper, func(_ string, st *syscall.Stat_t) (bool, error) {
			toClamp := epoch != nil && st.Mtim.Sec >= began.Unix() && st.Mtim.Sec != *epoch
			return toClamp || later(unix.Timespec(st.Ctim), w.since), nil
		})
		return !changed, err
	}
	f, err := os.Open(w.upper)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); !errors.Is(err, io.EOF) {
		return false, err
	}
	// What was done to the root of the tree itself. Its time of change alone does not
	// tell: clocks of files tick a few hundred times in a second.
	now, err := rootStateOf(w.upper)
	if err != nil || !reflect.DeepEqual(now, w.fresh) {
		return false, err
	}
	// A layer would have the time of the root clamped once more.
	return epoch == nil || now.MTime.Sec < began.Unix() || now.MTime.Sec == *epoch, nil
}

// keep leaves the tree as it is for the next step on the same layers.
func (w *worktree) keep() {
	w.e.mu.Lock()
	old := w.e.unchanged[w.chain]
	w.e.unchanged[w.chain] = w
	w.e.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// close gives the tree up. What a stage wrote that failed is removed at once, for it
// may be large.
func (w *worktree) close() error {
	if err := w.unmount(); err != nil {
		return err
	}
	w.e.mu.Lock()
	w.e.places = append(w.e.places, w.at)
	w.e.left = append(w.e.left, w.work)
	w.e.mu.Unlock()
	return scratch.RemoveAll(w.upper)
}

// tidy removes what the steps of a build left, and the trees that wait for others.
func (e *Engine) tidy() error {
	e.making.Wait()
	var errs []error
	select {
	case w := <-e.ahead: // nil before the first step ever
		errs = append(errs, w.close())
	default:
	}
	e.mu.Lock()
	kept := e.unchanged
	e.unchanged = map[string]*worktree{}
	e.mu.Unlock()
	for _, w := range kept {
		errs = append(errs, w.close())
	}
	e.mu.Lock()
	dirs := append(e.left, e.places...)
	e.left, e.places = nil, nil
	e.mu.Unlock()
	for _, d := range dirs {
		errs = append(errs, scratch.RemoveAll(d))
	}
	return errors.Join(errs...)
}
