// Several engines on one store, and sources that are damaged.
package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/store"
)

// What two builds both need runs once, whichever of them runs it.
func TestTwoEnginesShareWork(t *testing.T) {
	first := newStore(t)
	second, err := store.Open(first.Dir)
	if err != nil {
		t.Fatal(err)
	}
	m := func(last string) *manifest.Manifest {
		base := pipe("base", note("a", "1"), stage(shStage, `{"script":"sleep 0.2"}`), note("b", "1"))
		other := pipe("other", note("o", "1"), stage(shStage, `{"script":"sleep 0.1; touch x"}`))
		image := pipe("image", copyOf("base"), note("c", "1"), read(map[string]*manifest.Input{"t": treeOf("other")}), note("end", last))
		return plan1(base, other, image)
	}
	var wg sync.WaitGroup
	counts := map[string]int{}
	var mu sync.Mutex
	for i, st := range []*store.Store{first, second, first} {
		e := newEngine(t, st)
		wg.Go(func() {
			res, err := e.Build(context.Background(), m([]string{"same", "same", "another"}[i]), []string{"image"}, nil)
			if err != nil {
				t.Error(explain(err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, s := range res.Stages {
				if s.Pipeline != "image" || s.Type != "org.osbuild.copy" { // which is adopted: it costs nothing
					counts[s.ID]++
				}
			}
		})
	}
	wg.Wait()
	if len(counts) != 9 {
		t.Errorf("%d stages ran, want 9", len(counts))
	}
	for id, n := range counts {
		if n != 1 {
			t.Errorf("stage %s ran %d times", id, n)
		}
	}
}

// A source that is damaged in the store is found when a stage is about to read it, and
// is fetched again in the same build.
func TestDamagedSourceIsFetchedAgain(t *testing.T) {
	s := newStore(t)
	path := sources.Path(s.SourcesDir(), sum)
	plan := func(text string) *manifest.Manifest {
		return plan1(pipe("p", note("n", text), read(map[string]*manifest.Input{
			"f": {Type: "org.osbuild.files", Origin: manifest.OriginSource, References: []manifest.Reference{ref(sum, `{}`)}},
		})))
	}
	damage := func() {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // in place, as a bad disk does
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("y"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, st.ModTime(), st.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	fetched := 0
	var down error
	fetch := func(_ context.Context, _ *manifest.Manifest, sums []string, _ *monitor.Span, _ func(string, error)) error {
		if sources.Have(s.SourcesDir(), sum, 1) {
			return nil
		}
		fetched++
		if down != nil {
			return down
		}
		return os.WriteFile(path, []byte("x"), 0o644)
	}
	e := newEngine(t, s, func(c *Config) { c.Fetch = fetch })
	build := func(e *Engine, text string, times int) {
		t.Helper()
		res, err := e.Build(context.Background(), plan(text), []string{"p"}, nil)
		if err != nil {
			t.Fatal(explain(err))
		}
		if got := saw(t, res).Inputs["f"][sum]; got != "x" || fetched != times {
			t.Errorf("the stage saw %q, fetched %d times, want %d", got, fetched, times)
		}
	}
	build(e, "1", 1)
	build(e, "2", 1)
	damage()
	build(e, "3", 2) // the same process, which had found it whole
	build(e, "4", 2)
	damage()
	build(newEngine(t, s, func(c *Config) { c.Fetch = fetch }), "5", 3)
	damage()
	down = errors.New("the network is down")
	if _, err := e.Build(context.Background(), plan("6"), []string{"p"}, nil); err == nil || !strings.Contains(err.Error(), "network is down") {
		t.Errorf("it cannot be fetched: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("what is damaged is still there")
	}
	checkIdle(t, e)
}

// When an engine is closed, small layers have their lists; and those that an earlier
// build left without get them from the next.
func TestLayersAreListed(t *testing.T) {
	s := newStore(t)
	m := func(text string) *manifest.Manifest { return plan1(pipe("p", note("a", "1"), note("b", text))) }
	build := func(text string) int {
		t.Helper()
		e := newEngine(t, s)
		mustBuild(t, e, m(text), "p")
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		left, err := s.Unsummed()
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	if n := build("1"); n > 0 {
		t.Errorf("%d layers are not listed", n)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir, "sums")); err != nil {
		t.Fatal(err)
	}
	if n := build("2"); n > 0 {
		t.Errorf("%d layers are not listed by the next build", n)
	}
	// The end of a build does not wait for one that is too large.
	defer func(n int64) { sumsAtEnd = n }(sumsAtEnd)
	sumsAtEnd = 1 << 20
	large := note("large", "x")
	m = func(string) *manifest.Manifest {
		return plan1(pipe("p", large, stage(shStage, `{"script":"head -c 50M /dev/urandom >r"}`)))
	}
	if n := build(""); n > 1 {
		t.Errorf("%d layers are not listed, and one is too large", n)
	}
}
