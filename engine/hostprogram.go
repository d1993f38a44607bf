// Programs that are no stages, in the host's build root: package resolution.
package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/monitor"
)

// Program is a program of the host's tree to run in a build root of it, prepared by the
// host's runner like any other, but with the host's network.
type Program struct {
	Argv           []string
	Env            []string // besides what every program in a build root has
	Stdout, Stderr io.Writer

	// Dirs are directories of the host that it works in, and Reads files and directories
	// that it reads, at the same paths inside. Those of Reads that do not exist are left
	// out.
	Dirs, Reads []string
}

// CanRun tells whether build roots can be started here: by root, in some sandbox, and
// with /var on a disk.
func (e *Engine) CanRun() bool {
	_, err := buildroot.Sandbox(e.cfg.Sandbox)
	return err == nil && os.Geteuid() == 0 && canUnshare() == nil && buildroot.CheckVar(e.cfg.Var) == nil
}

// Run runs the program and returns its exit status. An error is about the build root,
// or a program that is not in it: a *wire.Error.
func (e *Engine) Run(ctx context.Context, p Program, span *monitor.Span) (status int, err error) {
	if err := e.prepare(); err != nil {
		return 0, err
	}
	br, err := e.buildRoot(ctx, &plan{network: true}, e.cfg.Host.Runner, nil, span)
	if err != nil {
		return 0, err
	}
	job := buildroot.Job{Argv: p.Argv, Env: p.Env}
	for _, d := range p.Dirs {
		job.Mounts = append(job.Mounts, buildroot.Mount{Path: d, Target: d})
	}
	for _, f := range append([]string{"/etc/resolv.conf", "/etc/hosts"}, p.Reads...) {
		if real, err := filepath.EvalSymlinks(f); err == nil && !strings.HasPrefix(f, "/usr/") {
			job.Mounts = append(job.Mounts, buildroot.Mount{Path: real, Target: f, Readonly: true})
		}
	}
	var wg sync.WaitGroup
	var ours []*os.File
	defer func() {
		for _, f := range ours {
			f.Close()
		}
		wg.Wait()
	}()
	if job.Stdin, err = os.Open(os.DevNull); err != nil {
		return 0, err
	}
	defer job.Stdin.Close()
	for _, out := range []struct {
		to   io.Writer
		file **os.File
	}{{p.Stdout, &job.Stdout}, {p.Stderr, &job.Stderr}} {
		r, w, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		ours, *out.file = append(ours, w), w
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer r.Close()
			if _, err := io.Copy(out.to, r); err != nil {
				io.Copy(io.Discard, r) // nobody listens any more
			}
		}()
	}
	r, err := br.Run(ctx, job)
	if err != nil {
		return 0, err
	}
	if r.Err != nil {
		return r.Status, r.Err
	}
	if r.Signal != "" {
		return r.Status, errors.New("ended by signal " + r.Signal)
	}
	return r.Status, nil
}
