// A private mount namespace: threads of this process that see mounts nobody else
// sees, and that vanish with the process however it ends.
package buildroot

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Space is a mount namespace that belongs to this process alone. Everything that
// osbuild-star mounts on the host side is mounted in one: nothing of it can be seen
// outside, and the kernel takes all of it away when the process dies, even by
// SIGKILL. A Space is safe for concurrent use.
type Space struct {
	ns *os.File
	wg sync.WaitGroup // of the threads in it

	mu     sync.Mutex
	idle   []chan<- call // threads that wait for a call
	closed bool
}

// call is what a thread is to do in the namespace.
type call struct {
	f    func() error
	done chan<- error
}

// maxIdle is how many threads are kept: starting one and taking it into the
// namespace takes longer than most of what it is for.
const maxIdle = 4

// NewSpace makes a private mount namespace. It needs CAP_SYS_ADMIN.
func NewSpace() (*Space, error) {
	s := &Space{}
	errc := make(chan error)
	onThread(func() {
		errc <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("making a mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("making mounts private: %w", err)
			}
			f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid()))
			if err != nil {
				return err
			}
			s.ns = f
			return nil
		}()
	})
	if err := <-errc; err != nil {
		return nil, err
	}
	return s, nil
}

// Do runs f on a thread that is in the namespace, and waits for it. Calls run at
// the same time; paths in f mean what they mean inside.
func (s *Space) Do(f func() error) error {
	done := make(chan error, 1)
	c := call{f, done}
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		next := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		next <- c
		return <-done
	}
	s.wg.Add(1)
	s.mu.Unlock()
	onThread(func() {
		defer s.wg.Done()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNS)
		}
		if err != nil {
			done <- fmt.Errorf("entering the mount namespace: %w", err)
			return
		}
		s.serve(c)
	})
	return <-done
}

// serve is a thread in the namespace: it does one call after the other.
func (s *Space) serve(c call) {
	calls := make(chan call, 1)
	for open := true; open; c, open = <-calls {
		err := c.f()
		if unix.Chdir("/") != nil {
			c.done <- err
			return
		}
		s.mu.Lock()
		keep := !s.closed && len(s.idle) < maxIdle
		if keep {
			s.idle = append(s.idle, calls)
		}
		s.mu.Unlock()
		c.done <- err
		if !keep {
			return
		}
	}
}

// onThread starts f on a thread of its own, which is thrown away afterwards, and
// with it whatever namespace f entered. The first thread of a process cannot be
// thrown away: it would stay in the namespace, and keep all its mounts.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return // locked: the thread ends
		}
		// While this one holds the first thread the next gets another.
		started := make(chan bool)
		onThread(func() {
			close(started)
			f()
		})
		<-started
		runtime.UnlockOSThread()
	}()
}

// Run runs a command in the namespace and waits for it.
func (s *Space) Run(cmd *exec.Cmd) error {
	return s.Do(func() error { return cmd.Run() })
}

// Close lets go of the namespace; mounts in it go away with their last user.
func (s *Space) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, calls := range s.idle {
		close(calls)
	}
	s.idle = nil
	s.mu.Unlock()
	s.wg.Wait()
	return s.ns.Close()
}
