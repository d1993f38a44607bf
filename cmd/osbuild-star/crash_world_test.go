// Where trials of crashes run, and how a build is started there and ended.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// crashWorld is a mount namespace with a /run/osbuild-star of its own: whatever is
// found there after a trial is of that trial. Everything that has to do with it runs
// on its thread, by do.
type crashWorld struct {
	lab    *crashLab
	calls  chan func()
	mounts string // what is mounted there
	pids   []int  // of the trial's builds
}

const crashRun = "/run/osbuild-star"

func newCrashWorld(l *crashLab) (*crashWorld, error) {
	w := &crashWorld{lab: l, calls: make(chan func())}
	made := make(chan error)
	go w.live(made)
	return w, <-made
}

// live is the life of the world's thread, which ends with it. It is not the first one
// of the process, whose mounts /proc shows as those of the process.
func (w *crashWorld) live(made chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		done := make(chan bool)
		go func() { defer close(done); w.live(made) }()
		<-done
		return
	}
	err := os.MkdirAll(crashRun, 0o755)
	if err == nil {
		err = unix.Unshare(unix.CLONE_NEWNS)
	}
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Mount("tmpfs", crashRun, "tmpfs", 0, "mode=0755")
	}
	w.mounts = mountsHere()
	made <- err
	for f := range w.calls {
		f()
	}
}

func mountsHere() string {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// do calls f in the world.
func (w *crashWorld) do(f func()) {
	done := make(chan bool)
	w.calls <- func() { defer close(done); f() }
	<-done
}

func (w *crashWorld) close() { close(w.calls) }

// crashPlan says how one trial goes. It is drawn from a seed.
type crashPlan struct {
	from     string // one of startings
	hostname string
	sandbox  string
	locked   bool // there is a lock file
	memory   bool // out/ is on another file system: files are copied
	kills    []crashMoment
	second   string // another build at the same time: "killed", "lives" or ""
	alone    bool   // the process is killed, and not its session
	power    bool   // the machine stops too
	tidy     string // what of `cache` is started afterwards, and killed
}

// crashMoment is when something happens to a build: a while after an event, or after
// its start.
type crashMoment struct {
	event int
	after time.Duration
}

func (m crashMoment) String() string { return fmt.Sprintf("%v after event %d", m.after, m.event) }

// trial is one that is under way.
type trial struct {
	crashPlan
	w        *crashWorld
	dir, out string
	store    string
	vardir   string
	label    string
	builds   []*crashBuild
}

func (w *crashWorld) trial(name string, plan crashPlan) *trial {
	dir := filepath.Join(w.lab.dir, name)
	tr := &trial{crashPlan: plan, w: w, dir: dir, store: dir + "/store", vardir: dir + "/var", label: "//:all", out: dir + "/ws/out"}
	w.pids = nil
	l := w.lab
	l.run(l.dir, "cp", "-a", "start/"+plan.from, dir)
	l.run(l.dir, "mkdir", "-p", dir+"/var", dir+"/tmp", dir+"/ws")
	for _, f := range []string{"BUILD.star", "MODULE.star", "motd"} {
		l.run(l.dir, "cp", "seed/"+f, dir+"/ws")
	}
	if plan.locked {
		l.run(l.dir, "cp", "lock", dir+"/ws/osbuild-star.lock")
	}
	if _, err := os.Stat(dir + "/out"); err == nil {
		l.run(dir, "mv", "out", "ws")
	}
	if plan.memory {
		tr.out = crashRun + "/out"
	}
	return tr
}

func (tr *trial) remove() {
	os.RemoveAll(tr.dir)
	os.RemoveAll(crashRun + "/out")
}

// crashBuild is a build that was started.
type crashBuild struct {
	cmd    *exec.Cmd
	begun  time.Time
	took   time.Duration
	done   chan struct{}
	fifo   *os.File
	seen   atomic.Int64  // events
	more   chan struct{} // a word that there was one
	files  [2]string     // of its outputs
	runDir []string      // in crashRun when it was killed
}

// start starts a build in a session of its own.
func (tr *trial) start(out string, flags []string) *crashBuild {
	l, n := tr.w.lab, len(tr.builds)
	b := &crashBuild{done: make(chan struct{}), more: make(chan struct{}, 1)}
	at := fmt.Sprintf("%s/build-%d", tr.dir, n)
	argv := append([]string{
		"build", "--store=" + tr.store, "--var-dir=" + tr.vardir, "--out=" + out, "--sandbox=" + tr.sandbox, "--events=" + at + ".fifo",
		"-Dhostname=" + tr.hostname, "-Dsuite=crash", "-Dkeyring=" + l.keyring, "-Dmirror=" + l.url,
	}, append(flags, tr.label)...)
	b.cmd = exec.Command("osbuild-star", argv...)
	b.cmd.Dir = tr.dir + "/ws"
	b.cmd.Env = append(l.env(tr.dir+"/tmp"), "OSBUILD_STAR_CRASH="+tr.dir)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	b.files = [2]string{at + ".stdout", at + ".stderr"}
	var err error
	open := func(name string) *os.File {
		f, ferr := os.Create(name)
		err = errors.Join(err, ferr)
		return f
	}
	stdout, stderr := open(b.files[0]), open(b.files[1])
	defer stdout.Close()
	defer stderr.Close()
	b.cmd.Stdout, b.cmd.Stderr = stdout, stderr
	err = errors.Join(err, unix.Mkfifo(at+".fifo", 0o600))
	if err == nil {
		b.fifo, err = os.OpenFile(at+".fifo", os.O_RDWR|unix.O_NONBLOCK, 0)
	}
	if err == nil {
		b.begun = time.Now()
		err = b.cmd.Start()
	}
	if err != nil {
		panic(err) // the lab is broken
	}
	tr.builds = append(tr.builds, b)
	tr.w.pids = append(tr.w.pids, b.cmd.Process.Pid)
	go b.count()
	go func() {
		_ = b.cmd.Wait()
		b.took = time.Since(b.begun)
		close(b.done)
	}()
	return b
}

// count counts events as they come.
func (b *crashBuild) count() {
	r := bufio.NewReader(b.fifo)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		if bytes.Contains(line, []byte(`"kind":"output"`)) || bytes.Contains(line, []byte(`"kind":"progress"`)) {
			continue // a thousand of a package
		}
		b.seen.Add(1)
		select {
		case b.more <- struct{}{}:
		default:
		}
	}
}

