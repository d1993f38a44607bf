// Host services: programs of a library directory that make sources, inputs, devices
// and mounts, and undo them when they are told to end.
package hostapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ServiceConfig says what [StartService] starts.
type ServiceConfig struct {
	Program string   // path of the executable
	ID      string   // what it is for, such as "input/tree"; for messages
	Env     []string // all of its environment
	// Line takes each line that it prints, one call at a time; nil: nobody does. A very
	// long line comes in pieces.
	Line func(string)
	// Do runs a function on the thread that the service is to be started from, and
	// returns when the function has, which is when the service has ended: the kernel
	// ends the service with that thread. The method of that name of a mount namespace
	// fits. nil: on any thread.
	Do func(f func() error) error
	// Grace is how long Close waits for the service to end by itself; 0: 30 seconds,
	// which is what detaching a busy device may take.
	Grace time.Duration
}

const (
	defaultGrace = 30 * time.Second
	brokenGrace  = 5 * time.Second // for one that was left in the middle of a call
	outputGrace  = time.Second     // for output after the end of the service
)

// serviceFD is the number of the socket in the service: the first after the standard
// files.
const serviceFD = 3

// Service is a running host service. It may be used from several goroutines; calls
// are made one after another.
type Service struct {
	cfg   ServiceConfig
	conn  *Conn
	cmd   *exec.Cmd
	out   *os.File // the reading end of its output
	last  *lastLines
	read  chan struct{} // closed when its output is at its end
	ended chan struct{} // closed when it has ended, and all of its group with it

	life   sync.Mutex // until the process is reaped its number is nobody else's
	reaped bool

	call   sync.Mutex
	broken error // why no further call is possible
	stop   sync.Once
	err    error // of Close
}

// ServiceError is an exception of a service, as upstream's services tell it.
type ServiceError struct {
	Name      string // of a Python class
	Value     string // the message
	Backtrace string
}

func (e *ServiceError) Error() string {
	if e.Value == "" {
		return e.Name
	}
	return e.Name + ": " + e.Value
}

// StartService starts a service. It takes its calls over a socket, has no input, and is
// in a process group of its own; it does not outlive this process.
func StartService(cfg ServiceConfig) (*Service, error) {
	if cfg.Do == nil {
		cfg.Do = func(f func() error) error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			return f()
		}
	}
	if cfg.Grace <= 0 {
		cfg.Grace = defaultGrace
	}
	s := &Service{cfg: cfg, last: &lastLines{}, read: make(chan struct{}), ended: make(chan struct{})}
	conn, theirs, err := pair()
	if err != nil {
		return nil, s.wrap(err)
	}
	defer theirs.Close()
	out, w, err := os.Pipe()
	if err != nil {
		conn.Close()
		return nil, s.wrap(err)
	}
	defer w.Close()
	s.conn, s.out = conn, out
	s.cmd = &exec.Cmd{
		Path: cfg.Program, Args: []string{cfg.Program, "--service-id", cfg.ID, "--service-fd", fmt.Sprint(serviceFD)},
		Env: append([]string{}, cfg.Env...), Stdout: w, Stderr: w, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if err := s.start(); err != nil {
		conn.Close()
		out.Close()
		return nil, s.wrap(err)
	}
	go func() {
		defer close(s.read)
		s.lines()
	}()
	return s, nil
}

// start starts the program on its thread, which stays until the program was reaped.
func (s *Service) start() error {
	started := make(chan error, 1)
	go func() {
		running := false
		err := s.cfg.Do(func() error {
			if err := s.cmd.Start(); err != nil {
				return err
			}
			running = true
			started <- nil
			awaitEnd(s.cmd.Process.Pid)
			s.life.Lock()
			_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL) // what it left behind
			_ = s.cmd.Wait()                                // its state tells
			s.reaped = true
			s.life.Unlock()
			close(s.ended)
			s.conn.SetReadDeadline(time.Unix(1, 0)) // a call waits for it in vain
			return nil
		})
		if !running {
			if err == nil {
				err = errors.New("it was not started")
			}
			started <- err
		}
	}()
	return <-started
}

