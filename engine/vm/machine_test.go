// Tests on real machines: what a console session does, how machines fail, and
// that nothing is left of them.

package vm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const long = 4 * time.Minute

// alive tells if a process exists and is no zombie.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("QEMU (%d) is still there", pid)
		}
	}
}

func start(t *testing.T, ctx context.Context, c Config) *Machine {
	t.Helper()
	m, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		gone(t, m.cmd.Process.Pid)
		if t.Failed() {
			t.Logf("the console:\n%s", m.Tail(60))
		}
	})
	return m
}

func TestSession(t *testing.T) {
	t.Parallel()
	ctx := within(t, long)
	m := start(t, ctx, guestConfig(t, "login"))
	if _, _, err := m.Run(ctx, "true"); err == nil {
		t.Error("a command ran before anybody was logged in")
	}
	if got, err := m.WaitFor(ctx, regexp.MustCompile(`Linux version (\d+)\.`)); err != nil {
		t.Fatal(err)
	} else if n, _ := strconv.Atoi(got[1]); n < 4 {
		t.Errorf("kernel version %q", got)
	}
	if err := m.WaitLogin(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Login(ctx, "root", "wrong"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a wrong password: %v", err)
	}
	if err := m.Login(ctx, "root", "secret"); err != nil {
		t.Fatal(err)
	}
	many := ""
	for i := range 300 {
		many += fmt.Sprintf("# a comment 'with \"quotes\", $dollars, %%s and \\n, number %d\n", i)
	}
	for _, test := range []struct {
		command, out string
		status       int
	}{
		{"echo hello", "hello\n", 0},
		{"printf 'no newline'", "no newline", 0},
		{"true", "", 0},
		{"printf '\\n\\n'", "\n\n", 0},
		{"exit 7", "", 7},
		{"echo out; echo err >&2; false", "out\nerr\n", 1},
		{"echo \"don't\" 'say \"that\"' \\\\ 100% `echo sub` $((6*7))", "don't say \"that\" \\ 100% sub 42\n", 0},
		{"-x 2>/dev/null", "", 127},
		{"cat; echo end of input", "end of input\n", 0},
		{"printf 'tab\\there é ü 日本'", "tab\there é ü 日本", 0},
		{"a=1\nb=2\n\nif [ $a != $b ]\nthen echo differ\nfi\n", "differ\n", 0},
		{many + "echo 'long one'", "long one\n", 0},
		{"id -u; cd /tmp; umask 077", "0\n", 0},
		{"echo '[   12.345678] looks like the kernel'; echo 'x [   12.345678] too'; echo end", "[   12.345678] looks like the kernel\nx [   12.345678] too\nend\n", 0},
		{"cat /proc/sys/kernel/printk | head -c 1", "1", 0},
	} {
		out, status, err := m.Run(ctx, test.command)
		if err != nil {
			t.Fatalf("%.60q: %v", test.command, err)
		}
		if out != test.out || status != test.status {
			t.Errorf("%.60q: %d %q, want %d %q", test.command, status, out, test.status, test.out)
		}
	}
	// Kernel messages of the one level that comes through, while much is written.
	_, _, err := m.Run(ctx, `(for i in $(seq 1 400); do echo "<0>noise: message $i of the kernel" >/dev/kmsg; usleep 3000; done) >/dev/null 2>&1 &`)
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := m.Run(ctx, "for i in $(seq 1 600); do echo line $i of the command, which is not short; done")
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for i := 1; i <= 600; i++ {
		want += fmt.Sprintf("line %d of the command, which is not short\n", i)
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("output among kernel messages (-want +got):\n%s", diff)
	}
	if !strings.Contains(m.Tail(1<<20), "noise: message ") {
		t.Error("the kernel made no noise: the test tests nothing")
	}
	for _, l := range strings.Split(m.Tail(1<<20), "\n") {
		if protocolRE.MatchString(l) || strings.Contains(l, openingWords) {
			t.Errorf("the protocol shows in the console: %q", l)
		}
	}
	// A command that does not end gives what it said, and loses the session.
	short, cancel := context.WithCancel(ctx)
	time.AfterFunc(3*time.Second, cancel)
	out, _, err = m.Run(short, "echo before; echo after; sleep 1000") // busybox's sed holds a line back
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(out, "before\n") {
		t.Errorf("a cancelled command: %q, %v", out, err)
	}
	if _, _, err := m.Run(ctx, "true"); err == nil {
		t.Error("a session with a command in it took another")
	}
	if err := m.Stop(ctx); err != nil {
		t.Error(err)
	}
	if err := m.Wait(ctx); err != nil {
		t.Error(err)
	}
	if !strings.Contains(m.Tail(10), "powering off as told") {
		t.Error("Stop did not press the power button")
	}
}

// A user who is not root cannot keep the kernel quiet.
func TestNoisySession(t *testing.T) {
	t.Parallel()
	ctx := within(t, long)
	m := start(t, ctx, guestConfig(t, "noise"))
	if err := m.Login(ctx, "user", "secret"); err != nil {
		t.Fatal(err)
	}
	out, status, err := m.Run(ctx, "id -u; seq 1 1500; exit 5")
	if err != nil {
		t.Fatal(err)
	}
	want := "1000\n"
	for i := 1; i <= 1500; i++ {
		want += fmt.Sprintln(i)
	}
	if diff := cmp.Diff(want, out); diff != "" || status != 5 {
		t.Errorf("status %d (-want +got):\n%s", status, diff)
	}
}

func TestAutomaticLoginAndPanic(t *testing.T) {
	t.Parallel()
	ctx := within(t, long)
	m := start(t, ctx, guestConfig(t, "auto"))
	if err := m.Login(ctx, "root", ""); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(strings.Repeat("y\n", 100000)))
	out, _, err := m.Run(ctx, "yes | head -c 200000 | sha256sum; yes | head -c 20000")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x  -\n", sum) + strings.Repeat("y\n", 10000); out != want {
		t.Errorf("%d bytes of output, want %d; %.80q", len(out), len(want), out)
	}
	// Text that only speaks of a panic is none; a panic is, while a command runs.
	if _, _, err := m.Run(ctx, "echo 'You are in emergency mode.'; echo 'grub> '; echo 'no Kernel panic - not syncing'"); err != nil {
		t.Error(err)
	}
	_, _, err = m.Run(ctx, "echo c >/proc/sysrq-trigger; sleep 1000")
	var f *Failure
	if !errors.As(err, &f) || f.Kind != Panic || !strings.Contains(f.Tail, "sysrq") {
		t.Errorf("a crash while a command runs: %v", err)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	disk := filepath.Join(t.TempDir(), "empty.raw")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	bios := Config{Disk: disk, Accel: "tcg", Memory: 128, CPUs: 1}
	uefi := Config{Disk: disk, Accel: "tcg", Memory: 256, CPUs: 1, Firmware: "uefi"}
	broken := guestConfig(t, "login")
	broken.Append = "console=ttyS0 init=/bin/sh rdinit=/not/there root=/dev/nothing"
	for _, test := range []struct {
		name   string
		config Config
		kind   FailureKind
		says   string
	}{
		{"init ends", guestConfig(t, "panic"), Panic, "the last words of init"},
		{"no root file system", broken, Panic, "VFS: Unable to mount root fs"},
		{"emergency", guestConfig(t, "emergency"), Emergency, "the root account is locked"},
		{"power off", guestConfig(t, "poweroff"), PoweredOff, ""},
		{"reboot", guestConfig(t, "reboot"), Rebooted, ""},
		{"empty disk, BIOS", bios, NothingBoot, "No bootable device"},
		{"empty disk, UEFI", uefi, NothingBoot, "BdsDxe"},
		{"empty disk, s390x", Config{Disk: disk, Accel: "tcg", Memory: 256, CPUs: 1, Arch: "s390x"}, NothingBoot, "Failed to load OS"},
		{"empty disk, ppc64le", Config{Disk: disk, Accel: "tcg", Memory: 512, CPUs: 1, Arch: "ppc64le"}, NothingBoot, "Not a bootable device"},
		{"empty disk, aarch64", Config{Disk: disk, Accel: "tcg", Memory: 512, CPUs: 1, Arch: "aarch64"}, NothingBoot, "BdsDxe"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if missing := Preflight(test.config); len(missing) > 0 {
				t.Skipf("missing: %+v", missing)
			}
			ctx := within(t, long)
			m := start(t, ctx, test.config)
			err := m.WaitLogin(ctx)
			var f *Failure
			if !errors.As(err, &f) || f.Kind != test.kind || !strings.Contains(f.Tail, test.says) {
				t.Fatalf("%v, want %s", err, test.kind)
			}
		})
	}
}

