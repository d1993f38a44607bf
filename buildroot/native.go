// The native sandbox: the agent's own program becomes the container, in new namespaces.
// What it does there is in package agent (launch_native.go).
package buildroot

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/osbuild-star/osbuild-star/agent/seccomp"
	"github.com/osbuild-star/osbuild-star/agent/wire"
	"golang.org/x/sys/unix"
)

var native = backend{name: SandboxNative, usable: hasNative, command: nativeCommand}

// nspawnCapabilities are those that nspawn leaves a container with a network of its
// own (systemd-nspawn(1), --capability=).
var nspawnCapabilities = []string{
	"AUDIT_CONTROL", "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_OWNER", "KILL",
	"LEASE", "LINUX_IMMUTABLE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID",
	"SETPCAP", "SETUID", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_NICE", "SYS_PTRACE", "SYS_RESOURCE", "SYS_TTY_CONFIG",
}

func hasNative(*Config) error {
	if !seccomp.Supported() {
		return &SandboxError{
			Msg: "the native sandbox is not there: " + seccomp.ErrUnsupported.Error(), Hint: "use the other sandbox: install systemd-nspawn, and --sandbox=nspawn",
		}
	}
	return nil
}

// nativeCommand puts the agent into the root and starts it from there: what is inside
// could reach the program that it runs under, which is to be one on a read-only mount.
func nativeCommand(b *BuildRoot) (*exec.Cmd, error) {
	if err := tmpfs(filepath.Join(b.dir, "run"), "0755", 0); err != nil {
		return nil, err
	}
	if err := mkdir(filepath.Join(b.dir, "run/osbuild"), 0o755); err != nil {
		return nil, err
	}
	for _, d := range []string{"home", "srv"} { // as nspawn has it
		if err := mkdir(filepath.Join(b.dir, d), 0o755); err != nil && !os.IsExist(err) {
			return nil, err
		}
	}
	at := filepath.Join(b.dir, insideAgent)
	if err := os.WriteFile(at, nil, 0o755); err != nil {
		return nil, err
	}
	if err := bind(b.cfg.Agent, at, true, false); err != nil {
		return nil, fmt.Errorf("binding the agent: %w", err)
	}
	arg, err := json.Marshal(wire.Sandbox{
		Root: b.dir, Agent: insideAgent, Cgroups: b.cg.join, Network: b.cfg.Network,
		Caps: slices.Concat(nspawnCapabilities, containerCapabilities),
	})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(at, "sandbox", string(arg))
	cmd.Env = []string{}
	namespaces := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if !b.cfg.Network {
		namespaces |= unix.CLONE_NEWNET
	}
	// A session of its own: nothing inside has the caller's terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true}
	return cmd, nil
}
