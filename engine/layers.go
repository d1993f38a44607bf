// How trees are kept: as layers of overlayfs, or as whole copies where overlayfs cannot
// serve. Which of them is found out by trying.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// The values of Config.Layers. A copy shares its data with what it is of where the file
// system can do that (reflink), and else has them once more.
const (
	LayersAuto    = "auto"    // overlay where that works, else copy
	LayersOverlay = "overlay" // layers of what stages change
	LayersCopy    = "copy"    // one layer for each tree: all of it
)

// LayerKinds are the values of Config.Layers.
func LayerKinds() []string { return []string{LayersAuto, LayersOverlay, LayersCopy} }

// hasOverlay tells whether the kernel has overlayfs.
func hasOverlay() bool {
	fs, err := os.ReadFile("/proc/filesystems")
	return err != nil || strings.Contains(string(fs), "\toverlay\n") || exec.Command("modprobe", "overlay").Run() == nil
}

// knownUpper tells whether a file system is one of those that overlayfs is known to serve
// on, so that trying can be left out.
func knownUpper(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// chooseLayers settles how trees are kept. It tries in the scratch directories of the
// engine where that is not known.
func (e *Engine) chooseLayers() error {
	e.copies = e.cfg.Layers == LayersCopy
	if e.copies || knownUpper(e.run.Path) && hasOverlay() {
		return nil
	}
	err := e.tryOverlay(filepath.Join(e.run.Path, "probe"), filepath.Join(e.work.Path, "probe"))
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &sources.SpaceError{Dir: e.cfg.Store.Dir, Free: -1}
	}
	if err != nil && e.cfg.Layers == LayersOverlay {
		return &HostError{
			fmt.Errorf("overlayfs cannot serve in the store %s: %w", e.cfg.Store.Dir, err),
			"use a store on another file system, such as ext4, xfs or btrfs: --store DIR; or copies in place of layers: --layers=copy",
		}
	}
	if err != nil {
		e.copies = true
		e.note = fmt.Sprintf("overlayfs cannot serve in the store, so each stage copies its tree (%v)", err)
	}
	return nil
}

// tryOverlay makes an overlay in dir and does to it what a file system can lack: a
// mount of one that has no extended attributes, say, succeeds and forgets.
func (e *Engine) tryOverlay(dir, at string) (err error) {
	var dirs []string
	for _, d := range []string{"", "lower", "lower/renamed", "lower/remade", "upper", "work"} {
		dirs = append(dirs, filepath.Join(dir, d))
	}
	for _, d := range append(dirs, at) {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(dir), os.Remove(at))
	}()
	lower, upper := filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
	if err := os.WriteFile(filepath.Join(lower, "f"), nil, 0o644); err != nil {
		return err
	}
	if err := os.Link(filepath.Join(lower, "f"), filepath.Join(lower, "remade/g")); err != nil {
		return err
	}
	return e.space.Do(func() (err error) {
		o := buildroot.Overlay{Lower: []string{lower}, Upper: upper, Work: filepath.Join(dir, "work")}
		if err := buildroot.MountTree(e.cfg.Store.LayersDir(), o, at); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, buildroot.Unmount(at)) }()
		// One file by two names.
		if err := os.Chmod(filepath.Join(at, "f"), 0o600); err != nil {
			return err
		}
		if st, err := os.Lstat(filepath.Join(at, "remade/g")); err != nil || st.Mode().Perm() != 0o600 {
			return errors.Join(errors.New("files of several names come apart"), err)
		}
		if err := os.Rename(filepath.Join(at, "renamed"), filepath.Join(at, "r")); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(at, "remade")); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(at, "remade"), 0o755); err != nil {
			return err
		}
		for p, name := range map[string]string{"r": overlayRedirect, "remade": overlayOpaque} {
			if _, err := unix.Lgetxattr(filepath.Join(upper, p), name, make([]byte, 256)); err != nil {
				return fmt.Errorf("its marks cannot be kept: %w", err)
			}
		}
		return nil
	})
}

