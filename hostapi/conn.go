// Connections: documents and files over a packet socket.
package hostapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxDocument is the size in bytes of the largest document that a [Conn] takes,
// unless [Conn.SetLimit] says otherwise.
const MaxDocument = 256 << 20

// ErrMessage is in the chain of the error of a packet that is no message: no JSON, too
// long, or with files that this process could not take. The packet is gone, with its
// files; the connection is as good as before.
var ErrMessage = errors.New("not a message")

// Conn is a connection of upstream's jsoncomm protocol: every packet is one JSON
// document, and files can come with it. It may be used from several goroutines.
type Conn struct {
	f     *os.File
	raw   syscall.RawConn
	send  sync.Mutex // the size of the send buffer belongs to the packet
	limit int
}

// Dial connects to the socket at path, which can have any length.
func Dial(path string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := connect(fd, path); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return newConn(fd)
}

// connectLimit bounds the wait for a server whose queue is full.
const connectLimit = 30 * time.Second

// maxSocketPath is what a socket address has room for, without the zero at its end.
const maxSocketPath = 107

func connect(fd int, path string) error {
	tv := unix.NsecToTimeval(int64(connectLimit))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return err
	}
	if len(path) > maxSocketPath {
		at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(at)
		path = "/proc/self/fd/" + strconv.Itoa(at)
	}
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// listen makes a socket at path that takes connections; only the same user can
// connect.
func listen(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	bound := false
	err = func() error {
		name := path
		if len(path) > maxSocketPath {
			dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(dir)
			name = fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
			return err
		}
		bound = true
		// Nobody can connect before listen.
		if err := unix.Chmod(path, 0o600); err != nil {
			return err
		}
		return unix.Listen(fd, unix.SOMAXCONN)
	}()
	if err != nil {
		unix.Close(fd)
		if bound {
			os.Remove(path)
		}
		return nil, &os.PathError{Op: "listen", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// FromFile makes a connection of one end of a pair of sockets, or of another packet
// socket. It takes the file over, and closes it when it fails.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close()
	fd, err := dupFile(f)
	if err != nil {
		return nil, err
	}
	for _, want := range []struct{ opt, value int }{{unix.SO_DOMAIN, unix.AF_UNIX}, {unix.SO_TYPE, unix.SOCK_SEQPACKET}} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.opt)
		if err == nil && v != want.value {
			err = unix.EPROTOTYPE
		}
		if err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("%s is no local packet socket: %w", f.Name(), err)
		}
	}
	return newConn(fd)
}

// pair makes two connected sockets: one as a Conn, and one to give to a program.
func pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	c, err := newConn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "socket"), nil
}

// newConn takes over a socket.
func newConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("fcntl: %w", err)
	}
	f := os.NewFile(uintptr(fd), "connection")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Conn{f: f, raw: raw, limit: MaxDocument}, nil
}

// dupFile returns another descriptor of an open file, without changing the file.
func dupFile(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	if err = errors.Join(cerr, err); err != nil {
		return -1, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return fd, nil
}

// SetLimit sets the size in bytes of the largest document that Receive takes. It is
// to be called before the connection is used.
func (c *Conn) SetLimit(n int) { c.limit = n }

// SetReadDeadline bounds a Receive, also one that waits already, which then fails with
// [os.ErrDeadlineExceeded].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.f.SetReadDeadline(t) }

// SetWriteDeadline bounds a Send to a peer that does not read.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.f.SetWriteDeadline(t) }

// Close ends the connection, and every call that waits on it with [os.ErrClosed].
func (c *Conn) Close() error { return c.f.Close() }

// Send sends v, encoded as JSON, with files: 253 at most, and one less with a document
// that is larger than a packet can be. The files stay the caller's.
func (c *Conn) Send(v any, files ...*os.File) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	fds := make([]int, 0, len(files)+1)
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return fmt.Errorf("sending %s: %w", f.Name(), rawError(err))
		}
	}
	defer runtime.KeepAlive(files)
	c.send.Lock()
	defer c.send.Unlock()
	if len(data) <= wmemMax() {
		err := c.sendPacket(data, fds)
		if !errors.Is(err, unix.EMSGSIZE) {
			return err
		}
	}
	mem, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(mem)
	// The reader begins where the file stands.
	for off := 0; off < len(data); {
		n, err := unix.Pwrite(mem, data[off:], int64(off))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("writing a message: %w", err)
		}
		off += max(n, 0)
	}
	return c.sendPacket([]byte(viaFile), append([]int{mem}, fds...))
}

// sendPacket sends one packet, and waits until there is room for it.
func (c *Conn) sendPacket(data []byte, fds []int) error {
	if len(fds) > maxFiles {
		return fmt.Errorf("a message with %d files; %d is the most", len(fds), maxFiles)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	var err error
	werr := c.raw.Write(func(fd uintptr) bool {
		// The kernel doubles what it is told, and a packet has to fit in whole.
		if size, e := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); e == nil && size/2 < len(data) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, len(data))
		}
		for {
			err = unix.Sendmsg(int(fd), data, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if err = errors.Join(rawError(werr), ignore(err, unix.EAGAIN)); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// rawError is an error of using a file itself: there are those of deadlines, and that
// of a closed file, which has no public name.
func rawError(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return os.ErrClosed
}

func ignore(err, which error) error {
	if errors.Is(err, which) {
		return nil
	}
	return err
}

// Receive waits for a message, decodes it into v, and returns the files that came with
// it, which are the caller's. [io.EOF]: the other side has closed.
func (c *Conn) Receive(v any) ([]*os.File, error) {
	var p *packet
	var err error
	rerr := c.raw.Read(func(fd uintptr) bool {
		p, err = readPacket(int(fd), c.limit)
		return !errors.Is(err, unix.EAGAIN)
	})
	if rerr != nil {
		return nil, fmt.Errorf("receiving: %w", rawError(rerr))
	}
	return p.decode(v, err)
}

// errNothing is a connection on which nothing waits to be received.
var errNothing = errors.New("there is no message")

// take is Receive for a message that is there already; errNothing: there is none.
// Deadlines have no say.
func (c *Conn) take(v any) ([]*os.File, error) {
	var p *packet
	var err error
	if cerr := c.raw.Control(func(fd uintptr) { p, err = readPacket(int(fd), c.limit) }); cerr != nil {
		return nil, fmt.Errorf("receiving: %w", rawError(cerr))
	}
	if errors.Is(err, unix.EAGAIN) {
		return nil, errNothing
	}
	return p.decode(v, err)
}

// decode makes the message of a packet, or of the error of receiving one.
func (p *packet) decode(v any, err error) ([]*os.File, error) {
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("receiving: %w", err)
	}
	if err := json.Unmarshal(p.data, v); err != nil {
		closeAll(p.files)
		return nil, fmt.Errorf("receiving: %w: %w", ErrMessage, err)
	}
	return p.files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
