// What stages make that overlayfs would take for marks of its own, long chains, and how
// long the copy of a whole tree takes.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// A whiteout that a stage makes hides nothing later: overlayfs refuses it, in the first
// layer as in others. Copies can have it.
func TestWhiteoutsOfStages(t *testing.T) {
	whiteout := func(tree string) error { return unix.Mknod(filepath.Join(tree, "w"), unix.S_IFCHR, 0) }
	inEachMode(t, func(t *testing.T, st *store.Store, mode string) {
		e := prepared(t, st, mode)
		defer e.tidy()
		first := stepOn(t, e, "first", nil, func(tree string) error { return os.WriteFile(filepath.Join(tree, "f"), nil, 0o644) })
		for name, base := range map[string]*store.Object{"nothing": nil, "a layer": first} {
			var refused error
			o := stepOn(t, e, "on "+name, base, func(tree string) error {
				refused = whiteout(tree)
				return nil
			})
			if mode == LayersOverlay && !errors.Is(refused, unix.EPERM) || mode == LayersCopy && (refused != nil || !o.Odd) {
				t.Errorf("on %s: %v, odd %v", name, refused, o.Odd)
			}
		}
	})
}

// Attributes with the names of overlayfs's marks are a stage's own, and only that. Trees
// with such things that were copied are copied on where there could be layers.
func TestMarksOfStages(t *testing.T) {
	set := func(path, name, value string) error { return unix.Setxattr(path, name, []byte(value), 0) }
	marks := func(whiteout bool) func(tree string) error {
		return func(tree string) error {
			err := errors.Join(os.MkdirAll(filepath.Join(tree, "d/sub"), 0o755), os.WriteFile(filepath.Join(tree, "d/f"), []byte("data"), 0o644),
				set(filepath.Join(tree, "d"), overlayOpaque, "y"),
				set(filepath.Join(tree, "d/sub"), overlayRedirect, "/elsewhere"),
				set(filepath.Join(tree, "d/f"), overlayMetacopy, ""),
				set(tree, overlayMark+"origin", "x"))
			if whiteout && err == nil {
				err = unix.Mknod(filepath.Join(tree, "d/w"), unix.S_IFCHR, 0)
			}
			return err
		}
	}
	later := func(tree string) error {
		return errors.Join(os.WriteFile(filepath.Join(tree, "d/g"), nil, 0o644), os.Chown(filepath.Join(tree, "d/f"), 3, 3))
	}
	last := func(tree string) error { return os.Rename(filepath.Join(tree, "d"), filepath.Join(tree, "e")) }
	defer func(n int) { maxLayers = n }(maxLayers)
	maxLayers = 2 // the last step makes one layer of all
	for _, c := range []struct{ first, then string }{{LayersOverlay, LayersOverlay}, {LayersCopy, LayersCopy}, {LayersCopy, LayersOverlay}, {LayersOverlay, LayersCopy}} {
		t.Run(c.first+" then "+c.then, func(t *testing.T) {
			st := newStore(t)
			first, then := prepared(t, st, c.first), prepared(t, st, c.then)
			defer first.tidy()
			defer then.tidy()
			stepOn(t, first, "try", nil, func(tree string) error {
				if err := unix.Setxattr(tree, overlayOpaque, []byte("y"), 0); err != nil {
					t.Logf("Linux before 6.7 refuses them: %v", err)
					set = func(string, string, string) error { return nil }
				}
				return nil
			})
			plain := filepath.Join(t.TempDir(), "plain")
			if err := os.Mkdir(plain, 0o755); err != nil {
				t.Fatal(err)
			}
			var o *store.Object
			e := first
			for i, f := range []func(string) error{marks(c.first == LayersCopy), later, last} {
				plainStep(t, plain, f)
				o = stepOn(t, e, fmt.Sprint("step ", i), o, f)
				if checkView(t, e, o, plain); t.Failed() {
					t.Fatalf("step %d", i)
				}
				if p, err := Find(o, []string{"d/f", "d/f", "e/f"}[i]); err != nil {
					t.Error(err)
				} else if b, err := os.ReadFile(p); err != nil || string(b) != "data" {
					t.Errorf("found %q, %v", b, err)
				}
				e = then
			}
		})
	}
}

// Hundreds of stages, in a store with a long name.
func TestLongChain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long,name:of\\a store/", 30))
	st, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := prepared(t, st, LayersOverlay)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.Mkdir(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	var o *store.Object
	longest := 0
	for n := range 300 {
		f := func(tree string) error { return mutate(tree, uint64(n), 3) }
		plainStep(t, plain, f)
		o = stepOn(t, e, fmt.Sprint(n), o, f)
		longest = max(longest, len(o.Layers))
	}
	checkView(t, e, o, plain)
	if longest != maxLayers || len(o.Layers) >= maxLayers {
		t.Errorf("at most %d layers, %d at the end", longest, len(o.Layers))
	}
	if err := e.tidy(); err != nil {
		t.Error(err)
	}
	checkIdle(t, e)
}

// BenchmarkCopyTree is a pipeline that begins with the copy of a whole tree of 600 MB and
// 30000 files, beside cp of the same tree.
func BenchmarkCopyTree(b *testing.B) {
	e := newEngine(b, newStore(b), func(c *Config) { c.Limit = 0 })
	m := plan1(pipe("os", script("for d in $(seq 300); do mkdir $d; head -c 2000000 /dev/urandom | split -b 20000 - $d/f; done")), pipe("p", copyOf("os")))
	o := mustBuild(b, e, m, "os").Trees["os"]
	b.Run("adopt", func(b *testing.B) {
		for b.Loop() {
			res := mustBuild(b, e, m, "p")
			b.StopTimer()
			if len(ran(res)) != 1 {
				b.Fatal("it was there")
			}
			if err := os.RemoveAll(filepath.Join(e.cfg.Store.Dir, "objects", res.Trees["p"].Key)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("cp", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			to := filepath.Join(b.TempDir(), fmt.Sprint(i))
			if out, err := exec.CommandContext(context.Background(), "cp", "-a", o.LayerDirs()[0], to).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			b.StopTimer()
			if err := os.RemoveAll(to); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}
