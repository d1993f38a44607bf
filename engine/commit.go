// What becomes of a tree when the stages of a step are through: nothing, or one more
// layer.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// maxLayers is the length at which a chain is made one layer again: well below
// what one overlay mount takes.
var maxLayers = 200

// conclude makes the object of a step that began at that time on base, and has left its
// result in w. A tree that did not change is kept for the next step on it.
func (e *Engine) conclude(ctx context.Context, info store.Info, base *store.Object, w *worktree, began time.Time, epoch *int64) (obj *store.Object, kept bool, err error) {
	same, err := w.isUnchanged(base, began, epoch)
	if err != nil {
		return nil, false, err
	}
	if !same {
		obj, err = e.commit(ctx, info, base, w, began, epoch)
		return obj, false, err
	}
	if obj, err = e.cfg.Store.Adopt(info, base, w.dir); err != nil {
		return nil, false, err
	}
	w.keep()
	return obj, true, nil
}

// commit makes what changed in the tree one more layer.
func (e *Engine) commit(ctx context.Context, info store.Info, base *store.Object, w *worktree, began time.Time, epoch *int64) (_ *store.Object, err error) {
	index, err := w.indexed()
	if err == nil && len(index) > 0 {
		err = e.space.Do(func() error { return w.bringNames(index) })
	}
	if err == nil {
		err = w.unmount()
	}
	for _, p := range index {
		err = errors.Join(err, os.Remove(p)) // a link that files do not have in the tree
	}
	if err != nil {
		return nil, fmt.Errorf("committing: %w", err)
	}
	if info.Size, err = store.Finish(w.upper, began, epoch); err != nil {
		return nil, err
	}
	switch {
	case w.copied:
		info.Plain, base = true, nil
		if info.Odd, err = isOdd(w.upper); err != nil {
			return nil, err
		}
	case base != nil && len(base.Layers) >= maxLayers:
		flat, err := e.flatten(ctx, base, w)
		if err != nil {
			return nil, err
		}
		defer flat.close()
		if info.Size, err = store.Finish(flat.upper, began, nil); err != nil {
			return nil, err
		}
		w, base = flat, nil
	}
	return e.cfg.Store.Commit(info, base, w.upper)
}

// flatten copies the view of a chain and one more layer, which was mounted at w, into a
// tree of its own.
func (e *Engine) flatten(ctx context.Context, base *store.Object, w *worktree) (_ *worktree, err error) {
	flat, err := e.newWorktree()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, flat.close())
		}
	}()
	if err := flat.mount(ctx, nil); err != nil {
		return nil, err
	}
	err = e.space.Do(func() (err error) {
		o := buildroot.Overlay{Lower: append(base.LayerDirs(), w.upper)}
		if err := buildroot.MountTree(e.cfg.Store.LayersDir(), o, w.tree); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, buildroot.Unmount(w.tree)) }()
		return copyTree(ctx, w.tree, flat.tree) // cp gives it the attributes of the view
	})
	if err != nil {
		return nil, fmt.Errorf("making one layer of %d: %w", len(base.Layers)+1, err)
	}
	return flat, flat.unmount()
}

// fileTime is now by the clock that files get their times from: it is a little behind.
func fileTime() (time.Time, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		return time.Time{}, fmt.Errorf("reading the clock: %w", err)
	}
	return time.Unix(ts.Unix()), nil
}

// initUpper gives the directory that takes the changes of a step the attributes of
// the root of the tree: those that it had, and to begin with those of any new root,
// whatever umask the caller has.
func initUpper(base *store.Object, upper string) error {
	if base != nil {
		return copyRootAttrs(base.LayerDirs(), upper)
	}
	if err := os.Chmod(upper, 0o755); err != nil {
		return err
	}
	now := time.Now()
	return os.Chtimes(upper, now, now)
}
