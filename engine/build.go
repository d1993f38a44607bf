// Building: what has to run is run and fetched, and what went wrong is told with all
// that it blocks. graph.go finds the steps, schedule.go says when each runs, expect.go
// what they will take.
package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
)

// Result is what a build made.
type Result struct {
	Trees  map[string]*store.Object // by pipeline name; only those asked for
	Stages []StageResult            // what ran, pipeline by pipeline, in their order
	Cached int                      // stages whose results were there
}

// StageResult is one stage that ran.
type StageResult struct {
	Pipeline string
	Type     string
	ID       string
	Output   string // its last 64 KiB
	Success  bool
	Wall     time.Duration
	CPU      time.Duration
	MaxRSS   int64 // bytes
	Metadata json.RawMessage

	Exception json.RawMessage // as in [StageError]
}

// Failure is one thing that went wrong in a build.
type Failure struct {
	Err    error
	Blocks []string // what cannot be made: targets of those asked for, or their pipelines

	nodes []*node // that failed; those behind them are blocked
}

// BuildError is a build that did not make all that it was asked for.
type BuildError struct {
	Failures []Failure // at least one; several only where a build goes on after one
}

func (e *BuildError) Error() string {
	if n := len(e.Failures); n > 1 {
		return fmt.Sprintf("%v (and %d more)", e.Failures[0].Err, n-1)
	}
	return e.Failures[0].Err.Error()
}

// Unwrap are the errors of all failures.
func (e *BuildError) Unwrap() []error {
	var out []error
	for _, f := range e.Failures {
		out = append(out, f.Err)
	}
	return out
}

// build is one call of Build.
type build struct {
	e     *Engine
	m     *manifest.Manifest
	plans map[string]*plan
	span  *monitor.Span

	mu       sync.Mutex
	results  map[string][]StageResult // by pipeline
	failures []Failure
	total    int
	done     int
	shared   int // stages that another build has run meanwhile
}

// Build makes the trees of these pipelines, and of those that they need. On an
// error, which is a *BuildError unless the context ended or nothing could be begun, the
// result tells what ran, and has the trees that were made.
func (e *Engine) Build(ctx context.Context, m *manifest.Manifest, names []string, span *monitor.Span) (*Result, error) {
	all, err := e.take(m)
	if err != nil {
		return nil, err
	}
	g, err := e.newGraph(all, names)
	if err != nil {
		return &Result{}, err
	}
	b := &build{e: e, m: m, plans: all, span: span, results: map[string][]StageResult{}, total: g.total}
	for _, p := range m.Pipelines {
		b.hits(all[p.Name], g.have[all[p.Name]])
	}
	if len(g.nodes) > 0 {
		if err := e.prepare(); err != nil {
			return &Result{Cached: g.cached}, err
		}
		if e.note != "" {
			span.Emit(monitor.Event{Kind: monitor.Note, Text: e.note})
			e.note = ""
		}
		err = b.run(ctx, g)
	} else {
		e.sweep()
	}
	res := &Result{Trees: map[string]*store.Object{}, Cached: g.cached + b.shared}
	for _, p := range m.Pipelines {
		res.Stages = append(res.Stages, b.results[p.Name]...)
	}
	for _, name := range names {
		if obj := g.roots[all[name]].object(); obj != nil {
			res.Trees[name] = obj
		}
	}
	if err != nil {
		return res, err
	}
	if len(b.failures) > 0 {
		b.blocked(g, names)
		return res, &BuildError{b.failures}
	}
	return res, nil
}

// run runs the steps of a graph, and fetches beside them what they read.
func (b *build) run(parent context.Context, g *graph) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	g.expect(b.e.cfg.Store.Recall())
	b.span.Progress(0, int64(b.total), "stages")
	s := newSchedule(g, b.e.cfg.Jobs, cmp.Or(b.e.cfg.Memory, availableMemory("/"), math.MaxInt64))
	s.run = func(n *node) (*store.Object, error) { return b.runStep(ctx, n) }
	s.queued = func(n *node) *monitor.Span { return b.span.Start(b.stageEvent(monitor.CatWait, n.pl, n.st.from)) }
	s.await = func(n *node) error { return b.await(ctx, n) }
	s.lost = func(f Failure) {
		if ctx.Err() != nil {
			return // it follows from the end of the build
		}
		// One answer can be that of several files.
		same := slices.IndexFunc(b.failures, func(o Failure) bool { return o.Err.Error() == f.Err.Error() })
		if same >= 0 {
			b.failures[same].nodes = append(b.failures[same].nodes, f.nodes...)
			return
		}
		b.failures = append(b.failures, f)
		if !b.e.cfg.KeepGoing {
			cancel(f.Err)
		}
	}
	var fetching sync.WaitGroup
	if files := g.downloads(b.m); len(files) > 0 {
		fetching.Go(func() { s.arrivedAll(b.fetch(ctx, files, s.arrived)) })
	} else {
		s.arrivedAll(nil)
	}
	s.begin(g)
	s.wait(ctx)
	cancel(nil) // what is still fetched is of no use any more
	fetching.Wait()
	for _, n := range g.nodes {
		n.unclaim()
	}
	_ = b.e.tidy()                             // what it cannot remove, closing the engine does
	_ = b.e.cfg.Store.Remember(b.remembered()) // without it the next build plans worse
	if parent.Err() != nil {
		return context.Cause(parent)
	}
	return nil
}

// remembered is what of this build the next ones plan with.
func (b *build) remembered() []store.Ran {
	var out []store.Ran
	for _, list := range b.results {
		for _, r := range list {
			if r.Success && r.Wall > 0 {
				out = append(out, store.Ran{ID: r.ID, Type: r.Type, Cost: store.Cost{Wall: r.Wall, CPU: r.CPU, MaxRSS: r.MaxRSS}})
			}
		}
	}
	return out
}

// blocked fills in what each failure blocks.
func (b *build) blocked(g *graph, names []string) {
	for i := range b.failures {
		f := &b.failures[i]
		lost := behind(f.nodes)
		for _, name := range names {
			if n := g.roots[b.plans[name]].by; n == nil || !lost[n] {
				continue
			}
			labels := []string{name}
			if b.e.cfg.Labels != nil {
				labels = b.e.cfg.Labels(name)
			}
			for _, l := range labels {
				if !slices.Contains(f.Blocks, l) {
					f.Blocks = append(f.Blocks, l)
				}
			}
		}
		slices.Sort(f.Blocks)
	}
}

// runStep runs a step whose turn it is: all that it needs is there.
func (b *build) runStep(ctx context.Context, n *node) (*store.Object, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := b.claim(n); err != nil {
		return nil, err
	}
	defer n.unclaim()
	if obj, ok := b.e.lookup(n.st.key); ok { // another build was faster
		b.mu.Lock()
		b.shared += n.st.to - n.st.from
		b.mu.Unlock()
		b.progress(n.st)
		return obj, nil
	}
	trees := map[*plan]*store.Object{}
	for q, m := range n.trees {
		trees[q] = m.object()
	}
	obj, err := b.execute(ctx, n.pl, n.st, n.base.object(), trees)
	b.progress(n.st)
	return obj, err
}

// progress tells that a step is over.
func (b *build) progress(st step) {
	b.mu.Lock()
	b.done += st.to - st.from
	done := b.done
	b.mu.Unlock()
	b.span.Progress(int64(done), int64(b.total), "stages")
}

func (b *build) target(pipeline string) string {
	if b.e.cfg.Target == nil {
		return ""
	}
	return b.e.cfg.Target(pipeline)
}
