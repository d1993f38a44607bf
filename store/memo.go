// Memos: small facts that are cheap to find out again, and cheaper to remember.
package store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// ReadMemo reads what [Store.WriteMemo] kept by that name into v, and tells whether
// there was anything. A memo that cannot be read is none.
func (s *Store) ReadMemo(name string, v any) bool {
	b, err := os.ReadFile(s.path("memo", name+".json"))
	return err == nil && json.Unmarshal(b, v) == nil
}

// WriteMemo keeps v by that name; the last one who writes wins.
func (s *Store) WriteMemo(name string, v any) error {
	if err := s.writeJSON(s.path("memo", name+".json"), v); err != nil {
		return fmt.Errorf("keeping a memo: %w", err)
	}
	return nil
}

// writeJSON makes a file that is whole or not there; its directory is made too.
func (s *Store) writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
