// Tests of Test, Interactive, and the choice between KVM and TCG, on machines.

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func TestTest(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var lines, progress []string
	stream := monitor.New(monitor.ReaderFunc(func(e monitor.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch e.Kind {
		case monitor.Output:
			lines = append(lines, e.Text)
		case monitor.Progress:
			progress = append(progress, e.Text)
		}
	}))
	degraded := guestConfig(t, "login")
	degraded.Append += " state=degraded"
	for _, test := range []struct {
		name string
		spec TestSpec
		err  string // part of the error; "" = passes
	}{
		{"prompt only", TestSpec{Config: guestConfig(t, "login")}, ""},
		{"all", TestSpec{Config: guestConfig(t, "login"), Login: "root", Password: "secret", WaitRunning: true, Commands: []string{"echo one", "cat /proc/cmdline"}}, ""},
		{"a command fails", TestSpec{Config: guestConfig(t, "login"), Login: "user", Password: "secret", Commands: []string{"true", "echo why; exit 3", "echo not run"}}, `"echo why; exit 3" ended with status 3`},
		{"degraded", TestSpec{Config: degraded, Login: "root", Password: "secret", WaitRunning: true}, "degraded: failed broken.service"},
		{"does not boot", TestSpec{Config: guestConfig(t, "panic"), Login: "root"}, "the kernel panicked"},
		{"nobody to run it", TestSpec{Config: guestConfig(t, "login"), Commands: []string{"true"}}, "logged in"},
		{"timeout", TestSpec{Config: guestConfig(t, "silent"), Timeout: 4 * time.Second}, "too long (waiting for a login prompt)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.spec.Timeout == 0 {
				test.spec.Timeout = long
			}
			span := stream.Start(nil, monitor.Event{Category: monitor.CatTest, Name: test.name})
			r := Test(t.Context(), test.spec, span)
			span.End(r.Err)
			if r.Passed != (test.err == "") || !r.Passed && !strings.Contains(r.Err.Error(), test.err) {
				t.Fatalf("%v, want %q\n%s", r.Err, test.err, r.Console)
			}
			switch test.name {
			case "all":
				if len(r.Commands) != 2 || r.Commands[0].Output != "one\n" || !strings.Contains(r.Commands[1].Output, "guest=login") {
					t.Errorf("commands: %+v", r.Commands)
				}
				if r.Boot <= 0 || r.Running < r.Boot || r.Total < r.Running || r.Accel != "tcg" {
					t.Errorf("times: %+v", r)
				}
			case "a command fails":
				if len(r.Commands) != 2 || r.Commands[1].Output != "why\n" || !r.IsFailure() {
					t.Errorf("commands: %+v", r.Commands)
				}
			case "degraded":
				var c *CheckError
				if !errors.As(r.Err, &c) || !strings.Contains(c.Output, "it broke") {
					t.Errorf("what the unit said: %+v", r.Err)
				}
			case "does not boot":
				if !strings.Contains(r.Console, "the last words of init") {
					t.Errorf("console: %s", r.Console)
				}
			case "nobody to run it":
				if r.IsFailure() {
					t.Error("a mistake in the spec counts as a failure of the image")
				}
			}
		})
	}
	mu.Lock()
	defer mu.Unlock()
	all := strings.Join(lines, "\n")
	if !strings.Contains(all, "Linux version") || strings.ContainsAny(all, "\x1b\r") || len(progress) == 0 {
		t.Errorf("%d lines, %d progress events", len(lines), len(progress))
	}
}

// pty is a terminal for Interactive, and what is seen on it.
type pty struct {
	master, slave *os.File
	mu            sync.Mutex
	seen          bytes.Buffer
	done          chan struct{}
}

func newPty(t *testing.T) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("missing: a pseudo terminal: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("missing: a pseudo terminal: %v", err)
	}
	p := &pty{master: master, slave: slave, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(int(master.Fd()), buf)
			if err != nil || n == 0 {
				return
			}
			p.mu.Lock()
			p.seen.Write(buf[:n])
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		slave.Close()
		<-p.done
		master.Close()
	})
	return p
}

