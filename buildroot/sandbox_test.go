// What a stage is kept from, and what it finds, in each of the sandboxes.
package buildroot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestNamespaces(t *testing.T) { eachSandbox(t, testNamespaces) }

func testNamespaces(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	const script = "for n in mnt pid ipc uts net cgroup user; do echo $n $(readlink /proc/self/ns/$n); done"
	host, err := exec.Command("/bin/sh", "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	inside, _ := sh(t, b, script)
	of := func(text string) map[string]string {
		m := map[string]string{}
		for line := range strings.Lines(text) {
			name, ns, _ := strings.Cut(strings.TrimSpace(line), " ")
			m[name] = ns
		}
		return m
	}
	h, one := of(string(host)), of(inside)
	for _, n := range []string{"mnt", "pid", "ipc", "uts", "net", "cgroup"} {
		if one[n] == "" || one[n] == h[n] {
			t.Errorf("%s: %q inside, %q on the host", n, one[n], h[n])
		}
	}
	if one["user"] != h["user"] {
		t.Errorf("the users are not the host's: %s", one["user"])
	}
	// Stages that run at once are apart too; the network has nothing in it.
	shared := t.TempDir()
	var out [2]string
	done := make(chan error, 2)
	for i := range out {
		go func() {
			_, err := b.Run(context.Background(), Job{
				Argv:   []string{"/bin/sh", "-c", fmt.Sprintf("touch /run/osbuild/x/%d; while ! test -e /run/osbuild/x/%d; do sleep 0.01; done; %s", i, 1-i, script)},
				Mounts: []Mount{{Path: shared, Target: "/run/osbuild/x"}}, Line: func(s string) { out[i] += s + "\n" }, Limit: time.Minute,
			})
			done <- err
		}()
	}
	for range out {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	one, two := of(out[0]), of(out[1])
	for _, n := range []string{"mnt", "pid", "ipc", "uts"} {
		if one[n] == "" || one[n] == two[n] {
			t.Errorf("two stages share %s: %q", n, one[n])
		}
	}
}

func TestNetwork(t *testing.T) { eachSandbox(t, testNetwork) }

func testNetwork(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	for _, c := range []struct{ name, script, want string }{
		{"devices", "sed 1,2d /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo"},
		{"devices in sysfs", "ls /sys/class/net", "lo"},
		{"the loop is up", "cat /sys/class/net/lo/flags", "0x9"},
		{"it has addresses", "grep -c 127.0.0.1 /proc/net/fib_trie | sed 's/[1-9][0-9]*/some/'; cut -d' ' -f1 /proc/net/if_inet6", "some\n00000000000000000000000000000001"},
		{"it works", "bash -c ': > /dev/tcp/127.0.0.1/9' 2>&1 | grep -o 'Connection refused' | head -n 1", "Connection refused"},
		{"no route", "sed 1d /proc/net/route", ""},
		{"no way out", "bash -c ': > /dev/tcp/192.0.2.1/80' 2>&1 | grep -o 'Network is unreachable' | head -n 1", "Network is unreachable"},
		{"no host's sockets", "sed 1d /proc/net/unix | grep -c '[@/]'", "0"},
	} {
		if out, _ := sh(t, b, c.script); out != c.want {
			t.Errorf("%s: %q, want %q", c.name, out, c.want)
		}
	}
}

// capabilityBits are those that the tests speak of.
var capabilityBits = map[string]uint{
	"AUDIT_WRITE": unix.CAP_AUDIT_WRITE, "CHOWN": unix.CAP_CHOWN, "DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
	"FOWNER": unix.CAP_FOWNER, "FSETID": unix.CAP_FSETID, "IPC_LOCK": unix.CAP_IPC_LOCK, "LINUX_IMMUTABLE": unix.CAP_LINUX_IMMUTABLE,
	"MAC_OVERRIDE": unix.CAP_MAC_OVERRIDE, "MKNOD": unix.CAP_MKNOD, "NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "SETFCAP": unix.CAP_SETFCAP,
	"SETGID": unix.CAP_SETGID, "SETPCAP": unix.CAP_SETPCAP, "SETUID": unix.CAP_SETUID, "SYS_ADMIN": unix.CAP_SYS_ADMIN,
	"SYS_CHROOT": unix.CAP_SYS_CHROOT, "SYS_NICE": unix.CAP_SYS_NICE, "SYS_RESOURCE": unix.CAP_SYS_RESOURCE,
	"MAC_ADMIN": unix.CAP_MAC_ADMIN, "NET_ADMIN": unix.CAP_NET_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE,
}

// status reads fields of a /proc/PID/status.
func status(text string, fields ...string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, _ := strings.Cut(line, ":"); slices.Contains(fields, k) {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out
}

func TestPrivileges(t *testing.T) { eachSandbox(t, testPrivileges) }

func testPrivileges(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	self, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	bounding, err := strconv.ParseUint(status(string(self), "CapBnd")["CapBnd"], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		more     []string
		newPrivs bool
	}{{}, {more: []string{"MAC_ADMIN"}}, {more: []string{"MAC_ADMIN", "NET_ADMIN", "SYS_PTRACE"}, newPrivs: true}, {newPrivs: true}} {
		var text string
		if _, err := b.Run(context.Background(), Job{
			Argv: []string{"/bin/cat", "/proc/self/status"}, Caps: c.more, NewPrivs: c.newPrivs, Line: func(s string) { text += s + "\n" },
		}); err != nil {
			t.Fatal(err)
		}
		var want uint64
		for _, name := range slices.Concat(BaseCapabilities, c.more) {
			bit, ok := capabilityBits[name]
			if !ok {
				t.Fatalf("the test does not know %s", name)
			}
			want |= 1 << bit
		}
		set := fmt.Sprintf("%016x", want&bounding)
		noNew := "1"
		if c.newPrivs {
			noNew = "0"
		}
		got := status(text, "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Groups")
		none := strings.Repeat("0", 16)
		if diff := cmp.Diff(map[string]string{
			"CapInh": none, "CapPrm": set, "CapEff": set, "CapBnd": set, "CapAmb": none,
			"NoNewPrivs": noNew, "Seccomp": "2", "Uid": "0\t0\t0\t0", "Groups": "",
		}, got); diff != "" {
			t.Errorf("with %v (-want +got):\n%s", c.more, diff)
		}
	}
}

// What the container has, and so what a stage can be given, is the same in both.
func TestContainerPrivileges(t *testing.T) {
	got := map[string]map[string]string{}
	eachSandbox(t, func(t *testing.T, sandbox string) {
		_, b := openHost(t, sandbox)
		for _, p := range processes(b) {
			pid, comm, _ := strings.Cut(p, " ")
			// What can be inherited is none or all: a stage has none in both.
			text, err := os.ReadFile("/proc/" + pid + "/status")
			if err != nil || !strings.HasPrefix("osbuild-star-agent", comm) {
				continue
			}
			st := status(string(text), "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp", "NoNewPrivs")
			if st["NoNewPrivs"] == "1" {
				continue // a worker that is on its way, under its parent's name
			}
			if old := got[sandbox]; old != nil {
				if diff := cmp.Diff(old, st); diff != "" {
					t.Errorf("two processes of the container differ:\n%s", diff)
				}
			}
			got[sandbox] = st
		}
		if len(got[sandbox]) != 6 {
			t.Errorf("no agent was found: %v", got[sandbox])
		}
	})
	if len(got) == 2 {
		if diff := cmp.Diff(got[SandboxNspawn], got[SandboxNative]); diff != "" {
			t.Errorf("(-nspawn +native):\n%s", diff)
		}
	}
}

func TestKernelFiles(t *testing.T) { eachSandbox(t, testKernelFiles) }

// /proc and /sys: the build's own processes, and of the machine only what is read.
func testKernelFiles(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	for _, c := range []struct{ name, script, want string }{
		{"the command line", "cat /proc/cmdline", "root=/dev/osbuild"},
		{"settings", "for f in /proc/sys/kernel/printk /proc/sys/vm/swappiness /proc/irq/default_smp_affinity; do test -e $f || echo $f is not there; test -w $f && echo $f; done; test -w /proc/sysrq-trigger && echo sysrq", ""},
		{"what is mounted read-only", "for d in /proc/sys /proc/irq /proc/bus /sys /sys/kernel /usr; do grep \" $d ro,\" /proc/self/mountinfo | cut -d' ' -f5 | sort -u; done | tr '\\n' ' '", "/proc/sys /proc/irq /proc/bus /sys /sys/kernel /usr "},
		{"the host's processes", "test -d /proc/1 && set -- /proc/[0-9]* && echo $#", "2"},
		{"/sys cannot be written", "find /sys -xdev -writable; for d in /sys/block /sys/bus /sys/class /sys/devices /sys/kernel; do test -d $d || echo no $d; test -w $d && echo $d; done; test -w /sys/kernel/mm/transparent_hugepage/enabled && echo huge", ""},
		{"what sysfs hides", "ls /sys/firmware /sys/fs/selinux /sys/kernel/debug /sys/kernel/tracing /sys/kernel/security 2>/dev/null | grep -v :$ | tr -d '\\n'", ""},
		{"the host's root", "cut -d' ' -f5 /proc/self/mountinfo | grep -cx /", "1"},
		{"memory of the machine", "ls /dev/mem /dev/kmem /dev/port /dev/kmsg /dev/fuse /dev/kvm 2>/dev/null", ""},
		{"kernel log", "dmesg >/dev/null 2>&1 || echo refused", "refused"},
	} {
		if out, _ := sh(t, b, c.script); out != c.want {
			t.Errorf("%s: %q, want %q", c.name, out, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) { eachSandbox(t, testEnvironment) }

func testEnvironment(t *testing.T, sandbox string) {
	t.Setenv("SOURCE_DATE_EPOCH", "99") // the caller's is nothing to a stage
	t.Setenv("LD_PRELOAD_NOT", "x")
	_, b := openHost(t, sandbox)
	base := []string{
		"LC_CTYPE=C.UTF-8", "PATH=/usr/sbin:/usr/bin", "PYTHONPATH=/run/osbuild/lib", "PYTHONUNBUFFERED=1", "TERM=dumb", "container=systemd-nspawn",
	}
	epoch := int64(1700000000)
	for _, c := range []struct {
		job  Job
		more []string
	}{
		{job: Job{}},
		{job: Job{Epoch: &epoch}, more: []string{"SOURCE_DATE_EPOCH=1700000000"}},
		{job: Job{Env: []string{"A=b c"}}, more: []string{"A=b c"}},
	} {
		var got []string
		c.job.Argv = []string{"/usr/bin/env"}
		c.job.Line = func(s string) { got = append(got, s) }
		if _, err := b.Run(context.Background(), c.job); err != nil {
			t.Fatal(err)
		}
		want := append(slices.Clone(base), c.more...)
		sort.Strings(want)
		sort.Strings(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	out, _ := sh(t, b, "readlink /proc/self/fd/0; cd /proc/self/fd; echo *; : 3 is the folder; pwd -P | sed 's/[0-9]\\+/N/'; umask; cd /; trap; ps -o tty= -p $$; cat /proc/sys/kernel/hostname")
	if want := "/dev/null\n0 1 2 3\n/proc/N/fd\n0022\n?\nosbuild"; out != want {
		t.Errorf("files and terminal: %q, want %q", out, want)
	}
}

// A stage cannot tell the sandboxes apart by what it is likely to look at.
func TestSameInside(t *testing.T) {
	got := map[string]map[string]string{}
	eachSandbox(t, func(t *testing.T, sandbox string) {
		// What the caller has is not what a stage has.
		var old unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(4000, old.Max), Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
		_, b := openHost(t, sandbox)
		m := map[string]string{}
		for name, script := range map[string]string{
			"limits":  "cat /proc/self/limits",
			"root":    "cd /; for f in *; do stat -c '%n %F %a %u:%g' $f; done",
			"nodes":   "cd /dev; find . -path ./net -prune -o -path './char/10:200' -prune -o -printf '%p %y %m %U:%G %l\\n' | sort; stat -c '%n %t:%T' null zero full random urandom tty pts/ptmx",
			"sysfs":   "cd /sys; ls -l . fs | sed 's/^\\([^ ]*\\) .* /\\1 /'",
			"system":  "hostname; domainname; uname -sm; id; umask; cat /proc/self/oom_score_adj /proc/self/personality /proc/self/coredump_filter",
			"signals": "grep -E '^Sig(Ign|Blk|Cgt)' /proc/self/status",
			"mounts":  "for d in / /usr /dev /dev/pts /dev/shm /dev/mqueue /proc /sys /tmp /run /etc /var; do echo $d $(stat -f -c %T $d); done",
		} {
			out, _ := sh(t, b, script)
			m[name] = out
			if len(out) < 30 {
				t.Errorf("%s: %q", name, out)
			}
		}
		got[sandbox] = m
	})
	if len(got) == 2 {
		if diff := cmp.Diff(got[SandboxNspawn], got[SandboxNative]); diff != "" {
			t.Errorf("(-nspawn +native):\n%s", diff)
		}
	}
}

func TestDaemonsAreEnded(t *testing.T) { eachSandbox(t, testDaemonsAreEnded) }

// A daemon: forked twice, in a session of its own, deaf to signals, holding no file.
const daemon = `(setsid sh -c '(trap "" HUP INT TERM QUIT; exec </dev/null >/dev/null 2>&1; exec sleep 1000) &' &); sleep 0.2; `

func testDaemonsAreEnded(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	running := func() (n int) {
		for _, p := range processes(b) {
			if strings.HasSuffix(p, " sleep") {
				n++
			}
		}
		return n
	}
	seen := 0
	for name, c := range map[string]struct {
		end   string
		limit time.Duration
		fails bool
	}{
		"it ends":         {end: "echo up; sleep 0.3", limit: time.Minute},
		"it takes long":   {end: "echo up; sleep 1000", limit: time.Second, fails: true},
		"it kills itself": {end: "echo up; sleep 0.3; kill -9 $$", limit: time.Minute},
	} {
		_, err := b.Run(context.Background(), Job{Argv: []string{"/bin/sh", "-c", daemon + c.end}, Limit: c.limit, Line: func(string) { seen = running() }})
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		if seen == 0 {
			t.Errorf("%s: the daemon was not seen", name)
		}
		if n := running(); n != 0 {
			t.Errorf("%s: %d daemons live on", name, n)
		}
		if left := strays(b); len(left) > 0 {
			t.Errorf("%s: processes are left: %v", name, left)
		}
	}
}

// keep starts a build root while a key is in the session keyring of this process, one
// that only who possesses it sees, and prints what is seen of it here and inside.
func keep() {
	err := func() error {
		if len(os.Args) == 4 { // a keyring is a thread's: the program that it becomes has it
			runtime.LockOSThread()
			if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
				return fmt.Errorf("joining a keyring: %w", err)
			}
			id, err := unix.AddKey("user", "osbuild-star-secret", []byte("s"), unix.KEY_SPEC_SESSION_KEYRING)
			if err != nil {
				return fmt.Errorf("adding a key: %w", err)
			}
			if err := unix.KeyctlSetperm(id, 0x3f000000); err != nil {
				return fmt.Errorf("hiding a key: %w", err)
			}
			return unix.Exec("/proc/self/exe", append(os.Args, "again"), os.Environ())
		}
		own, err := os.ReadFile("/proc/keys")
		if err != nil {
			return err
		}
		s, err := NewSpace()
		if err != nil {
			return err
		}
		defer s.Close()
		b, err := Open(context.Background(), Config{Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: os.Args[1], Var: os.Args[2], Sandbox: os.Args[3]})
		if err != nil {
			return err
		}
		defer b.Close()
		var inside string
		_, err = b.Run(context.Background(), Job{Argv: []string{"/bin/cat", "/proc/keys"}, Line: func(s string) { inside += s + "\n" }})
		fmt.Println(strings.Contains(string(own), "osbuild-star-secret"), strings.Contains(inside, "osbuild-star-secret"), strings.Contains(inside, "keyring"))
		return err
	}()
	if err != nil {
		fmt.Println("error:", err)
	}
}

func TestKeys(t *testing.T) { eachSandbox(t, testKeys) }

func testKeys(t *testing.T, sandbox string) {
	out, err := exec.Command(as(t, filepath.Join(t.TempDir(), "keeper")), t.TempDir(), t.TempDir(), sandbox).CombinedOutput()
	if err != nil || string(out) != "true false true\n" {
		t.Errorf("seen by the caller, inside, and keyrings inside: %s (%v)", out, err)
	}
}

// seat starts a build root with a terminal of its own, as a shell's child has one, and
// prints whether a stage can have it.
func seat() {
	err := func() error {
		f, err := os.Open("/dev/tty")
		if err != nil {
			return err
		}
		f.Close()
		s, err := NewSpace()
		if err != nil {
			return err
		}
		defer s.Close()
		b, err := Open(context.Background(), Config{Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: os.Args[1], Var: os.Args[2], Sandbox: os.Args[3]})
		if err != nil {
			return err
		}
		defer b.Close()
		_, err = b.Run(context.Background(), Job{
			Argv: []string{"/bin/sh", "-c", "(: < /dev/tty) 2>/dev/null && echo a terminal || echo none"},
			Line: func(s string) { fmt.Fprintln(os.Stderr, s) },
		})
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
}

func TestNoTerminal(t *testing.T) { eachSandbox(t, testNoTerminal) }

func testNoTerminal(t *testing.T, sandbox string) {
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	fd := int(ptmx.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	var out strings.Builder
	cmd := exec.Command(as(t, filepath.Join(t.TempDir(), "sitter")), t.TempDir(), t.TempDir(), sandbox)
	cmd.Stdin, cmd.Stderr = tty, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Run(); err != nil || out.String() != "none\n" {
		t.Errorf("%s (%v)", out.String(), err)
	}
}

func TestWhichSandbox(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "systemd-nspawn"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want, err, hint string }{
		{"", bin, "nspawn", "", ""},
		{"auto", bin, "nspawn", "", ""},
		{"nspawn", bin, "nspawn", "", ""},
		{"native", bin, "native", "", ""},
		{"", "/nowhere", "native", "", ""},
		{"auto", "/nowhere", "native", "", ""},
		{"native", "/nowhere", "native", "", ""},
		{"nspawn", "/nowhere", "", "systemd-nspawn is not installed", "install systemd-container, or do without it: --sandbox=native"},
		{"jail", bin, "", `there is no sandbox "jail"`, "choose one of auto, nspawn, native"},
	} {
		t.Setenv("PATH", c.path)
		got, err := Sandbox(c.name)
		var se *SandboxError
		if errors.As(err, &se) {
			if se.Msg != c.err || se.Hint != c.hint {
				t.Errorf("%q with %s: error %q, hint %q", c.name, c.path, se.Msg, se.Hint)
			}
		} else if err != nil || c.err != "" {
			t.Errorf("%q with %s: error %v, want %q", c.name, c.path, err, c.err)
		}
		if got != c.want {
			t.Errorf("%q with %s: %q, want %q", c.name, c.path, got, c.want)
		}
	}
}
