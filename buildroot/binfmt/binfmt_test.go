package binfmt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The test program is also the other process of the tests.
func TestMain(m *testing.M) {
	if arch := os.Getenv("BINFMT_TEST_USE"); arch != "" {
		os.Exit(otherProcess(arch))
	}
	os.Exit(m.Run())
}

// otherProcess uses an architecture, says so, and starts programs of it until its
// standard input ends.
func otherProcess(arch string) int {
	h, err := Use(arch)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := run(lookup(arch)); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	if err := run(lookup(arch)); err != nil {
		fmt.Println("at the end:", err)
		return 1
	}
	if err := h.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

type other struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startOther(t *testing.T, arch string) *other {
	t.Helper()
	o := &other{cmd: exec.Command("/proc/self/exe")}
	o.cmd.Env = append(os.Environ(), "BINFMT_TEST_USE="+arch)
	in, err := o.cmd.StdinPipe()
	must(t, err)
	out, err := o.cmd.StdoutPipe()
	must(t, err)
	o.in, o.out = in, bufio.NewReader(out)
	must(t, o.cmd.Start())
	t.Cleanup(func() { o.cmd.Process.Kill(); o.cmd.Wait() })
	if s, _ := o.out.ReadString('\n'); s != "ready\n" {
		t.Fatalf("the other process said %q", s)
	}
	return o
}

// end lets the process end in order.
func (o *other) end(t *testing.T) {
	t.Helper()
	o.in.Close()
	rest, _ := io.ReadAll(o.out)
	if err := o.cmd.Wait(); err != nil {
		t.Errorf("the other process: %v: %s", err, rest)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hold keeps the kernel's table, as a host does that has it mounted, and needs what
// the tests need.
func hold(t *testing.T) *table {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	tab, err := openTable()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { tab.close() })
	return tab
}

// ours are the names of entries of this package, up to the numbers in them.
func ours(t *testing.T, tab *table, pid int) []string {
	t.Helper()
	names, err := tab.names()
	must(t, err)
	var out []string
	for _, n := range names {
		if strings.HasPrefix(n, prefix) && strings.Contains(n, fmt.Sprintf("-%d-", pid)) {
			out = append(out, n[:strings.Index(n, "-"+pidNamespace())])
		}
	}
	slices.Sort(out)
	return out
}

// foreign is an architecture that this machine does not run by itself.
func foreign(t *testing.T) string {
	t.Helper()
	for _, arch := range []string{"s390x", "ppc64le"} {
		m := lookup(arch)
		if arch == Host() {
			continue
		}
		if _, err := process.emulator(m); err != nil {
			t.Skip(err)
		}
		return arch
	}
	return ""
}

func TestIdentify(t *testing.T) {
	for _, m := range machines {
		probe := m.probe()
		if got := Identify(probe); got != m.name {
			t.Errorf("a program of %s is taken for one of %q", m.name, got)
		}
		magic, mask := m.magic()
		e := entry{enabled: true, magic: magic, mask: mask}
		pie := slices.Clone(probe)
		m.order().PutUint16(pie[16:], 3)
		pie[7] = 3 // made for GNU
		for _, p := range [][]byte{probe, pie} {
			if !e.matches(p) {
				t.Errorf("%s: its entry does not match its programs", m.name)
			}
		}
		object := slices.Clone(probe)
		m.order().PutUint16(object[16:], 1)
		if e.matches(object) {
			t.Errorf("%s: its entry matches an object file", m.name)
		}
		for _, n := range machines {
			if n.name != m.name && e.matches(n.probe()) {
				t.Errorf("the entry of %s matches programs of %s", m.name, n.name)
			}
		}
	}
	b, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	if got := Identify(b); got != Host() {
		t.Errorf("this program is of %q, the host of %q", got, Host())
	}
	for _, junk := range []string{"", "#!/bin/sh\n", strings.Repeat("x", 64), "\x7fELF"} {
		if got := Identify([]byte(junk)); got != "" {
			t.Errorf("%q is of %q", junk, got)
		}
	}
}

// The probe of every architecture that there is a qemu for runs by it, and says so.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	must(t, run(lookup(Host())))
	tried := 0
	for _, m := range machines {
		qemu, err := process.emulator(&m)
		if err != nil || m.name == "ppc64" { // its qemu wants function descriptors
			continue
		}
		tried++
		file := filepath.Join(dir, m.name)
		must(t, os.WriteFile(file, m.probe(), 0o755))
		args := []string{file}
		if strings.HasSuffix(qemu, "-binfmt-P") {
			args = []string{file, file}
		}
		err = exec.Command(qemu, args...).Run()
		var ee *exec.ExitError
		if !errors.As(err, &ee) || ee.ExitCode() != probeStatus {
			t.Errorf("%s by %s: %v", m.name, qemu, err)
		}
	}
	if tried == 0 {
		t.Skip("no qemu-user is installed")
	}
}

func TestUse(t *testing.T) {
	tab := hold(t)
	arch := foreign(t)
	must(t, Check(arch))
	if got := ours(t, tab, os.Getpid()); len(got) > 0 {
		t.Errorf("looking registered %v", got)
	}
	a, err := Use(arch)
	must(t, err)
	must(t, run(lookup(arch)))
	b, err := Use(arch)
	must(t, err)
	mine := ours(t, tab, os.Getpid())
	all, err := tab.entries()
	must(t, err)
	for _, e := range all {
		if strings.HasPrefix(e.name, prefix+arch) && e.flags != "POF" && e.flags != "OPF" && e.flags != "PFO" && e.flags != "OFP" {
			t.Errorf("the entry has the flags %s", e.flags)
		}
	}
	must(t, a.Close())
	must(t, a.Close()) // a second time does nothing
	if diff := cmp.Diff(mine, ours(t, tab, os.Getpid())); diff != "" {
		t.Errorf("one user is left, and the entry has changed:\n%s", diff)
	}
	must(t, b.Close())
	if got := ours(t, tab, os.Getpid()); len(got) > 0 {
		t.Errorf("nobody uses them, and there are %v", got)
	}
	if len(mine) == 0 {
		t.Log("the host's own entry serves")
	}
	for _, native := range []string{Host()} {
		h, err := Use(native)
		must(t, err)
		must(t, h.Close())
	}
	_, err = Use("z80")
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("an unknown architecture: %v", err)
	}
}

