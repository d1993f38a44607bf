package buildroot

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/agent"
	"github.com/osbuild-star/osbuild-star/internal/testenv"
	"golang.org/x/sys/unix"
)

// The test program is the agent too: containers start it again.
func TestMain(m *testing.M) {
	if agent.Is(os.Args) { // after the stages of these tests are known
		os.Exit(agent.Main(os.Args))
	}
	h, err := testenv.Setup()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testHost = h
	if helper(filepath.Base(os.Args[0])) {
		return
	}
	os.Exit(m.Run())
}

// testHost is the build root of tests that use the host's.
var testHost testenv.Host

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// eachSandbox runs a test in each of the sandboxes.
func eachSandbox(t *testing.T, test func(t *testing.T, sandbox string)) {
	for _, name := range []string{SandboxNspawn, SandboxNative} {
		t.Run(name, func(t *testing.T) {
			needRoot(t)
			if _, err := Sandbox(name); err != nil {
				t.Skip(err) // make deps installs what it needs
			}
			test(t, name)
		})
	}
}

func openHost(t testing.TB, sandbox string) (*Space, *BuildRoot) {
	t.Helper()
	return openWith(t, Config{Sandbox: sandbox})
}

// byBoth runs a test in each of the sandboxes with each of the two ways to limit
// devices.
func byBoth(t *testing.T, test func(t *testing.T, b *BuildRoot)) {
	eachSandbox(t, func(t *testing.T, sandbox string) {
		for name, bpf := range map[string]bool{"controller": false, "bpf": true} {
			t.Run(name, func(t *testing.T) {
				_, b := openWith(t, Config{Sandbox: sandbox, BPF: bpf})
				test(t, b)
			})
		}
	})
}

// openWith opens a build root on the host's tree.
func openWith(t testing.TB, cfg Config) (*Space, *BuildRoot) {
	t.Helper()
	needRoot(t)
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Space, cfg.Tree, cfg.Runner, cfg.Work, cfg.Var = s, testHost.Tree, testHost.Runner, t.TempDir(), t.TempDir()
	b, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s, b
}

