// History: what stages took when they ran before. It only helps to plan; a build is
// the same without it.
package store

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Cost is what a stage took.
type Cost struct {
	Wall   time.Duration
	CPU    time.Duration
	MaxRSS int64 // bytes, of its largest process
}

// Ran is a stage that ran, and what it took.
type Ran struct {
	ID   string
	Type string
	Cost
}

// History is what is remembered of stages: by ID the last time, and by type a mean
// of the last times.
type History struct {
	IDs   map[string]past `json:"ids"`
	Types map[string]past `json:"types"`
}

// past is a Cost as it is kept: small, and with the time of it.
type past struct {
	Wall int64 `json:"w"` // milliseconds
	CPU  int64 `json:"c"` // milliseconds
	RSS  int64 `json:"r"` // KiB
	When int64 `json:"t"` // seconds since 1970
}

// How much is kept. The least recent IDs and types are forgotten first.
const (
	maxPastIDs   = 2000
	maxPastTypes = 500
	idLength     = 16 // of an ID, enough to tell stages apart
)

func (s *Store) historyPath() string { return s.path("history.json") }

// Recall reads the history. One that is not there, or damaged, is empty.
func (s *Store) Recall() *History {
	h := &History{}
	if b, err := os.ReadFile(s.historyPath()); err != nil || json.Unmarshal(b, h) != nil {
		h = &History{}
	}
	if h.IDs == nil {
		h.IDs = map[string]past{}
	}
	if h.Types == nil {
		h.Types = map[string]past{}
	}
	for _, m := range []map[string]past{h.IDs, h.Types} {
		for k, p := range m {
			if p.Wall < 0 || p.CPU < 0 || p.RSS < 0 {
				delete(m, k)
			}
		}
	}
	return h
}

// Of tells what a stage took before: that very one, else its type.
func (h *History) Of(id, typ string) (u Cost, ok bool) {
	p, ok := h.IDs[shortID(id)]
	if !ok {
		p, ok = h.Types[typ]
	}
	return Cost{Wall: time.Duration(p.Wall) * time.Millisecond, CPU: time.Duration(p.CPU) * time.Millisecond, MaxRSS: p.RSS << 10}, ok
}

// Remember adds what ran to the history. Several processes may do so at once.
func (s *Store) Remember(ran []Ran) error {
	if len(ran) == 0 {
		return nil
	}
	lock, err := os.OpenFile(s.path("history.lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("remembering what stages took: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("remembering what stages took: %w", err)
	}
	h := s.Recall()
	now := time.Now().Unix()
	for _, r := range ran {
		p := past{Wall: r.Wall.Milliseconds(), CPU: r.CPU.Milliseconds(), RSS: r.MaxRSS >> 10, When: now}
		if old, ok := h.Types[r.Type]; ok {
			h.Types[r.Type] = past{Wall: (old.Wall + p.Wall) / 2, CPU: (old.CPU + p.CPU) / 2, RSS: slowly(old.RSS, p.RSS), When: now}
		} else {
			h.Types[r.Type] = p
		}
		if old, ok := h.IDs[shortID(r.ID)]; ok {
			p.RSS = slowly(old.RSS, p.RSS)
		}
		h.IDs[shortID(r.ID)] = p
	}
	forget(h.IDs, maxPastIDs)
	forget(h.Types, maxPastTypes)
	if err := s.writeHistory(h); err != nil {
		return fmt.Errorf("remembering what stages took: %w", err)
	}
	return nil
}

// slowly lets a figure go up at once and down slowly: too little memory is worse than
// a stage that waits.
func slowly(old, now int64) int64 { return max(now, (old+now)/2) }

func shortID(id string) string { return id[:min(idLength, len(id))] }

// forget leaves the most recent ones.
func forget(m map[string]past, most int) {
	if len(m) <= most {
		return
	}
	type entry struct {
		key  string
		when int64
	}
	var all []entry
	for k, p := range m {
		all = append(all, entry{k, p.When})
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Or(cmp.Compare(a.when, b.when), cmp.Compare(a.key, b.key)) })
	for _, e := range all[:len(all)-most] {
		delete(m, e.key)
	}
}

// writeHistory replaces the file, in a scratch directory first.
func (s *Store) writeHistory(h *History) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	dir, err := s.Scratch()
	if err != nil {
		return err
	}
	defer dir.Close()
	p := filepath.Join(dir.Path, "history.json")
	if err := os.WriteFile(p, b, 0o644); err != nil {
		return err
	}
	return os.Rename(p, s.historyPath())
}
