// Package engine decides what of a manifest has to run, in which order and what at
// once, and runs it: sources are fetched, build roots started, stages run in them,
// and their results committed to the store.
//
// A tour: [New] binds an [Engine] to a store and a place for progress.
// [Engine.Build] makes the trees of some pipelines (build.go): keys.go names what
// each step would make, steps that the store has are not run, and of the others
// (graph.go) those that do not wait for each other run at the same time, and while
// files are fetched (schedule.go, expect.go). step.go runs one
// step: it mounts the layers below (worktree.go; or copies them, layers.go), gives
// every stage its inputs, devices and mounts (environment.go, devices.go), and commits
// what changed as one more layer (commit.go, names.go).
// [Engine.Export] copies or links files of a tree to where a person wants them.
package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/buildroot/binfmt"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"github.com/osbuild-star/osbuild-star/libdir"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/runners"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/stages"
	"github.com/osbuild-star/osbuild-star/store"
)

// Config says what an engine works with.
type Config struct {
	Store   *store.Store
	Jobs    int             // steps at the same time; 0: the number of CPUs
	Memory  int64           // bytes that steps which run at the same time may be expected to take; 0: what there is
	Var     string          // below which /var of build roots is that name no place of their own; "" is /var/tmp
	Work    string          // for mount points; "" is below /run or the temporary directory
	Agent   string          // program to run as agent; "" is this one
	Sandbox string          // one of Sandboxes; "" is auto
	Layers  string          // one of LayerKinds; "" is auto
	Monitor *monitor.Stream // may be nil
	Limit   time.Duration   // of each stage; 0: none

	// Programs says which executables run what osbuild-star has no part of its own for.
	Programs Programs

	// Host stands for the tree of the host where that is the build root; zero is this
	// machine's.
	Host Host

	// KeepGoing makes all that does not depend on what failed. Else the first failure
	// ends a build.
	KeepGoing bool

	// Fetch brings the source items of these checksums into the store, the first ones
	// first. A build calls it once, with all that the steps that have to run need, and
	// runs steps meanwhile. done, which may be called from several goroutines, takes
	// what became of an item; the result of Fetch is that of all that it did not tell of.
	Fetch func(ctx context.Context, m *manifest.Manifest, checksums []string, span *monitor.Span, done func(checksum string, err error)) error

	// Target names the target that a pipeline belongs to, for messages; may be nil.
	Target func(pipeline string) string

	// Labels names all targets that are made of the tree of a pipeline that is asked
	// for; nil: pipelines are named themselves.
	Labels func(pipeline string) []string
}

// Sandboxes are the values of Config.Sandbox: auto, and what it chooses from.
func Sandboxes() []string { return buildroot.Sandboxes() }

// Host is a tree in place of the host's, and the runner that belongs to it.
type Host struct {
	Tree   string // a directory, "/" for this machine's
	Runner string // full name
}

// Engine runs manifests. It can be used from several goroutines, one Build at a
// time.
type Engine struct {
	cfg Config

	mu    sync.Mutex
	space *buildroot.Space // for what steps mount
	under *buildroot.Space // for the trees of build roots
	work  *scratch.Dir     // for mount points
	run   *scratch.Dir     // in the store
	roots map[string]*root
	runs  map[string]*binfmt.Handle // by architecture: its programs run
	nextN int
	lib   string // mount point of the library directory, "" when it is shown as it is

	// Trees, see layers.go.
	copies      bool        // a step copies its tree
	empty       string      // a directory in the store
	note        string      // of how trees are kept, for the next build
	showsLayers func() bool // canShowLayers, once

	// Trees for steps.
	unchanged map[string]*worktree // mounted, as their layers are; by these
	places    []string             // mount points that are free
	left      []string             // directories of those that are done with
	ahead     chan *worktree       // not mounted yet
	making    sync.WaitGroup       // of those

	swept  sync.Map  // directories of exported files, of what killed processes left
	files  hostFiles // programs of the host, for keys
	looked looked
	built  looked

	settling chan struct{} // a word to the settler that there is something new
	settled  chan struct{} // closed when it has ended
	sums     *summer
	checks   sourceChecks
}

// New makes an engine. It does nothing to the system yet: what is needed for
// running stages is made when the first one has to run.
func New(cfg Config) *Engine {
	if cfg.Host.Tree == "" {
		cfg.Host = Host{Tree: "/", Runner: runners.Host("/")}
	}
	if cfg.Jobs <= 0 {
		cfg.Jobs = runtime.NumCPU()
	}
	if v, err := filepath.Abs(cfg.Var); err == nil && cfg.Var != "" {
		cfg.Var = v // threads of a Space have another working directory
	}
	e := &Engine{cfg: cfg, roots: map[string]*root{}, runs: map[string]*binfmt.Handle{}, files: hostFiles{store: cfg.Store}}
	e.showsLayers = sync.OnceValue(e.canShowLayers)
	return e
}