// In an empty root directory, with neither /proc nor any library, a program starts.
func TestRoot(t *testing.T) {
	hold(t)
	arch := foreign(t)
	root := t.TempDir()
	must(t, os.WriteFile(root+"/probe", lookup(arch).probe(), 0o755))
	start := func() error {
		cmd := exec.Command("/probe")
		cmd.SysProcAttr = &unix.SysProcAttr{Chroot: root}
		cmd.Dir = "/"
		return cmd.Run()
	}
	h, err := Use(arch)
	must(t, err)
	err = start()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != probeStatus {
		t.Errorf("in use: %v", err)
	}
	must(t, h.Close())
}

// Processes come and go, one of them by SIGKILL, and the others keep what they use.
func TestProcesses(t *testing.T) {
	arch := foreign(t)
	tab := hold(t)
	others := func(ofThisProgram bool) bool {
		all, err := tab.entries()
		must(t, err)
		return slices.ContainsFunc(all, func(e entry) bool {
			return e.matches(lookup(arch).probe()) && strings.HasPrefix(e.name, prefix) == ofThisProgram
		})
	}
	if others(false) {
		t.Skip("the host has an entry of its own")
	}
	a, b := startOther(t, arch), startOther(t, arch)
	h, err := Use(arch)
	must(t, err)
	want := []string{prefix + arch}
	for _, pid := range []int{a.cmd.Process.Pid, b.cmd.Process.Pid, os.Getpid()} {
		if diff := cmp.Diff(want, ours(t, tab, pid)); diff != "" {
			t.Errorf("the entries of a process (-want +got):\n%s", diff)
		}
	}
	// The newest goes, in order: the others still run programs.
	must(t, h.Close())
	if err := run(lookup(arch)); err != nil {
		t.Errorf("after one of three has ended: %v", err)
	}
	must(t, a.cmd.Process.Kill())
	a.cmd.Wait()
	pid := a.cmd.Process.Pid
	if len(ours(t, tab, pid)) == 0 {
		t.Error("the test needs the table to be kept, and it was not")
	}
	must(t, Sweep())
	if got := ours(t, tab, pid); len(got) > 0 {
		t.Errorf("the next start left %v of one that was killed", got)
	}
	if diff := cmp.Diff(want, ours(t, tab, b.cmd.Process.Pid)); diff != "" {
		t.Errorf("and took from one that lives (-want +got):\n%s", diff)
	}
	b.end(t)
	if err := run(lookup(arch)); err == nil && !others(true) {
		t.Error("nobody uses it, and programs still run")
	}
}

