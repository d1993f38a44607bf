// Pins: what the last build of a target needs is kept when room is made.
package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Pin is what the last build of a target of a workspace needs.
type Pin struct {
	Workspace string    `json:"workspace"` // its root
	Package   string    `json:"package"`   // the folder that declares the target
	Label     string    `json:"label"`
	Built     time.Time `json:"built"`
	Keys      []string  `json:"keys"`    // of objects
	Sources   []string  `json:"sources"` // checksums
}

// pinFile is where a pin is kept: names of people's folders and labels are no names of
// files.
func (s *Store) pinFile(workspace, label string) string {
	name := func(text string) string {
		h := sha256.Sum256([]byte(text))
		return hex.EncodeToString(h[:10])
	}
	return s.path("pins", name(workspace), name(label)+".json")
}

// Pin keeps what a target needs from being removed to make room, in place of what its
// build before needed.
func (s *Store) Pin(p Pin) error {
	file := s.pinFile(p.Workspace, p.Label)
	// A build of nothing pins the same again: a new file would make it wait for the disk.
	var old Pin
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &old) == nil {
		age := p.Built.Sub(old.Built)
		if age >= 0 && age < time.Hour && old.Package == p.Package && slices.Equal(old.Keys, p.Keys) && slices.Equal(old.Sources, p.Sources) {
			return nil
		}
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("pinning %s: %w", p.Label, err)
	}
	tmp := fmt.Sprintf("%s.%d.new", file, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("pinning %s: %w", p.Label, err)
	}
	return os.Rename(tmp, file)
}

// Unpin takes a pin away; one that is not there is no error.
func (s *Store) Unpin(workspace, label string) error {
	err := os.Remove(s.pinFile(workspace, label))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Pins lists the pins, by workspace and label. One whose workspace or package is not
// there any more has lapsed and is not among them, and neither is one that cannot be
// read.
func (s *Store) Pins() ([]Pin, error) {
	pins, _, err := s.pins()
	return pins, err
}

// pins tells also of the files that hold no pin any more.
func (s *Store) pins() (pins []Pin, lapsed []string, err error) {
	spaces, err := namesIn(s.path("pins"))
	if err != nil {
		return nil, nil, err
	}
	var files []string
	for _, space := range spaces {
		names, err := namesIn(s.path("pins", space))
		if err != nil {
			return nil, nil, err
		}
		for _, n := range names {
			files = append(files, s.path("pins", space, n))
		}
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		var p Pin
		if json.Unmarshal(b, &p) != nil || file != s.pinFile(p.Workspace, p.Label) || isGone(p.Workspace) || isGone(p.Package) {
			lapsed = append(lapsed, file)
			continue
		}
		pins = append(pins, p)
	}
	slices.SortFunc(pins, func(a, b Pin) int {
		return cmp.Or(cmp.Compare(a.Workspace, b.Workspace), cmp.Compare(a.Label, b.Label))
	})
	return pins, lapsed, nil
}

func isGone(dir string) bool {
	_, err := os.Stat(dir)
	return errors.Is(err, fs.ErrNotExist)
}
