// A machine on a terminal.

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// EscapeHelp says what the keys after Ctrl-A do in [Interactive].
const EscapeHelp = `Ctrl-A x  end the machine at once
Ctrl-A p  press its power button
Ctrl-A a  send a Ctrl-A (also Ctrl-A Ctrl-A)
Ctrl-A h  show this
`

const ctrlA = 0x01

// Interactive starts a machine and connects its console with a terminal until
// the guest powers itself off, Ctrl-A x is typed (see [EscapeHelp]), or ctx is
// done, which is returned as its error. If stdin is a terminal it is put in raw
// mode and back; if not, its bytes go to the guest as they are, Ctrl-A too, and
// its end is not the machine's. A reboot of the guest restarts it.
func Interactive(ctx context.Context, cfg Config, stdin *os.File, stdout io.Writer) (err error) {
	cfg.Reboot = true
	m, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.attach(ctx, stdin, stdout)
}

// attach connects the console with a terminal.
func (m *Machine) attach(ctx context.Context, stdin *os.File, stdout io.Writer) (err error) {
	fd := int(stdin.Fd())
	tty := term.IsTerminal(fd)
	if tty {
		saved, rawErr := term.MakeRaw(fd)
		if rawErr != nil {
			return fmt.Errorf("set the terminal to raw mode: %w", rawErr)
		}
		defer func() {
			// Firmwares turn line wrapping off and leave colours on.
			io.WriteString(stdout, "\x1b[?7h\x1b[0m\r\n")
			if rerr := term.Restore(fd, saved); rerr != nil && err == nil {
				err = fmt.Errorf("restore the terminal: %w", rerr)
			}
		}()
	}
	stop, err := newWaker()
	if err != nil {
		return err
	}
	defer stop.close()
	shown := make(chan error, 1)
	go func() { shown <- m.show(ctx, stdout) }()
	typed := make(chan error, 1)
	go func() { typed <- m.typeFrom(ctx, stdin, stdout, tty, stop.r) }()
	// A nil channel is one whose end was seen.
	var result error
	for done := false; !done; {
		select {
		case err := <-typed:
			typed = nil
			if err != nil { // the end of a file that is not a terminal is none
				done = true
				if !errors.Is(err, errQuit) {
					result = err
				}
			}
		case err := <-shown: // the guest has ended, or what it says cannot be shown
			shown, done = nil, true
			if result = err; err == nil {
				result = m.Wait(ctx)
			}
		}
	}
	if ctx.Err() != nil {
		result = ctx.Err()
	}
	stop.wake()
	m.Close()
	if typed != nil {
		<-typed
	}
	if shown != nil {
		<-shown
	}
	return result
}

// errQuit is what typeFrom returns for Ctrl-A x.
var errQuit = errors.New("quit")

// show copies the console to w until it ends.
func (m *Machine) show(ctx context.Context, w io.Writer) error {
	var from int64
	for {
		p, next, _, err := m.con.read(ctx, from)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if from < 256 { // SeaBIOS begins with a reset of the terminal, which would clear it
			p = bytes.ReplaceAll(bytes.ReplaceAll(p, []byte("\x1bc"), nil), []byte("\x1b[2J"), nil)
		}
		if _, err := w.Write(p); err != nil {
			return fmt.Errorf("write to the terminal: %w", err)
		}
		from = next
	}
}

// typeFrom copies stdin to the guest until its end, until Ctrl-A x, or until
// stop can be read. It waits by poll and so takes no key that comes later.
func (m *Machine) typeFrom(ctx context.Context, stdin *os.File, stdout io.Writer, tty bool, stop *os.File) error {
	buf := make([]byte, 4096)
	var esc escapeKeys
	fds := []unix.PollFd{
		{Fd: int32(stdin.Fd()), Events: unix.POLLIN},
		{Fd: int32(stop.Fd()), Events: unix.POLLIN},
	}
	for {
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("wait for a key: %w", err)
		}
		if fds[1].Revents != 0 {
			return nil
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(int(stdin.Fd()), buf)
		switch {
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			continue
		case errors.Is(err, unix.EIO) || err == nil && n == 0: // a terminal that hung up; an end
			if tty {
				return errQuit
			}
			return nil
		case err != nil:
			return fmt.Errorf("read the terminal: %w", err)
		}
		if !tty {
			if err := m.send(string(buf[:n])); err != nil {
				return nil // the machine has ended; the other side tells why
			}
			continue
		}
		keys, acts := esc.feed(buf[:n])
		if len(keys) > 0 {
			if err := m.send(string(keys)); err != nil {
				return nil
			}
		}
		for _, a := range acts {
			switch a {
			case 'x':
				return errQuit
			case 'p':
				if err := m.PowerButton(ctx); err != nil {
					return nil
				}
			case 'h':
				for _, b := range []byte("\n" + EscapeHelp) {
					if b == '\n' {
						io.WriteString(stdout, "\r\n")
					} else {
						stdout.Write([]byte{b})
					}
				}
			}
		}
	}
}

// escapeKeys finds Ctrl-A and what follows in what is typed.
type escapeKeys struct{ pending bool }

// feed returns the keys for the guest, and the actions asked for; after 'x'
// nothing counts.
func (e *escapeKeys) feed(p []byte) (keys, acts []byte) {
	for _, b := range p {
		if !e.pending {
			if b == ctrlA {
				e.pending = true
			} else {
				keys = append(keys, b)
			}
			continue
		}
		e.pending = false
		switch b {
		case 'x', 'X':
			return keys, append(acts, 'x')
		case 'p', 'P':
			acts = append(acts, 'p')
		case 'h', 'H', '?':
			acts = append(acts, 'h')
		case 'a', 'A', ctrlA:
			keys = append(keys, ctrlA)
		}
	}
	return keys, acts
}

// waker is a pipe that ends a poll.
type waker struct{ r, w *os.File }

func newWaker() (*waker, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	return &waker{r, w}, nil
}

func (w *waker) wake() { w.w.Write([]byte{0}) }

func (w *waker) close() {
	w.r.Close()
	w.w.Close()
}
