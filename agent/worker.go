// Workers: copies of the program that wait, in namespaces of their own, to become a
// stage. Two are always started ahead, so that a stage does not wait for its own:
// one waits, and the next is on its way while a stage runs.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"golang.org/x/sys/unix"
)

// worker is one copy, for one stage.
type worker struct {
	cmd  *exec.Cmd
	sock int // takes the program, gives the answer
	vars *varView
}

// newWorker starts a worker. It has the privileges of the thread that calls it, and
// ends when that thread does.
func (s *server) newWorker() (_ *worker, err error) {
	vars, err := s.views.take()
	if err != nil {
		return nil, fmt.Errorf("making a view of /var: %w", err)
	}
	defer func() {
		if err != nil {
			s.views.put(vars)
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "worker")
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{wire.AgentName, "stage", vars.name}
	// Known already: the runtime of each would look at its cgroups for it.
	cmd.Env = []string{"GOMAXPROCS=" + strconv.Itoa(runtime.GOMAXPROCS(0))}
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
	return &worker{cmd: cmd, sock: pair[0], vars: vars}, nil
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

// spare is a worker that waits, or why it could not be started.
type spare struct {
	w   *worker
	err error
}

// startSpares keeps workers waiting, until the agent ends. It is a thread that has
// given up what stages usually do not keep, so that they need not do it one by one.
func (s *server) startSpares() {
	defer s.wg.Done()
	runtime.LockOSThread() // and never unlocked: the thread ends
	err := s.usual.takeOn()
	for {
		next := spare{err: err}
		if err == nil {
			next.w, next.err = s.newWorker()
		}
		select {
		case s.spares <- next:
		case <-s.closing:
			for {
				if next.w != nil {
					next.w.discard()
				}
				select {
				case next = <-s.spares:
				default:
					return
				}
			}
		}
	}
}

// work has a worker run a program: one that waits, or one of its own for a program
// that has other privileges than most.
func (s *server) work(ctx context.Context, p *wire.Program, files []*os.File) *wire.Answer {
	if s.spares == nil {
		return failed(0, errors.New("the build root is not prepared"))
	}
	wants, err := privilegesOf(p)
	if err != nil {
		return failed(0, err)
	}
	if wants == s.usual {
		select {
		case sp := <-s.spares:
			return s.finish(ctx, sp, p, files)
		case <-s.closing:
			return failed(0, errors.New("the build root ends"))
		}
	}
	done := make(chan *wire.Answer)
	go func() {
		runtime.LockOSThread()
		sp := spare{err: wants.takeOn()}
		if sp.err == nil {
			sp.w, sp.err = s.newWorker()
		}
		done <- s.finish(ctx, sp, p, files)
	}()
	return <-done
}

// finish runs the program. What it wrote to /var is gone when its end is told.
func (s *server) finish(ctx context.Context, sp spare, p *wire.Program, files []*os.File) *wire.Answer {
	if sp.err != nil {
		return failed(0, sp.err)
	}
	ans := sp.w.run(ctx, p, files)
	s.views.put(sp.w.vars)
	return ans
}

// close ends everything.
func (s *server) close() {
	s.mu.Lock()
	close(s.closing)
	for _, cancel := range s.running {
		cancel()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
