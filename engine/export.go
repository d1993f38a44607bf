// Export: files of a tree, to where a person wants them.
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
	tmp, err := scratch.New(parent, "."+filepath.Base(dir)+".")
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
		if err := buildroot.MountTree(e.cfg.Store.LayersDir(), buildroot.Overlay{Lower: o.LayerDirs()}, view); err != nil {
			return err
		}
		defer buildroot.Unmount(view)
		return copyTreeContext(ctx, view, to)
	})
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	if err := os.Rename(to, dir); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	return nil
}

func copyTree(from, to string) error { return copyTreeContext(context.Background(), from, to) }

// copyTreeContext copies with cp, which knows about holes, links, attributes and
// reflinks.
func copyTreeContext(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", from+"/.", to).CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("cp: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Find returns where the file of that path in the tree of an object is: in the
// uppermost layer that has it. Only regular files are found.
func Find(o *store.Object, path string) (string, error) {
	dirs := o.LayerDirs()
	for i := len(dirs) - 1; i >= 0; i-- {
		p := filepath.Join(dirs[i], filepath.Clean("/"+path))
		st, err := os.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return "", err
		}
		if !st.Mode().IsRegular() {
			return "", fmt.Errorf("%s is no regular file", path)
		}
		return p, nil
	}
	return "", &fs.PathError{Op: "find", Path: path, Err: fs.ErrNotExist}
}

// Files lists the regular files of a small tree (an artifact), by their paths.
func (e *Engine) Files(o *store.Object) ([]string, error) {
	seen := map[string]bool{}
	var out []string
	for _, dir := range o.LayerDirs() {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err == nil && d.Type().IsRegular() && !seen[rel] {
				seen[rel] = true
				out = append(out, filepath.ToSlash(rel))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	// A file of a lower layer can be gone in an upper one.
	kept := out[:0]
	for _, p := range out {
		if _, err := Find(o, p); err == nil {
			kept = append(kept, p)
		}
	}
	sortStrings(kept)
	return kept, nil
}

// ExportFile puts a file of an object at dest, whole or not at all: by reflink or
// hard link where the file system allows it, and else as a copy. A file that is
// there already as it should be is left alone; changed tells.
func (e *Engine) ExportFile(ctx context.Context, o *store.Object, path, dest string) (changed bool, err error) {
	from, err := Find(o, path)
	if err != nil {
		return false, err
	}
	if sameFile(o, from, dest) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return false, fmt.Errorf("exporting: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(dest), fmt.Sprintf(".%s.%d.new", filepath.Base(dest), os.Getpid()))
	os.Remove(tmp)
	defer os.Remove(tmp)
	copied := true
	if err := reflink(from, tmp); err != nil {
		if err := os.Link(from, tmp); err == nil {
			copied = false
			if err := o.RecordLink(from); err != nil {
				return false, fmt.Errorf("exporting: %w", err)
			}
		} else if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", "--preserve=mode,timestamps", from, tmp).CombinedOutput(); err != nil {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			return false, fmt.Errorf("exporting to %s: %w: %s", dest, err, strings.TrimSpace(string(out)))
		}
	}
	if copied {
		// A file system without such attributes costs another copy next time.
		_ = unix.Lsetxattr(tmp, exportedFrom, []byte(o.Key), 0)
	}
	if err := os.Rename(tmp, dest); err != nil {
		return false, fmt.Errorf("exporting: %w", err)
	}
	return true, nil
}

// exportedFrom is the extended attribute of an exported copy that names the object
// it is of. Size and time would not do: times are clamped to the source epoch.
const exportedFrom = "user.osbuild-star.object"

// sameFile tells whether dest is from by a hard link, or a copy of it that nobody
// wrote to.
func sameFile(o *store.Object, from, dest string) bool {
	a, err := os.Stat(from)
	if err != nil {
		return false
	}
	b, err := os.Lstat(dest)
	if err != nil || !b.Mode().IsRegular() {
		return false
	}
	if os.SameFile(a, b) {
		return true
	}
	var key [128]byte
	n, err := unix.Lgetxattr(dest, exportedFrom, key[:])
	return err == nil && string(key[:n]) == o.Key && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
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
	if err == nil {
		err = os.Chtimes(dest, st.ModTime(), st.ModTime())
	}
	if err != nil {
		os.Remove(dest)
	}
	return err
}

// copyRootAttrs gives a new upper directory the owner and mode of the root of the
// layers below it.
func copyRootAttrs(layers []string, upper string) error {
	var st unix.Stat_t
	top := layers[len(layers)-1]
	if err := unix.Lstat(top, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: top, Err: err}
	}
	if err := os.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: upper, Err: err}
	}
	return nil
}
