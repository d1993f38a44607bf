// The root directory of a build root: what of its tree is shown, and the rules of
// its architecture.
package buildroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/osbuild-star/osbuild-star/buildroot/binfmt"
	"golang.org/x/sys/unix"
)

// The directories of the tree that programs are in. They are shown read-only; one
// that is a link in the tree stays a link.
var shown = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// Configuration that belongs to programs rather than to the system: it is shown in
// the otherwise empty /etc. The first three are upstream osbuild's; the others say
// which certificate authorities are trusted, for the runner.
// The first three count in cache keys where the host is the build root: see engine.
var shownEtc = []string{"mke2fs.conf", "containers", "selinux", "ca-certificates.conf", "ca-certificates/trust-source", "pki/ca-trust/source"}

// compose makes the root directory of a build root at dir, inside a Space, from
// the tree at tree. boot shows /boot too.
func compose(dir, tree, arch string, boot bool) error {
	if _, err := os.Lstat(filepath.Join(tree, "usr")); err != nil {
		return fmt.Errorf("the build root's tree has no /usr, so there is no system in it: %w", err)
	}
	if err := tmpfs(dir, "0755", 0); err != nil {
		return err
	}
	names := shown
	if boot {
		names = append([]string{"boot"}, shown...)
	}
	for _, name := range names {
		if err := show(dir, tree, name, arch); err != nil {
			return err
		}
	}
	for _, d := range []string{"dev", "etc", "proc", "run", "sys", "tmp", "var", "root"} {
		if err := mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, name := range shownEtc {
		p, err := InRoot(tree, "etc/"+name)
		if err != nil {
			continue
		}
		target := filepath.Join(dir, "etc", name)
		st, err := os.Stat(p)
		switch {
		case err != nil:
			continue
		case st.IsDir():
			if err := mkdirAll(filepath.Join(dir, "etc"), name); err != nil {
				return err
			}
			if err := bind(p, target, true, true); err != nil {
				return err
			}
		case st.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if err := os.WriteFile(target, b, 0o644); err != nil {
				return err
			}
			if err := os.Chmod(target, 0o644); err != nil {
				return err
			}
		}
	}
	if err := copyAlternatives(dir, tree); err != nil {
		return err
	}
	if wantsLib64(arch) {
		return checkLinker(dir, tree, arch)
	}
	return nil
}

// copyAlternatives copies the links by which packages of the tree choose among
// programs. They are copies, so that a runner can add one.
func copyAlternatives(dir, tree string) error {
	from, err := InRoot(tree, "etc/alternatives")
	if err != nil {
		return nil
	}
	ents, err := os.ReadDir(from)
	if err != nil {
		return nil
	}
	to := filepath.Join(dir, "etc/alternatives")
	if err := mkdir(to, 0o755); err != nil {
		return err
	}
	for _, e := range ents {
		target, err := os.Readlink(filepath.Join(from, e.Name()))
		if err != nil {
			continue // a README
		}
		if err := os.Symlink(target, filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// wantsLib64 tells whether the dynamic linker of an architecture is looked for in
// /lib64, or by a link to there, while nothing makes /lib64.
func wantsLib64(arch string) bool { return arch == "s390x" || arch == "ppc64le" }

// checkLinker tells when the root has no dynamic linker where programs of the tree
// look for it: none of them would start, and each only say that it is not there.
func checkLinker(dir, tree, arch string) error {
	for _, p := range telltale {
		real, err := InRoot(tree, p)
		if err != nil {
			continue
		}
		linker, err := binfmt.Linker(real)
		if err != nil || linker == "" {
			continue
		}
		if _, err := InRoot(dir, linker); err != nil {
			to, _ := os.Readlink(filepath.Join(dir, "lib64"))
			if to != "" {
				to = ", and /lib64 is a link to " + to
			}
			return fmt.Errorf("the dynamic linker of %s programs, %s, is not in the build root%s: %w", arch, linker, to, err)
		}
		return nil
	}
	return nil
}

// show puts one top-level directory of the tree into the root.
func show(dir, tree, name, arch string) error {
	from, to := filepath.Join(tree, name), filepath.Join(dir, name)
	st, err := os.Lstat(from)
	needsLib64 := name == "lib64" && wantsLib64(arch)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if needsLib64 {
			// The dynamic linker of these is /lib64/ld64.so.*, and nothing else
			// makes the link.
			return os.Symlink("/usr/lib64", to)
		}
		return nil
	case err != nil:
		return err
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if needsLib64 {
			p, err := InRoot(tree, "lib64")
			if err != nil {
				return fmt.Errorf("the build root's /lib64 is a link to %s, which leads nowhere; %s programs need it: %w", target, arch, err)
			}
			if st, err := os.Stat(p); err != nil || !st.IsDir() {
				return fmt.Errorf("the build root's /lib64 is a link to %s, which is no directory; %s programs need it", target, arch)
			}
		}
		return os.Symlink(target, to)
	case st.IsDir():
		if err := mkdir(to, 0o755); err != nil {
			return err
		}
		return bind(from, to, true, true)
	default:
		return fmt.Errorf("the build root's /%s is neither a directory nor a link", name)
	}
}

// mkdir makes a directory with exactly that mode: programs without privileges have
// to find their way whatever umask the caller has.
func mkdir(path string, mode uint32) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := unix.Chmod(path, mode); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}

// mkdirAll is mkdir for a path below dir, with the directories above it.
func mkdirAll(dir, path string) error {
	for name := range strings.SplitSeq(path, "/") {
		dir = filepath.Join(dir, name)
		if err := mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// InRoot finds a path of the tree, with links meaning what they mean inside it,
// and returns where it is for us.
func InRoot(tree, p string) (string, error) {
	dir, err := os.Open(tree)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	if p = strings.TrimPrefix(p, "/"); p == "" {
		p = "."
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(dir.Fd()), p, &how)
	if err != nil {
		return "", &os.PathError{Op: "openat2", Path: filepath.Join(tree, p), Err: err}
	}
	defer unix.Close(fd)
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// programs that a tree has when it has any.
var telltale = []string{"usr/bin/env", "bin/sh", "usr/bin/bash", "usr/lib/systemd/systemd", "usr/bin/dpkg", "usr/bin/rpm", "usr/bin/true", "sbin/init", "usr/sbin/ldconfig"}

// Arch tells the architecture of the programs in a tree, from an ELF header; ""
// when there is none.
func Arch(tree string) string {
	for _, p := range telltale {
		real, err := InRoot(tree, p)
		if err != nil {
			continue
		}
		if arch := elfArch(real); arch != "" {
			return arch
		}
	}
	return ""
}

func elfArch(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	var h [binfmt.HeaderSize]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		return ""
	}
	return binfmt.Identify(h[:])
}
