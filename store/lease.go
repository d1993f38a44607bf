// Leases: what builds use, so that nobody takes it away from them.
//
// A process that uses objects or sources has a file in leases, locked for as long as
// it lives, and names in it what it uses. It does so holding gc.lock, shared, from
// looking until the name is written; who takes things away holds that lock alone, for
// the few renames that it needs. So builds and clean-ups go on beside each other.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The kinds of names in a lease, and what is put between kind and name.
const (
	leaseObject = "object "
	leaseLayer  = "layer "
	leaseSource = "source "
)

// lockGC locks gc.lock in one of the ways of flock.
func (s *Store) lockGC(how int) (*os.File, error) {
	f, err := os.OpenFile(s.path("gc.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
	}
}

// sharing keeps others from taking anything away until release is called.
func (s *Store) sharing() (release func()) {
	f, err := s.lockGC(unix.LOCK_SH)
	if err != nil {
		return func() {} // nobody can lock it alone then either
	}
	return func() { f.Close() }
}

// alone keeps builds from finding anything in the store until release is called.
func (s *Store) alone(ctx context.Context) (release func(), err error) {
	for {
		f, err := s.lockGC(unix.LOCK_EX | unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// use notes that this process uses things, until [Store.Close]. Its caller holds the
// lock that sharing takes.
func (s *Store) use(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var text strings.Builder
	for _, n := range names {
		if !s.used[n] {
			text.WriteString(n + "\n")
		}
	}
	if text.Len() == 0 || s.held != nil {
		return
	}
	if s.lease == nil {
		s.sweepLeases()
		for range 3 { // a sweep of another process may be in the way
			f, ok, err := lockNamed(s.path("leases", fmt.Sprintf("%d.%d", os.Getpid(), time.Now().UnixNano())))
			if err != nil {
				break
			}
			if ok {
				s.lease = f
				break
			}
		}
	}
	err := error(unix.ENOSPC)
	if s.lease != nil {
		_, err = s.lease.WriteString(text.String())
	}
	if err != nil {
		// A full disk: nothing is taken away at all while this process lives.
		s.held, _ = s.lockGC(unix.LOCK_SH)
		return
	}
	if s.used == nil {
		s.used = map[string]bool{}
	}
	for _, n := range names {
		s.used[n] = true
	}
}

// Close gives up what the process uses; the store can be used further.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease != nil {
		os.Remove(s.lease.Name())
		s.lease.Close()
	}
	if s.held != nil {
		s.held.Close()
	}
	s.lease, s.held, s.used = nil, nil, nil
}

// sweepLeases removes those of processes that are gone.
func (s *Store) sweepLeases() { s.leases() }

// leases are the names of all that processes use.
func (s *Store) leases() (map[string]bool, error) {
	out := map[string]bool{}
	ents, err := os.ReadDir(s.path("leases"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range ents {
		name := s.path("leases", e.Name())
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.Remove(name)
			f.Close()
			continue
		}
		f.Close()
		b, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			out[strings.TrimSuffix(line, "\n")] = true
		}
	}
	return out, nil
}
