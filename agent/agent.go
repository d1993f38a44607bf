// Package agent is what runs inside a build root: the same static program, started
// again under the name of [wire.AgentName] as the one process of a container.
//
// A tour: [Main] is the loop that takes requests from the host on its standard
// input. A Prepare request sets up the build root by its runner, once. A Run
// request goes to one more copy of the program, which waits already in mount, pid,
// ipc and uts namespaces of its own (worker.go), has laid a fresh view over what the
// runner prepared, and has only the privileges that stages usually keep
// (confine.go): it attaches the tree and what else the host sent, and becomes the
// stage (stage.go). The container stays warm, and a stage costs a few milliseconds.
//
// The agent needs nothing of the tree that it is in: no shell, no library, no
// /etc. It reaches the packages runners, stages and wire, and nothing else of
// osbuild-star.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"github.com/osbuild-star/osbuild-star/runners"
	"golang.org/x/sys/unix"
)

// Is tells whether these arguments of a process ask it to be the agent.
func Is(args []string) bool {
	return len(args) > 0 && filepath.Base(args[0]) == wire.AgentName
}

// initialised says that every package of the program is; later is what remains to be
// done when they are.
var (
	initialised bool
	later       func() int
)

// Main runs the agent and returns its exit status.
func Main(args []string) int {
	initialised = true
	if later != nil {
		return later()
	}
	return run(args)
}

// Early is Main before all packages of the program are initialised. It tells whether
// the agent has ended: if not, its stage is of a package that has not had its turn,
// and Main goes on with it.
func Early(args []string) (status int, ended bool) {
	status = run(args)
	return status, later == nil
}

func run(args []string) int {
	unix.Umask(0o022) // not the caller's
	if len(args) > 1 && args[1] == "launch" {
		return launchMain(args[2:])
	}
	if len(args) > 1 && args[1] == "sandbox" {
		return sandboxMain(args[2:])
	}
	if len(args) > 1 && args[1] == "true" {
		return 0 // what a runner of the user's own starts when the build root is prepared
	}
	if len(args) > 2 && args[1] == "stage" {
		return stageMain(args[2])
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		return 1
	}
	return 0
}

type server struct {
	sock int
	mu   sync.Mutex // for sending, and for running
	wg   sync.WaitGroup

	running map[uint64]context.CancelFunc
	usual   privileges    // those that workers which wait have
	spares  chan spare    // workers that wait; nil: not prepared
	closing chan struct{} // closed when no more of them are needed
	views   varViews
}

func serve() error {
	// The socket is standard input. It must not reach the programs.
	sock, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := unix.Dup2(int(null.Fd()), 0); err != nil {
		return err
	}
	null.Close()
	s := &server{sock: sock, running: map[uint64]context.CancelFunc{}, closing: make(chan struct{})}
	if err := s.send(&wire.Answer{Ready: true}); err != nil {
		return err
	}
	for {
		var req wire.Request
		files, err := wire.Receive(sock, &req)
		if err != nil {
			s.close()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		switch req.Kind {
		case wire.Prepare, wire.Run:
			work := s.run
			if req.Kind == wire.Prepare {
				work = s.prepare
			}
			ctx, cancel := context.WithCancel(context.Background())
			s.mu.Lock()
			s.running[req.ID] = cancel
			s.mu.Unlock()
			s.wg.Add(1)
			go func() {
				defer s.wg.Done()
				ans := work(ctx, &req, files)
				s.mu.Lock()
				delete(s.running, req.ID)
				s.mu.Unlock()
				cancel()
				s.send(ans)
			}()
		case wire.Cancel:
			s.mu.Lock()
			if cancel := s.running[req.ID]; cancel != nil {
				cancel()
			}
			s.mu.Unlock()
			wire.CloseAll(files)
		default:
			wire.CloseAll(files)
			s.send(failed(req.ID, fmt.Errorf("unknown request %q", req.Kind)))
		}
	}
}

func (s *server) send(a *wire.Answer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.Send(s.sock, a)
}

func failed(id uint64, err error) *wire.Answer {
	a := &wire.Answer{ID: id, Status: 1, Err: &wire.Error{Msg: err.Error()}}
	var we *wire.Error
	if errors.As(err, &we) {
		a.Err = we
	}
	return a
}

// prepare runs the runner of the build root in the container itself: what it makes
// in /etc and /var is what every program finds there. Then the first workers are
// started.
func (s *server) prepare(ctx context.Context, req *wire.Request, files []*os.File) *wire.Answer {
	defer wire.CloseAll(files)
	if req.Workers == nil || len(files) == 0 || s.spares != nil {
		return failed(req.ID, errors.New("a request to prepare without log or workers, or one more"))
	}
	if ans := s.startRunner(ctx, req, files); ans.Err != nil {
		return ans
	}
	if err := s.prepareWorkers(req.Workers, files); err != nil {
		return failed(req.ID, err)
	}
	return &wire.Answer{ID: req.ID}
}

// prepareWorkers has workers started that wait for programs.
func (s *server) prepareWorkers(p *wire.Program, files []*os.File) error {
	if err := attachAll(p, files); err != nil {
		return err
	}
	if err := s.views.start(); err != nil {
		return err
	}
	var err error
	if s.usual, err = privilegesOf(p); err != nil {
		return err
	}
	s.spares = make(chan spare, 1)
	s.wg.Add(1)
	go s.startSpares()
	return nil
}

// startRunner runs the runner.
func (s *server) startRunner(ctx context.Context, req *wire.Request, files []*os.File) *wire.Answer {
	if req.Program != nil {
		return s.prepareBy(ctx, req, files)
	}
	r, err := runners.Lookup(req.Runner)
	if err != nil {
		return failed(req.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	if err := r.Prepare(ctx, runners.Root{Dir: "/", Arch: req.Arch, Log: files[0]}); err != nil {
		return failed(req.ID, fmt.Errorf("runner %s: %w", r.Name, err))
	}
	return &wire.Answer{ID: req.ID}
}

// run has a worker run a program.
func (s *server) run(ctx context.Context, req *wire.Request, files []*os.File) *wire.Answer {
	defer wire.CloseAll(files)
	p := req.Program
	if p == nil || p.Log < 0 || p.Log >= len(files) {
		return failed(req.ID, errors.New("a run request without program or log"))
	}
	ans := s.work(ctx, p, files)
	ans.ID = req.ID
	return ans
}