// Where nobody else has the table mounted, nothing is left by a SIGKILL at all.
func TestKilled(t *testing.T) {
	arch := foreign(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var name unix.Utsname
	must(t, unix.Uname(&name))
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	if b, _ := os.ReadFile("/proc/self/mounts"); major < 6 || major == 6 && minor < 7 || strings.Contains(string(b), "binfmt_misc") {
		t.Skip("this kernel keeps entries that are not mounted, or the host has them mounted")
	}
	if run(lookup(arch)) == nil {
		t.Skip("another process has made an entry")
	}
	o := startOther(t, arch)
	must(t, o.cmd.Process.Kill())
	o.cmd.Wait()
	tab, err := openTable()
	must(t, err)
	defer tab.close()
	if got := ours(t, tab, o.cmd.Process.Pid); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// An entry that only works on the host does not count, and neither does one that is
// switched off.
func TestUnfit(t *testing.T) {
	tab := hold(t)
	arch := foreign(t)
	m := lookup(arch)
	qemu, err := process.emulator(m)
	must(t, err)
	const theirs = "osbuildstartest-theirs"
	for _, tt := range []struct {
		name  string
		flags string
		off   bool
		own   bool // we need one of our own
	}{
		{name: "not fixed", flags: "OP", own: true},
		{name: "switched off", flags: "OPF", off: true, own: true},
		{name: "fit", flags: "OPF"},
	} {
		must(t, tab.register(theirs, m, qemu, tt.flags))
		if tt.off {
			must(t, tab.write(theirs, "0"))
		}
		if all, err := tab.entries(); err == nil && !tt.own && hasOwnFor(all, m.probe()) {
			must(t, tab.remove(theirs))
			continue // another process runs tests
		}
		h, err := Use(arch)
		if err == nil {
			if own := len(ours(t, tab, os.Getpid())) > 0; own != tt.own {
				t.Errorf("%s: an entry of our own: %v", tt.name, own)
			}
			err = errors.Join(run(m), h.Close())
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		must(t, tab.remove(theirs))
	}
}

func TestMissing(t *testing.T) {
	tab := hold(t)
	arch := foreign(t)
	if all, err := tab.entries(); err != nil || slices.ContainsFunc(all, func(e entry) bool {
		return e.everywhere() && e.matches(lookup(arch).probe()) && !strings.HasPrefix(e.name, prefix)
	}) {
		t.Skip("the host has an entry of its own: ", err)
	}
	r := &registry{dirs: []string{t.TempDir()}, own: map[string]*own{}}
	for _, f := range []func() error{
		func() error { _, err := r.use(arch); return err },
		func() error { return r.check(arch) },
	} {
		err := f()
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Msg, "not installed") || e.Hint != "apt-get install qemu-user-static" {
			t.Errorf("without qemu: %v", err)
		}
	}
	// One that needs libraries is no help either; this program stands for it where it
	// is dynamic, and any other program of the system else.
	dynamic := ""
	for _, p := range []string{"/bin/true", "/usr/bin/env", "/bin/sh"} {
		if !static(p) {
			dynamic = p
		}
	}
	if dynamic == "" {
		return
	}
	must(t, os.Symlink(dynamic, filepath.Join(r.dirs[0], "qemu-"+lookup(arch).qemu)))
	var e *Error
	if _, err := r.use(arch); !errors.As(err, &e) || !strings.Contains(e.Msg, "not static") {
		t.Errorf("with a dynamic qemu: %v", err)
	}
	if got := ours(t, tab, os.Getpid()); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// Without the right to, the error says what an administrator does.
func TestNotPermitted(t *testing.T) {
	err := notPermitted("registering", &os.PathError{Op: "open", Path: "register", Err: unix.EACCES})
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Hint, "apt-get install qemu-user-static") || !errors.Is(err, unix.EACCES) {
		t.Errorf("%v", err)
	}
}
