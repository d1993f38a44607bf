// Backends: the ways to start a build root in a container.
package buildroot

import (
	"fmt"
	"os/exec"
	"strings"
)

// The sandboxes to choose from, as Config.Sandbox.
const (
	SandboxAuto   = "auto"   // nspawn where it is installed, else native
	SandboxNspawn = "nspawn" // systemd-nspawn
	SandboxNative = "native" // namespaces, capabilities and a seccomp filter of our own
)

// backend starts containers. What is in the container is the agent either way, so that
// a stage finds the same in both.
type backend struct {
	name string

	// usable tells why the host cannot have it; nil when it can.
	usable func(cfg *Config) error

	// command is what starts the container, on the composed root at b.dir and in
	// the groups of b.cg. It is called, and the command started, in the Space. The
	// agent's socket is its standard input.
	command func(b *BuildRoot) (*exec.Cmd, error)
}

// backends has them in the order in which auto takes them.
var backends = []*backend{&nspawn, &native}

// Sandboxes are the values of Config.Sandbox.
func Sandboxes() []string {
	names := []string{SandboxAuto}
	for _, be := range backends {
		names = append(names, be.name)
	}
	return names
}

// SandboxError is a sandbox that is not known, or that the host cannot have.
type SandboxError struct {
	Msg     string
	Hint    string // what to do; may be ""
	Missing string // the program that the host lacks; may be ""
	Package string // the Debian package that has it
}

func (e *SandboxError) Error() string { return e.Msg }

// Sandbox tells which sandbox a value of Config.Sandbox means on this host; "" is auto.
// An error is a *SandboxError.
func Sandbox(name string) (string, error) {
	be, err := findBackend(&Config{Sandbox: name})
	if err != nil {
		return "", err
	}
	return be.name, nil
}

func findBackend(cfg *Config) (*backend, error) {
	var first error
	for _, be := range backends {
		if cfg.Sandbox != "" && cfg.Sandbox != SandboxAuto && cfg.Sandbox != be.name {
			continue
		}
		err := be.usable(cfg)
		if err == nil {
			return be, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = &SandboxError{Msg: fmt.Sprintf("there is no sandbox %q", cfg.Sandbox), Hint: "choose one of " + strings.Join(Sandboxes(), ", ")}
	}
	return nil, first
}
