// From start to end: starts that fail, many of them, and an agent or a host process
// that is killed. Nothing is left behind.
package buildroot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// killAgent kills the agent of a build root, from outside.
func killAgent(t *testing.T, b *BuildRoot) {
	t.Helper()
	for _, p := range processes(b) {
		pid, comm, _ := strings.Cut(p, " ")
		if n, err := strconv.Atoi(pid); err == nil && strings.HasPrefix("osbuild-star-agent", comm) {
			if err := unix.Kill(n, unix.SIGKILL); err != nil && err != unix.ESRCH {
				t.Fatal(err)
			}
		}
	}
}

func TestKilledAgent(t *testing.T) { eachSandbox(t, testKilledAgent) }

func testKilledAgent(t *testing.T, sandbox string) {
	s := newSpace(t)
	b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: t.TempDir(), Var: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Run(context.Background(), Job{Argv: []string{"/bin/sh", "-c", "echo up; sleep 1000"}, Line: func(string) { killAgent(t, b) }})
	if err == nil || !strings.Contains(err.Error(), "the build root ended") {
		t.Errorf("while a program runs: %v", err)
	}
	_, err = b.Run(context.Background(), Job{Argv: []string{"/bin/true"}})
	if err == nil || !strings.Contains(err.Error(), "the build root ended") {
		t.Errorf("the next program: %v", err)
	}
	checkClosed(t, s, b)
}

// checkClosed closes a build root and looks for what is left of it.
func checkClosed(t *testing.T, s *Space, b *BuildRoot) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for _, d := range append(b.cg.dirs, b.dir, b.vardir.Path) {
		if _, err := os.Lstat(d); err == nil {
			t.Errorf("%s is left", d)
		}
	}
	s.Do(func() error {
		if text, err := os.ReadFile("/proc/thread-self/mounts"); err != nil || bytes.Contains(text, []byte(b.dir)) {
			t.Errorf("a mount is left in the Space (%v)", err)
		}
		return nil
	})
}

// counts is what a build root could leave behind.
func counts(t *testing.T, dirs ...string) map[string]int {
	t.Helper()
	out := map[string]int{}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	out["mounts"] = bytes.Count(mounts, []byte("\n"))
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	out["files"] = len(fds)
	for _, d := range dirs {
		ents, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		out[d] = len(ents)
	}
	cgroups := 0
	for _, d := range ownCgroups(t) {
		ents, _ := os.ReadDir(d)
		for _, e := range ents {
			if strings.HasPrefix(e.Name(), cgroupPrefix+strconv.Itoa(os.Getpid())+".") {
				cgroups++
			}
		}
	}
	out["cgroups"] = cgroups
	return out
}

func ownCgroups(t *testing.T) []string {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if root, ok := mounts[f[1]]; ok {
			out = append(out, filepath.Join(root, f[2]))
		}
	}
	return out
}

// The first thread of the process lives as long as the process: it must not be left
// in a Space, which would keep its mounts.
func TestSpaceLetsGo(t *testing.T) {
	needRoot(t)
	leader := fmt.Sprintf("/proc/%d/task/%d/ns/mnt", os.Getpid(), os.Getpid())
	before, err := os.Readlink(leader)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 50 {
				s, err := NewSpace()
				if err != nil {
					t.Error(err)
					return
				}
				for range 10 {
					if err := s.Do(func() error {
						ns, err := os.Readlink("/proc/thread-self/ns/mnt")
						if ns == before {
							t.Error("a call is not in the Space")
						}
						return err
					}); err != nil {
						t.Error(err)
					}
				}
				s.Close()
			}
		}()
	}
	wg.Wait()
	if after, err := os.Readlink(leader); err != nil || after != before {
		t.Errorf("the process is in %s, and was in %s (%v)", after, before, err)
	}
}

func TestManyTimes(t *testing.T) { eachSandbox(t, testManyTimes) }