func TestSplitPromptAndSilence(t *testing.T) {
	t.Parallel()
	ctx := within(t, long)
	m := start(t, ctx, guestConfig(t, "split"))
	if err := m.WaitLogin(ctx); err != nil { // by a newline after a while
		t.Fatal(err)
	}
	c := guestConfig(t, "silent")
	c.Append = "quiet guest=silent" // no serial console
	m = start(t, ctx, c)
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := m.WaitLogin(short)
	var f *Failure
	if !errors.As(err, &f) || f.Kind != Silent || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	c := guestConfig(t, "login")
	ctx, cancel := context.WithCancel(within(t, long))
	m := start(t, ctx, c)
	if _, err := m.WaitFor(ctx, regexp.MustCompile(`Linux version`)); err != nil {
		t.Fatal(err)
	}
	cancel()
	gone(t, m.cmd.Process.Pid)
	if err := m.WaitLogin(context.Background()); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting on an ended machine: %v", err)
	}
	if _, err := Start(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("starting with a context that is done: %v", err)
	}
}

// A machine ends with the process that started it, even if that is killed, and
// leaves no file.
func TestKilled(t *testing.T) {
	t.Parallel()
	c := guestConfig(t, "login")
	dir := t.TempDir()
	disk := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "VM_TEST_HELPER=1", "VM_TEST_KERNEL="+c.Kernel, "VM_TEST_INITRD="+c.Initrd, "VM_TEST_DISK="+disk, "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid ")))
	if err != nil || !alive(pid) {
		cmd.Process.Kill()
		t.Fatalf("the helper says %q", line)
	}
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	gone(t, pid)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestSnapshotAndPersist(t *testing.T) {
	t.Parallel()
	base := guestConfig(t, "login")
	disk := filepath.Join(t.TempDir(), "disk, with a comma.raw")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o444); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, long)
	base.Disk = disk
	m := start(t, ctx, base)
	// A second machine on the same image is no problem either.
	m2 := start(t, ctx, base)
	m2.Close()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error("closing twice:", err)
	}
	base.Persist, base.AuthorizedKey = true, "ssh-ed25519 AAAA"
	var ce *ConfigError
	if _, err := Start(ctx, base); !errors.As(err, &ce) {
		t.Errorf("a key in a machine that persists: %v", err)
	}
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	ctx := within(t, long)
	bad := filepath.Join(t.TempDir(), "disk.qcow2")
	if err := os.WriteFile(bad, []byte("not a qcow2 image"), 0o644); err != nil {
		t.Fatal(err)
	}
	if missing := Preflight(Config{}); len(missing) > 0 {
		t.Skipf("missing: %+v", missing)
	}
	_, err := Start(ctx, Config{Disk: bad, Accel: "tcg"})
	if err == nil || !strings.Contains(err.Error(), "not in qcow2 format") {
		t.Errorf("a broken image: %v", err)
	}
}
