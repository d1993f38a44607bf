// The machine that all servers are: sockets that take connections, and requests that
// are answered one after another on each.
package hostapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of one server.
const (
	maxConns   = 128      // at once; more wait until one has closed
	maxRequest = 16 << 20 // bytes of a request
	maxLoops   = 256      // loop devices that are held for a program
	maxTrees   = 1 << 16  // mounts that are held for services
)

// drainLimit is how long requests that were sent before Close are still answered.
const drainLimit = 2 * time.Second

// errClosing is what a request gets whose server goes away before it is answered.
var errClosing = &Exception{Type: "ConnectionAbortedError", Value: "the API is being closed"}

// request is a message to a server.
type request struct {
	fields object
	files  []*os.File // closed when the handler returns
}

// handler answers a request; a nil answer is none. The context ends when the server
// will wait for it no longer.
type handler func(ctx context.Context, r *request) (any, error)

// Server is a set of sockets that are served. It may be used from several goroutines.
type Server struct {
	ctx      context.Context // of the handlers
	cut      context.CancelFunc
	stopping chan struct{} // closed when no further connections are wanted
	held     int           // how many cleanups there can be
	slots    chan struct{}
	wg       sync.WaitGroup // of all goroutines

	mu        sync.Mutex
	listeners []*os.File
	paths     []string // to be removed
	conns     map[*Conn]bool
	cleanups  []func() error // of what handlers made, undone in reverse
	full      bool           // no more cleanups are taken

	stopOnce, closeOnce sync.Once
	stopped, closed     error
}

func newServer(held int) *Server {
	s := &Server{held: held, stopping: make(chan struct{}), slots: make(chan struct{}, maxConns), conns: map[*Conn]bool{}}
	s.ctx, s.cut = context.WithCancel(context.Background())
	return s
}

// serve makes the socket at path and answers what comes over it.
func (s *Server) serve(path string, h handler) error {
	l, err := listen(path)
	if err != nil {
		return err
	}
	raw, err := l.SyscallConn()
	if err != nil {
		l.Close()
		os.Remove(path)
		return err
	}
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	s.paths = append(s.paths, path)
	s.mu.Unlock()
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer l.Close()
		s.accept(raw, h)
	}()
	return nil
}

// accept takes connections until the server stops, and then those that wait already: a
// program may have told its error and ended before anybody looked.
func (s *Server) accept(raw syscall.RawConn, h handler) {
	pause := time.Duration(0)
	for {
		if !s.slot() {
			return
		}
		fd, err := s.next(raw)
		if err != nil {
			<-s.slots
			if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENOMEM) {
				return // there is nothing more, or the listener is closed
			}
			// It waits in the queue until there is room.
			pause = min(max(2*pause, time.Millisecond), 100*time.Millisecond)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
				return
			}
			continue
		}
		pause = 0
		c, err := newConn(fd)
		if err != nil {
			<-s.slots
			continue
		}
		c.SetLimit(maxRequest)
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-s.slots }()
			s.converse(c, h)
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			c.Close()
		}()
	}
}

// slot waits until there is room for one more connection.
func (s *Server) slot() bool {
	select {
	case s.slots <- struct{}{}:
		return s.ctx.Err() == nil
	case <-s.ctx.Done():
		return false
	}
}

// next waits for a connection; when the server stops it takes only one that waits.
func (s *Server) next(raw syscall.RawConn) (fd int, err error) {
	try := func(l uintptr) bool {
		for {
			fd, _, err = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	}
	if !s.isStopping() {
		rerr := raw.Read(try)
		if rerr == nil {
			return fd, err
		}
		if !errors.Is(rerr, os.ErrDeadlineExceeded) {
			return -1, rerr
		}
	}
	if cerr := raw.Control(func(l uintptr) { try(l) }); cerr != nil {
		return -1, cerr
	}
	return fd, err
}

func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// converse answers the requests of one connection.
func (s *Server) converse(c *Conn, h handler) {
	for s.ctx.Err() == nil {
		r := &request{}
		err := os.ErrDeadlineExceeded
		if !s.isStopping() {
			r.files, err = c.Receive(&r.fields)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// Stopping: only what was sent already.
			r.files, err = c.take(&r.fields)
		}
		var answer any
		switch {
		case err == nil:
			answer, err = h(s.ctx, r)
			closeAll(r.files)
		case !errors.Is(err, ErrMessage):
			return // the other side has gone, or we have
		}
		if err != nil {
			answer = exceptionMessage(err)
		}
		if answer != nil && c.Send(answer) != nil {
			return
		}
	}
}

// hold keeps undo for the end of the server. false: it takes no more; the caller
// undoes it itself.
func (s *Server) hold(undo func() error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full || len(s.cleanups) >= s.held {
		return false
	}
	s.cleanups = append(s.cleanups, undo)
	return true
}

// Stop ends serving, and keeps what was made for clients: it is for a caller whose
// programs may still use it. Nobody can connect any more; requests that were sent
// before are answered until the context ends, or two seconds have passed; those that
// are being worked on then are cut off with an exception. When it returns no goroutine
// of the server is left, nor a socket.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { s.stopped = s.stop(ctx) })
	return s.stopped
}

func (s *Server) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	var errs []error
	for _, p := range s.paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	close(s.stopping)
	// Whoever waits for a message or for a connection looks up.
	past := time.Unix(1, 0)
	s.mu.Lock()
	for _, l := range s.listeners {
		l.SetReadDeadline(past)
	}
	for c := range s.conns {
		c.SetReadDeadline(past)
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		s.cut()
		s.mu.Lock()
		for c := range s.conns {
			c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			_ = c.Send(exceptionMessage(errClosing)) // whether it reads or not
			c.Close()
		}
		s.mu.Unlock()
		<-done
	}
	s.cut()
	return errors.Join(errs...)
}

// Close stops the server and lets go of all that it made for clients, the last first.
// It may be called any number of times; all calls return when the first has ended.
func (s *Server) Close(ctx context.Context) error {
	err := s.Stop(ctx)
	s.closeOnce.Do(func() {
		s.mu.Lock()
		undo := s.cleanups
		s.cleanups, s.full = nil, true
		s.mu.Unlock()
		var errs []error
		for i := len(undo) - 1; i >= 0; i-- {
			errs = append(errs, undo[i]())
		}
		s.closed = errors.Join(append(errs, err)...)
	})
	return s.closed
}

// object is a JSON object whose fields are found by their exact names.
type object map[string]json.RawMessage

// field decodes the field of that name into v, which stays as it is when the field is
// missing or null; with must that is an error.
func (o object) field(name string, v any, must bool) error {
	raw, ok := o[name]
	if !ok || bytes.Equal(raw, []byte("null")) {
		if must {
			return &Exception{Type: "KeyError", Value: "'" + name + "'"}
		}
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return &Exception{Type: "ValueError", Value: fmt.Sprintf("%q: %v", name, err)}
	}
	return nil
}

// exceptionMessage tells an error to a client, in upstream's form.
func exceptionMessage(err error) any {
	e := &Exception{Type: "RuntimeError", Value: err.Error()}
	var own *Exception
	var errno syscall.Errno
	switch {
	case errors.As(err, &own):
		e = own
	case errors.Is(err, ErrMessage):
		e.Type = "BufferError"
	case errors.As(err, &errno):
		e.Type = "OSError"
	}
	return map[string]any{"method": "exception", "exception": e}
}
