// The steps that runners are made of. Each makes one thing work, and does nothing
// where the tree has nothing for it.
package runners

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

type step func(ctx context.Context, r Root) error

// Prepare sets up the build root.
func (r *Runner) Prepare(ctx context.Context, root Root) error {
	for _, s := range r.steps {
		if err := s(ctx, root); err != nil {
			return err
		}
	}
	return nil
}

// accounts writes the users that every program may count on.
func accounts(_ context.Context, r Root) error {
	for name, text := range map[string]string{
		"passwd":  "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
		"group":   "root:x:0:\ntty:x:5:\ndisk:x:6:\nnogroup:x:65534:\n",
		"shadow":  "root:*:19000:0:99999:7:::\n",
		"gshadow": "root:*::\n",
	} {
		mode := os.FileMode(0o644)
		if name == "shadow" || name == "gshadow" {
			mode = 0o600
		}
		p := r.path("/etc/" + name)
		if _, err := os.Lstat(p); err == nil {
			continue
		}
		if err := writeFile(p, text, mode); err != nil {
			return err
		}
	}
	return nil
}

// ldconfig makes the linker's cache, for libraries outside its built-in paths. Without
// its configuration the program complains.
func ldconfig(ctx context.Context, r Root) error { return ldconfigOf(ctx, r) }

// iscsiLdconfig is for RHEL 7, where programs link to libraries of iSCSI that only
// the linker's configuration leads to.
func iscsiLdconfig(ctx context.Context, r Root) error { return ldconfigOf(ctx, r, "/usr/lib64/iscsi") }

func ldconfigOf(ctx context.Context, r Root, dirs ...string) error {
	// Ubuntu's ldconfig is a script around ldconfig.real, and there may be no shell.
	path := r.program("ldconfig.real", "ldconfig")
	if path == "" {
		return nil
	}
	p := r.path("/etc/ld.so.conf")
	if _, err := os.Lstat(p); err != nil {
		text := strings.Join(append(dirs, ""), "\n")
		if err := writeFile(p, text, 0o644); err != nil {
			return err
		}
	}
	return run(ctx, r, false, path)
}

// sysusers makes the accounts that packages of the tree declare. The program can
// fail over one entry and do the rest, which is better than no build root.
func sysusers(ctx context.Context, r Root) error {
	return run(ctx, r, true, r.program("systemd-sysusers"))
}

// tmpfiles makes the directories that packages of the tree declare. Its exit
// status tells of single entries, and is not an error here (as upstream).
func tmpfiles(ctx context.Context, r Root) error {
	return run(ctx, r, true, r.program("systemd-tmpfiles"), "--create", "--exclude-prefix=/dev", "--exclude-prefix=/proc", "--exclude-prefix=/sys", "--exclude-prefix=/run/osbuild")
}

// nsswitch drops a name service switch that systemd-tmpfiles may have copied from
// the tree's factory: it names services that do not run here.
func nsswitch(_ context.Context, r Root) error {
	err := os.Remove(r.path("/etc/nsswitch.conf"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// identified runs steps while the root has a machine ID, which systemd-tmpfiles wants
// for the names of some directories. Nothing else gets to see it: what a stage makes
// must not have it inside. One that is there already stays.
func identified(steps ...step) step {
	return func(ctx context.Context, r Root) (err error) {
		p := r.path("/etc/machine-id")
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			if err := writeFile(p, "ffffffffffffffffffffffffffffffff\n", 0o444); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.Remove(p)) }()
		}
		for _, s := range steps {
			if err := s(ctx, r); err != nil {
				return err
			}
		}
		return nil
	}
}

// cryptoPolicies links the default policies, which OpenSSL, GnuTLS, NSS, krb5 and rpm's
// Sequoia read from /etc. The package has them by the names of /etc in back-ends/, and
// older releases by their own names only.
func cryptoPolicies(_ context.Context, r Root) error {
	for _, src := range []string{"/usr/share/crypto-policies/back-ends/DEFAULT", "/usr/share/crypto-policies/DEFAULT"} {
		ents, err := os.ReadDir(r.path(src))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range ents {
			ext := filepath.Ext(e.Name())
			if ext != ".config" && ext != ".txt" {
				continue
			}
			at := "/etc/crypto-policies/back-ends/" + strings.TrimSuffix(e.Name(), ext) + ".config"
			if err := symlink(filepath.Join(src, e.Name()), r.path(at)); err != nil {
				return err
			}
		}
	}
	return nil
}

// platformPython makes python3 the one that RHEL 8 ships for its own tools, which
// only an alternatives link in /etc leads to.
func platformPython(_ context.Context, r Root) error {
	if _, err := os.Lstat(r.path("/etc/alternatives/python3")); err == nil {
		return nil
	}
	for _, p := range []string{"/usr/bin/python3.6", "/usr/libexec/platform-python"} {
		if _, err := os.Stat(r.path(p)); err == nil {
			return symlink(p, r.path("/etc/alternatives/python3"))
		}
	}
	return nil
}

// osRelease writes what RHEL 8.1 has in /etc only, where its package makes it.
func osRelease(_ context.Context, r Root) error {
	for _, p := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if _, err := os.Stat(r.path(p)); err == nil {
			return nil
		}
	}
	return writeFile(r.path("/etc/os-release"), `NAME="Red Hat Enterprise Linux"
ID="rhel"
ID_LIKE="fedora"
VERSION="8.1 (Ootpa)"
VERSION_ID="8.1"
PLATFORM_ID="platform:el8"
PRETTY_NAME="Red Hat Enterprise Linux 8.1 (Ootpa)"
CPE_NAME="cpe:/o:redhat:enterprise_linux:8.1:GA"
`, 0o644)
}

// program finds the first of these programs that the root has, "" if none.
func (r Root) program(names ...string) string {
	for _, name := range names {
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			if st, err := os.Stat(r.path(dir + "/" + name)); err == nil && st.Mode()&0o111 != 0 {
				return dir + "/" + name
			}
		}
	}
	return ""
}

// run starts a program of the root. One that the tree does not have ("") is not
// needed, nor is a script whose interpreter it does not have.
func run(ctx context.Context, r Root, failureOK bool, path string, args ...string) error {
	if path == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_CTYPE=C.UTF-8", "SYSTEMD_LOG_LEVEL=err"}
	cmd.Dir = "/"
	if r.Dir != "/" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.Dir}
	}
	cmd.Stdout, cmd.Stderr = r.Log, r.Log
	err := cmd.Run()
	if errors.Is(err, fs.ErrNotExist) && isScript(r.path(path)) {
		return nil
	}
	var ee *exec.ExitError
	if failureOK && errors.As(err, &ee) && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

func isScript(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	var mark [2]byte
	_, err = io.ReadFull(f, mark[:])
	return err == nil && string(mark[:]) == "#!"
}

func writeFile(p, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(p, mode)
}

func symlink(to, p string) error {
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	err := os.Symlink(to, p)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
