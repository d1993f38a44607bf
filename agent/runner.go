// Runners of the user's own: programs that prepare a build root.
package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"golang.org/x/sys/unix"
)

// prepareTime bounds a runner: it sets up a few files.
const prepareTime = 2 * time.Minute

// prepareBy runs a program as runner of the build root, in the container itself, like
// the runners that are part of the agent: what it makes in /etc and /var is what every
// program finds there, native stages too. It is started the way upstream osbuild does
// it, with a program to run and its arguments; that program does nothing.
func (s *server) prepareBy(ctx context.Context, req *wire.Request, files []*os.File) *wire.Answer {
	p := req.Program
	if len(p.Argv) == 0 || p.Log < 0 || p.Log >= len(files) {
		return failed(req.ID, errors.New("a prepare request without runner or log"))
	}
	if err := attachAll(p, files); err != nil {
		return failed(req.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	name := filepath.Base(p.Argv[0])
	cmd := exec.CommandContext(ctx, p.Argv[0], runDir+"/"+wire.AgentName, "true")
	cmd.Env, cmd.Dir = p.Env, "/"
	cmd.Stdout, cmd.Stderr = files[p.Log], files[p.Log]
	// What it leaves running ends with it.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	err := cmd.Run()
	if cmd.Process != nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	if err == nil {
		return &wire.Answer{ID: req.ID}
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it took longer than %s", prepareTime)
	}
	return failed(req.ID, cannotStart(name, p.Argv[0], err))
}

// cannotStart explains the error of a runner: "no such file" of a program that is there
// means what it is started by.
func cannotStart(name, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if with := interpreter(path); with != "" {
			return &wire.Error{
				Msg:  fmt.Sprintf("runner %s is a script for %s, which is not in the build root", name, with),
				Hint: "add the package that holds it, or write the runner as a static program",
			}
		}
		return &wire.Error{
			Msg:  fmt.Sprintf("runner %s needs a dynamic linker that is not in the build root", name),
			Hint: "link it statically, or add the C library that it was built for",
		}
	case errors.Is(err, unix.ENOEXEC):
		return &wire.Error{
			Msg:  fmt.Sprintf("runner %s is no program for this build root", name),
			Hint: "a script begins with #! and its interpreter; a program is of the build root's architecture",
		}
	}
	return fmt.Errorf("runner %s: %w", name, err)
}

// interpreter is what a script is for: "/bin/sh"; "" when it is no script.
func interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return ""
	}
	line, _, _ := bytes.Cut(head[:n], []byte("\n"))
	rest, ok := strings.CutPrefix(string(line), "#!")
	if fields := strings.Fields(rest); ok && len(fields) > 0 {
		return fields[0]
	}
	return ""
}
