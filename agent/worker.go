// Workers: copies of the program that wait, in namespaces of their own, to become a
// stage. One is always started ahead, so that a stage does not wait for it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"golang.org/x/sys/unix"
)

// worker is one copy, for one stage.
type worker struct {
	cmd  *exec.Cmd
	sock int // takes the program, gives the answer
}

func newWorker() (*worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "worker")
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{wire.AgentName, "stage"}
	cmd.Env = []string{}
	cmd.Stderr = os.Stderr // until it has a log of its own
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("starting: %w", err)
	}
	return &worker{cmd: cmd, sock: pair[0]}, nil
}

// run gives the worker its program and waits for the end of it, and of everything
// that it started.
func (w *worker) run(ctx context.Context, p *wire.Program, files []*os.File) *wire.Answer {
	defer unix.Close(w.sock)
	stop := context.AfterFunc(ctx, func() { w.cmd.Process.Kill() })
	defer stop()
	ans := &wire.Answer{}
	err := wire.Send(w.sock, p, files...)
	if err == nil {
		var more []*os.File
		more, err = wire.Receive(w.sock, ans)
		wire.CloseAll(more)
	} else {
		w.cmd.Process.Kill()
	}
	if errors.Is(err, io.EOF) {
		err = nil // its exit status tells
	}
	if werr := w.cmd.Wait(); err == nil {
		err = werr
	}
	if st := w.cmd.ProcessState; st != nil {
		ans.CPU = int64(st.SystemTime() + st.UserTime())
		if ru, ok := st.SysUsage().(*syscall.Rusage); ok {
			ans.MaxRSS = ru.Maxrss * 1024
		}
	}
	if err != nil && ans.Status == 0 && ans.Err == nil {
		ans.Status = 1
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				ans.Status, ans.Signal = 128+int(ws.Signal()), ws.Signal().String()
			} else {
				ans.Status = ee.ExitCode()
			}
		} else {
			ans.Err = &wire.Error{Msg: err.Error()}
		}
	}
	return ans
}

// discard ends a worker that has no program.
func (w *worker) discard() {
	unix.Close(w.sock)
	w.cmd.Process.Kill()
	w.cmd.Wait()
}

// worker returns the one that waits, or a new one, and has the next one started.
func (s *server) worker() (*worker, error) {
	s.mu.Lock()
	w := s.spare
	s.spare = nil
	s.mu.Unlock()
	if w != nil {
		return w, nil
	}
	return newWorker()
}

// startSpare starts a worker for the next stage in the background. One that cannot
// be started is tried again when it is needed, and told then.
func (s *server) startSpare() {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		w, err := newWorker()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.spare == nil && !s.closing {
			s.spare, w = w, nil
		}
		s.mu.Unlock()
		if w != nil {
			w.discard()
		}
	}()
}

// close ends everything.
func (s *server) close() {
	s.mu.Lock()
	s.closing = true
	for _, cancel := range s.running {
		cancel()
	}
	spare := s.spare
	s.spare = nil
	s.mu.Unlock()
	s.wg.Wait()
	if spare != nil {
		spare.discard()
	}
}