// StageError is a stage that failed.
type StageError struct {
	Pipeline string
	Type     string
	ID       string
	Origin   manifest.Origin
	Target   string
	Status   int
	Signal   string
	Msg      string // what the stage said was wrong; "" for a program that only exited
	Hint     string
	Output   string // all that it printed, its last 64 KiB
	Err      error  // a time-out, say; may be nil

	// Exception is what a program told of its end, as upstream reports it: a JSON
	// object of "type" and "data". nil: nothing.
	Exception json.RawMessage
}

func (e *StageError) Error() string {
	what := e.Msg
	switch {
	case what != "":
	case e.Err != nil:
		what = e.Err.Error()
	case e.Signal != "":
		what = "ended by signal " + e.Signal
	default:
		what = fmt.Sprintf("exit status %d", e.Status)
	}
	return fmt.Sprintf("stage %s of pipeline %q failed: %s", e.Type, e.Pipeline, what)
}

func (e *StageError) Unwrap() error { return e.Err }

// HostError is something that the host lacks.
type HostError struct {
	Err  error
	Hint string
}

func (e *HostError) Error() string { return e.Err.Error() }
func (e *HostError) Unwrap() error { return e.Err }

// prepare makes what running stages needs.
func (e *Engine) prepare() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.space != nil {
		return nil
	}
	if os.Geteuid() != 0 {
		return &HostError{errors.New("building needs root"), "run it as root: sudo osbuild-star build …"}
	}
	space, err := buildroot.NewSpace()
	if err != nil {
		return &HostError{err, "building needs CAP_SYS_ADMIN; in a container, give it --privileged"}
	}
	under, err := buildroot.NewSpace()
	if err != nil {
		space.Close()
		return err
	}
	e.sweep()
	work, err := scratch.New(e.workDir(), workPrefix)
	if err != nil {
		space.Close()
		under.Close()
		return err
	}
	run, err := e.cfg.Store.Scratch()
	if err != nil {
		space.Close()
		under.Close()
		work.Close()
		return err
	}
	e.space, e.under, e.work, e.run = space, under, work, run
	e.empty = filepath.Join(run.Path, "empty")
	if err = os.Mkdir(e.empty, 0o755); err == nil {
		err = e.chooseLayers()
	}
	if err != nil {
		e.space = nil
		return errors.Join(err, space.Close(), under.Close(), run.Close(), work.Close())
	}
	_ = binfmt.Sweep() // what a killed process left; without binfmt_misc it left nothing
	e.unchanged, e.ahead = map[string]*worktree{}, make(chan *worktree, 1)
	e.settling, e.settled = make(chan struct{}, 1), make(chan struct{})
	go e.settle(e.settling, e.settled)
	e.sums = newSummer(e.cfg.Store)
	return nil
}

// Close ends the build roots and removes what the engine made for itself.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.space == nil {
		return nil
	}
	errs := make([]error, 0, len(e.roots)+3)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, r := range e.roots {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := r.close(e)
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		}()
	}
	close(e.settling)
	e.sums.close()
	wg.Wait()
	<-e.settled
	e.roots = map[string]*root{}
	for _, h := range e.runs {
		errs = append(errs, h.Close())
	}
	clear(e.runs)
	errs = append(errs, e.space.Close(), e.under.Close(), e.run.Close(), e.work.Close())
	e.space, e.lib = nil, ""
	return errors.Join(errs...)
}

// number makes names of directories that no other call gets.
func (e *Engine) number() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nextN++
	return e.nextN
}

// root is a build root in use by this engine: started at the first need, and kept.
type root struct {
	once sync.Once
	br   *buildroot.BuildRoot
	err  error
	tree string // mount point of its tree, "" for the host's
	dir  string // has the runner of the user's own, ""
}

