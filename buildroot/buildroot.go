// Package buildroot is the sandbox that stages run in: the pair of a tree and the
// runner that sets it up, started as a container: by systemd-nspawn, or where that is
// not installed by this program itself (backend.go).
//
// A tour: [Open] composes the root directory of a build root (root.go) in a
// private mount namespace ([Space]), starts the agent in a container on it, and
// lets the agent prepare it by the runner. [BuildRoot.Run] then starts one program
// after another, or at once, each with a view, namespaces and privileges of its
// own; mounts and devices are sent to it as open files, so that nothing is ever
// mounted where others see it. [BuildRoot.Close] ends the container and removes
// what it left. When this process dies, even by SIGKILL, the kernel ends the
// container and takes the mounts away; directories that remain are removed at the
// next start.
package buildroot

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"github.com/osbuild-star/osbuild-star/buildroot/binfmt"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"github.com/osbuild-star/osbuild-star/runners"
	"golang.org/x/sys/unix"
)

// BaseCapabilities are those that every stage has, upstream osbuild's list. What
// the caller lacks is left out.
var BaseCapabilities = []string{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK",
	"LINUX_IMMUTABLE", "MAC_OVERRIDE", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
	"SETUID", "SYS_ADMIN", "SYS_CHROOT", "SYS_NICE", "SYS_RESOURCE",
}

// Config says what a build root is made of.
type Config struct {
	Space *Space // the mount namespace that Tree is mounted in
	// Jobs is the one that the mounts of jobs are in; nil: Space. A container that
	// starts has a copy of all that is mounted in Space for a moment, and nothing of
	// that can be unmounted for good meanwhile.
	Jobs   *Space
	Tree   string // the tree, a path in the Space; "/" is the host's
	Runner string // e.g. "org.osbuild.debian12"

	// Program is a runner of the user's own, in place of Runner: an executable of the
	// host, a path in the Space, shown at /run/osbuild/runner under its own name. It is
	// run once when the build root is prepared, and then starts every program that is
	// no native stage.
	Program string

	Arch   string // of the tree; "" reads it from the tree
	Work   string // a directory on the host for mount points; nothing large
	Var    string // the directory below which /var is backed, on a disk; "" is /var/tmp
	Agent  string // the program to run as agent; "" is this program
	Nspawn string // the program of the nspawn sandbox; "" finds it

	Network bool   // programs have the host's network; for no stage
	Sandbox string // one of Sandboxes; "" is auto
	BPF     bool   // limit devices by a BPF program, also where cgroup v1 could do it
}

// BuildRoot is a running build root.
type BuildRoot struct {
	cfg    Config
	env    []string // of every program, from the runner
	be     *backend
	name   string // of the build root, in this process
	dir    string // below Work, the mount point of the root
	vardir *scratch.Dir
	cg     *cgroups
	run    *binfmt.Handle // keeps programs of its architecture running
	cmd    *exec.Cmd
	sock   int
	log    *tail // what the backend and the agent print

	mu      sync.Mutex
	sendMu  sync.Mutex
	waiting map[uint64]chan *wire.Answer
	gone    chan struct{} // closed when the agent is
	exited  chan struct{} // closed when the container is
	next    atomic.Uint64

	receiving bool // receive was started

	apiMu  sync.Mutex
	apis   map[*programAPI]bool // of the programs that run
	closed bool                 // there will be no more
}

var serial atomic.Uint64

