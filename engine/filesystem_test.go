// Stores on other file systems, in a mount namespace of the test's own.
package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

const ownNamespace = "OSBUILD_STAR_TEST_NAMESPACE"

// inNamespace tells whether the test runs in a mount namespace of its own. Where it does
// not, it has run in one when this returns, in another process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	needRoot(t)
	if os.Getenv(ownNamespace) != "" {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v="+fmt.Sprint(testing.Verbose()))
	cmd.Env = append(os.Environ(), ownNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS} // Go makes its mounts private
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// storeOn makes a store in a new file system.
func storeOn(t *testing.T, fstype string) *store.Store {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "fs")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
		}
	}
	switch fstype {
	case "tmpfs":
		run("mount", "-t", "tmpfs", "tmpfs", at)
	case "overlay":
		for _, d := range []string{"lower", "upper", "work"} {
			if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		run("mount", "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir), "overlay", at)
	default:
		if _, err := exec.LookPath("mkfs." + fstype); err != nil {
			t.Skip(err)
		}
		img := filepath.Join(dir, "img")
		if err := os.WriteFile(img, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(img, 1<<30); err != nil {
			t.Fatal(err)
		}
		run("mkfs."+fstype, "-q", img)
		run("mount", "-o", "loop", img, at)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	st, err := store.Open(filepath.Join(at, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return st
}

// The property of layers, on each file system that a store may be on, by layers where
// overlayfs can serve and by copies.
func TestLayersOnFileSystems(t *testing.T) {
	for _, c := range []struct {
		fs, mode string
	}{
		{"xfs", LayersOverlay},
		{"xfs", LayersCopy}, // by reflink
		{"btrfs", LayersOverlay},
		{"btrfs", LayersCopy},
		{"tmpfs", LayersOverlay},
		{"tmpfs", LayersCopy},
		{"overlay", LayersAuto},
	} {
		t.Run(c.fs+" "+c.mode, func(t *testing.T) {
			if inNamespace(t) {
				layersProperty(t, storeOn(t, c.fs), c.mode, 0, 3)
			}
		})
	}
}

// Which way is taken by itself, and that it is told where that is not layers.
func TestLayersAreChosen(t *testing.T) {
	for fs, want := range map[string]bool{"xfs": false, "tmpfs": false, "overlay": true} {
		t.Run(fs, func(t *testing.T) {
			if !inNamespace(t) {
				return
			}
			e := newEngine(t, storeOn(t, fs))
			var notes []string
			span := onEvent(func(ev monitor.Event) {
				if ev.Kind == monitor.Note {
					notes = append(notes, ev.Text)
				}
			})
			m := plan1(pipe("p", note("a", "1"), note("b", "1")))
			res, err := e.Build(context.Background(), m, []string{"p"}, span)
			if err != nil {
				t.Fatal(explain(err))
			}
			o := res.Trees["p"]
			if e.copies != want || o.Plain != want || (len(o.Layers) == 1) != want {
				t.Errorf("copies %v, plain %v, %d layers", e.copies, o.Plain, len(o.Layers))
			}
			if (len(notes) == 1) != want || want && !strings.Contains(notes[0], "overlayfs cannot serve in the store") {
				t.Errorf("notes: %q", notes)
			}
			if lacks, err := e.Preflight(m, []string{"p"}); err != nil || len(lacks) > 0 {
				t.Errorf("preflight: %v, %v", lacks, err)
			}
			// Trying comes to the same as knowing.
			if err := e.tryOverlay(filepath.Join(e.run.Path, "tried"), filepath.Join(e.work.Path, "tried")); (err != nil) != want {
				t.Errorf("tried: %v", err)
			}
			forced := New(Config{Store: e.cfg.Store, Layers: LayersOverlay, Work: t.TempDir(), Var: t.TempDir()})
			defer forced.Close()
			if err := forced.prepare(); (err != nil) != want {
				t.Errorf("where layers are asked for: %v", err)
			}
		})
	}
}

// A container's own root: the store is on an overlay, and so is the place for /var of
// build roots, which each stage has for itself.
func TestAllOnAnOverlay(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	st := storeOn(t, "overlay")
	vardir := filepath.Join(filepath.Dir(st.Dir), "var")
	if err := os.Mkdir(vardir, 0o755); err != nil {
		t.Fatal(err)
	}
	eachSandbox(t, func(t *testing.T, sandbox func(*Config)) {
		e := newEngine(t, st, sandbox, func(c *Config) { c.Var = vardir })
		look := "test ! -e /var/tmp/mine; stat -c '%a %u %n' /var /var/* >> seen; touch /var/tmp/mine # "
		got, err := contents(exported(t, e, mustBuild(t, e, plan1(pipe("p", script(look+t.Name()), script("cp seen first; "+look), note("end", "1"))), "p").Trees["p"]))
		if err != nil {
			t.Fatal(err)
		}
		if got["seen"] != strings.Repeat(got["first"], 2) || !strings.Contains(got["first"], "1777 0 /var/tmp\n") {
			t.Errorf("seen by the first: %q, by both: %q", got["first"], got["seen"])
		}
	})
}

// Copies share their data where the file system can do that.
func TestCopiesShareData(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const size = 64 << 20
	for _, fs := range []string{"xfs", "btrfs"} {
		st := storeOn(t, fs)
		e := newEngine(t, st, func(c *Config) { c.Layers = LayersCopy })
		free := func() int64 {
			t.Helper()
			var s unix.Statfs_t
			unix.Sync()
			if err := unix.Statfs(st.Dir, &s); err != nil {
				t.Fatal(err)
			}
			return int64(s.Bavail) * s.Bsize
		}
		before := free()
		m := plan1(pipe("p", script(fmt.Sprintf("head -c %d /dev/urandom > big; ln big second", size)), note("a", "1"), note("b", "1"), note("c", "1"), note("d", "1")))
		o := mustBuild(t, e, m, "p").Trees["p"]
		if used := before - free(); used < size || used > 2*size {
			t.Errorf("%s: five trees with the same %d MiB take %d MiB", fs, size>>20, used>>20)
		}
		got := describe(t, exported(t, e, o))
		if len(got) != 7 || !strings.Contains(got[`"big"`], `names: "big","second"`) {
			t.Errorf("%s: %v", fs, got)
		}
	}
}

// Stores go from one way to the other: what is there is read, not made again.
func TestLayersThenCopies(t *testing.T) {
	base := []string{"mkdir -p d/e; echo 1 > d/e/f; ln d/e/f hard; echo 1 > gone; echo 1 > same", "mv d moved; rm gone; chmod 600 same; echo 2 >> hard"}
	for _, c := range []struct{ first, then string }{{LayersOverlay, LayersCopy}, {LayersCopy, LayersOverlay}} {
		t.Run(c.first+" then "+c.then, func(t *testing.T) {
			st := newStore(t)
			m := plan1(pipe("p", script(base[0]), script(base[1])))
			first := newEngine(t, st, func(cfg *Config) { cfg.Layers = c.first })
			want := describe(t, exported(t, first, mustBuild(t, first, m, "p").Trees["p"]))
			then := newEngine(t, st, func(cfg *Config) { cfg.Layers = c.then })
			res := mustBuild(t, then, m, "p")
			if got := ran(res); len(got) != 0 {
				t.Errorf("ran again: %v", got)
			}
			if diff := cmp.Diff(want, describe(t, exported(t, then, res.Trees["p"]))); diff != "" {
				t.Errorf("(-first +then):\n%s", diff)
			}
			// A stage that changes nothing, and one that does, on what is there.
			m.Pipelines[0].Stages = append(m.Pipelines[0].Stages, stage("org.osbuild.noop", `{}`), script("echo 3 > new; rm same"))
			res = mustBuild(t, then, m, "p")
			if diff := cmp.Diff([]string{"p noop", "p sh"}, ran(res)); diff != "" {
				t.Errorf("ran (-want +got):\n%s", diff)
			}
			got, err := contents(exported(t, then, res.Trees["p"]))
			if diff := cmp.Diff(map[string]string{"hard": "1\n2\n", "moved/e/f": "1\n2\n", "new": "3\n"}, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			checkFind(t, then, res.Trees["p"], exported(t, then, res.Trees["p"]))
		})
	}
}

// Where layers cannot be read, they are as good as not there.
func TestLayersThatCannotBeRead(t *testing.T) {
	st := newStore(t)
	m := plan1(pipe("p", note("a", "1"), note("b", "1")))
	first := newEngine(t, st)
	mustBuild(t, first, m, "p")
	e := newEngine(t, st, func(c *Config) { c.Layers = LayersCopy })
	e.showsLayers = func() bool { return false }
	if e.Cached(m, []string{"p"}) {
		t.Error("what cannot be read is taken")
	}
	res := mustBuild(t, e, m, "p")
	if got := ran(res); len(got) != 2 || !res.Trees["p"].Plain {
		t.Errorf("ran %v, plain %v", got, res.Trees["p"].Plain)
	}
	if got := ran(mustBuild(t, e, m, "p")); len(got) != 0 {
		t.Errorf("and again: %v", got)
	}
	got, err := contents(exported(t, first, mustBuild(t, first, m, "p").Trees["p"]))
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "1"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
