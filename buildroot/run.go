// One program in a build root: a stage, or anything else.
package buildroot

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"github.com/osbuild-star/osbuild-star/hostapi"
)

// Job is one program to run in a build root.
type Job struct {
	Native string   // a stage of the agent; or
	Argv   []string // a program of the build root; or
	// Program is an executable of the host, a path in the Space, that is shown at
	// /run/osbuild/bin under its own name and started with Argv as its arguments.
	Program string
	// Runner is an executable of the host, a path in the Space, that is shown at
	// /run/osbuild/runner under its own name and starts the program: its arguments
	// are the program and the program's.
	Runner string
	// Libdir is a directory, a path in the Space, that programs see at
	// /run/osbuild/lib.
	Libdir    string
	Arguments json.RawMessage // of a stage; a program reads them from /run/osbuild/api/arguments
	Caps      []string        // capabilities beyond BaseCapabilities
	NewPrivs  bool            // leave out no-new-privileges
	Epoch     *int64          // SOURCE_DATE_EPOCH, seconds
	Arch      string          // of the tree that it works on
	Env       []string        // further environment

	Mounts []Mount       // what it sees of the host's side
	Line   func(string)  // takes each line that it prints; may be nil
	Limit  time.Duration // after which it is ended; 0: none

	// Stdin and Stdout connect the program with these files instead; Line is not
	// called then. With Terminal they are a terminal, which becomes its own.
	Stdin, Stdout *os.File
	Terminal      bool
	Stderr        *os.File // with Stdin: for standard error; nil is Stdout
}

// Mount shows Path, a directory or a file in the Space of jobs, at Target.
type Mount struct {
	Path     string
	Target   string // below /run/osbuild or /dev; another place only for programs that are no stages
	Readonly bool
	Device   [2]uint32 // major and minor of a block device, which becomes usable
}

// Result tells how a program ended.
type Result struct {
	Status int    // exit status, or 128 and the signal
	Signal string // "killed"; "" when it exited
	Err    error  // what a native stage says was wrong; *wire.Error with a hint
	// Exception is what a program told on its socket before it ended; nil: nothing.
	Exception *hostapi.Exception
	Metadata  json.RawMessage
	MaxRSS    int64         // bytes, of the largest process
	CPU       time.Duration // user and system
	Wall      time.Duration
}

// maxLine bounds a line of output, and maxOutput all of it: a program that loops
// must not fill the disk or the memory.
const (
	maxLine   = 16 << 10
	maxOutput = 256 << 20
)

// ErrOutput is a program that printed too much.
var ErrOutput = errors.New("the program printed more than 256 MiB and was ended")

// LimitError is a program that was ended because it took too long.
type LimitError struct{ Limit time.Duration }

func (e *LimitError) Error() string { return fmt.Sprintf("it took longer than %s", e.Limit) }

