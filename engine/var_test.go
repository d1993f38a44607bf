// The directory that backs /var of a build root, when a pipeline names one.
package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inUseBelow lists the build roots whose /var is in a directory.
func inUseBelow(t *testing.T, dir string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "osbuild-star-var.*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestVarOfBuildRoot(t *testing.T) {
	s := newStore(t)
	usual, own := t.TempDir(), t.TempDir()
	e := newEngine(t, s, func(c *Config) { c.Var = usual })
	// Both have the file in /var/tmp to themselves.
	script := stage(shStage, `{"script":"test ! -e /var/tmp/mine; echo x > /var/tmp/mine; echo done > done"}`)
	a, b := pipe("a", script), pipe("b", note("first", ""), script)
	b.Build.Var = own
	mustBuild(t, e, plan1(a, b), "a", "b")
	if n, m := inUseBelow(t, usual), inUseBelow(t, own); n != 1 || m != 1 {
		t.Errorf("%d build roots in the usual place and %d in the one that was named", n, m)
	}
	c := pipe("c", note("other", ""))
	c.Build.Var = own
	mustBuild(t, e, plan1(c), "c")
	if n := inUseBelow(t, own); n != 1 {
		t.Errorf("%d build roots where one would do", n)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if n, m := inUseBelow(t, usual), inUseBelow(t, own); n != 0 || m != 0 {
		t.Errorf("left: %d and %d", n, m)
	}
	// What is built does not depend on it.
	b.Build.Var = ""
	if res := mustBuild(t, newEngine(t, s), plan1(b), "b"); len(ran(res)) != 0 {
		t.Errorf("ran again: %v", ran(res))
	}
}

func TestVarInMemory(t *testing.T) {
	needRoot(t)
	if data, err := os.ReadFile("/proc/mounts"); err != nil || !strings.Contains(string(data), " /dev/shm tmpfs ") {
		t.Skip("needs a tmpfs at /dev/shm")
	}
	e := newEngine(t, newStore(t))
	p := pipe("p", note("a", ""))
	p.Build.Var = "/dev/shm"
	m := plan1(p)
	missing, err := e.Preflight(m, []string{"p"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Missing{{
		What: "a directory on a disk: /dev/shm is in memory (tmpfs)", Why: "for /var of build roots",
		Hint: "name a directory on a disk: --var-dir DIR, or var = of the buildroot in the rule file; for tests, set TMPDIR to one",
	}}
	if diff := cmp.Diff(want, missing); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = e.Build(context.Background(), m, []string{"p"}, nil)
	var se *StageError
	if !errors.As(err, &se) || !strings.Contains(se.Error(), "/var of a build root cannot be in /dev/shm") || se.Hint != want[0].Hint {
		t.Errorf("%v", err)
	}
}
