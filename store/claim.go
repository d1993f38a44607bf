// Claims: who makes an object, so that nobody makes it a second time meanwhile.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// claimPoll is how often one that waits for a claim looks again.
const claimPoll = 20 * time.Millisecond

// Claim waits until nobody else, in this process or another, holds the claim on that
// key, and takes it: its holder makes the object. Whoever had to wait looks the
// object up again. A claim is gone with its process.
func (s *Store) Claim(ctx context.Context, key string) (release func(), err error) {
	for {
		release, ok, err := s.TryClaim(key)
		if ok || err != nil {
			return release, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(claimPoll):
		}
	}
}

// TryClaim is Claim that does not wait: ok tells whether the claim was taken.
func (s *Store) TryClaim(key string) (release func(), ok bool, err error) {
	f, ok, err := lockNamed(s.path("locks", key))
	if !ok {
		return nil, false, err
	}
	return func() {
		os.Remove(f.Name()) // while it is locked: nobody else has it
		f.Close()
	}, true, nil
}

// lockNamed makes the file of that name, unless it is there, and locks it. Whoever
// holds the lock may remove the file.
func lockNamed(name string) (*os.File, bool, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if errors.Is(err, os.ErrNotExist) {
			if err = os.Mkdir(filepath.Dir(name), 0o755); err == nil || errors.Is(err, os.ErrExist) {
				continue
			}
		}
		if err != nil {
			return nil, false, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// The name may belong to another file since it was opened.
			mine, err1 := f.Stat()
			named, err2 := os.Lstat(name)
			if err1 == nil && err2 == nil && os.SameFile(mine, named) {
				return f, true, nil
			}
			f.Close()
			continue
		}
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, false, nil
		}
		if err != unix.EINTR {
			return nil, false, fmt.Errorf("locking %s: %w", name, err)
		}
	}
}