func sh(t testing.TB, b *BuildRoot, script string, mounts ...Mount) (string, *Result) {
	t.Helper()
	var out []string
	res, err := b.Run(context.Background(), Job{
		Argv: []string{"/bin/sh", "-c", script}, Mounts: mounts,
		Line: func(s string) { out = append(out, s) }, Limit: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	return strings.Join(out, "\n"), res
}

func TestProgram(t *testing.T) { eachSandbox(t, testProgram) }

func testProgram(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	out, res := sh(t, b, "echo hello; echo oops >&2; exit 3")
	if res.Status != 3 || out != "hello\noops" {
		t.Errorf("status %d, output %q", res.Status, out)
	}
}

func TestNativeStage(t *testing.T) { eachSandbox(t, testNativeStage) }

func testNativeStage(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	tree := t.TempDir()
	args, _ := json.Marshal(map[string]any{
		"tree": "/run/osbuild/tree", "options": map[string]any{"hostname": "inside"},
	})
	job := Job{Native: "org.osbuild.hostname", Arguments: args, Mounts: []Mount{{Path: tree, Target: "/run/osbuild/tree"}}}
	res, err := b.Run(context.Background(), job)
	if err != nil || res.Err != nil || res.Status != 0 {
		t.Fatalf("%v %+v", err, res)
	}
	got, err := os.ReadFile(filepath.Join(tree, "etc/hostname"))
	if err != nil || string(got) != "inside\n" {
		t.Errorf("hostname: %q %v", got, err)
	}
	job.Arguments, _ = json.Marshal(map[string]any{"tree": "/run/osbuild/tree", "options": map[string]any{"hostname": ""}})
	res, err = b.Run(context.Background(), job)
	if err != nil || res.Err == nil || res.Status == 0 {
		t.Errorf("a bad hostname was taken: %v %+v", err, res)
	}
}

// What a program must and must not find inside.
func TestSandbox(t *testing.T) { byBoth(t, testSandbox) }

func testSandbox(t *testing.T, b *BuildRoot) {
	for _, c := range []struct{ name, script, want string }{
		{"no network", "ls /sys/class/net", "lo"},
		{"own processes only", "set -- /proc/[0-9]*; echo $#", "2"},
		{"usr is read-only", "touch /usr/x 2>/dev/null || echo refused", "refused"},
		{"etc can be written", "echo a > /etc/x && cat /etc/x", "a"},
		{"and is fresh each time", "test -e /etc/x || echo fresh", "fresh"},
		{"var can be written", "echo a > /var/tmp/x && cat /var/tmp/x", "a"},
		{"and is fresh too", "test -e /var/tmp/x || echo fresh", "fresh"},
		{"var is on disk", "stat -f -c %T /var/tmp", "overlayfs"},
		{"no host devices", "ls /dev | grep -E '^(vd|sd|nvme|loop)' || echo none", "none"},
		{"nor of other devices", "mknod /tmp/d c 10 200 2>/dev/null || echo refused", "refused"},
		{"but those of every system", "mknod /tmp/d c 1 3 && echo made", "made"},
		{"a terminal of its own", "test -c /dev/ptmx && echo there", "there"},
		{"nodes cannot be made", "mknod /tmp/d b 7 0 2>/dev/null || echo refused", "refused"},
		{"no new privileges", "grep NoNewPrivs /proc/self/status | tr -d '\\t'", "NoNewPrivs:1"},
		{"seccomp filter", "grep Seccomp: /proc/self/status | tr -d '\\t'", "Seccomp:2"},
		{"kernel settings cannot be written", "(echo 1 > /proc/sys/kernel/printk) 2>/dev/null || echo refused", "refused"},
		{"no module loading", "grep CapBnd /proc/self/status | cut -f2 | sed 's/.*/0x&/' | { read c; echo $(( c >> 16 & 1 )); }", "0"},
		{"stdin is closed", "cat | wc -c | tr -d ' '", "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _ := sh(t, b, c.script)
			if diff := cmp.Diff(c.want, out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCancelEndsEverything(t *testing.T) { eachSandbox(t, testCancelEndsEverything) }

func testCancelEndsEverything(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan bool, 1)
	go func() { <-started; cancel() }()
	start := time.Now()
	_, err := b.Run(ctx, Job{Argv: []string{"/bin/sh", "-c", "setsid sleep 1000 & echo up; sleep 1000"}, Line: func(string) { started <- true }})
	if err == nil || time.Since(start) > 20*time.Second {
		t.Errorf("cancel: %v after %s", err, time.Since(start))
	}
	if out, _ := sh(t, b, "true"); out != "" {
		t.Errorf("the build root is not usable afterwards: %q", out)
	}
}

func TestLimit(t *testing.T) { eachSandbox(t, testLimit) }

func testLimit(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	_, err := b.Run(context.Background(), Job{Argv: []string{"/bin/sleep", "1000"}, Limit: 200 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("limit: %v", err)
	}
}

func TestLoop(t *testing.T) { byBoth(t, testLoop) }

func testLoop(t *testing.T, b *BuildRoot) {
	img := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(img, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLoop(LoopConfig{File: img, Offset: 512 * 8, Size: 512 * 16})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := sh(t, b, "printf marker > "+l.Path+" && head -c 6 "+l.Path,
		Mount{Path: l.Path, Target: l.Path, Device: [2]uint32{l.Major, l.Minor}})
	if out != "marker" {
		t.Errorf("through the device: %q", out)
	}
	// Without the right given by the mount the node alone is useless.
	out, _ = sh(t, b, "head -c 6 "+l.Path+" 2>/dev/null || echo refused", Mount{Path: l.Path, Target: l.Path})
	if out != "refused" {
		t.Errorf("a device that was not allowed: %q", out)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	got, _ := os.ReadFile(img)
	if string(got[4096:4102]) != "marker" {
		t.Errorf("in the file: %q", got[4096:4102])
	}
	if _, err := os.Stat("/sys/block/" + filepath.Base(l.Path) + "/loop/backing_file"); err == nil && l.mine() {
		t.Error("the device is still attached")
	}
}

func TestCloseLeavesNothing(t *testing.T) { eachSandbox(t, testCloseLeavesNothing) }

func testCloseLeavesNothing(t *testing.T, sandbox string) {
	needRoot(t)
	before, _ := os.ReadFile("/proc/self/mounts")
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	work, vardir := t.TempDir(), t.TempDir()
	b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: work, Var: vardir})
	if err != nil {
		t.Fatal(err)
	}
	dirs := b.cg.dirs
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	s.Close()
	after, _ := os.ReadFile("/proc/self/mounts")
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("mounts differ:\n%s", diff)
	}
	for _, d := range append(dirs, b.dir, b.vardir.Path) {
		if _, err := os.Lstat(d); err == nil {
			t.Errorf("%s is left", d)
		}
	}
	if err := unix.Kill(b.cmd.Process.Pid, 0); err == nil {
		t.Error("the container is left")
	}
}

// A build root from nothing to the end of its runner, which does next to nothing.
func BenchmarkOpen(b *testing.B) {
	for _, sandbox := range []string{SandboxNspawn, SandboxNative} {
		b.Run(sandbox, func(b *testing.B) {
			s := newSpace(b)
			work, vardir := b.TempDir(), b.TempDir()
			for b.Loop() {
				br, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: work, Var: vardir})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := br.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
