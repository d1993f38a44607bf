// The native sandbox from inside: the first process of new namespaces makes them a
// container, as systemd-nspawn would, and stays as its init.
package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/osbuild-star/osbuild-star/agent/seccomp"
	"github.com/osbuild-star/osbuild-star/agent/wire"
	"golang.org/x/sys/unix"
)

// sandboxMain runs in mount, pid, ipc, uts and network namespaces that are new, with
// the agent's socket as standard input. Its argument is a wire.Sandbox.
func sandboxMain(args []string) int {
	runtime.LockOSThread()
	var c wire.Sandbox
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "agent: sandbox: one argument is needed")
		return 125
	}
	err := json.Unmarshal([]byte(args[0]), &c)
	if err == nil {
		err = enterSandbox(&c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent: making the sandbox:", err)
		return 125
	}
	status, err := beInit(c.Agent)
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent: starting the agent:", err)
		return 125
	}
	return status
}

func enterSandbox(c *wire.Sandbox) error {
	for _, dir := range c.Cgroups {
		if err := joinCgroup(dir); err != nil {
			return err
		}
	}
	// What is above the groups is not to be seen or reached by mounting cgroups.
	// The thread that starts the agent is this one.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("making a cgroup namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for _, arrange := range []func(root string) error{makeDev, makeSys, makeRest} {
		if err := arrange(c.Root); err != nil {
			return err
		}
	}
	if err := enterRoot(c.Root); err != nil {
		return err
	}
	if !c.Network {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("setting up the loopback interface: %w", err)
		}
	}
	if err := unix.Sethostname([]byte("osbuild")); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := unix.Setdomainname([]byte("(none)")); err != nil {
		return fmt.Errorf("setting the domain name: %w", err)
	}
	// The caller's keys stay the caller's. A kernel may have no keys.
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("making a session keyring: %w", err)
	}
	if err := resetLimits(); err != nil {
		return err
	}
	// Signals that the caller ignores are not ignored inside: a handler ends with
	// the start of a program, where to ignore does not.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTERM)
	if err := cutCaps(c.Caps); err != nil {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	if err := seccomp.Install(); err != nil {
		return fmt.Errorf("filtering system calls: %w", err)
	}
	return nil
}

// beInit starts the agent, reaps what is left behind, and ends with the agent; then
// the kernel ends all that is in the pid namespace.
func beInit(agent string) (int, error) {
	pid, err := syscall.ForkExec(agent, []string{wire.AgentName}, &syscall.ProcAttr{
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, &os.PathError{Op: "exec", Path: agent, Err: err}
	}
	// The socket is the agent's: whoever has the other end is told when that ends.
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Dup3(null, 0, 0); err != nil {
		return 0, err
	}
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting: %w", err)
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case got == pid:
			return ws.ExitStatus(), nil
		}
	}
}

// mountAt is one call of mount(2), below the root.
func mountAt(root, fstype, target string, flags uintptr, data string) error {
	p := filepath.Join(root, target)
	if err := os.MkdirAll(p, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fstype, p, fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s: %w", target, err)
	}
	return nil
}

// nodes are the devices of every container.
var nodes = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// makeDev makes /dev: a few nodes, terminals and memory of its own.
func makeDev(root string) error {
	if err := mountAt(root, "tmpfs", "/dev", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=4m"); err != nil {
		return err
	}
	dev := filepath.Join(root, "dev")
	if err := os.Mkdir(filepath.Join(dev, "char"), 0o755); err != nil {
		return err
	}
	for _, n := range nodes {
		p := filepath.Join(dev, n.name)
		if err := unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor))); err == nil {
			if err := unix.Chmod(p, 0o666); err != nil {
				return &os.PathError{Op: "chmod", Path: p, Err: err}
			}
		} else if err := bindNode(n.name, p); err != nil {
			return err
		}
		if err := os.Symlink("../"+n.name, filepath.Join(dev, "char", fmt.Sprintf("%d:%d", n.major, n.minor))); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		fstype, target, data string
		flags                uintptr
	}{
		{"devpts", "/dev/pts", "newinstance,mode=620,ptmxmode=666,gid=5", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"mqueue", "/dev/mqueue", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	} {
		if err := mountAt(root, m.fstype, m.target, m.flags, m.data); err != nil {
			return err
		}
	}
	return nil
}

// bindNode shows the host's node where the caller may not make one.
func bindNode(name, at string) error {
	if err := os.WriteFile(at, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount("/dev/"+name, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("making /dev/%s: %w", name, err)
	}
	return nil
}

// shownSys is what is seen of sysfs. The rest, /sys/fs and /sys/firmware above all,
// is of the machine that the build runs on, and not of what is built.
var shownSys = []string{"block", "bus", "class", "dev", "devices", "kernel"}

// makeSys makes a read-only /sys. Its network devices are those of the namespace.
func makeSys(root string) error {
	const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := mountAt(root, "tmpfs", "/sys", strict, "mode=555,size=4m"); err != nil {
		return err
	}
	sys := filepath.Join(root, "sys")
	full := filepath.Join(sys, "full")
	if err := mountAt(root, "sysfs", "/sys/full", strict|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	for _, name := range shownSys {
		from, to := filepath.Join(full, name), filepath.Join(sys, name)
		if _, err := os.Stat(from); err != nil {
			continue // a kernel can be without
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("binding /sys/%s: %w", name, err)
		}
		if err := unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|strict, ""); err != nil {
			return fmt.Errorf("making /sys/%s read-only: %w", name, err)
		}
	}
	if err := unix.Unmount(full, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", full, err)
	}
	if err := os.Remove(full); err != nil {
		return err
	}
	// Places that programs look for, and find empty.
	for _, d := range []string{"fs/cgroup", "fs/selinux"} {
		if err := os.MkdirAll(filepath.Join(sys, d), 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("", sys, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|strict, ""); err != nil {
		return fmt.Errorf("making /sys read-only: %w", err)
	}
	return nil
}

// makeRest makes /tmp and the procfs of the namespace, with what is of the whole
// machine read-only. /run is there: the agent is in it.
func makeRest(root string) error {
	if err := mountAt(root, "tmpfs", "/tmp", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return err
	}
	if err := mountAt(root, "proc", "/proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	return protectProc(filepath.Join(root, "proc"), "sys", "sysrq-trigger", "irq", "bus", "acpi", "fs")
}

// enterRoot makes root the root directory, and lets go of the old one.
func enterRoot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return &os.PathError{Op: "chdir", Path: root, Err: err}
	}
	// On one place: the old root then lies over the new one, and is taken off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return &os.PathError{Op: "chdir", Path: "/", Err: err}
	}
	return nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// limits are the kernel's own defaults: a build does not depend on those of the
// caller's shell. The others are those of the machine.
var limits = []struct {
	resource   int
	soft, hard uint64
}{
	{unix.RLIMIT_CPU, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
	{unix.RLIMIT_FSIZE, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
	{unix.RLIMIT_DATA, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
	{unix.RLIMIT_STACK, 8 << 20, unix.RLIM_INFINITY},
	{unix.RLIMIT_CORE, 0, unix.RLIM_INFINITY},
	{unix.RLIMIT_RSS, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
	{unix.RLIMIT_NOFILE, 1024, 512 << 10},
	{unix.RLIMIT_AS, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
	{unix.RLIMIT_LOCKS, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
}

// resetLimits sets limits, as far as the caller may.
func resetLimits() error {
	for _, l := range limits {
		want := unix.Rlimit{Cur: l.soft, Max: l.hard}
		err := unix.Setrlimit(l.resource, &want)
		if errors.Is(err, unix.EPERM) {
			var have unix.Rlimit
			if err = unix.Getrlimit(l.resource, &have); err == nil {
				want = unix.Rlimit{Cur: min(l.soft, have.Max), Max: min(l.hard, have.Max)}
				err = unix.Setrlimit(l.resource, &want)
			}
		}
		if err != nil {
			return fmt.Errorf("setting a resource limit: %w", err)
		}
	}
	return nil
}