// mountObject shows the tree of an object, read-only. It is called inside of a Space.
func (e *Engine) mountObject(o *store.Object, target string) error {
	if o.Plain {
		return buildroot.Bind(o.LayerDirs()[0], target, true)
	}
	dirs := o.LayerDirs() // of another store, perhaps
	return buildroot.MountTree(filepath.Dir(dirs[0]), buildroot.Overlay{Lower: dirs, Empty: e.empty}, target)
}

// lookup finds an object that can be read here.
func (e *Engine) lookup(key string) (*store.Object, bool) {
	o, ok := e.cfg.Store.Lookup(key)
	return o, ok && (o.Plain || e.showsLayers())
}

// canShowLayers tells whether the layers of the store can be below an overlay, which is
// so nearly everywhere. It is asked also when nothing has to be built, so it looks
// before it tries.
func (e *Engine) canShowLayers() bool {
	var st unix.Statfs_t
	if !hasOverlay() {
		return false
	}
	if unix.Statfs(e.cfg.Store.Dir, &st) != nil || st.Type != unix.OVERLAYFS_SUPER_MAGIC || os.Geteuid() != 0 {
		return true
	}
	space, err := buildroot.NewSpace()
	if err != nil {
		return true // and a build will tell
	}
	defer space.Close()
	dir := e.cfg.Store.LayersDir()
	return space.Do(func() error {
		// Of the directories beside it: what is mounted on is seen by nobody.
		o := buildroot.Overlay{Lower: []string{dir}, Empty: filepath.Join(e.cfg.Store.Dir, "tmp")}
		return buildroot.MountTree(dir, o, dir)
	}) == nil
}

// copyObject makes a directory, which is empty, a copy of the tree of an object.
func (e *Engine) copyObject(ctx context.Context, o *store.Object, to, view string) error {
	if o.Plain {
		// Not by way of a mount, which would keep data from being shared.
		return copyTree(ctx, o.LayerDirs()[0], to)
	}
	return e.space.Do(func() (err error) {
		if err := e.mountObject(o, view); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, buildroot.Unmount(view)) }()
		return copyTree(ctx, view, to)
	})
}

// fileClock returns a time, by the clock of the file system of dir, that what is changed
// there from now on is later than, and what was changed before is not.
func fileClock(dir string) (unix.Timespec, error) {
	p := filepath.Join(dir, "clock")
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		return unix.Timespec{}, err
	}
	defer os.Remove(p)
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return unix.Timespec{}, &os.PathError{Op: "lstat", Path: p, Err: err}
	}
	for then, wait := st.Ctim, time.Millisecond; wait < 10*time.Second; wait *= 2 {
		if err := os.Chmod(p, 0o600); err != nil {
			return then, err
		}
		if err := unix.Lstat(p, &st); err != nil || later(st.Ctim, then) {
			return then, err
		}
		time.Sleep(wait)
	}
	return unix.Timespec{}, fmt.Errorf("the clock of the file system of %s stands still", dir)
}

func later(a, b unix.Timespec) bool { return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec }

// errFound ends a walk.
var errFound = errors.New("found")

// anyEntry tells whether a tree has an entry that is so.
func anyEntry(dir string, is func(path string, st *syscall.Stat_t) (bool, error)) (bool, error) {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		yes, err := is(p, fi.Sys().(*syscall.Stat_t))
		if yes {
			return errFound
		}
		return err
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// isOdd tells whether overlayfs would take something in a tree for a mark of its own.
func isOdd(dir string) (bool, error) {
	names := make([]byte, 64<<10)
	return anyEntry(dir, func(p string, st *syscall.Stat_t) (bool, error) {
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return true, nil
		}
		n, err := unix.Llistxattr(p, names)
		if errors.Is(err, unix.ENOTSUP) {
			return false, nil
		}
		if err != nil {
			return false, &os.PathError{Op: "listxattr", Path: p, Err: err}
		}
		return strings.Contains("\x00"+string(names[:n]), "\x00"+overlayMark), nil
	})
}