func (b *crashBuild) events() int { return int(b.seen.Load()) }

// await waits for the moment, and tells whether the build was there to see it.
func (b *crashBuild) await(m crashMoment) bool {
	for b.events() < m.event {
		select {
		case <-b.more:
		case <-b.done:
			return false
		}
	}
	select {
	case <-time.After(m.after):
		return true
	case <-b.done:
		return false
	}
}

// kill ends the whole session at once, or the process alone: what it started is told
// by the kernel.
func (b *crashBuild) kill(alone bool) {
	pid := -b.cmd.Process.Pid
	if alone {
		pid = -pid
	}
	select {
	case <-b.done:
	default:
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	b.end()
}

// end waits for the build; one that takes for ever has a bug.
func (b *crashBuild) end() {
	select {
	case <-b.done:
	case <-time.After(3 * patience):
		_ = unix.Kill(-b.cmd.Process.Pid, unix.SIGQUIT) // it tells where it is
		time.Sleep(time.Second)
		_ = unix.Kill(-b.cmd.Process.Pid, unix.SIGKILL)
		<-b.done
	}
	b.fifo.Close()
}

func (b *crashBuild) status() int { return b.cmd.ProcessState.ExitCode() }

// said is what the build printed, the end of it.
func (b *crashBuild) said() string {
	var out []byte
	for _, name := range b.files {
		if f, err := os.Open(name); err == nil {
			text, _ := io.ReadAll(f)
			out = append(out, text[max(0, len(text)-4000):]...)
			f.Close()
		}
	}
	return string(out)
}
