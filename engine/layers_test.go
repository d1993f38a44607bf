// The property of layers: what a chain of them shows is what the same changes make of a
// plain directory. Held for layers, and for the copies that are made where overlayfs
// cannot serve.
package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// layersEnv makes the run a long one: OSBUILD_STAR_TEST_SEEDS=0-500.
const layersEnv = "OSBUILD_STAR_TEST_SEEDS"

// testEpoch is the source epoch of trees in tests.
var testEpoch = int64(1700000000)

// stepOn makes one step on base by the engine's own parts, with f in place of stages.
func stepOn(t testing.TB, e *Engine, key string, base *store.Object, f func(tree string) error) *store.Object {
	t.Helper()
	began, err := fileTime()
	if err != nil {
		t.Fatal(err)
	}
	w, err := e.worktree(context.Background(), base)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.space.Do(func() error { return f(w.tree) }); err != nil {
		w.close()
		t.Fatalf("%s: %v", key, err)
	}
	o, kept, err := e.conclude(context.Background(), store.Info{Key: key}, base, w, began, &testEpoch)
	if !kept {
		if cerr := w.close(); cerr != nil {
			t.Error(cerr)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return o
}

// plainStep does the same to a plain directory.
func plainStep(t testing.TB, dir string, f func(tree string) error) {
	t.Helper()
	began, err := fileTime()
	if err != nil {
		t.Fatal(err)
	}
	if err := f(dir); err != nil {
		t.Fatalf("plain: %v", err)
	}
	if _, err := store.Finish(dir, began, &testEpoch); err != nil {
		t.Fatal(err)
	}
}

// view calls f with the tree of an object, mounted.
func view(t testing.TB, e *Engine, o *store.Object, f func(dir string) error) {
	t.Helper()
	at := filepath.Join(t.TempDir(), "view")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	err := e.space.Do(func() error {
		if err := e.mountObject(o, at); err != nil {
			return err
		}
		defer unix.Unmount(at, 0)
		return f(at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkView compares the tree of an object with a plain one.
func checkView(t testing.TB, e *Engine, o *store.Object, plain string) bool {
	t.Helper()
	want := describe(t, plain)
	ok := true
	view(t, e, o, func(dir string) error {
		got, err := described(dir)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, %d layers (-plain +view):\n%s", o.Key, len(o.Layers), diff)
			ok = false
		}
		return err
	})
	return ok
}

// inEachMode runs a test with layers and with copies, in stores of the test's own file
// system.
func inEachMode(t *testing.T, test func(t *testing.T, st *store.Store, mode string)) {
	for _, mode := range []string{LayersOverlay, LayersCopy} {
		t.Run(mode, func(t *testing.T) { test(t, newStore(t), mode) })
	}
}

func prepared(t testing.TB, st *store.Store, mode string) *Engine {
	t.Helper()
	e := newEngine(t, st, func(c *Config) { c.Layers = mode })
	if err := e.prepare(); err != nil {
		t.Fatal(err)
	}
	return e
}

// Trees of many layers are what the same changes make of a plain directory.
func TestLayersProperty(t *testing.T) {
	defer func(n int) { maxLayers = n }(maxLayers)
	from, to := 0, 8
	if s := os.Getenv(layersEnv); s != "" {
		if _, err := fmt.Sscanf(s, "%d-%d", &from, &to); err != nil {
			t.Fatal(err)
		}
	}
	inEachMode(t, func(t *testing.T, st *store.Store, mode string) {
		layersProperty(t, st, mode, from, to)
	})
}

func layersProperty(t *testing.T, st *store.Store, mode string, from, to int) {
	needRoot(t)
	e := prepared(t, st, mode)
	const steps, count = 7, 30
	for seed := from; seed < to; seed++ {
		maxLayers = []int{200, 4, 2}[seed%3]
		plain := filepath.Join(t.TempDir(), "plain")
		if err := os.Mkdir(plain, 0o755); err != nil {
			t.Fatal(err)
		}
		var o *store.Object
		for n := range steps {
			s := uint64(seed*1000 + n)
			f := func(tree string) error { return mutate(tree, s, count) }
			if n == 0 {
				f = func(tree string) error { return mutate(tree, s, 3*count) }
			}
			plainStep(t, plain, f)
			o = stepOn(t, e, fmt.Sprintf("%s-%d-%d", mode, seed, n), o, f)
			if !checkView(t, e, o, plain) {
				t.Fatalf("seed %d, step %d", seed, n)
			}
		}
		checkFind(t, e, o, plain)
		if seed%4 == 0 {
			if diff := cmp.Diff(describe(t, plain), describe(t, exported(t, e, o))); diff != "" {
				t.Fatalf("seed %d, exported (-plain +tree):\n%s", seed, diff)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		if err := e.tidy(); err != nil {
			t.Fatal(err)
		}
		checkIdle(t, e)
	}
}
