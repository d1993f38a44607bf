// What stands for the host as build root.
package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
