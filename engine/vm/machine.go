// A running machine: starting QEMU, watching it, ending it.

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
	"golang.org/x/sys/unix"
)

// termPatience is how long QEMU may take to end after SIGTERM.
const termPatience = 5 * time.Second

// Machine is a QEMU that runs. Its methods may be called by several goroutines,
// except those that talk to the console (WaitFor, WaitLogin, Login, Run), which
// are for one at a time.
type Machine struct {
	cfg   Config
	accel string
	ctx   context.Context // of Start
	con   *console
	qmp   *qmp
	port  net.Conn // our end of the serial port
	ssh   int      // the forwarded port, 0 = none
	start time.Time

	cmd     *exec.Cmd
	stderr  *lastBytes
	exited  chan struct{} // closed when QEMU has ended
	waitErr error         // of QEMU, after exited
	drained chan struct{} // closed when the console has been read to its end

	mu     sync.Mutex
	reason string // of QEMU's last SHUTDOWN event
	asked  bool   // we asked it to end
	prompt bool   // a login prompt was seen and nothing was typed since
	shell  bool   // a session is open

	closeOnce sync.Once
}

// Start starts a machine and returns when QEMU runs; what the guest does then
// is for the methods to see. When ctx is done the machine is ended. Errors a
// user can cause are [*ConfigError] and [*HostError].
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if missing := Preflight(c); len(missing) > 0 {
		return nil, &HostError{missing}
	}
	accel, fallback := pickAccel(c)
	if !fallback {
		return launch(ctx, c, accel, monitorTimeout, nil)
	}
	m, err := launch(ctx, c, accel, kvmPatience, nil)
	if err == nil {
		if m.progresses(kvmPatience) {
			return m, nil
		}
		m.Close()
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("start a machine: %w", ctx.Err())
	}
	c.Span.Emit(monitor.Event{Kind: monitor.Note, Text: "KVM does not run a guest on this host: using TCG, which is slower"})
	// The verdict holds once the same machine has shown life under TCG.
	return launch(ctx, c, "tcg", monitorTimeout, rememberKVMBroken)
}

// launch starts QEMU, which has to greet within patience; alive is called at the
// first byte on the console, or of a machine that is unattended when a system is heard.
func launch(ctx context.Context, c Config, accel string, patience time.Duration, alive func()) (_ *Machine, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start a machine: %w", err)
	}
	var files []*os.File // the child's
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	port, file, err := socketPair("console")
	if err != nil {
		return nil, err
	}
	files = append(files, file)
	mon, file, err := socketPair("monitor")
	if err != nil {
		port.Close()
		return nil, err
	}
	files = append(files, file)
	var fw firmware
	if c.Firmware == "uefi" {
		fw, _ = findFirmware(c.Arch) // Preflight has seen it
		file, err := anonymousCopy(fw.vars)
		if err != nil {
			port.Close()
			mon.Close()
			return nil, fmt.Errorf("UEFI variables: %w", err)
		}
		files = append(files, file)
	}
	m := &Machine{
		cfg: c, accel: accel, ctx: ctx, port: port, stderr: &lastBytes{max: 8 << 10}, start: time.Now(),
		exited: make(chan struct{}), drained: make(chan struct{}),
	}
	m.con = newConsole(m.line)
	program := machines[c.Arch].program
	m.cmd = exec.Command(program, arguments(c, accel, fw)...)
	m.cmd.Dir = "/"
	m.cmd.Env = append(os.Environ(), "LC_ALL=C")
	m.cmd.Stderr = m.stderr
	m.cmd.Stdout = m.stderr
	m.cmd.ExtraFiles = files
	m.cmd.WaitDelay = time.Second
	// Its own process group: a Ctrl-C on the terminal is for us to act on.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.spawn(); err != nil {
		port.Close()
		mon.Close()
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	for _, f := range files { // so that our ends see it when QEMU ends
		f.Close()
	}
	files = nil
	go m.drain(alive)
	m.qmp, err = newQMP(ctx, mon, patience, m.event)
	if err == nil && c.SSH {
		m.ssh, err = m.qmp.sshPort(ctx)
	}
	if err != nil {
		if errors.Is(err, errMonitorGone) { // QEMU says why
			select {
			case <-m.exited:
			case <-time.After(termPatience):
			}
		}
		m.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start a machine: %w", ctx.Err())
		}
		if said := m.stderr.String(); said != "" {
			err = errors.New(said)
		}
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		select {
		case <-ctx.Done():
			m.Close()
		case <-m.exited:
		}
	}()
	return m, nil
}

// spawn starts QEMU and waits for its end, both on one locked thread: the kernel
// sends the parent-death signal when the thread that forked ends, not the process.
func (m *Machine) spawn() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := m.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		m.waitErr = m.cmd.Wait()
		close(m.exited)
	}()
	return <-started
}

// drain reads the serial port until QEMU closes it.
func (m *Machine) drain(alive func()) {
	defer close(m.drained)
	buf := make([]byte, 64<<10)
	for {
		n, err := m.port.Read(buf)
		if n > 0 {
			m.con.Write(buf[:n])
			if alive != nil && (!m.cfg.unattended || m.con.sawSystem()) {
				alive()
				alive = nil
			}
		}
		if err != nil {
			m.con.close()
			return
		}
	}
}