func (p *pty) expect(t *testing.T, ctx context.Context, s string) {
	t.Helper()
	for {
		p.mu.Lock()
		text := p.seen.String()
		p.mu.Unlock()
		if strings.Contains(text, s) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%q is not seen; the terminal shows %q", s, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestInteractive(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		end  func(p *pty, cancel func())
		err  error
	}{
		{"Ctrl-A x", func(p *pty, _ func()) { p.master.WriteString("\x01x") }, nil},
		{"power button", func(p *pty, _ func()) { p.master.WriteString("\x01p") }, nil},
		{"guest powers off", func(p *pty, _ func()) { p.master.WriteString("poweroff -f\r") }, nil},
		{"context", func(_ *pty, cancel func()) { cancel() }, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := guestConfig(t, "login")
			ctx, cancel := context.WithCancel(within(t, long))
			defer cancel()
			p := newPty(t)
			fd := int(p.slave.Fd())
			before, err := term.GetState(fd)
			if err != nil {
				t.Fatal(err)
			}
			result := make(chan error, 1)
			go func() { result <- Interactive(ctx, c, p.slave, p.slave) }()
			p.expect(t, ctx, "guest login: ")
			p.master.WriteString("root\r")
			p.expect(t, ctx, "Password: ")
			p.master.WriteString("secret\r")
			p.expect(t, ctx, "root@guest")
			p.master.WriteString("\x01hecho a$((6*7))b\r")
			p.expect(t, ctx, "press its power button")
			p.expect(t, ctx, "a42b")
			test.end(p, cancel)
			select {
			case err := <-result:
				if !errors.Is(err, test.err) {
					t.Errorf("%v, want %v", err, test.err)
				}
			case <-within(t, long).Done():
				t.Fatal("it does not end")
			}
			after, err := term.GetState(fd)
			if err != nil || *after != *before {
				t.Errorf("the terminal is not as it was: %v", err)
			}
		})
	}
}

// Not on a terminal: input from a pipe whose end is not the machine's.
func TestInteractivePiped(t *testing.T) {
	t.Parallel()
	c := guestConfig(t, "auto")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var out writerFunc
	var seen strings.Builder
	typed := false
	out = func(p []byte) {
		seen.Write(p)
		if !typed && strings.Contains(seen.String(), "root@guest") {
			typed = true
			w.WriteString("echo a$((6*7))b; poweroff -f\n")
			w.Close()
		}
	}
	if err := Interactive(within(t, long), c, r, out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(seen.String(), "a42b") {
		t.Errorf("the guest said %q", seen.String())
	}
}

// writerFunc makes a Writer of a function.
type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// KVM that opens and does nothing, or makes QEMU give up, is not used, and is not
// tried again before the next boot.
func TestKVMFallback(t *testing.T) {
	real, err := exec.LookPath("qemu-system-x86_64")
	c := guestConfig(t, "login")
	if err != nil {
		t.Skip(err)
	}
	c.Accel = "auto"
	t.Setenv(AccelEnv, "")
	defer func(p time.Duration, d, b string) {
		kvmPatience, kvmDevice, bootIDFile = p, d, b
		kvmBroken.yes = false
	}(kvmPatience, kvmDevice, bootIDFile)
	const firmware = `n=$#
while [ $n -gt 0 ]; do
	a=$1; shift; n=$((n-1))
	case "$a" in
	*accel=kvm*) a=${a%%accel=kvm*}accel=tcg${a##*accel=kvm};;
	host) a=max;;
	-kernel|-initrd|-append) shift; n=$((n-1)); continue;;
	esac
	set -- "$@" "$a"
done
exec `
	for _, test := range []struct{ name, kvm string }{
		{"silent", "exec sleep 1000"},
		{"runs a firmware only", firmware + real + ` "$@"`},
		{"gives up", "echo cannot >&2; exit 1"},
		{"is silent with a monitor", fmt.Sprintf("exec %s -S $(echo \"$*\" | tr ' ' '\\n' | sed 's/accel=kvm/accel=tcg/; s/^host$/max/')", real)},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			boot, log := filepath.Join(dir, "boot-id"), filepath.Join(dir, "log")
			script := "#!/bin/sh\ncase \"$*\" in *accel=kvm*) echo kvm >>" + log + "; " + test.kvm + ";; esac\necho tcg >>" + log + "\nexec " + real + " \"$@\"\n"
			for name, text := range map[string]string{"boot-id": "first\n", "kvm": "", "qemu-system-x86_64": script} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
			kvmDevice, bootIDFile, kvmPatience = filepath.Join(dir, "kvm"), boot, time.Second
			tries := func() string {
				c := c
				if test.name == "is silent with a monitor" {
					c.Append = "x" // no blanks: see the script
				}
				c.unattended = test.name == "runs a firmware only"
				m, err := Start(within(t, long), c)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				if !m.progresses(long) || m.Accel() != "tcg" {
					t.Fatalf("it does not run under TCG: %s", m.Accel())
				}
				data, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				os.Remove(log)
				return strings.Join(strings.Fields(string(data)), " ")
			}
			kvmBroken.yes = false
			for _, step := range []struct {
				boot, want string
			}{{"first", "kvm tcg"}, {"first", "tcg"}, {"second", "kvm tcg"}} {
				kvmBroken.Lock()
				kvmBroken.yes = false // as a new process
				kvmBroken.Unlock()
				os.WriteFile(boot, []byte(step.boot), 0o644)
				if got := tries(); got != step.want {
					t.Errorf("after boot %s: %s, want %s", step.boot, got, step.want)
				}
			}
		})
	}
}
