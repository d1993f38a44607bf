// A session: what verbs share once they work on a workspace. Everything is opened
// at its first use, so that a verb pays only for what it needs.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources/apt"
	"github.com/osbuild-star/osbuild-star/sources/lock"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/osbuild-star/osbuild-star/store"
)

// lockName is the file with what names resolved to, in the root of the workspace.
const lockName = "osbuild-star.lock"

// host stands for this machine as build root: of tests; zero is the machine itself.
var host engine.Host

type session struct {
	a       *app
	ws      *rulefile.Workspace
	pkg     string // the package of the folder that the command was started in
	project *builtins.Project

	monitor *monitor.Stream
	span    *monitor.Span
	past    *monitor.Timeline
	sampler *monitor.Sampler
	events  *os.File
	eng     *engine.Engine
	st      *store.Store

	// early, when it is set, is asked what the host lacks before packages are
	// resolved, which can take a while.
	early func() error

	targets map[string]string   // pipeline → label
	local   map[string]string   // checksum → file of the workspace
	labels  map[string][]string // pipeline → labels of all targets that are made of its tree

	fetching sync.Mutex
	fetched  map[string]bool // checksums that programs have fetched; true: a file is there
}

// open finds the workspace and reads what belongs to it.
func (a *app) open() (*session, error) {
	if a.session != nil {
		return a.session, nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	ws, err := rulefile.FindWorkspace(wd)
	if err != nil {
		return nil, err
	}
	pkg, err := ws.PackageOf(wd)
	if err != nil {
		return nil, err
	}
	defs, err := a.definitions()
	if err != nil {
		return nil, err
	}
	if err := a.openLibdir(ws.Libdir); err != nil {
		return nil, err
	}
	project, err := builtins.Open(builtins.Config{
		Workspace: ws, Defines: defs, HostArch: engine.HostArch(), Version: version,
		Modules: a.modules(), StageNames: a.stageNames(),
		Print: func(pos rulefile.Position, msg string) { a.screen.note("%s: %s", pos, msg) },
	})
	if err != nil {
		return nil, err
	}
	a.screen.source = project.Loader().Source
	a.session = &session{a: a, ws: ws, pkg: pkg, project: project, targets: map[string]string{}}
	return a.session, nil
}

// close lets go of everything; the first error of it is a warning, since the
// verb's own result stands.
func (a *app) close() {
	s := a.session
	if s == nil {
		return
	}
	a.session = nil
	if s.eng != nil {
		if err := s.eng.Close(); err != nil {
			a.screen.endProgress()
			a.screen.warn("cleaning up: %v", err)
		}
	}
	a.screen.endProgress()
	if s.st != nil {
		s.st.Close()
		s.bound()
	}
	s.sampler.Close()
	s.span.End(nil)
	if s.past != nil && a.profile != "" {
		if err := monitor.WriteWhole(a.profile, s.past.Past().Trace); err != nil {
			a.screen.warn("writing the trace: %v", err)
		}
	}
	if s.events != nil {
		s.events.Close()
	}
	if s.project != nil {
		s.project.Close()
	}
}

// match finds the targets that patterns name.
func (s *session) match(verb string, patterns []string) ([]rulefile.Target, error) {
	if len(patterns) == 0 {
		return nil, &usageError{msg: verb + " needs at least one label", verb: verb, hint: "for all targets: osbuild-star " + verb + " //..."}
	}
	return s.project.Match(s.a.ctx, patterns, s.pkg)
}

// watch opens the stream of events, once.
func (s *session) watch(name string) error {
	if s.monitor != nil {
		return nil
	}
	if err := checkPlace(s.a.profile); err != nil {
		return err
	}
	readers := []monitor.Reader{s.a.screen.progress()}
	if s.a.profile != "" || s.a.report != "" {
		s.past = &monitor.Timeline{}
		readers = append(readers, s.past)
	}
	if s.a.events != "" {
		f, err := os.Create(s.a.events)
		if err != nil {
			return fmt.Errorf("writing events: %w", err)
		}
		s.events = f
		readers = append(readers, &monitor.JSONLines{W: f})
	}
	s.monitor = monitor.New(readers...)
	s.span = s.monitor.Start(nil, monitor.Event{Category: monitor.CatBuild, Name: name})
	if s.past != nil {
		dir, err := s.a.storeDir()
		if err != nil {
			return err
		}
		s.sampler = monitor.Watch(s.monitor, dir)
	}
	return nil
}

// plan makes the manifest of targets, with package sets resolved through the lock.
func (s *session) plan(targets []rulefile.Target) (*builtins.Plan, error) {
	plan, err := s.makePlan(targets, s.resolve)
	if err != nil {
		return nil, err
	}
	s.labels = map[string][]string{}
	for _, a := range plan.Artifacts {
		s.targets[a.Pipeline] = a.Label.String()
		s.labels[a.Pipeline] = append(s.labels[a.Pipeline], a.Label.String())
	}
	s.spreadTargets(plan.Manifest)
	s.local = plan.LocalFiles
	if err := plan.Manifest.Check(s.a.modules()); err != nil {
		return nil, err
	}
	return plan, nil
}

// spreadTargets names for every pipeline the first target that needs it.
func (s *session) spreadTargets(m *manifest.Manifest) {
	for i := len(m.Pipelines) - 1; i >= 0; i-- {
		p := m.Pipelines[i]
		label := s.targets[p.Name]
		if label == "" {
			continue
		}
		give := func(name string) {
			if name != "" && s.targets[name] == "" {
				s.targets[name] = label
			}
		}
		if p.Build != nil {
			give(p.Build.Pipeline)
		}
		for _, st := range p.Stages {
			for _, in := range st.Inputs {
				if in.Origin == manifest.OriginPipeline {
					for _, ref := range in.References {
						if len(ref.ID) > 5 {
							give(ref.ID[len("name:"):])
						}
					}
				}
			}
		}
	}
}

// resolve answers package requests from the lock, and what it lacks by apt.
func (s *session) resolve(ctx context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error) {
	return s.resolveWith(ctx, reqs, lock.Options{Locked: s.a.locked})
}

func (s *session) resolveWith(ctx context.Context, reqs []*manifest.PackageRequest, opts lock.Options) ([][]manifest.Package, error) {
	f, err := lock.Open(filepath.Join(s.ws.Root, lockName))
	if err != nil {
		return nil, err
	}
	dir, err := s.a.storeDir()
	if err != nil {
		return nil, err
	}
	r := &apt.Resolver{CacheDir: filepath.Join(dir, "apt"), Known: f.Lookup}
	opts.Place = r.Place
	byApt := func(ctx context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error) {
		var missing missingError
		for _, tool := range []string{"apt-get", "apt-cache", "dpkg"} {
			if _, err := exec.LookPath(tool); err != nil {
				missing.missing = append(missing.missing, engine.Missing{What: tool, Why: "to resolve package sets"})
			}
		}
		if len(missing.missing) > 0 {
			return nil, &missing
		}
		if s.early != nil {
			if err := s.early(); err != nil {
				return nil, err
			}
		}
		if err := s.watch("build"); err != nil {
			return nil, err
		}
		var err error
		if r.Run, err = s.aptRunner(); err != nil {
			return nil, err
		}
		span := s.span.Start(monitor.Event{Category: monitor.CatResolve, Name: "resolve packages"})
		r.Span = span
		out, err := r.Resolve(ctx, reqs)
		span.End(err)
		return out, err
	}
	return lock.Resolve(ctx, f, opts, byApt, r.Mirror, reqs)
}

// openStore opens the store, once.
func (s *session) openStore() (*store.Store, error) {
	if s.st != nil {
		return s.st, nil
	}
	dir, err := s.a.storeDir()
	if err != nil {
		return nil, err
	}
	s.st, err = store.Open(dir)
	if errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	if err != nil {
		return nil, &engine.HostError{Err: err, Hint: "use a store that you may write to: --store DIR"}
	}
	for _, dir := range s.a.storeRO {
		if err := s.st.AddReadOnly(dir); errors.Is(err, os.ErrNotExist) {
			s.a.screen.warn("%v: going on without it", err)
		} else if err != nil {
			return nil, &engine.HostError{Err: err, Hint: "--store-ro takes the directory of a store"}
		}
	}
	return s.st, nil
}

// engine returns the engine, once.
func (s *session) engine() (*engine.Engine, error) {
	if s.eng != nil {
		return s.eng, nil
	}
	st, err := s.openStore()
	if err != nil {
		return nil, err
	}
	if err := s.watch("build"); err != nil {
		return nil, err
	}
	s.eng = engine.New(engine.Config{
		Host:  host,
		Store: st, Jobs: s.a.jobs, Memory: s.a.cfg.bound.n, KeepGoing: s.a.cfg.keepGoing, Var: s.a.vardir, Sandbox: s.a.sandbox, Layers: s.a.layers, Monitor: s.monitor, Limit: s.a.limit,
		Programs: s.a.programs(), Fetch: s.fetch,
		Target: func(p string) string { return s.targets[p] },
		Labels: func(p string) []string {
			if l := s.labels[p]; len(l) > 0 {
				return l
			}
			return []string{cmp.Or(s.targets[p], p)}
		},
	})
	return s.eng, nil
}

// planToBuild is plan for the verbs that build. What the host lacks is found out
// before packages are resolved: the stages are the same whatever the sets have in
// them.
func (s *session) planToBuild(targets []rulefile.Target, more func(*builtins.Plan) []engine.Missing) (*builtins.Plan, error) {
	s.early = func() error {
		empty := func(_ context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error) {
			return make([][]manifest.Package, len(reqs)), nil
		}
		plan, err := s.makePlan(targets, empty)
		if err != nil {
			return nil // it will be told when it is planned in earnest
		}
		return s.preflight(plan, pipelinesOf(plan), more(plan))
	}
	defer func() { s.early = nil }()
	return s.plan(targets)
}

// pipelinesOf are the pipelines that the artifacts and tests of a plan need.
func pipelinesOf(plan *builtins.Plan) []string {
	var names []string
	for _, a := range plan.Artifacts {
		names = append(names, a.Pipeline)
	}
	for _, t := range plan.Tests {
		names = append(names, t.ImagePipeline)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func nothingMore(*builtins.Plan) []engine.Missing { return nil }

// preflight checks what pipelines need of the host, and says all of it at once.
func (s *session) preflight(plan *builtins.Plan, pipelines []string, more []engine.Missing) error {
	e, err := s.engine()
	if err != nil {
		return err
	}
	missing, err := e.Preflight(plan.Manifest, pipelines)
	if err != nil {
		return err
	}
	if builtWithCgo && (len(missing) > 0 || len(more) > 0 || !e.Cached(plan.Manifest, pipelines)) {
		missing = append(missing, engine.Missing{
			What: "an osbuild-star without cgo", Why: "its agent runs in build roots, where there is no libc",
			Hint: "build it again: CGO_ENABLED=0 go build ./cmd/osbuild-star",
		})
	}
	if missing = append(missing, more...); len(missing) > 0 {
		return &missingError{missing: missing}
	}
	return nil
}

// built is an artifact with its tree.
type built struct {
	builtins.Artifact
	Tree *store.Object
}

// build makes the trees of a plan's artifacts. On an error it returns those that were
// made.
func (s *session) build(plan *builtins.Plan) ([]built, *engine.Result, error) {
	e, err := s.engine()
	if err != nil {
		return nil, nil, err
	}
	names := pipelinesOf(&builtins.Plan{Artifacts: plan.Artifacts})
	if len(names) == 0 {
		return nil, &engine.Result{}, nil
	}
	if err := s.preflight(plan, names, nil); err != nil {
		return nil, nil, err
	}
	res, err := e.Build(s.a.ctx, plan.Manifest, names, s.span)
	if res == nil {
		return nil, nil, err
	}
	if err == nil || s.a.cfg.keepGoing {
		s.pin(plan)
	}
	var out []built
	for _, a := range plan.Artifacts {
		if tree := res.Trees[a.Pipeline]; tree != nil {
			out = append(out, built{a, tree})
		}
	}
	return out, res, err
}

// outDir is where the files of a label are put.
func (s *session) outDir(l rulefile.Label) string {
	base := s.a.cfg.output
	if base == "" {
		base = filepath.Join(s.ws.Root, "out")
	}
	name := l.Name
	if l.Variant != "" {
		name += "@" + l.Variant
	}
	return filepath.Join(base, filepath.FromSlash(l.Package), name)
}

// exported is one file in the output directory.
type exported struct {
	Path    string `json:"path"`
	Size    int64  `json:"size"`
	Changed bool   `json:"changed"`
}

// export puts the files of an artifact into the output directory.
func (s *session) export(b built) ([]exported, error) {
	files := b.Files
	if files == nil {
		var err error
		if files, err = s.eng.Files(b.Tree); err != nil {
			return nil, err
		}
	}
	span := s.span.Start(monitor.Event{Category: monitor.CatExport, Name: "export " + b.Label.String(), Target: b.Label.String()})
	out, err := s.exportFiles(b, files)
	span.End(err)
	return out, err
}

func (s *session) exportFiles(b built, files []string) ([]exported, error) {
	var out []exported
	for _, f := range files {
		dest := filepath.Join(s.outDir(b.Label), filepath.FromSlash(f))
		changed, err := s.eng.ExportFile(s.a.ctx, b.Tree, f, dest)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("%s: the tree of pipeline %q has no file %q: %w", b.Label, b.Pipeline, f, err)
			}
			return nil, err
		}
		st, err := os.Stat(dest)
		if err != nil {
			return nil, err
		}
		out = append(out, exported{dest, st.Size(), changed})
	}
	return out, nil
}

// relative is a path as a person in the current folder writes it, when that is
// shorter.
func relative(p string) string {
	wd, err := os.Getwd()
	if err != nil {
		return p
	}
	if r, err := filepath.Rel(wd, p); err == nil && len(r) < len(p) {
		return r
	}
	return p
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }
