// The copy of the agent that becomes one stage: it arranges its own view of the
// build root, gives up privileges, and runs.
package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"github.com/osbuild-star/osbuild-star/stages"
	"golang.org/x/sys/unix"
)

// stageSocket is where a worker gets its program from, and where its answer goes.
const stageSocket = 3

// Where things are inside: upstream osbuild's places.
const (
	runDir    = "/run/osbuild"
	treeDir   = runDir + "/tree"
	inputsDir = runDir + "/inputs"
	mountsDir = runDir + "/mounts"
)

// stageMain is a worker. The name is that of its view of /var.
func stageMain(name string) int {
	runtime.LockOSThread()
	// Programs get nothing but their standard files.
	if err := unix.CloseRange(stageSocket, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "agent: close_range:", err)
		return 1
	}
	early := arrangeEarly(filepath.Join(viewsDir, name))
	var p wire.Program
	files, err := wire.Receive(stageSocket, &p)
	if errors.Is(err, io.EOF) {
		return 0 // there is no further stage
	}
	if err == nil && p.Native != "" && stages.Lookup(p.Native) == nil && !initialised {
		later = func() int { return become(&p, files, early, nil) }
		return 0
	}
	return become(&p, files, early, err)
}

// become completes the sandbox, runs the program and tells its end. The errors are
// those of the sandbox and of receiving the program.
func become(p *wire.Program, files []*os.File, early, err error) int {
	ans := func() *wire.Answer {
		if err != nil {
			return failed(0, fmt.Errorf("reading the program: %w", err))
		}
		if err := takeFiles(p, files); err != nil {
			return failed(0, fmt.Errorf("taking over the log: %w", err))
		}
		if early != nil {
			return failed(0, fmt.Errorf("arranging the sandbox: %w", early))
		}
		if err := arrange(p, files); err != nil {
			return failed(0, fmt.Errorf("arranging the sandbox: %w", err))
		}
		wire.CloseAll(files)
		if err := confine(p); err != nil {
			return failed(0, fmt.Errorf("giving up privileges: %w", err))
		}
		os.Clearenv()
		for _, kv := range p.Env {
			if k, v, ok := strings.Cut(kv, "="); ok {
				os.Setenv(k, v)
			}
		}
		if err := os.Chdir("/"); err != nil {
			return failed(0, err)
		}
		if p.Native != "" {
			return native(p)
		}
		return program(p)
	}()
	if err := wire.Send(stageSocket, ans); err != nil {
		fmt.Fprintln(os.Stderr, "agent: sending the answer:", err)
		return 1
	}
	return 0
}

// takeFiles makes the log the standard output and error, and a terminal or file
// that was sent the standard input.
func takeFiles(p *wire.Program, files []*os.File) error {
	if p.Log < 0 || p.Log >= len(files) {
		return errors.New("there is none")
	}
	log := int(files[p.Log].Fd())
	for _, fd := range []int{1, 2} {
		if err := unix.Dup2(log, fd); err != nil {
			return err
		}
	}
	if p.Stderr > 0 && p.Stderr < len(files) {
		if err := unix.Dup2(int(files[p.Stderr].Fd()), 2); err != nil {
			return err
		}
	}
	if p.Stdin > 0 && p.Stdin < len(files) {
		return unix.Dup2(int(files[p.Stdin].Fd()), 0)
	}
	return nil
}

// arrangeEarly makes what does not depend on the stage, while the worker waits: all of
// its own view of the build root but what the host sends. That of /var is mounted at
// varView already.
func arrangeEarly(varView string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// What the runner prepared lies under the stage's own view of /var and /etc.
	if err := unix.Mount(varView, "/var", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding /var: %w", err)
	}
	if err := unix.Unmount(viewsDir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the views of others: %w", err)
	}
	// This hides the directories of all the views, too.
	for _, t := range []struct{ path, mode string }{{"/run", "0755"}, {"/tmp", "1777"}} {
		if err := unix.Mount("tmpfs", t.path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode="+t.mode); err != nil {
			return fmt.Errorf("mounting %s: %w", t.path, err)
		}
	}
	for _, d := range []string{"/run/lock", runDir, treeDir, inputsDir, mountsDir, runDir + "/api"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := view("/etc", "/etc", runDir+"/.etc"); err != nil {
		return err
	}
	if err := arrangeDev(); err != nil {
		return err
	}
	if err := arrangeProc(); err != nil {
		return err
	}
	return unix.Sethostname([]byte("osbuild"))
}

// arrange completes the stage's own view of the build root.
func arrange(p *wire.Program, files []*os.File) error {
	if err := attachAll(p, files); err != nil {
		return err
	}
	if p.Native != "" {
		if s := stages.Lookup(p.Native); s != nil && s.Chroot {
			if err := bindIntoTree(); err != nil {
				return err
			}
		}
	}
	return nil
}

// attachAll attaches a program's mounts.
func attachAll(p *wire.Program, files []*os.File) error {
	for _, a := range p.Attach {
		if a.File < 0 || a.File >= len(files) {
			return fmt.Errorf("attaching %s: there is no such file", a.Target)
		}
		if err := attach(a, files[a.File]); err != nil {
			return err
		}
	}
	return nil
}

// view mounts a writable overlay of dir at target, whose changes go to scratch. It is volatile:
// nobody needs them after the stage, and a view that is not would write out the
// whole file system of scratch when it goes away.
func view(dir, target, scratch string) error {
	for _, d := range []string{scratch + "/upper", scratch + "/work"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	// It is the top of what is seen, and as old as what was prepared.
	if st, err := os.Stat(dir); err != nil {
		return err
	} else if err := os.Chtimes(scratch+"/upper", time.Time{}, st.ModTime()); err != nil {
		return err
	}
	data := "lowerdir=" + dir + ",upperdir=" + scratch + "/upper,workdir=" + scratch + "/work,volatile"
	if err := unix.Mount("overlay", target, "overlay", 0, data); err != nil {
		return fmt.Errorf("mounting the view of %s: %w", dir, err)
	}
	return nil
}

// attach puts a mount that the host sent to its place.
func attach(a wire.Attach, mount *os.File) error {
	target := filepath.Clean(a.Target)
	if a.IsFile {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o600)
		if err != nil && !os.IsExist(err) {
			return err
		}
		if f != nil {
			f.Close()
		}
	} else if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attaching %s: %w", target, err)
	}
	return nil
}

