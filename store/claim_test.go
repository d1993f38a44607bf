// Claims: one at a time, also across processes, and gone with their holder.
package store

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestClaimIsHeldByOne(t *testing.T) {
	s := open(t)
	again, err := Open(s.Dir) // a lock knows no process, but who opened the file
	if err != nil {
		t.Fatal(err)
	}
	var inside, most, turns atomic.Int32
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			release, err := []*Store{s, again}[i%2].Claim(t.Context(), "k")
			if err != nil {
				t.Error(err)
				return
			}
			most.Store(max(most.Load(), inside.Add(1)))
			turns.Add(1)
			inside.Add(-1)
			release()
		})
	}
	wg.Wait()
	if most.Load() != 1 || turns.Load() != 40 {
		t.Errorf("%d at once, %d turns", most.Load(), turns.Load())
	}
	if left, _ := namesIn(s.path("locks")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestClaimWaits(t *testing.T) {
	s := open(t)
	release, err := s.Claim(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.TryClaim("k"); ok || err != nil {
		t.Fatalf("it was taken twice: %v %v", ok, err)
	}
	if other, ok, err := s.TryClaim("other"); !ok || err != nil {
		t.Fatalf("another key cannot be claimed: %v", err)
	} else {
		other()
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := s.Claim(ctx, "k"); !errors.Is(err, stop) {
		t.Errorf("a claim that is given up: %v", err)
	}
	release()
	if release, ok, err := s.TryClaim("k"); !ok || err != nil {
		t.Errorf("after its release: %v %v", ok, err)
	} else {
		release()
	}
}

// A process that is killed holds nothing any more, and its file is no obstacle.
func TestClaimOfTheKilled(t *testing.T) {
	s := open(t)
	if err := os.Mkdir(s.path("locks"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(s.path("locks", "k"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	// The lock is the child's too, and then only its.
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, ok, _ := s.TryClaim("k"); ok {
		t.Error("what a living process holds was taken")
	}
	cmd.Process.Kill()
	cmd.Wait()
	release, err := s.Claim(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	release()
}