// Env is the environment of every program in a build root: upstream osbuild's.
func (j *Job) env() []string {
	env := []string{
		"container=systemd-nspawn", "LC_CTYPE=C.UTF-8", "PATH=/usr/sbin:/usr/bin", "PYTHONPATH=/run/osbuild/lib",
		"PYTHONUNBUFFERED=1", "TERM=dumb",
	}
	if j.Stdin != nil {
		env[len(env)-1] = "TERM=" + os.Getenv("TERM")
	}
	if j.Program != "" {
		env[0] = "container=bwrap-osbuild" // what upstream's programs can ask for
	}
	if j.Epoch != nil {
		env = append(env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", *j.Epoch))
	}
	return append(env, j.Env...)
}

// Run starts the program in namespaces of its own and waits for it. An error is
// about the build root; how the program ended is in the result.
func (b *BuildRoot) Run(ctx context.Context, j Job) (_ *Result, err error) {
	if j.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, j.Limit, &LimitError{j.Limit})
		defer cancel()
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if j.Native == "" && j.Runner == "" {
		j.Runner = b.cfg.Program
	}

	var files []*os.File
	defer func() { wire.CloseAll(files) }()
	p := &wire.Program{
		Native: j.Native, Env: append(j.env(), b.env...), NewPrivs: j.NewPrivs,
		Arch: j.Arch, Caps: append(append([]string{}, BaseCapabilities...), j.Caps...),
	}
	var mounts []Mount
	var api *programAPI
	if j.Native != "" {
		p.Arguments = j.Arguments
	} else {
		var shown []Mount
		p.Argv, shown = j.command()
		if api, err = b.serveAPI(&j); err != nil {
			return nil, err
		}
		defer func() {
			if cerr := api.close(); cerr != nil {
				err = errors.Join(err, cerr)
			}
		}()
		mounts = append(append(mounts, shown...), Mount{Path: api.dir, Target: insideAPI, Readonly: true})
	}
	mounts = append(mounts, j.Mounts...)
	err = b.cfg.Jobs.Do(func() error {
		for _, m := range mounts {
			f, err := detach(m.Path, m.Readonly)
			if err != nil {
				return err
			}
			files = append(files, f)
			st, err := os.Stat(m.Path)
			if err != nil {
				return err
			}
			p.Attach = append(p.Attach, wire.Attach{File: len(files) - 1, Target: m.Target, IsFile: !st.IsDir()})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the sandbox: %w", err)
	}
	for _, m := range j.Mounts {
		if m.Device != [2]uint32{} {
			// zipl, the boot loader of s390x, makes nodes of the disk for itself.
			if err := b.cg.allow(m.Device[0], m.Device[1], b.cfg.Arch == "s390x"); err != nil {
				return nil, err
			}
			defer b.cg.deny(m.Device[0], m.Device[1])
		}
	}
	copied := make(chan struct{})
	var logEnd *os.File
	if j.Stdin != nil {
		p.Terminal = j.Terminal
		p.Log, p.Stdin = len(files), len(files)+1
		out, err := dup(j.Stdout)
		if err != nil {
			return nil, err
		}
		files = append(files, out)
		in, err := dup(j.Stdin)
		if err != nil {
			return nil, err
		}
		files = append(files, in)
		if j.Stderr != nil {
			p.Stderr = len(files)
			errs, err := dup(j.Stderr)
			if err != nil {
				return nil, err
			}
			files = append(files, errs)
		}
		close(copied)
	} else {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		p.Log = len(files)
		files = append(files, w)
		logEnd = w
		go func() {
			defer close(copied)
			defer r.Close()
			if err := lines(r, j.Line); err != nil {
				stop(err)
				io.Copy(io.Discard, r)
			}
		}()
	}
	start := time.Now()
	ans, err := b.ask(ctx, &wire.Request{Kind: wire.Run, Program: p}, files...)
	if logEnd != nil {
		logEnd.Close()
	}
	wall := time.Since(start)
	_ = api.close() // told by the call above
	<-copied
	res := &Result{Wall: wall, Exception: api.told()}
	if ans != nil {
		res.Status, res.Signal, res.Metadata = ans.Status, ans.Signal, ans.Metadata
		res.MaxRSS, res.CPU = ans.MaxRSS, time.Duration(ans.CPU)
		if ans.Err != nil {
			res.Err = ans.Err
		}
	}
	if err != nil && ctx.Err() != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
	}
	return res, err
}

func dup(f *os.File) (*os.File, error) {
	fd, err := dupCloexec(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// lines hands each line to f; very long ones in pieces.
func lines(r io.Reader, f func(string)) error {
	br := bufio.NewReaderSize(r, maxLine)
	total := 0
	for {
		b, err := br.ReadSlice('\n')
		if n := len(b); n > 0 {
			total += n
			if total > maxOutput {
				return ErrOutput
			}
			if b[n-1] == '\n' {
				b = b[:n-1]
			}
			if f != nil {
				f(string(b))
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil
		}
	}
}
