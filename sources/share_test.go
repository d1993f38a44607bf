// Sources that two stores share, and their modes.
package sources

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"syscall"
	"testing"
)

func TestShare(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	content := []byte("a source")
	h := sha256.Sum256(content)
	sum := "sha256:" + hex.EncodeToString(h[:])
	if err := Share(from, to, sum); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	if err := os.WriteFile(Path(from, sum), content, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second time is no error
		if err := Share(from, to, sum); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(Path(to, sum))
	if err != nil || st.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("it is no link: %v", err)
	}

	// Another file system takes a copy.
	shm, err := os.MkdirTemp("/dev/shm", "share-")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(shm)
	if err := Share(from, shm, sum); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(Path(shm, sum)); err != nil || string(b) != string(content) {
		t.Errorf("the copy is %q, %v", b, err)
	}
	if ents, _ := os.ReadDir(shm); len(ents) != 1 {
		t.Errorf("left: %v", ents)
	}

	// What is damaged is not shared.
	other := t.TempDir()
	if err := os.WriteFile(Path(from, sum), []byte("a sourcf"), 0o644); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if err := Share(from, other, sum); !errors.As(err, &e) || e.Hint == "" {
		t.Errorf("damaged: %v", err)
	}
	if Have(other, sum, 0) {
		t.Error("a damaged file is there")
	}
}

// The mode of a source, which stages copy, does not depend on who fetched it.
func TestModeOfSources(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	content := []byte("inline")
	h := sha256.Sum256(content)
	sum := "sha256:" + hex.EncodeToString(h[:])
	p, err := openPart(t.Context(), dir, &Item{Checksum: sum}, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := p.commit("here"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(Path(dir, sum)); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}