// line passes one line of the console on.
func (m *Machine) line(s string) {
	if s = strings.TrimRight(s, " "); s != "" {
		m.cfg.Span.Emit(monitor.Event{Kind: monitor.Output, Text: s})
	}
}

// event takes an event of QEMU.
func (m *Machine) event(name string, data json.RawMessage) {
	if name != "SHUTDOWN" {
		return
	}
	var d struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(data, &d) == nil {
		m.mu.Lock()
		m.reason = d.Reason
		m.mu.Unlock()
	}
}

// progresses waits for the first byte on the console; of a machine that is unattended,
// until a kernel or an init is heard. There is a KVM that runs a firmware and nothing
// further. It tells whether no silence before that was longer than patience.
func (m *Machine) progresses(patience time.Duration) bool {
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		_, eof, last, changed := m.con.state()
		if !last.IsZero() {
			if !m.cfg.unattended || m.con.sawSystem() {
				return true
			}
			t.Reset(time.Until(last.Add(patience)))
		}
		if eof {
			return false
		}
		select {
		case <-changed:
		case <-t.C:
			return false
		case <-m.ctx.Done():
			return false
		}
	}
}

// Accel is what runs the guest: "kvm" or "tcg".
func (m *Machine) Accel() string { return m.accel }

// SSHAddr is the address on this host that leads to the guest's port 22, or ""
// without [Config.SSH].
func (m *Machine) SSHAddr() string {
	if m.ssh == 0 {
		return ""
	}
	return fmt.Sprintf("127.0.0.1:%d", m.ssh)
}

// Tail returns the last n lines of the console that are not empty, without
// escapes.
func (m *Machine) Tail(n int) string { return m.con.tail(n) }

// Wait waits until the machine has ended by itself or was ended. A guest that
// powered itself off is no error, nor is a machine that Stop or Close ended.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-m.drained
	m.mu.Lock()
	asked, reason := m.asked, m.reason
	m.mu.Unlock()
	if asked || m.waitErr == nil || reason != "" {
		return nil
	}
	return m.crash()
}

// crash describes a QEMU that ended without being told to.
func (m *Machine) crash() error {
	if said := m.stderr.String(); said != "" {
		return fmt.Errorf("%s: %s", machines[m.cfg.Arch].program, said)
	}
	return fmt.Errorf("%s: %w", machines[m.cfg.Arch].program, m.waitErr)
}

// Stop presses the power button, waits until the guest has powered off, and ends
// QEMU in every case. When the guest does not react before ctx is done it is
// ended as by Close, and the error says so; give ctx a timeout of a minute.
func (m *Machine) Stop(ctx context.Context) error {
	defer m.Close()
	if err := m.PowerButton(ctx); err != nil {
		if errors.Is(err, errMonitorGone) {
			return nil
		}
		return err
	}
	select {
	case <-m.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the guest did not power off: %w", ctx.Err())
	}
}

// PowerButton presses the power button of the machine and does not wait for what
// the guest makes of it.
func (m *Machine) PowerButton(ctx context.Context) error {
	m.mu.Lock()
	m.asked = true
	m.mu.Unlock()
	return m.qmp.command(ctx, "system_powerdown", nil, nil)
}

// Close ends the machine at once: SIGTERM, on which QEMU writes out what it
// holds, and SIGKILL if that takes long. When it returns there is no process
// left. It may be called several times.
func (m *Machine) Close() error {
	m.closeOnce.Do(func() {
		m.mu.Lock()
		m.asked = true
		m.mu.Unlock()
		select {
		case <-m.exited:
		default:
			m.cmd.Process.Signal(syscall.SIGTERM)
			t := time.NewTimer(termPatience)
			select {
			case <-m.exited:
			case <-t.C:
				m.cmd.Process.Kill()
				<-m.exited
			}
			t.Stop()
		}
		<-m.drained
		m.port.Close()
		if m.qmp != nil {
			m.qmp.close()
		}
	})
	return nil
}

// send types on the console.
func (m *Machine) send(s string) error {
	m.port.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(m.port, s); err != nil {
		return fmt.Errorf("write to the serial console: %w", err)
	}
	return nil
}

// socketPair returns two connected sockets: ours, and one for a child.
func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	conn, err := net.FileConn(ours) // a copy of the descriptor
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn, theirs, nil
}

// anonymousCopy copies a file into memory that has no name and ends with its
// last user.
func anonymousCopy(path string) (*os.File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return anonymousFile("copy", data)
}

func anonymousFile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, fmt.Errorf("write to anonymous memory: %w", err)
	}
	return f, nil
}

// lastBytes keeps the end of what a program says.
type lastBytes struct {
	mu  sync.Mutex
	max int
	buf []byte
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if over := len(l.buf) - l.max; over > 0 {
		l.buf = append(l.buf[:0], l.buf[over:]...)
	}
	return len(p), nil
}

// String is what was said, in one line.
func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.Join(bytes.Fields(l.buf), []byte(" ")))
}
