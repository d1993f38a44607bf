// What stands for the host as build root.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Stages of a pipeline without a build root see the /usr of this machine, or of what
// the tests have in its place.
func TestHostTree(t *testing.T) {
	e := newEngine(t, newStore(t))
	p := pipe("p", stage(shStage, `{"script":"stat -c '%i %Z' /usr > usr"}`))
	res := mustBuild(t, e, plan1(p), "p")
	got, err := contents(exported(t, e, res.Trees["p"]))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(testHost.Tree, "usr"), &st); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d %d", st.Ino, st.Ctim.Sec); strings.TrimSpace(got["usr"]) != want {
		t.Errorf("/usr is %q, and %s has %q", got["usr"], testHost.Tree, want)
	}
	// Another tree in its place is another key, by its os-release.
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/os-release"), []byte("ID=other\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	other := New(Config{Store: e.cfg.Store, Host: Host{Tree: dir, Runner: testHost.Runner}})
	a, err := e.plans(plan1(p))
	if err != nil {
		t.Fatal(err)
	}
	b, err := other.plans(plan1(p))
	if err != nil {
		t.Fatal(err)
	}
	if a["p"].key == b["p"].key {
		t.Error("the key does not tell one host from another")
	}
	if hostHas(dir, "sh") || !hostHas(testHost.Tree, "sh") {
		t.Error("tools are looked for in another tree")
	}
}

// A program that is no stage sees what the runner made, the host's network, and the
// directories that it is given where they are on the host, also below /var and /etc.
func TestRunProgram(t *testing.T) {
	for _, name := range Sandboxes() {
		t.Run(name, func(t *testing.T) { testRunProgram(t, name) })
	}
}

func testRunProgram(t *testing.T, sandbox string) {
	e := newEngine(t, newStore(t), func(c *Config) { c.Sandbox = sandbox })
	if !e.CanRun() {
		t.Fatal("programs cannot be run here")
	}
	dir, reads := t.TempDir(), t.TempDir()
	under, err := os.MkdirTemp("/var/tmp", "osbuild-star-test.")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(under) })
	run := func(script string) (string, string, int) {
		t.Helper()
		var out, errs bytes.Buffer
		status, err := e.Run(context.Background(), Program{
			Argv: []string{"/bin/sh", "-c", script}, Stdout: &out, Stderr: &errs, Dirs: []string{dir, under}, Reads: []string{reads, "/nothing/there"}, Env: []string{"WHO=me"},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out.String(), errs.String(), status
	}
	out, errs, status := run("head -n 1 /etc/passwd; echo $WHO; echo oops >&2; ls -d /var/lib/private 2>/dev/null; exit 7")
	if out != "root:x:0:0:root:/root:/bin/sh\nme\n/var/lib/private\n" || errs != "oops\n" || status != 7 {
		t.Errorf("%q %q %d", out, errs, status)
	}
	net, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if out, _, _ := run("readlink /proc/self/ns/net"); strings.TrimSpace(out) != net {
		t.Errorf("it is in the network %s, the host in %s", out, net)
	}
	if _, errs, status := run(fmt.Sprintf("echo a > %s/a && echo b > %s/b && ! touch %s/c 2>/dev/null", dir, under, reads)); status != 0 {
		t.Errorf("directories: %s", errs)
	}
	for _, f := range []string{filepath.Join(dir, "a"), filepath.Join(under, "b")} {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
	}
	// Stages have none of it.
	p := pipe("p", stage(shStage, `{"script":"readlink /proc/self/ns/net > net"}`))
	res := mustBuild(t, e, plan1(p), "p")
	got, err := contents(exported(t, e, res.Trees["p"]))
	if err != nil || strings.TrimSpace(got["net"]) == net {
		t.Errorf("a stage is in the network of the host: %v %v", got, err)
	}
	if _, err := e.Run(context.Background(), Program{Argv: []string{"no-such-program"}, Stdout: io.Discard, Stderr: io.Discard}, nil); err == nil || !strings.Contains(err.Error(), "is not in the build root") {
		t.Errorf("no such program: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := e.Run(ctx, Program{Argv: []string{"/bin/sleep", "100"}, Stdout: io.Discard, Stderr: io.Discard}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
}