func (r *root) close(e *Engine) error {
	r.once.Do(func() { r.err = errors.New("closed") })
	var errs []error
	if r.br != nil {
		errs = append(errs, r.br.Close())
	}
	if r.tree != "" {
		errs = append(errs, e.under.Do(func() error { return buildroot.Unmount(r.tree) }))
	}
	if r.dir != "" {
		errs = append(errs, scratch.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// showRunner makes an executable of a user's own runner, under the name that it has in
// the rule file, and returns its path; "" for a runner of the table.
func (e *Engine) showRunner(r *root, pl *plan) (string, error) {
	if pl.custom == "" {
		return "", nil
	}
	b, err := os.ReadFile(sources.Path(e.cfg.Store.SourcesDir(), pl.custom))
	if err != nil {
		return "", fmt.Errorf("runner %s: %w", pl.runner, err)
	}
	r.dir = fmt.Sprintf("%s/runner-%d", e.run.Path, e.number())
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		return "", err
	}
	p := filepath.Join(r.dir, filepath.Base(pl.runner))
	if err := os.WriteFile(p, b, 0o755); err != nil {
		return "", err
	}
	return p, os.Chmod(p, 0o755)
}

// buildRoot returns the running build root of a pipeline, prepared by the runner of
// that name, on that tree (nil: the host's). Pipelines with the same runner, tree and
// directory for /var share one.
//
// One that could not be started, or whose container was ended from outside, is not
// kept: the next call starts another.
func (e *Engine) buildRoot(ctx context.Context, pl *plan, runner string, tree *store.Object, parent *monitor.Span) (*buildroot.BuildRoot, error) {
	vardir := cmp.Or(pl.vardir, e.cfg.Var)
	key := runner + "\x00" + pl.custom + "\x00" + vardir + "\x00"
	if tree != nil {
		key += tree.Key
	}
	if pl.network {
		key += "\x00network"
	}
	e.mu.Lock()
	r := e.roots[key]
	var dead *root
	if r != nil && r.br != nil && !r.br.Alive() {
		r, dead = nil, r
	}
	if r == nil {
		r = &root{}
		e.roots[key] = r
	}
	e.mu.Unlock()
	if dead != nil {
		// It ended for a reason that its last program told.
		_ = dead.close(e)
	}
	r.once.Do(func() {
		name := "host"
		if tree != nil {
			name = "buildroot"
		}
		span := parent.Start(monitor.Event{Category: monitor.CatRoot, Name: "start " + name + " (" + runner + ")"})
		br, err := e.openRoot(ctx, r, pl, runner, vardir, tree)
		e.mu.Lock()
		r.br, r.err = br, err
		if err != nil && e.roots[key] == r {
			delete(e.roots, key)
		}
		e.mu.Unlock()
		span.End(err)
	})
	return r.br, r.err
}

func (e *Engine) openRoot(ctx context.Context, r *root, pl *plan, runner, vardir string, tree *store.Object) (_ *buildroot.BuildRoot, err error) {
	defer func() {
		if err != nil && r.dir != "" {
			err = errors.Join(err, scratch.RemoveAll(r.dir))
			r.dir = ""
		}
	}()
	if vardir != "" {
		// Threads of the Space have another working directory.
		if vardir, err = filepath.Abs(vardir); err != nil {
			return nil, err
		}
	}
	program, err := e.showRunner(r, pl)
	if err != nil {
		return nil, err
	}
	at := e.cfg.Host.Tree
	if tree != nil {
		at = fmt.Sprintf("%s/tree-%d", e.work.Path, e.number())
		if err := os.Mkdir(at, 0o755); err != nil {
			return nil, err
		}
		if err := e.under.Do(func() error { return e.mountObject(tree, at) }); err != nil {
			return nil, err
		}
		r.tree = at
	}
	// The context bounds the start only.
	br, err := buildroot.Open(ctx, buildroot.Config{
		Space: e.under, Jobs: e.space, Tree: at, Runner: runner, Program: program, Network: pl.network, Work: e.work.Path, Var: vardir, Agent: e.cfg.Agent,
		Sandbox: e.cfg.Sandbox,
	})
	var be *binfmt.Error
	if errors.As(err, &be) {
		err = &HostError{err, be.Hint}
	}
	if err != nil && tree != nil {
		err = errors.Join(err, e.under.Do(func() error { return buildroot.Unmount(at) }))
		r.tree = ""
	}
	var se *buildroot.SandboxError
	var ve *buildroot.VarError
	switch {
	case errors.As(err, &se):
		err = &HostError{err, se.Hint}
	case errors.As(err, &ve):
		err = &HostError{err, ve.Hint()}
	}
	return br, err
}

// hint finds what can be done about a stage that failed: what it says itself, and
// else what the end of its output is known to mean.
func (e *Engine) hint(err error, output string) string {
	var we *wire.Error
	var se *stages.Error
	var he *HostError
	var le *buildroot.LimitError
	var lib *libdir.Error
	switch {
	case saysFull(err, output):
		return e.spaceHint(err, output)
	case errors.As(err, &lib):
		return lib.Hint
	case errors.As(err, &we) && we.Hint != "":
		return we.Hint
	case errors.As(err, &se) && se.Hint != "":
		return se.Hint
	case errors.As(err, &he):
		return he.Hint
	case errors.As(err, &le):
		return "give it more time with --stage-timeout, or look at what it waits for"
	}
	return e.spaceHint(err, output)
}