func testManyTimes(t *testing.T, sandbox string) {
	needRoot(t)
	work, vardir := t.TempDir(), t.TempDir()
	before := counts(t, work, vardir)
	leaks := goleak.IgnoreCurrent()
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	const cycles = 30
	sem := make(chan bool, 3)
	var wg sync.WaitGroup
	for i := range cycles {
		wg.Add(1)
		sem <- true
		go func() {
			defer wg.Done()
			defer func() { <-sem }()
			b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: work, Var: vardir})
			if err != nil {
				t.Error(err)
				return
			}
			res, err := b.Run(context.Background(), Job{Argv: []string{"/bin/sh", "-c", fmt.Sprintf("exit %d", i)}})
			if err != nil || res.Status != i {
				t.Errorf("%v %+v", err, res)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := goleak.Find(leaks); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, counts(t, work, vardir)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// ignoreWaiting ignores what runs now, and threads of a Space that wait.
func ignoreWaiting() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreCurrent(), goleak.IgnoreTopFunction("github.com/osbuild-star/osbuild-star/buildroot.(*Space).serve"),
	}
}

// Whatever goes wrong at the start, the error says it and nothing is left.
func TestOpenFails(t *testing.T) { eachSandbox(t, testOpenFails) }

func testOpenFails(t *testing.T, sandbox string) {
	space := newSpace(t)
	dir := t.TempDir()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	linkerTree, hangingTree := t.TempDir(), makeTree(t, "usr/hang")
	as(t, filepath.Join(linkerTree, "usr/sbin/ldconfig"))
	as(t, filepath.Join(hangingTree, "usr/bin/systemd-sysusers"))
	for _, c := range []struct {
		name string
		ctx  func() context.Context
		cfg  Config
		err  string
		only string // the sandbox that can fail like this
	}{
		{name: "a runner that is not known", cfg: Config{Tree: "/", Runner: "org.osbuild.plan9"}, err: `no runner "org.osbuild.plan9"`},
		{name: "a tree that is not there", cfg: Config{Tree: "/nothing/here", Runner: "org.osbuild.linux"}, err: "tree has no /usr"},
		{name: "a tree that cannot be composed", cfg: Config{Tree: makeTree(t, "usr"), Runner: "org.osbuild.linux"}, err: "/usr is neither a directory nor a link"},
		{name: "nspawn is not there", only: SandboxNspawn, cfg: Config{Tree: testHost.Tree, Runner: "org.osbuild.linux", Nspawn: "/nothing/nspawn"}, err: "starting /nothing/nspawn: no such file"},
		{name: "nspawn fails", only: SandboxNspawn, cfg: Config{Tree: testHost.Tree, Runner: "org.osbuild.linux", Nspawn: as(t, filepath.Join(dir, "nspawn-fails"))}, err: "the build root did not start: no room for a container"},
		{name: "nspawn hangs", only: SandboxNspawn, ctx: soon, cfg: Config{Tree: testHost.Tree, Runner: "org.osbuild.linux", Nspawn: as(t, filepath.Join(dir, "nspawn-hangs"))}, err: "deadline exceeded"},
		{name: "cancelled before", ctx: func() context.Context { return cancelled }, cfg: Config{Tree: testHost.Tree, Runner: "org.osbuild.linux"}, err: "context canceled"},
		{name: "the runner fails", cfg: Config{Tree: linkerTree, Runner: "org.osbuild.debian12"}, err: "ldconfig: exit status 65: the linker is not happy"},
		{name: "the runner hangs", ctx: soon, cfg: Config{Tree: hangingTree, Runner: "org.osbuild.debian12"}, err: "deadline exceeded"},
		{name: "no place for /var", cfg: Config{Tree: testHost.Tree, Runner: "org.osbuild.linux", Var: "/dev/null/x"}, err: "/var of a build root cannot be in /dev/null/x"},
	} {
		if c.only != "" && c.only != sandbox {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Space, c.cfg.Work, c.cfg.Sandbox = space, t.TempDir(), sandbox
			if c.cfg.Var == "" {
				c.cfg.Var = t.TempDir()
			}
			before := counts(t, c.cfg.Work)
			leaks := ignoreWaiting()
			ctx := context.Background()
			if c.ctx != nil {
				ctx = c.ctx()
			}
			b, err := Open(ctx, c.cfg)
			if err == nil {
				b.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if err := goleak.Find(leaks...); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, counts(t, c.cfg.Work)); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
			if ents, _ := os.ReadDir(c.cfg.Var); len(ents) != 0 {
				t.Errorf("/var is left: %v", ents)
			}
		})
	}
}

// A tree that holds nothing but one static program is build root enough.
func TestBareTree(t *testing.T) { eachSandbox(t, testBareTree) }

