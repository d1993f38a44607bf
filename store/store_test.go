package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// layer makes a directory with one file in a scratch directory.
func layer(t *testing.T, s *Store, name, content string) string {
	t.Helper()
	d, err := s.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	up := filepath.Join(d.Path, "upper")
	if err := os.Mkdir(up, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(up, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return up
}

func TestCommitAndLookup(t *testing.T) {
	s := open(t)
	a, err := s.Commit(Info{Key: "a", ID: "ida"}, nil, layer(t, s, "f", "1"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Commit(Info{Key: "b"}, a, layer(t, s, "g", "2"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := again.Lookup("b")
	if !ok {
		t.Fatal("b is not found")
	}
	if diff := cmp.Diff(b.LayerDirs(), got.LayerDirs()); diff != "" || len(got.Layers) != 2 {
		t.Errorf("layers: %v\n%s", got.Layers, diff)
	}
	if _, ok := s.Lookup("nothing"); ok {
		t.Error("found what is not there")
	}
}

func TestTwoWinnersKeepOne(t *testing.T) {
	s := open(t)
	a, err := s.Commit(Info{Key: "k"}, nil, layer(t, s, "f", "first"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Commit(Info{Key: "k"}, nil, layer(t, s, "f", "second"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.Layers, b.Layers); diff != "" {
		t.Errorf("the second commit did not take the first one's object:\n%s", diff)
	}
	ents, _ := os.ReadDir(s.LayersDir())
	if len(ents) != 1 {
		t.Errorf("%d layers are left", len(ents))
	}
}

func TestDamageIsNotFound(t *testing.T) {
	for name, damage := range map[string]func(s *Store, o *Object) error{
		"layer gone":     func(s *Store, o *Object) error { return os.RemoveAll(o.LayerDirs()[0]) },
		"info cut short": func(s *Store, o *Object) error { return os.Truncate(s.path("objects", "k", "info.json"), 10) },
		"removed by half": func(s *Store, o *Object) error {
			if err := s.Settle(); err != nil {
				return err
			}
			return os.Remove(s.path("objects", "k", "info.json"))
		},
		"linked file written to": func(s *Store, o *Object) error {
			f := filepath.Join(o.LayerDirs()[0], "f")
			if err := o.RecordLink(f); err != nil {
				return err
			}
			if _, ok := s.Lookup("k"); !ok {
				return os.ErrInvalid
			}
			return os.WriteFile(f, []byte("changed outside"), 0o644)
		},
		"machine restarted before it was written out": func(s *Store, o *Object) error { s.boot = "another"; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			o, err := s.Commit(Info{Key: "k"}, nil, layer(t, s, "f", "1"))
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(s, o); err != nil {
				t.Fatal(err)
			}
			if _, ok := s.Lookup("k"); ok {
				t.Error("a damaged object was found")
			}
			if _, err := s.Commit(Info{Key: "k"}, nil, layer(t, s, "f", "1")); err != nil {
				t.Errorf("and cannot be made again: %v", err)
			}
		})
	}
}

// A process that was killed while it dropped an object can have left a directory with
// anything in it but what says what it is.
func TestHalfAnObjectIsNotInTheWay(t *testing.T) {
	s := open(t)
	if err := os.Mkdir(s.path("objects", "k"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.path("objects", "k", "settled"))
	if _, ok := s.Lookup("k"); ok {
		t.Error("half an object was found")
	}
	if _, err := s.Commit(Info{Key: "k"}, nil, layer(t, s, "f", "1")); err != nil {
		t.Fatal(err)
	}
	// It does not inherit that it was written out.
	s.boot = "another"
	if _, ok := s.Lookup("k"); ok {
		t.Error("an object is trusted for what another one left")
	}
	if ents, err := os.ReadDir(s.path("tmp")); err != nil || len(ents) > 1 { // that of the layer
		t.Errorf("in tmp: %v, %v", ents, err)
	}
}

func TestSettledSurvivesRestart(t *testing.T) {
	s := open(t)
	if _, err := s.Commit(Info{Key: "k"}, nil, layer(t, s, "f", "1")); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	s.boot = "another"
	if _, ok := s.Lookup("k"); !ok {
		t.Error("a settled object is gone after a restart")
	}
}

func TestFinishClamps(t *testing.T) {
	dir := t.TempDir()
	old := time.Unix(1000, 0)
	for _, n := range []string{"old", "new", "locked"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "old"), old, old); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		f, err := os.Open(filepath.Join(dir, "locked"))
		if err != nil {
			t.Fatal(err)
		}
		if unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0x10) == nil {
			defer func() { unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0); f.Close() }()
		}
	}
	epoch := int64(1700000000)
	if _, err := Finish(dir, time.Now().Add(-time.Minute), &epoch); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, n := range []string{".", "old", "new", "link"} {
		st, err := os.Lstat(filepath.Join(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		got[n] = st.ModTime().Unix()
	}
	want := map[string]int64{".": epoch, "old": 1000, "new": epoch, "link": epoch}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
}