// awaitEnd waits for the end of a child, and leaves it to be reaped: as long as it is
// not, its number and that of its group are nobody else's.
func awaitEnd(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Call calls a method and returns its reply. What the service signals meanwhile goes to
// signal, which may be nil. An exception of the service is a *[ServiceError] in the
// chain of the error. When the context ends first its cause is returned, and the
// service takes no further calls: it is to be closed.
func (s *Service) Call(ctx context.Context, method string, args any, signal func(json.RawMessage)) (json.RawMessage, error) {
	s.call.Lock()
	defer s.call.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	if args == nil {
		args = []any{} // upstream's "none"
	}
	stop := context.AfterFunc(ctx, func() {
		s.conn.SetReadDeadline(time.Unix(1, 0))
		s.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() && s.broken == nil {
			s.broken = s.wrap(context.Cause(ctx)) // its deadlines are over
		}
	}()
	type body struct {
		Name string `json:"name"`
		Args any    `json:"args"`
	}
	err := s.conn.Send(struct {
		Type string `json:"type"`
		Data body   `json:"data"`
	}{"method", body{method, args}})
	if err != nil {
		return nil, s.lost(ctx, err)
	}
	for {
		kind, data, err := s.receive(ctx)
		if err != nil {
			return nil, s.lost(ctx, err)
		}
		reply, isReply := data["reply"]
		switch {
		case kind == "reply" && isReply:
			return reply, nil
		case kind == "signal" && isReply:
			if signal != nil {
				signal(reply)
			}
		case kind == "exception":
			return nil, s.failed(&ServiceError{Name: data.text("name"), Value: data.text("value"), Backtrace: data.text("backtrace")})
		default:
			return nil, s.lost(ctx, fmt.Errorf("%w of a service: type %q", ErrMessage, kind))
		}
	}
}

// receive waits for a message of the service, and closes what files come with it.
func (s *Service) receive(ctx context.Context) (kind string, data object, err error) {
	var msg object
	files, err := s.conn.Receive(&msg)
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		// It has ended, and may have answered before.
		if files, err = s.conn.take(&msg); errors.Is(err, errNothing) {
			err = io.EOF
		}
	}
	closeAll(files)
	if err == nil {
		err = errors.Join(msg.field("type", &kind, true), msg.field("data", &data, true))
	}
	return kind, data, err
}

// lost is the error of a service that cannot be spoken to any more.
func (s *Service) lost(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		err = s.wrap(context.Cause(ctx))
	case errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE):
		// Its status and what it said last come a moment later.
		select {
		case <-s.ended:
			err = s.failed(fmt.Errorf("it ended (%s)", s.cmd.ProcessState))
		case <-time.After(outputGrace):
			err = s.failed(errors.New("it closed its socket"))
		}
	default:
		err = s.failed(err)
	}
	s.broken = err
	return err
}

// failed adds to an error which service it is about, and what that said last.
func (s *Service) failed(err error) error {
	select {
	case <-s.ended:
		// All of its output is there when nobody holds the other end.
		select {
		case <-s.read:
		case <-time.After(outputGrace):
		}
	default:
	}
	if text := s.last.String(); text != "" {
		return s.wrap(fmt.Errorf("%w; it printed: %s", err, text))
	}
	return s.wrap(err)
}

func (s *Service) wrap(err error) error {
	return fmt.Errorf("service %s (%s): %w", s.cfg.ID, filepath.Base(s.cfg.Program), err)
}

// Close tells the service to end, which undoes what it made, and waits for that. One
// that does not end in time is killed, which is an error; so is an exit status other
// than 0. Whatever it started and left is killed. Close may be called any number of
// times, also during a Call, which fails then.
func (s *Service) Close() error {
	s.stop.Do(func() { s.err = s.close() })
	return s.err
}

func (s *Service) close() error {
	grace := s.cfg.Grace
	if !s.call.TryLock() {
		grace = min(grace, brokenGrace)
	} else {
		if s.broken != nil {
			grace = min(grace, brokenGrace)
		}
		s.call.Unlock()
	}
	s.conn.Close()
	var err error
	select {
	case <-s.ended:
	case <-time.After(grace):
		err = fmt.Errorf("it did not end within %s, and was killed", grace)
	}
	s.life.Lock()
	if !s.reaped {
		_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
	}
	s.life.Unlock()
	<-s.ended
	if err == nil && !s.cmd.ProcessState.Success() {
		err = fmt.Errorf("it ended with %s", s.cmd.ProcessState)
	}
	// A process that left the group could hold the pipe for ever.
	s.out.SetReadDeadline(time.Now().Add(outputGrace))
	<-s.read
	s.out.Close()
	if err != nil {
		return s.failed(err)
	}
	return nil
}

// maxLine bounds a line of output, in bytes.
const maxLine = 16 << 10

// lines hands out what the service prints.
func (s *Service) lines() {
	br := bufio.NewReaderSize(s.out, maxLine)
	for {
		b, err := br.ReadSlice('\n')
		if len(b) > 0 {
			line := strings.TrimSuffix(string(b), "\n")
			s.last.add(line)
			if s.cfg.Line != nil {
				s.cfg.Line(line)
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// lastLines keeps the last lines that have text.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

const maxLast = 5

func (l *lastLines) add(line string) {
	if line = strings.TrimSpace(line); line == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines = append(l.lines, line); len(l.lines) > maxLast {
		l.lines = l.lines[1:]
	}
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "; ")
}
