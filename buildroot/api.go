// What a program in a build root finds of the host's: its library, its runner, and the
// sockets that are served while it runs.
package buildroot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/hostapi"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
)

// Where things are inside: upstream osbuild's places.
const (
	insideAPI    = "/run/osbuild/api"
	insideBin    = "/run/osbuild/bin"
	insideLib    = "/run/osbuild/lib"
	insideRunner = "/run/osbuild/runner"
)

// command returns the program to start with its arguments, and what it needs to be
// shown.
func (j *Job) command() (argv []string, shown []Mount) {
	argv = j.Argv
	show := func(path, dir string) {
		target := filepath.Join(dir, filepath.Base(path))
		shown = append(shown, Mount{Path: path, Target: target, Readonly: true})
		argv = append([]string{target}, argv...)
	}
	if j.Program != "" {
		show(j.Program, insideBin)
	}
	if j.Runner != "" {
		show(j.Runner, insideRunner)
	}
	if j.Libdir != "" {
		shown = append(shown, Mount{Path: j.Libdir, Target: insideLib, Readonly: true})
	}
	return argv, shown
}

// programAPI is the API of one program, from right before its start to right after its
// end.
type programAPI struct {
	b   *BuildRoot
	dir string // shown at insideAPI
	srv *hostapi.Server

	mu        sync.Mutex
	exception *hostapi.Exception

	once sync.Once
	err  error
}

// serveAPI makes the API of a program.
func (b *BuildRoot) serveAPI(j *Job) (_ *programAPI, err error) {
	dir, err := os.MkdirTemp(filepath.Join(b.vardir.Path, "stages"), "api-")
	if err != nil {
		return nil, err
	}
	a := &programAPI{b: b, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, scratch.RemoveAll(dir))
		}
	}()
	// A program need not stay root.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	b.apiMu.Lock()
	defer b.apiMu.Unlock()
	if b.closed {
		return nil, errors.New("the build root is closed")
	}
	a.srv, err = hostapi.Serve(hostapi.Config{
		Dir: dir, Arguments: j.Arguments, Loop: b.loop,
		Exception: func(e hostapi.Exception) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.exception = &e
		},
	})
	if err != nil {
		return nil, err
	}
	if b.apis == nil {
		b.apis = map[*programAPI]bool{}
	}
	b.apis[a] = true
	return a, nil
}

// close ends the API and lets go of the devices that the program had attached. Without
// one it does nothing.
func (a *programAPI) close() error {
	if a == nil {
		return nil
	}
	a.once.Do(func() {
		a.err = errors.Join(a.srv.Close(context.Background()), scratch.RemoveAll(a.dir))
		a.b.apiMu.Lock()
		delete(a.b.apis, a)
		a.b.apiMu.Unlock()
	})
	return a.err
}

// told is the last exception that the program told.
func (a *programAPI) told() *hostapi.Exception {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.exception
}

// stopAPIs ends serving, for good, and returns what is to be closed when the programs
// are gone: they use their devices until then.
func (b *BuildRoot) stopAPIs() []*programAPI {
	b.apiMu.Lock()
	b.closed = true
	var apis []*programAPI
	for a := range b.apis {
		apis = append(apis, a)
	}
	b.apiMu.Unlock()
	// Programs that are about to be ended have little to say.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, a := range apis {
		_ = a.srv.Stop(ctx) // Close returns it again
	}
	return apis
}

// loop attaches a loop device that a program asked for, and lets the container use it
// until the program has ended.
func (b *BuildRoot) loop(_ context.Context, r hostapi.LoopRequest) (hostapi.Loop, error) {
	l, err := OpenLoop(LoopConfig{
		Backing: r.File, Offset: r.Offset, Size: r.SizeLimit, SectorSize: r.SectorSize,
		ReadOnly: r.ReadOnly, PartScan: r.PartScan, Lock: r.Lock,
	})
	if err != nil {
		return hostapi.Loop{}, err
	}
	if err := b.cg.allow(l.Major, l.Minor, b.cfg.Arch == "s390x"); err != nil {
		return hostapi.Loop{}, errors.Join(err, l.Close())
	}
	return hostapi.Loop{
		Name: filepath.Base(l.Path), Major: l.Major, Minor: l.Minor,
		Close: func() error {
			// First: the number is somebody else's the moment the device is free.
			b.cg.deny(l.Major, l.Minor)
			if err := l.Close(); err != nil {
				return fmt.Errorf("a loop device of the program: %w", err)
			}
			return nil
		},
	}, nil
}
