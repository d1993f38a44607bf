// Export: files of a tree, to where a person wants them.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// ExportTree copies the whole tree of an object to dir, with owners, times and
// extended attributes. dir must not exist; it is there whole or not at all.
func (e *Engine) ExportTree(ctx context.Context, o *store.Object, dir string) error {
	if err := e.prepare(); err != nil {
		return err
	}
	// Threads of the Space have another working directory.
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	parent := filepath.Dir(dir)
	tmp, err := scratch.New(parent, exportPrefix)
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	defer tmp.Close()
	to := filepath.Join(tmp.Path, "tree")
	if err := os.Mkdir(to, 0o755); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	view := filepath.Join(e.work.Path, fmt.Sprintf("export-%d", e.number()))
	if err := os.Mkdir(view, 0o755); err != nil {
		return err
	}
	defer os.Remove(view)
	err = e.space.Do(func() error {
		if err := e.mountObject(o, view); err != nil {
			return err
		}
		defer buildroot.Unmount(view)
		return copyTree(ctx, view, to)
	})
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	if err := os.Rename(to, dir); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	return nil
}

// exportPrefix begins the names of directories, beside what is exported, for what is on
// the way. They are nobody else's: what has such a name, and no owner, is removed.
const exportPrefix = ".osbuild-star-export."

// copyTree copies with cp, which knows about holes, links, attributes and
// reflinks.
func copyTree(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", from+"/.", to).CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("cp: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ExportFile puts a file of an object at dest, whole or not at all: by reflink or
// hard link where the file system allows it, and else as a copy. A file that is
// there already as it should be is left alone; changed tells.
func (e *Engine) ExportFile(ctx context.Context, o *store.Object, path, dest string) (changed bool, err error) {
	if ctx.Err() != nil { // a tree has many files
		return false, context.Cause(ctx)
	}
	f, err := layersOf(o).find(path)
	if err != nil {
		return false, err
	}
	dir := filepath.Dir(dest)
	if _, swept := e.swept.LoadOrStore(dir, true); !swept {
		scratch.Sweep(dir, exportPrefix) // also where nothing is to be done
	}
	name := digest(o.Key, filepath.Clean("/"+path))
	if same, err := sameFile(ctx, name, f, dest); same || err != nil {
		return false, err
	}
	way, err := scratch.New(dir, exportPrefix)
	if err != nil {
		return false, exportError(dest, err)
	}
	defer way.Close()
	tmp := filepath.Join(way.Path, filepath.Base(dest))
	linked, err := exportTo(ctx, o, f, tmp)
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, exportError(dest, err)
	}
	if !linked {
		// A file system without such attributes costs another copy next time.
		_ = unix.Lsetxattr(tmp, exportedFrom, []byte(name), 0)
	}
	if err := os.Rename(tmp, dest); err != nil {
		return false, exportError(dest, err)
	}
	return true, nil
}

// exportError says that a file could not be put there, and what can be done.
func exportError(dest string, err error) error {
	err = fmt.Errorf("exporting to %s: %w", dest, err)
	for _, no := range []error{unix.EROFS, unix.EACCES, unix.EPERM} {
		if errors.Is(err, no) {
			return &HostError{err, "name another directory: --out DIR"}
		}
	}
	return Full(err, Place{What: "the directory for the result,", Dir: filepath.Dir(dest), Otherwise: "--out DIR"})
}

// exportTo makes a file at tmp, which must not exist, of the file f.
func exportTo(ctx context.Context, o *store.Object, f found, tmp string) (linked bool, err error) {
	if err := reflink(f.data, tmp); err != nil {
		// A link has the mode and times that the data have.
		if f.meta == f.data && !o.ReadOnly(f.data) && os.Link(f.data, tmp) == nil {
			return true, o.RecordLink(f.data)
		}
		cmd := exec.CommandContext(ctx, "cp", "--sparse=always", "--preserve=mode,timestamps", f.data, tmp)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			for _, no := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EACCES} { // in the words of C
				if strings.Contains(strings.ToLower(string(out)), no.Error()) {
					return false, no
				}
			}
			return false, fmt.Errorf("cp: %w: %s", err, strings.TrimSpace(string(out)))
		}
	}
	st, err := os.Stat(f.meta)
	if err != nil {
		return false, err
	}
	if err := os.Chmod(tmp, st.Mode().Perm()); err != nil {
		return false, err
	}
	return false, os.Chtimes(tmp, st.ModTime(), st.ModTime())
}

// exportedFrom is the extended attribute of an exported copy that names the object and
// the file that it is of. Size and time would not do: times are clamped to the source epoch.
const exportedFrom = "user.osbuild-star.object"

// sameFile tells whether dest is f by a hard link, or a copy of it that nobody wrote
// to; or else has the same content, as what another plan made may have.
func sameFile(ctx context.Context, name string, f found, dest string) (bool, error) {
	a, err := os.Stat(f.meta)
	if err != nil {
		return false, nil // it is told when it is exported
	}
	b, err := os.Lstat(dest)
	if err != nil || !b.Mode().IsRegular() {
		return false, nil
	}
	if os.SameFile(a, b) {
		return true, nil
	}
	if a.Size() != b.Size() || a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) {
		return false, nil
	}
	var key [128]byte
	n, err := unix.Lgetxattr(dest, exportedFrom, key[:])
	if err == nil && string(key[:n]) == name {
		return true, nil
	}
	differs, err := compareFiles(ctx, f.data, dest)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return differs == nil && err == nil, nil
}

// reflink makes dest share the blocks of from, where the file system can do it.
func reflink(from, dest string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(dest, os.O_CREATE|os.O_EXCL|os.O_WRONLY, st.Mode().Perm())
	if err != nil {
		return err
	}
	err = unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(dest)
	}
	return err
}

// copyRootAttrs makes a new upper directory the like of the root of the layers below
// it, which it hides: owner, mode, extended attributes and times.
func copyRootAttrs(layers []string, upper string) error {
	var st unix.Stat_t
	top, err := filepath.EvalSymlinks(layers[len(layers)-1]) // one of another store is a link
	if err != nil {
		return err
	}
	if err := unix.Lstat(top, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: top, Err: err}
	}
	if err := os.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: upper, Err: err}
	}
	if err := copyXattrs(top, upper); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, upper, []unix.Timespec{st.Atim, st.Mtim}, 0); err != nil {
		return &os.PathError{Op: "utimensat", Path: upper, Err: err}
	}
	return nil
}

// copyXattrs copies the extended attributes of a directory, without what overlayfs
// notes there.
func copyXattrs(from, to string) error {
	attrs, err := readXattrs(from)
	if err != nil {
		return err
	}
	for name, value := range attrs {
		if err := unix.Lsetxattr(to, name, []byte(value), 0); err != nil {
			return &os.PathError{Op: "setxattr " + name, Path: to, Err: err}
		}
	}
	return nil
}

// readXattrs reads the extended attributes of a directory, without those of overlayfs.
func readXattrs(from string) (map[string]string, error) {
	n, err := unix.Llistxattr(from, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	names := make([]byte, n)
	if err == nil {
		n, err = unix.Llistxattr(from, names)
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: from, Err: err}
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		// The first call counts attributes of overlayfs that a view does not show. One of
		// a stage's own is kept under the prefix twice.
		if name == "" || strings.HasPrefix(name, overlayMark) && !strings.HasPrefix(name, overlayMark+"overlay.") {
			continue
		}
		value := make([]byte, 64<<10) // the kernel's limit
		n, err := unix.Lgetxattr(from, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: from, Err: err}
		}
		out[name] = string(value[:n])
	}
	return out, nil
}
