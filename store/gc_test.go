// Making room: rules that hold for any store, and the moments in between.
package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// sized commits an object with a layer of about that many KiB, used so many minutes
// ago.
func sized(t *testing.T, s *Store, key string, base *Object, kib, minutes int) *Object {
	t.Helper()
	up := layer(t, s, "f", string(make([]byte, kib<<10)))
	size, err := Finish(up, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Commit(Info{Key: key, ID: "id" + key, Size: size}, base, up)
	if err != nil {
		t.Fatal(err)
	}
	age(t, s.path("objects", key, "info.json"), minutes)
	return o
}

func age(t *testing.T, file string, minutes int) {
	t.Helper()
	then := time.Now().Add(-time.Duration(minutes) * time.Minute)
	if err := os.Chtimes(file, then, then); err != nil {
		t.Fatal(err)
	}
}

func gc(t *testing.T, s *Store, opts GCOptions) *Freed {
	t.Helper()
	f, err := s.GC(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// keys are the objects that are there.
func keys(t *testing.T, s *Store) []string {
	t.Helper()
	objects, err := s.Objects()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, o := range objects {
		out = append(out, o.Key)
	}
	return out
}

// checkWhole looks for objects that lack a layer.
func checkWhole(t *testing.T, s *Store) {
	t.Helper()
	objects, err := s.Objects()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		for _, l := range o.Layers {
			if !exists(s.layerDir(l)) {
				t.Errorf("object %s lacks layer %s", o.Key, l)
			}
		}
	}
}

func TestGC(t *testing.T) {
	for name, tt := range map[string]struct {
		opts GCOptions
		pin  []string
		want []string
	}{
		"without a bound nothing goes":                {GCOptions{MaxSize: -1}, nil, []string{"a", "b", "c", "d", "old"}},
		"what was used least recently goes first":     {GCOptions{MaxSize: 300 << 10}, nil, []string{"a", "b", "c"}},
		"the end of a chain goes before its start":    {GCOptions{MaxSize: 160 << 10}, nil, []string{"a"}},
		"a pin keeps all that it stands on":           {GCOptions{MaxSize: 0}, []string{"c"}, []string{"a", "c"}},
		"nothing stays with --all":                    {GCOptions{MaxSize: 0, All: true}, []string{"c"}, []string{}},
		"what is old goes":                            {GCOptions{MaxSize: -1, OlderThan: 90 * time.Minute}, nil, []string{"a", "b", "c", "d"}},
		"what is old and pinned stays":                {GCOptions{MaxSize: -1, OlderThan: 90 * time.Minute}, []string{"old"}, []string{"a", "b", "c", "d", "old"}},
		"what is chosen goes, whatever pins it":       {GCOptions{MaxSize: -1, Select: func(i Item) bool { return i.ID == "idd" }}, []string{"d"}, []string{"a", "b", "c", "old"}},
		"a dry run removes nothing":                   {GCOptions{MaxSize: 0, DryRun: true}, nil, []string{"a", "b", "c", "d", "old"}},
		"one of a chain whose layers others need too": {GCOptions{MaxSize: -1, Select: func(i Item) bool { return i.Key == "a" }}, nil, []string{"b", "c", "d", "old"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			sized(t, s, "old", nil, 100, 100)
			a := sized(t, s, "a", nil, 100, 30)
			sized(t, s, "b", a, 100, 10)
			sized(t, s, "c", a, 60, 10)
			sized(t, s, "d", nil, 100, 60)
			s.Close()
			dir := t.TempDir()
			if err := s.Pin(Pin{Workspace: dir, Package: dir, Label: "//:x", Keys: tt.pin}); err != nil {
				t.Fatal(err)
			}
			before := layersLeft(t, s)
			f := gc(t, s, tt.opts)
			got := keys(t, s)
			if name == "a pin keeps all that it stands on" { // as layers; its own object may go
				got = append([]string{"a"}, slices.DeleteFunc(got, func(k string) bool { return k == "a" })...)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			checkWhole(t, s)
			if n := layersLeft(t, s); !tt.opts.DryRun && n != before-f.Layers {
				t.Errorf("%d layers are left of %d, and %d are said to be gone", n, before, f.Layers)
			}
			if tmp, _ := os.ReadDir(s.path("tmp")); slices.ContainsFunc(tmp, func(e os.DirEntry) bool { return e.Name()[:3] == "gc-" }) {
				t.Errorf("left in tmp: %v", tmp)
			}
		})
	}
}

// For any objects, pins, leases and bounds: no object lacks a layer, what is pinned or
// in use is there, nothing unneeded is left, and the bound is met unless only what
// stays is left.
func TestGCInvariants(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := open(t)
		var objects []*Object
		for i := range 1 + r.IntN(14) {
			key := fmt.Sprintf("k%02d", i)
			var base *Object
			if len(objects) > 0 && r.IntN(3) > 0 {
				base = objects[r.IntN(len(objects))]
			}
			if base != nil && r.IntN(5) == 0 {
				o, err := s.Adopt(Info{Key: key}, base, s.path("tmp"))
				if err != nil {
					t.Fatal(err)
				}
				age(t, s.path("objects", key, "info.json"), r.IntN(100))
				objects = append(objects, o)
				continue
			}
			objects = append(objects, sized(t, s, key, base, 4*r.IntN(30), r.IntN(100)))
		}
		var sums []string
		for i := range r.IntN(5) {
			sum := addSource(t, s, fmt.Sprint("source", i, string(make([]byte, r.IntN(50000)))))
			age(t, filepath.Join(s.SourcesDir(), sum), r.IntN(100))
			sums = append(sums, sum)
		}
		s.Close()
		dir := t.TempDir()
		stay := map[string]bool{}
		for i := range r.IntN(3) {
			p := Pin{Workspace: dir, Package: dir, Label: fmt.Sprint(i)}
			for _, o := range objects {
				if r.IntN(6) == 0 {
					p.Keys, stay[o.Key] = append(p.Keys, o.Key), true
				}
			}
			for _, sum := range sums {
				if r.IntN(3) == 0 {
					p.Sources, stay[sum] = append(p.Sources, sum), true
				}
			}
			if err := s.Pin(p); err != nil {
				t.Fatal(err)
			}
		}
		user, err := Open(s.Dir) // a build that runs
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if r.IntN(8) == 0 {
				if _, ok := user.Lookup(o.Key); ok {
					stay[o.Key] = true
				}
			}
		}
		opts := GCOptions{MaxSize: int64(r.IntN(1 << 20)), All: r.IntN(4) == 0}
		if opts.All {
			clear(stay)
			for name := range user.used {
				if k, ok := cutPrefix(name, leaseObject); ok {
					stay[k] = true
				}
			}
		}
		res := gc(t, s, opts)
		checkWhole(t, s)
		c, err := s.scan()
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, o := range c.objects {
			have[o.Key] = true
		}
		for _, src := range c.sources {
			have[src.Checksum] = true
		}
		for k := range stay {
			if !have[k] {
				t.Errorf("seed %d: %s is gone, and is pinned or in use", seed, k)
			}
		}
		sizes, err := s.layerSizes(c)
		if err != nil {
			t.Fatal(err)
		}
		var left, needed int64
		for _, l := range c.layers {
			left += sizes[l]
			if len(c.names[l]) == 0 && !user.used[leaseLayer+l] {
				t.Errorf("seed %d: layer %s is left, and nobody needs it", seed, l)
			}
			if user.used[leaseLayer+l] || slices.ContainsFunc(c.names[l], func(k string) bool { return stay[k] }) {
				needed += sizes[l]
			}
		}
		for _, src := range c.sources {
			left += src.Size
			if stay[src.Checksum] {
				needed += src.Size
			}
		}
		if left != res.Left {
			t.Errorf("seed %d: %d bytes are left, and it says %d", seed, left, res.Left)
		}
		if left > opts.MaxSize && left != needed {
			t.Errorf("seed %d: %d bytes are left, more than %d, and only %d have to stay", seed, left, opts.MaxSize, needed)
		}
		user.Close()
		if t.Failed() {
			return
		}
	}
}

func cutPrefix(s, p string) (string, bool) {
	if len(s) > len(p) && s[:len(p)] == p {
		return s[len(p):], true
	}
	return "", false
}

// What a process uses stays until it ends or says so; that of one that was killed does
// not.
func TestGCBesideBuilds(t *testing.T) {
	s := open(t)
	a := sized(t, s, "a", nil, 40, 10)
	s.Close()
	sum := addSource(t, s, "source")
	user, err := Open(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := user.Lookup("a"); !ok {
		t.Fatal("a is not there")
	}
	user.UseSources([]string{sum})
	b := sized(t, user, "b", a, 40, 10)
	all := GCOptions{MaxSize: 0, All: true}
	if f := gc(t, s, all); f.Objects+f.Layers+f.Sources != 0 || f.Used == 0 {
		t.Errorf("what is in use is gone: %+v", f)
	}
	for _, d := range b.LayerDirs() {
		if !exists(d) {
			t.Errorf("%s is gone", d)
		}
	}
	user.Close()
	if f := gc(t, s, all); f.Objects != 2 || f.Layers != 2 || f.Sources != 1 {
		t.Errorf("afterwards: %+v", f)
	}
	if left, _ := namesIn(s.path("leases")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// A lease that no process holds.
	sized(t, s, "c", nil, 40, 10)
	s.Close()
	if err := os.WriteFile(s.path("leases", "1.1"), []byte(leaseObject+"c\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if f := gc(t, s, all); f.Objects != 1 {
		t.Errorf("what a killed process used stays: %+v", f)
	}
}

// Nobody finds anything while it is chosen what goes, and what is on the way is not
// taken for an orphan.
func TestGCWaits(t *testing.T) {
	s := open(t)
	release := s.sharing() // somebody between looking and noting
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := s.GC(ctx, GCOptions{MaxSize: -1}); !errors.Is(err, stop) {
		t.Errorf("it did not wait: %v", err)
	}
	release()
	gc(t, s, GCOptions{MaxSize: -1})
}

func TestPinsLapse(t *testing.T) {
	s := open(t)
	sized(t, s, "a", nil, 4, 10)
	sized(t, s, "b", nil, 4, 10)
	sized(t, s, "c", nil, 4, 10)
	s.Close()
	gone, here := filepath.Join(t.TempDir(), "gone"), t.TempDir()
	for _, p := range []Pin{
		{Workspace: gone, Package: gone, Label: "//:x", Keys: []string{"a"}},
		{Workspace: here, Package: filepath.Join(here, "pkg"), Label: "//pkg:x", Keys: []string{"b"}},
		{Workspace: here, Package: here, Label: "//:x", Keys: []string{"nothing"}},
		{Workspace: here, Package: here, Label: "//:x", Keys: []string{"c"}}, // the same target, built again
	} {
		if err := s.Pin(p); err != nil {
			t.Fatal(err)
		}
	}
	gc(t, s, GCOptions{MaxSize: 0})
	if diff := cmp.Diff([]string{"c"}, keys(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := s.Unpin(here, "//:x"); err != nil {
		t.Fatal(err)
	}
	gc(t, s, GCOptions{MaxSize: 0})
	if left := keys(t, s); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	pins, lapsed, err := s.pins()
	if err != nil || len(pins)+len(lapsed) > 0 {
		t.Errorf("pins are left: %v %v %v", pins, lapsed, err)
	}
}

// What is mounted in a layer, for whatever reason, is not emptied.
func TestGCStaysOffMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	s := open(t)
	o := sized(t, s, "a", nil, 4, 10)
	s.Close()
	at := filepath.Join(o.LayerDirs()[0], "mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // it ends with its namespace
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
				return err
			}
			dir, err := os.Open(at) // wherever it is moved to
			if err != nil {
				return err
			}
			defer dir.Close()
			if err := os.WriteFile(filepath.Join(at, "precious"), nil, 0o644); err != nil {
				return err
			}
			if _, err := s.GC(context.Background(), GCOptions{MaxSize: 0}); err == nil {
				return errors.New("it says nothing of the mount")
			}
			if names, err := dir.Readdirnames(-1); err != nil || len(names) != 1 {
				return fmt.Errorf("what is mounted has %v, %v", names, err)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	checkWhole(t, s)
}