func testBareTree(t *testing.T, sandbox string) {
	space := newSpace(t)
	tree := t.TempDir()
	as(t, filepath.Join(tree, "usr/bin/systemd-sysusers"))
	b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: space, Tree: tree, Runner: "org.osbuild.debian12", Work: t.TempDir(), Var: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer checkClosed(t, space, b)
	out := t.TempDir()
	args := json.RawMessage(`{"tree":"/run/osbuild/tree","options":{"hostname":"bare"}}`)
	res, err := b.Run(context.Background(), Job{Native: "org.osbuild.hostname", Arguments: args, Mounts: []Mount{{Path: out, Target: "/run/osbuild/tree"}}})
	if err != nil || res.Err != nil {
		t.Fatal(err, res)
	}
	if text, err := os.ReadFile(filepath.Join(out, "etc/hostname")); err != nil || string(text) != "bare\n" {
		t.Errorf("%q %v", text, err)
	}
}

// hold opens a build root on the host's tree, starts a program in it, tells what
// there is to look for, and hangs until it is killed.
func hold() {
	work, vardir, sandbox := os.Args[1], os.Args[2], os.Args[3]
	s, err := NewSpace()
	if err == nil {
		var b *BuildRoot
		b, err = Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: testHost.Runner, Work: work, Var: vardir})
		if err == nil {
			_, err = b.Run(context.Background(), Job{Argv: []string{"/bin/sh", "-c", "sleep 1000 & sleep 1000"}, Line: nil, Limit: time.Hour,
				Mounts: []Mount{{Path: tellWhenRunning(b), Target: "/run/osbuild/x"}}})
		}
	}
	fmt.Println("error:", err)
	os.Exit(1)
}

// tellWhenRunning prints, once the two programs run, the processes and groups.
func tellWhenRunning(b *BuildRoot) string {
	go func() {
		for {
			ps := processes(b)
			if strings.Count(strings.Join(ps, "\n"), " sleep") == 2 {
				json.NewEncoder(os.Stdout).Encode(map[string]any{"processes": ps, "cgroups": b.cg.dirs, "var": b.vardir.Path})
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return b.vardir.Path
}

func TestKilledHost(t *testing.T) {
	eachSandbox(t, func(t *testing.T, sandbox string) {
		t.Run("running", func(t *testing.T) { testKilledHost(t, sandbox, false) })
		// An agent that is stopped does not see the end of its socket. A container of
		// nspawn then lives until the next build sweeps it; that of ours must not.
		if sandbox == SandboxNative {
			t.Run("stopped", func(t *testing.T) { testKilledHost(t, sandbox, true) })
		}
	})
}

func testKilledHost(t *testing.T, sandbox string, stopped bool) {
	needRoot(t)
	work, vardir := t.TempDir(), t.TempDir()
	before := counts(t)["mounts"]
	cmd := exec.Command(as(t, filepath.Join(t.TempDir(), "holder")), work, vardir, sandbox)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var there struct {
		Processes, Cgroups []string
		Var                string
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &there)
	}
	if n := counts(t)["mounts"]; n != before {
		t.Errorf("mounts can be seen: %d, before %d", n, before)
	}
	if stopped {
		stopAgents(t, there.Processes)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if len(there.Processes) < 4 {
		t.Errorf("processes: %v", there.Processes)
	}
	for _, p := range there.Processes {
		pid, comm, _ := strings.Cut(p, " ")
		if !gone(pid, comm) {
			t.Errorf("%s lives on", p)
		}
	}
	if n := counts(t)["mounts"]; n != before {
		t.Errorf("mounts are left: %d, before %d", n, before)
	}
	if _, err := os.Stat(there.Var); err != nil {
		t.Errorf("nothing is left to sweep: %v", err)
	}
	s := newSpace(t)
	b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: work, Var: vardir})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(there.Cgroups, there.Var) {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("%s was not swept", d)
		}
	}
	checkClosed(t, s, b)
}

// stopAgents stops the agents among processes, and waits until they are.
func stopAgents(t *testing.T, processes []string) {
	t.Helper()
	for _, p := range processes {
		pid, comm, _ := strings.Cut(p, " ")
		n, err := strconv.Atoi(pid)
		if err != nil || !strings.HasPrefix("osbuild-star-agent", comm) {
			continue
		}
		if err := unix.Kill(n, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			text, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil || i > 1000 {
				t.Fatalf("%s does not stop (%v)", p, err)
			}
			if strings.Contains(string(text), ") T ") {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// gone waits for the end of a process.
func gone(pid, comm string) bool {
	for range 1000 {
		text, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil || strings.TrimSpace(string(text)) != comm {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}