// Open starts a build root. The context bounds the start only.
func Open(ctx context.Context, cfg Config) (_ *BuildRoot, err error) {
	if err := CheckVar(cfg.Var); err != nil {
		return nil, err
	}
	if cfg.Var == "" {
		cfg.Var = DefaultVar
	}
	if cfg.Jobs == nil {
		cfg.Jobs = cfg.Space
	}
	be, err := findBackend(&cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Agent == "" {
		if cfg.Agent, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	b := &BuildRoot{
		cfg: cfg, be: be, name: strconv.FormatUint(serial.Add(1), 10), sock: -1, log: newTail(64 << 10),
		waiting: map[uint64]chan *wire.Answer{}, gone: make(chan struct{}), exited: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	b.dir = filepath.Join(cfg.Work, "root-"+b.name)
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, err
	}
	if b.vardir, err = scratch.New(cfg.Var, varPrefix); err != nil {
		return nil, fmt.Errorf("making /var of a build root: %w", err)
	}
	for _, d := range []struct {
		name string
		mode uint32
	}{{"stages", 0o755}, {"var", 0o755}, {"var/tmp", 0o1777}} {
		if err := mkdir(filepath.Join(b.vardir.Path, d.name), d.mode); err != nil {
			return nil, err
		}
	}
	err = cfg.Space.Do(func() error {
		if b.cfg.Arch == "" {
			b.cfg.Arch = Arch(cfg.Tree)
		}
		if err := compose(b.dir, cfg.Tree, b.cfg.Arch, cfg.Tree != "/"); err != nil {
			return err
		}
		return bind(filepath.Join(b.vardir.Path, "var"), filepath.Join(b.dir, "var"), false, false)
	})
	if err != nil {
		return nil, fmt.Errorf("composing the build root: %w", err)
	}
	if b.cfg.Arch != "" {
		if b.run, err = binfmt.Use(b.cfg.Arch); err != nil {
			return nil, err
		}
	}
	if b.cg, err = newCgroups(b.name, cfg.BPF); err != nil {
		return nil, err
	}
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

const varPrefix = "osbuild-star-var."

// Sweep removes what build roots of processes left that were killed: what backed their
// /var below that directory ("": the default), control groups, and what systemd-nspawn,
// killed with them, did not remove.
func Sweep(vardir string) {
	scratch.Sweep(cmp.Or(vardir, DefaultVar), varPrefix)
	if parents, err := cgroupParents(); err == nil {
		for _, p := range parents {
			sweepCgroups(p.dir)
		}
	}
	sweepNspawn()
}

// Arch is the architecture of the build root's programs.
func (b *BuildRoot) Arch() string { return b.cfg.Arch }

// Alive tells whether the build root still runs, as far as is known.
func (b *BuildRoot) Alive() bool {
	select {
	case <-b.gone:
		return false
	default:
		return true
	}
}

// Sandbox is the sandbox that it runs in: nspawn or native.
func (b *BuildRoot) Sandbox() string { return b.be.name }

// start starts the container and waits for the agent's first message.
func (b *BuildRoot) start(ctx context.Context) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	b.sock = pair[0]
	theirs := os.NewFile(uintptr(pair[1]), "agent")
	defer theirs.Close()

	started := make(chan error, 1)
	go b.cfg.Space.Do(func() error {
		err := func() (err error) {
			if b.cmd, err = b.be.command(b); err != nil {
				return err
			}
			b.cmd.Args[0] = wire.AgentName
			b.cmd.Stdin, b.cmd.Stdout, b.cmd.Stderr = theirs, b.log, b.log
			b.cmd.WaitDelay = time.Second
			// It is about the thread that starts it, so that thread stays until the
			// container is gone.
			b.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
			return b.cmd.Start()
		}()
		if err != nil {
			close(b.exited)
			started <- fmt.Errorf("starting the %s sandbox: %w", b.be.name, err)
			return nil
		}
		started <- nil
		b.cmd.Wait()
		close(b.exited)
		return nil
	})
	if err := <-started; err != nil {
		b.cmd = nil
		return err
	}
	theirs.Close()
	stop := context.AfterFunc(ctx, func() { unix.Shutdown(pair[0], unix.SHUT_RDWR) })
	var first wire.Answer
	files, err := wire.Receive(b.sock, &first)
	wire.CloseAll(files)
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil || !first.Ready {
		select {
		case <-b.exited:
		case <-time.After(2 * time.Second):
		}
		return fmt.Errorf("the build root did not start: %s", b.log.message())
	}
	b.receiving = true
	go b.receive()
	return nil
}

// receive hands answers to those that wait for them.
func (b *BuildRoot) receive() {
	defer close(b.gone)
	for {
		var ans wire.Answer
		files, err := wire.Receive(b.sock, &ans)
		if err != nil {
			return
		}
		wire.CloseAll(files)
		b.mu.Lock()
		ch := b.waiting[ans.ID]
		delete(b.waiting, ans.ID)
		b.mu.Unlock()
		if ch != nil {
			ch <- &ans
		}
	}
}

// ask sends a request and waits for the answer. When the context ends first the
// program is ended, and its answer waited for.
func (b *BuildRoot) ask(ctx context.Context, req *wire.Request, files ...*os.File) (*wire.Answer, error) {
	req.ID = b.next.Add(1)
	ch := make(chan *wire.Answer, 1)
	b.mu.Lock()
	b.waiting[req.ID] = ch
	b.mu.Unlock()
	b.sendMu.Lock()
	err := wire.Send(b.sock, req, files...)
	b.sendMu.Unlock()
	if err != nil {
		b.mu.Lock()
		delete(b.waiting, req.ID)
		b.mu.Unlock()
		if errors.Is(err, unix.EPIPE) {
			<-b.gone
			return nil, b.ended()
		}
		return nil, fmt.Errorf("speaking to the agent: %w", err)
	}
	done := ctx.Done()
	for {
		select {
		case ans := <-ch:
			if err := ctx.Err(); err != nil {
				return ans, err
			}
			return ans, nil
		case <-b.gone:
			return nil, b.ended()
		case <-done:
			done = nil
			b.sendMu.Lock()
			wire.Send(b.sock, &wire.Request{Kind: wire.Cancel, ID: req.ID})
			b.sendMu.Unlock()
		}
	}
}

// ended is the error of a container that is gone before its time.
func (b *BuildRoot) ended() error { return fmt.Errorf("the build root ended: %s", b.log.message()) }

func (b *BuildRoot) prepare(ctx context.Context) error {
	req := &wire.Request{Kind: wire.Prepare, Runner: b.cfg.Runner, Arch: b.cfg.Arch}
	var files []*os.File
	defer func() { wire.CloseAll(files) }()
	if b.cfg.Program == "" {
		runner, err := runners.Lookup(b.cfg.Runner)
		if err != nil {
			return err
		}
		b.env = runner.Env(b.cfg.Arch)
	} else {
		argv, shown := (&Job{Runner: b.cfg.Program}).command()
		req.Program = &wire.Program{Argv: argv, Env: (&Job{}).env()}
		err := b.cfg.Space.Do(func() error {
			for _, m := range shown {
				f, err := detach(m.Path, m.Readonly)
				if err != nil {
					return err
				}
				files = append(files, f)
				req.Program.Attach = append(req.Program.Attach, wire.Attach{File: len(files), Target: m.Target, IsFile: true})
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("showing the runner: %w", err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	log := newTail(16 << 10)
	copied := make(chan struct{})
	go func() { io.Copy(log, r); r.Close(); close(copied) }()
	// Programs write to /var in directories of their own, on disk.
	err = b.cfg.Space.Do(func() error {
		dirs, err := detach(filepath.Join(b.vardir.Path, "stages"), false)
		if err == nil {
			files = append(files, dirs)
		}
		return err
	})
	if err != nil {
		w.Close()
		return err
	}
	req.Workers = &wire.Program{Caps: BaseCapabilities, Attach: []wire.Attach{{File: len(files), Target: wire.VarDirs}}}
	ans, err := b.ask(ctx, req, append([]*os.File{w}, files...)...)
	w.Close()
	// What a runner leaves behind may hold the other end.
	r.SetReadDeadline(time.Now().Add(time.Second))
	<-copied
	if err != nil {
		return err
	}
	if ans.Err != nil {
		if said := log.lines(); len(said) > 0 {
			return fmt.Errorf("preparing the build root: %w: %s", ans.Err, strings.Join(said, "; "))
		}
		return fmt.Errorf("preparing the build root: %w", ans.Err)
	}
	return nil
}

// Close ends the container and removes everything that belonged to it.
func (b *BuildRoot) Close() error {
	apis := b.stopAPIs()
	if b.sock >= 0 {
		unix.Shutdown(b.sock, unix.SHUT_RDWR) // the agent ends, and so the container
	}
	if b.cmd != nil {
		patience := 3 * time.Second
		if !b.receiving {
			patience = 0 // there is no agent yet that would end it
		}
		select {
		case <-b.exited:
		case <-time.After(patience):
			b.cmd.Process.Kill()
			<-b.exited
		}
	}
	if b.receiving {
		<-b.gone // it reads from the socket
	}
	b.sendMu.Lock()
	if b.sock >= 0 {
		unix.Close(b.sock)
		b.sock = -1
	}
	b.sendMu.Unlock()
	errs := []error{b.run.Close()}
	if b.cg != nil {
		b.cg.kill()
	}
	for _, a := range apis {
		errs = append(errs, a.close())
	}
	if b.cg != nil {
		errs = append(errs, b.cg.remove())
	}
	if b.dir != "" {
		errs = append(errs, b.cfg.Space.Do(func() error { return Unmount(b.dir) }))
		os.Remove(b.dir)
	}
	if b.vardir != nil {
		errs = append(errs, b.vardir.Close())
	}
	return errors.Join(errs...)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
	max int
}

func newTail(max int) *tail { return &tail{max: max} }

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - t.max; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	return len(p), nil
}

// message is the last lines, as part of an error message.
func (t *tail) message() string {
	if lines := t.lines(); len(lines) > 0 {
		return strings.Join(lines, "; ")
	}
	return "it said nothing"
}

// lines are the last ones, five at most.
func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for sc := bufio.NewScanner(bytes.NewReader(t.buf)); sc.Scan(); {
		// nspawn tells of a folder for mounts that it does not need.
		if s := strings.TrimSpace(sc.Text()); s != "" && !strings.Contains(s, "propagate") {
			lines = append(lines, s)
		}
	}
	return lines[max(0, len(lines)-5):]
}
