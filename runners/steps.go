// The steps that runners are made of. Each makes one thing work, and does nothing
// where the tree has nothing for it.
package runners

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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

// ldconfig makes the linker's cache, for libraries outside its built-in paths.
func ldconfig(ctx context.Context, r Root) error {
	return run(ctx, r, false, "ldconfig")
}

// sysusers makes the accounts that packages of the tree declare. The program can
// fail over one entry and do the rest; upstream goes on as well.
func sysusers(ctx context.Context, r Root) error {
	return run(ctx, r, true, "systemd-sysusers")
}

// tmpfiles makes the directories that packages of the tree declare. Its exit
// status tells of single entries, and is not an error here (as upstream).
func tmpfiles(ctx context.Context, r Root) error {
	return run(ctx, r, true, "systemd-tmpfiles", "--create", "--exclude-prefix=/dev", "--exclude-prefix=/proc", "--exclude-prefix=/sys", "--exclude-prefix=/run/osbuild")
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

// machineID gives systemd's tools an ID while they run.
func machineID(_ context.Context, r Root) error {
	return writeFile(r.path("/etc/machine-id"), "ffffffffffffffffffffffffffffffff\n", 0o444)
}

func dropMachineID(_ context.Context, r Root) error {
	return os.Remove(r.path("/etc/machine-id"))
}

// cryptoPolicies links the default policies, which OpenSSL and GnuTLS read from
// /etc.
func cryptoPolicies(_ context.Context, r Root) error {
	src := "/usr/share/crypto-policies/back-ends/DEFAULT"
	ents, err := os.ReadDir(r.path(src))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dir := r.path("/etc/crypto-policies/back-ends")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, e := range ents {
		if filepath.Ext(e.Name()) != ".txt" {
			continue
		}
		name := e.Name()[:len(e.Name())-len(".txt")] + ".config"
		if err := symlink(filepath.Join(src, e.Name()), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// platformPython makes python3 the one that RHEL 8 ships for its own tools, which
// only an alternatives link in /etc leads to.
func platformPython(_ context.Context, r Root) error {
	for _, p := range []string{"/usr/bin/python3.6", "/usr/libexec/platform-python"} {
		if _, err := os.Stat(r.path(p)); err == nil {
			return symlink(p, r.path("/etc/alternatives/python3"))
		}
	}
	return nil
}

// run starts a program of the root. One that the tree does not have is not needed.
func run(ctx context.Context, r Root, failureOK bool, name string, args ...string) error {
	var path string
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if st, err := os.Stat(r.path(dir + "/" + name)); err == nil && st.Mode()&0o111 != 0 {
			path = dir + "/" + name
			break
		}
	}
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
	var ee *exec.ExitError
	if failureOK && errors.As(err, &ee) && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
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
