// The nspawn sandbox: systemd-nspawn starts the agent.
package buildroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/osbuild-star/osbuild-star/agent/wire"
)

var nspawn = backend{name: SandboxNspawn, usable: hasNspawn, command: nspawnCommand}

// Capabilities beyond nspawn's default that some stage may keep.
var containerCapabilities = []string{"MAC_ADMIN", "MAC_OVERRIDE", "LINUX_IMMUTABLE", "IPC_LOCK", "SYS_RESOURCE", "SYS_PTRACE"}

func hasNspawn(cfg *Config) error {
	if cfg.Nspawn != "" {
		return nil
	}
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		return &SandboxError{
			Msg: "systemd-nspawn is not installed", Hint: "install systemd-container, or do without it: --sandbox=native",
			Missing: "systemd-nspawn", Package: "systemd-container",
		}
	}
	return nil
}

func nspawnCommand(b *BuildRoot) (*exec.Cmd, error) {
	program := b.cfg.Nspawn
	if program == "" {
		var err error
		if program, err = exec.LookPath("systemd-nspawn"); err != nil {
			return nil, err
		}
	}
	args := []string{"launch"}
	args = append(args, b.cg.join...)
	args = append(args, "--", program, "--quiet", "--directory="+b.dir,
		fmt.Sprintf("--machine=%s%d-%s", machinePrefix, os.Getpid(), b.name),
		"--hostname=osbuild", "--register=no", "--keep-unit", "--as-pid2", "--console=pipe",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--suppress-sync=yes", "--capability="+capList(containerCapabilities),
		"--bind-ro="+escapeBind(b.cfg.Agent)+":"+insideAgent)
	if !b.cfg.Network {
		args = append(args, "--private-network")
	}
	args = append(args, insideAgent)
	cmd := exec.Command(b.cfg.Agent, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_LOG_LEVEL=warning", "SYSTEMD_NSPAWN_LOCK=0", "LC_ALL=C"}
	// A group of its own: Ctrl-C at the terminal is for this process, which ends
	// the container in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// machinePrefix begins the names of containers; the number of this process follows.
const machinePrefix = "osbuild-star-"

// nspawnDir is where nspawn has directories for its containers, by their names.
const nspawnDir = "/run/systemd/nspawn"

// sweepNspawn removes the directories of containers whose process is gone: an nspawn
// that is killed leaves them.
func sweepNspawn() {
	dirs, _ := filepath.Glob(nspawnDir + "/*/" + machinePrefix + "*")
	for _, d := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(d), machinePrefix), "-")
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(d) // which is empty; else it is in use
		}
	}
}

// insideAgent is where the agent is in a container.
const insideAgent = "/run/osbuild/" + wire.AgentName

func capList(names []string) string { return "CAP_" + strings.Join(names, ",CAP_") }

// escapeBind escapes a path for nspawn's --bind, which splits at colons.
func escapeBind(p string) string { return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(p) }
