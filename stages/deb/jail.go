// Running programs of the tree: chrooted, in a mount namespace of their own.
package deb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A jail starts programs of a tree with the tree as their root. Each program gets a
// mount namespace that goes away with it, so nothing that is mounted for it can be
// left behind, nor be seen in the tree by anybody else: /proc, /sys and /dev of the
// build root, an empty /run and /tmp, and covers over programs of the tree that
// must do nothing now. Processes that it starts do not outlive it.
type Jail struct {
	Tree   string
	Env    []string          // of the programs
	Covers map[string]string // path in the tree → file outside that is seen there, if there is one
	Native *natives          // programs seen in place of the tree's; or nil
	Binds  map[string]string // name in /tmp of the tree → directory outside, seen there read-only
	Stdin  io.Reader         // or nil
	Output io.Writer         // standard output and error
}

// Run runs a program of the tree, by its absolute path in it, and waits for it.
func (j *Jail) Run(ctx context.Context, argv ...string) error {
	done := make(chan error)
	go onThread(func() { done <- j.run(ctx, argv) })
	return <-done
}

// onThread calls f on a thread that nothing else will ever run on: it ends with f. It
// is never the first thread of the process, which cannot end, and whose mounts
// /proc/self shows as those of the process.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan bool)
	go func() {
		defer close(done)
		onThread(f)
	}()
	<-done
}

func (j *Jail) run(ctx context.Context, argv []string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := j.mount(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = j.Env, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = j.Stdin, j.Output, j.Output
	// It is the first process of a namespace: whatever it leaves running in the
	// background ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: j.Tree, Cloneflags: unix.CLONE_NEWPID}
	return cmd.Run()
}

func (j *Jail) mount() error {
	t, err := openTree(j.Tree)
	if err != nil {
		return err
	}
	defer t.close()
	// within finds something in the tree, through links as the tree has them. What
	// the tree has not got is not needed either.
	within := func(p string) (string, bool) {
		parent, name := split(p)
		d, err := t.lookup(parent, false)
		if err != nil {
			return "", false
		}
		at, err := t.follow(place{d, name})
		full := filepath.Join(j.Tree, at.path())
		st, err2 := os.Lstat(full)
		return full, err == nil && err2 == nil && st.Mode()&os.ModeSymlink == 0
	}
	for _, p := range []string{"/proc", "/sys", "/dev"} {
		if full, ok := within(p); ok {
			if err := unix.Mount(p, full, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				return fmt.Errorf("binding %s into the tree: %w", p, err)
			}
		}
	}
	for p, src := range j.Covers {
		if full, ok := within(p); ok {
			if err := bindReadOnly(src, full); err != nil {
				return fmt.Errorf("covering %s: %w", p, err)
			}
		}
	}
	if run, ok := within("/run"); ok {
		if err := unix.Mount("tmpfs", run, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mounting a tmpfs on /run of the tree: %w", err)
		}
		lock := filepath.Join(run, "lock")
		if err := errors.Join(os.Mkdir(lock, 0o755), os.Chmod(lock, 0o777|os.ModeSticky)); err != nil {
			return err
		}
		if j.Native != nil {
			if err := j.Native.mount(run, within); err != nil {
				return err
			}
		}
	}
	tmp, ok := within("/tmp")
	if !ok {
		if len(j.Binds) > 0 {
			return errors.New("the tree has no /tmp")
		}
		return nil
	}
	if err := unix.Mount("tmpfs", tmp, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mounting a tmpfs on /tmp of the tree: %w", err)
	}
	for name, src := range j.Binds {
		full := filepath.Join(tmp, name)
		if err := os.Mkdir(full, 0o755); err != nil {
			return err
		}
		if err := bindReadOnly(src, full); err != nil {
			return fmt.Errorf("binding %s to /tmp/%s of the tree: %w", src, name, err)
		}
	}
	return nil
}

func bindReadOnly(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// ScriptEnv is the environment that programs of a tree get while packages are
// installed into it.
func ScriptEnv(epoch *int64) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8", "LANG=C.UTF-8", "SHELL=/bin/sh",
		"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true", "DEBCONF_NOWARNINGS=yes",
		"SYSTEMD_OFFLINE=1", "PYTHONDONTWRITEBYTECODE=1",
	}
	if epoch != nil {
		env = append(env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", *epoch))
	}
	return env
}

// A Tail keeps the last lines of what is written to it, for error messages, and hands
// everything on.
type Tail struct {
	To    io.Writer // or nil
	lines []string
	part  string
}

const tailLines = 200

func (t *Tail) Write(p []byte) (int, error) {
	text := t.part + string(p)
	for {
		line, rest, ok := strings.Cut(text, "\n")
		if !ok {
			break
		}
		t.lines, text = append(t.lines, line), rest
	}
	t.part = text[max(0, len(text)-4096):]
	if n := len(t.lines); n > 2*tailLines {
		t.lines = append([]string(nil), t.lines[n-tailLines:]...)
	}
	if t.To != nil {
		if _, err := t.To.Write(p); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Last returns up to n of the last lines.
func (t *Tail) Last(n int) []string {
	lines := t.lines
	if strings.TrimSpace(t.part) != "" {
		lines = append(lines[:len(lines):len(lines)], t.part)
	}
	return lines[max(0, len(lines)-n):]
}
