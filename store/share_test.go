// Layers that several objects, processes and names outside share.
package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func commit(t *testing.T, s *Store, key string, base *Object, file string) *Object {
	t.Helper()
	o, err := s.Commit(Info{Key: key}, base, layer(t, s, file, key))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func found(s *Store, keys ...string) map[string]bool {
	out := map[string]bool{}
	for _, k := range keys {
		_, out[k] = s.Lookup(k)
	}
	return out
}

func layersLeft(t *testing.T, s *Store) int {
	t.Helper()
	ents, err := os.ReadDir(s.LayersDir())
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// A file that was exported by a hard link and written to there damages every
// object that has its layer, whichever it was exported from.
func TestLinkDamagesAllThatShareTheLayer(t *testing.T) {
	s := open(t)
	a := commit(t, s, "a", nil, "disk.img")
	b := commit(t, s, "b", a, "sums")
	if _, err := s.Adopt(Info{Key: "adopted"}, a, s.path("tmp")); err != nil {
		t.Fatal(err)
	}
	other := commit(t, s, "other", nil, "f")
	commit(t, s, "above", other, "g")
	inStore, outside := filepath.Join(a.LayerDirs()[0], "disk.img"), filepath.Join(s.Dir, "exported")
	if err := os.Link(inStore, outside); err != nil {
		t.Fatal(err)
	}
	if err := b.RecordLink(inStore); err != nil {
		t.Fatal(err)
	}
	keys := []string{"a", "b", "adopted", "other", "above"}
	whole := map[string]bool{"a": true, "b": true, "adopted": true, "other": true, "above": true}
	if diff := cmp.Diff(whole, found(s, keys...)); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	f, err := os.OpenFile(outside, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	want := map[string]bool{"a": false, "b": false, "adopted": false, "other": true, "above": true}
	if diff := cmp.Diff(want, found(s, keys...)); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
}

func TestRecordLink(t *testing.T) {
	s := open(t)
	o := commit(t, s, "k", nil, "f0")
	dir := o.LayerDirs()[0]
	const n = 20
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Two processes at once, and each file twice.
	again, err := Open(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	o2, _ := again.Lookup("k")
	var wg sync.WaitGroup
	for i := range n {
		for _, o := range []*Object{o, o2} {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := o.RecordLink(filepath.Join(dir, fmt.Sprintf("f%d", i))); err != nil {
					t.Error(err)
				}
			}()
		}
	}
	wg.Wait()
	links, err := s.links(o.Layers[0])
	if err != nil || len(links) != n {
		t.Errorf("%d links, %v", len(links), err)
	}
	// Mode and owner are the store's, too; and no later note makes a change good.
	for name, change := range map[string]func(string, bool) error{
		"mode": func(p string, back bool) error {
			return os.Chmod(p, map[bool]os.FileMode{true: 0o644, false: 0o600}[back])
		},
		"owner": func(p string, back bool) error {
			return os.Chown(p, -1, map[bool]int{true: os.Getgid(), false: 7}[back])
		},
	} {
		if os.Geteuid() != 0 && name == "owner" {
			continue
		}
		p := filepath.Join(dir, "f0")
		if err := change(p, false); err != nil {
			t.Fatal(err)
		}
		if o.linksIntact() {
			t.Errorf("another %s was not noticed", name)
		}
		if err := o.RecordLink(p); err != nil {
			t.Fatal(err)
		}
		if o.linksIntact() {
			t.Errorf("another %s was noted as right", name)
		}
		if err := change(p, true); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(s.path("links", o.Layers[0]+".json")); err != nil {
			t.Fatal(err)
		}
		if err := o.RecordLink(p); err != nil || !o.linksIntact() {
			t.Errorf("after %s was set back: %v", name, err)
		}
	}
	outside := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(outside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{outside, filepath.Join(dir, "nothing"), s.LayersDir()} {
		if err := o.RecordLink(p); err == nil {
			t.Errorf("%s was taken", p)
		}
	}
	// What cannot be read any more is not trusted.
	if err := os.WriteFile(s.path("links", o.Layers[0]+".json"), []byte("["), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Lookup("k"); ok {
		t.Error("an object whose links are not known was found")
	}
}

// An object that is damaged, and that nobody looked up before, is no obstacle.
func TestCommitReplacesDamage(t *testing.T) {
	s := open(t)
	o := commit(t, s, "k", nil, "f")
	if err := os.RemoveAll(o.LayerDirs()[0]); err != nil {
		t.Fatal(err)
	}
	n := commit(t, s, "k", nil, "g")
	if _, err := os.Stat(filepath.Join(n.LayerDirs()[0], "g")); err != nil {
		t.Error(err)
	}
	if got, ok := s.Lookup("k"); !ok || got.Layers[0] != n.Layers[0] {
		t.Errorf("found: %v %v", got, ok)
	}
}

func TestAdopt(t *testing.T) {
	s := open(t)
	a := commit(t, s, "a", commit(t, s, "base", nil, "f"), "g")
	b, err := s.Adopt(Info{Key: "b", ID: "idb"}, a, s.path("tmp"))
	if err != nil {
		t.Fatal(err)
	}
	got, ok := s.Lookup("b")
	if !ok || !got.Adopted || got.ID != "idb" {
		t.Errorf("found %+v, %v", got, ok)
	}
	if diff := cmp.Diff(a.Layers, b.Layers); diff != "" {
		t.Errorf("layers:\n%s", diff)
	}
	if n := layersLeft(t, s); n != 2 {
		t.Errorf("%d layers", n)
	}
	again, err := s.Adopt(Info{Key: "b", ID: "later"}, a, s.path("tmp"))
	if err != nil || again.ID != "idb" {
		t.Errorf("adopted twice: %+v, %v", again, err)
	}
}

// Two processes that make the same things at once keep one of each.
func TestCommitAtOnce(t *testing.T) {
	s := open(t)
	other, err := Open(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	const keys, tries = 5, 8
	var mu sync.Mutex
	layers := map[string]map[string]bool{}
	var wg sync.WaitGroup
	for k := range keys {
		for i := range tries {
			wg.Add(1)
			go func() {
				defer wg.Done()
				st := []*Store{s, other}[i%2]
				key := fmt.Sprintf("k%d", k)
				d, err := st.Scratch()
				if err != nil {
					t.Error(err)
					return
				}
				defer d.Close()
				up := filepath.Join(d.Path, "upper")
				if err := os.Mkdir(up, 0o755); err != nil {
					t.Error(err)
					return
				}
				o, err := st.Commit(Info{Key: key}, nil, up)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if layers[key] == nil {
					layers[key] = map[string]bool{}
				}
				layers[key][o.Layers[0]] = true
			}()
		}
	}
	wg.Wait()
	for k, l := range layers {
		if len(l) != 1 {
			t.Errorf("%s has %d layers", k, len(l))
		}
	}
	if n := layersLeft(t, s); n != keys {
		t.Errorf("%d layers are left", n)
	}
	for _, d := range []string{"tmp", "objects"} {
		ents, _ := os.ReadDir(s.path(d))
		if want := map[string]int{"tmp": 0, "objects": keys}[d]; len(ents) != want {
			t.Errorf("%s has %d entries", d, len(ents))
		}
	}
}

// What a killed process left is removed by the next one.
func TestLeftoversAreSwept(t *testing.T) {
	s := open(t)
	if err := os.MkdirAll(s.path("tmp", "run-dead", "step-1", "upper"), 0o755); err != nil {
		t.Fatal(err)
	}
	living, err := s.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	commit(t, s, "k", nil, "f")
	ents, _ := os.ReadDir(s.path("tmp"))
	for _, e := range ents {
		if e.Name() == "run-dead" {
			t.Error("the directory of a dead process is left")
		}
	}
	if _, err := os.Stat(living.Path); err != nil {
		t.Errorf("a directory in use: %v", err)
	}
}

// Settling is for what was made since the machine was started: older objects that
// were not written out then are not made good by it.
func TestSettleTrustsNothingOlder(t *testing.T) {
	s := open(t)
	commit(t, s, "old", nil, "f")
	s.boot = "another"
	commit(t, s, "new", nil, "f")
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	s.boot = "a third"
	if diff := cmp.Diff(map[string]bool{"old": false, "new": true}, found(s, "old", "new")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOpenNeedsAPlace(t *testing.T) {
	f := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(f, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(f, "store")); err == nil {
		t.Error("a store below a file was opened")
	}
}

func TestFinishMeasures(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(writeFile(t, filepath.Join(dir, "sparse")), 1<<30); err != nil {
		t.Fatal(err)
	}
	size, err := Finish(dir, time.Now(), nil)
	if err != nil || size < 1<<20 || size > 1<<20+1<<16 {
		t.Errorf("size %d, %v", size, err)
	}
	if _, err := Finish(filepath.Join(dir, "nothing"), time.Now(), nil); err == nil {
		t.Error("of nothing: no error")
	}
}

func writeFile(t *testing.T, p string) string {
	t.Helper()
	if err := os.WriteFile(p, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}
