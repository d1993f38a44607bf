// Tests of images that have passed: one of the same key need not be run again.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Passed is a test of an image that passed. One that failed is never kept.
type Passed struct {
	Key   string        `json:"key"` // of the image, the test and the machine
	Label string        `json:"label"`
	Time  time.Time     `json:"time"`  // when it ended
	Accel string        `json:"accel"` // "kvm" or "tcg"
	Boot  time.Duration `json:"boot"`  // until the login prompt, in ns
	Total time.Duration `json:"total"`
}

// Passed finds the test of that key. What cannot be read has not passed.
func (s *Store) Passed(key string) (Passed, bool) {
	var p Passed
	b, err := os.ReadFile(s.path("tests", key+".json"))
	if err != nil || json.Unmarshal(b, &p) != nil || p.Key != key {
		return Passed{}, false
	}
	return p, true
}

// KeepPassed remembers a test that passed.
func (s *Store) KeepPassed(p Passed) error {
	if p.Key == "" {
		return errors.New("keeping a test: it has no key")
	}
	if err := s.writeJSON(s.path("tests", p.Key+".json"), p); err != nil {
		return fmt.Errorf("keeping a test: %w", err)
	}
	return nil
}

// ForgetPassed takes back that a test has passed.
func (s *Store) ForgetPassed(key string) error {
	if err := os.Remove(s.path("tests", key+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting a test: %w", err)
	}
	return nil
}
