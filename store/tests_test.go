// Tests that have passed, and memos.
package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPassed(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want := Passed{Key: "k", Label: "//:t", Time: time.Unix(1700000000, 0).UTC(), Accel: "tcg", Boot: time.Second, Total: 2 * time.Second}
	if err := s.ForgetPassed("k"); err != nil {
		t.Errorf("forgetting what is not there: %v", err)
	}
	if err := s.KeepPassed(want); err != nil {
		t.Fatal(err)
	}
	if got, ok := s.Passed("k"); !ok || !cmp.Equal(want, got) {
		t.Errorf("%v %+v", ok, got)
	}
	if err := s.KeepPassed(Passed{}); err == nil {
		t.Error("one without a key is kept")
	}
	// Of another key, or half of a file: not passed.
	file := filepath.Join(s.Dir, "tests", "k.json")
	if err := os.Rename(file, filepath.Join(s.Dir, "tests", "other.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"key":"k"`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"k", "other", "none"} {
		if _, ok := s.Passed(key); ok {
			t.Errorf("%s has passed", key)
		}
	}
	if err := s.KeepPassed(want); err != nil {
		t.Fatal(err)
	}
	if err := s.ForgetPassed("k"); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Passed("k"); ok {
		t.Error("it was forgotten, and has passed")
	}
}

func TestMemo(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	if s.ReadMemo("m", &got) {
		t.Error("there is one")
	}
	for n := range 2 {
		if err := s.WriteMemo("m", map[string]int{"n": n}); err != nil {
			t.Fatal(err)
		}
		if !s.ReadMemo("m", &got) || got["n"] != n {
			t.Errorf("%v, want %d", got, n)
		}
	}
	if ents, err := os.ReadDir(filepath.Join(s.Dir, "memo")); err != nil || len(ents) != 1 {
		t.Errorf("left: %v, %v", ents, err)
	}
}
