// Where apt runs: in a build root of the host, by its runner.
package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/sources/apt"
)

// aptRunner is how programs of apt are started: in the host's build root, with its
// network. Who may not start build roots resolves packages all the same, so nil, which
// is on the machine itself, for them.
func (s *session) aptRunner() (func(context.Context, apt.Program) error, error) {
	e, err := s.engine()
	if err != nil {
		return nil, err
	}
	if builtWithCgo || !e.CanRun() {
		return nil, nil
	}
	return func(ctx context.Context, p apt.Program) error {
		status, err := e.Run(ctx, engine.Program{
			Argv: p.Argv, Env: p.Env, Stdout: p.Stdout, Stderr: p.Stderr, Dirs: p.Dirs, Reads: p.Reads,
		}, s.span)
		if err != nil && strings.HasSuffix(err.Error(), "is not in the build root") {
			return errors.Join(exec.ErrNotFound, err)
		}
		if err == nil && status != 0 {
			err = fmt.Errorf("exit status %d", status)
		}
		return err
	}, nil
}
