// Files of trees that are put where a person wants them, and what is left on the way.
package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
)

// A process that is killed while it exports leaves a directory beside the file. The
// next one removes it, also when the file is as it should be.
func TestExportRemovesWhatWasLeft(t *testing.T) {
	_, e, o := artifact(t, note("f", "text"))
	out := filepath.Join(t.TempDir(), "out")
	dest := filepath.Join(out, "f")
	leave := func() {
		t.Helper()
		dir := filepath.Join(out, exportPrefix+"killed")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("te"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []bool{true, false} {
		leave()
		e.swept.Clear() // as another process would find it
		alive, err := scratch.New(out, exportPrefix)
		if err != nil {
			t.Fatal(err)
		}
		leave()
		changed, err := e.ExportFile(t.Context(), o, "f", dest)
		if err != nil || changed != want {
			t.Errorf("changed %v, %v", changed, err)
		}
		ents, err := os.ReadDir(out)
		if err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, e := range ents {
			names = append(names, e.Name())
		}
		if diff := cmp.Diff([]string{filepath.Base(alive.Path), "f"}, names); diff != "" {
			t.Errorf("in out/ (-want +got):\n%s", diff)
		}
		if err := alive.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A build that has nothing to make removes all the same what killed ones left.
func TestBuildOfNothingSweeps(t *testing.T) {
	s, _, _ := artifact(t, note("f", "text"))
	e := newEngine(t, s)
	var left []string
	for _, dir := range []string{
		filepath.Join(e.cfg.Work, workPrefix+"1"), filepath.Join(e.cfg.Var, "osbuild-star-var.1"), filepath.Join(s.Dir, "tmp/run-1"),
	} {
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		left = append(left, dir)
	}
	if res := mustBuild(t, e, plan1(pipe("p", note("f", "text"))), "p"); len(res.Stages) > 0 {
		t.Errorf("%d stages have run", len(res.Stages))
	}
	for _, dir := range left {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}