// arrangeProc mounts the procfs of the new pid namespace, with what could change
// the host read-only, and a kernel command line that says where we are, as
// upstream has it.
func arrangeProc() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := protectProc("/proc", "sys", "sysrq-trigger", "irq", "bus"); err != nil {
		return err
	}
	cmdline := runDir + "/.cmdline"
	if err := os.WriteFile(cmdline, []byte("root=/dev/osbuild\n"), 0o444); err != nil {
		return err
	}
	if err := unix.Mount(cmdline, "/proc/cmdline", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding /proc/cmdline: %w", err)
	}
	return nil
}

// protectProc makes parts of a procfs read-only, those that there are.
func protectProc(proc string, parts ...string) error {
	for _, part := range parts {
		d := filepath.Join(proc, part)
		if err := unix.Mount(d, d, "", unix.MS_BIND, ""); err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			return fmt.Errorf("binding %s: %w", d, err)
		}
		if err := unix.Mount("", d, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("making %s read-only: %w", d, err)
		}
	}
	return nil
}

// bindIntoTree makes /proc, /sys and /dev visible in the tree, for the stages that
// start programs of it. Only directories that the tree really has are used; the
// mounts are the namespace's own and go away with it.
func bindIntoTree() error {
	for _, d := range []string{"/proc", "/sys", "/dev"} {
		target := treeDir + d
		st, err := os.Lstat(target)
		if err != nil || !st.IsDir() {
			continue
		}
		if err := unix.Mount(d, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("binding %s into the tree: %w", d, err)
		}
	}
	return nil
}

// native runs a stage that is part of this program.
func native(p *wire.Program) *wire.Answer {
	s := stages.Lookup(p.Native)
	if s == nil {
		return failed(0, fmt.Errorf("unknown stage %q", p.Native))
	}
	var args struct {
		Options json.RawMessage             `json:"options"`
		Inputs  map[string]stages.InputArg  `json:"inputs"`
		Devices map[string]stages.DeviceArg `json:"devices"`
		Mounts  map[string]stages.MountArg  `json:"mounts"`
		Paths   stages.PathsArg             `json:"paths"`
		Meta    stages.MetaArg              `json:"meta"`
		Tree    string                      `json:"tree"`
	}
	if err := json.Unmarshal(p.Arguments, &args); err != nil {
		return failed(0, fmt.Errorf("reading the arguments: %w", err))
	}
	ans := &wire.Answer{}
	c := &stages.Context{
		Tree: args.Tree, Options: args.Options, Inputs: args.Inputs, Devices: args.Devices,
		Mounts: args.Mounts, Paths: args.Paths, Meta: args.Meta, Arch: p.Arch, Log: os.Stdout,
		Env: p.Env,
		SetMeta: func(v any) error {
			b, err := json.Marshal(v)
			ans.Metadata = b
			return err
		},
	}
	if err := s.Run(c); err != nil {
		ans.Status, ans.Err = 1, &wire.Error{Msg: err.Error()}
		var se *stages.Error
		if errors.As(err, &se) {
			ans.Err.Hint = se.Hint
		}
		var ee *exec.ExitError
		if errors.As(err, &ee) && ee.ExitCode() > 0 {
			ans.Status = ee.ExitCode()
		}
	}
	return ans
}

// program starts a program of the build root, and waits for it and for all that it
// left behind to be reaped.
func program(p *wire.Program) *wire.Answer {
	if len(p.Argv) == 0 {
		return failed(0, errors.New("no program"))
	}
	meta := runDir + "/meta"
	if err := os.WriteFile(meta, nil, 0o600); err != nil {
		return failed(0, err)
	}
	path, err := exec.LookPath(p.Argv[0])
	if err != nil {
		return failed(0, &wire.Error{Msg: p.Argv[0] + " is not in the build root", Hint: "add the package that holds it"})
	}
	attr := &os.ProcAttr{Env: p.Env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
	if p.Terminal {
		attr.Sys = &unix.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	}
	proc, err := os.StartProcess(path, p.Argv, attr)
	if err != nil {
		return failed(0, err)
	}
	ans := &wire.Answer{}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return failed(0, fmt.Errorf("waiting: %w", err))
		}
		if pid != proc.Pid {
			continue
		}
		switch {
		case ws.Exited():
			ans.Status = ws.ExitStatus()
		case ws.Signaled():
			ans.Status, ans.Signal = 128+int(ws.Signal()), ws.Signal().String()
		}
		break
	}
	if b, err := os.ReadFile(meta); err == nil && len(b) > 0 && json.Valid(b) {
		ans.Metadata = b
	}
	return ans
}
