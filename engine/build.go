// Building: which steps have to run, and running them at the same time where they
// do not wait for each other.
package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// build is one call of Build.
type build struct {
	e      *Engine
	m      *manifest.Manifest
	plans  map[string]*plan
	span   *monitor.Span
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // of trees that are made ahead

	mu      sync.Mutex
	results map[string][]StageResult // by pipeline
	work    map[string]*future       // by key of a step: done, or under way
	begun   map[*plan]bool           // trees that are made ahead
	total   int
	done    int
	cached  int
}

// future is a tree that is being made, once for all that wait for it.
type future struct {
	done chan struct{}
	obj  *store.Object
	err  error
}

// Build makes the trees of these pipelines, and of those that they need. On an
// error the result tells what ran.
func (e *Engine) Build(ctx context.Context, m *manifest.Manifest, names []string, span *monitor.Span) (*Result, error) {
	all, err := e.plans(m)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &build{e: e, m: m, plans: all, span: span, cancel: cancel, results: map[string][]StageResult{}, work: map[string]*future{}, begun: map[*plan]bool{}}
	res := &Result{Trees: map[string]*store.Object{}}
	finish := func(err error) (*Result, error) {
		for _, p := range m.Pipelines {
			res.Stages = append(res.Stages, b.results[p.Name]...)
		}
		res.Cached = b.cached
		return res, err
	}

	need, sources, err := b.missing(names)
	if err != nil {
		return finish(err)
	}
	if len(need) > 0 {
		if err := e.prepare(); err != nil {
			return finish(err)
		}
		if len(sources) > 0 && e.cfg.Fetch != nil {
			if err := e.cfg.Fetch(ctx, m, sources, span); err != nil {
				return finish(err)
			}
		}
		span.Progress(0, int64(b.total), "stages")
	}
	var wg sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		wg.Add(1)
		go func() {
			defer wg.Done()
			obj, err := b.tree(ctx, all[name])
			if err != nil {
				cancel(err)
				errs[i] = err
				return
			}
			b.mu.Lock()
			res.Trees[name] = obj
			b.mu.Unlock()
		}()
	}
	wg.Wait()
	b.wg.Wait()
	_ = e.tidy() // what it cannot remove, closing the engine does
	return finish(firstError(ctx, errs))
}

// firstError picks the error that the others followed from.
func firstError(ctx context.Context, errs []error) error {
	for _, err := range errs {
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				return cause
			}
			return err
		}
	}
	return nil
}

// cachedUpTo finds the last step whose tree is in the store; -1: none is.
func (b *build) cachedUpTo(pl *plan) (int, *store.Object) {
	for i := len(pl.steps) - 1; i >= 0; i-- {
		if obj, ok := b.e.cfg.Store.Lookup(pl.steps[i].key); ok {
			return i, obj
		}
	}
	return -1, nil
}

// missing finds the pipelines that have to run for names, and the checksums of the
// source items that their steps read.
func (b *build) missing(names []string) (need map[*plan]bool, sources []string, err error) {
	need, seen := map[*plan]bool{}, map[*plan]bool{}
	keys := map[string]bool{}
	var visit func(pl *plan)
	visit = func(pl *plan) {
		if seen[pl] {
			return
		}
		seen[pl] = true
		have, _ := b.cachedUpTo(pl)
		b.hits(pl, pl.steps[:have+1])
		if have == len(pl.steps)-1 {
			b.cached += len(pl.p.Stages)
			return
		}
		need[pl] = true
		if pl.build != nil {
			visit(pl.build)
		}
		if pl.custom != "" {
			sources = append(sources, pl.custom)
		}
		from := 0
		if have >= 0 {
			from = pl.steps[have].to
		}
		b.cached += from
		for _, st := range pl.steps[have+1:] {
			if keys[st.key] {
				continue // another pipeline makes it
			}
			keys[st.key] = true
			b.total += st.to - st.from
			for i := st.from; i < st.to; i++ {
				for _, in := range pl.p.Stages[i].Inputs {
					if in.Origin == manifest.OriginSource {
						for _, ref := range in.References {
							sources = append(sources, ref.ID)
						}
					}
				}
				for _, qs := range pl.inputs[i] {
					for _, q := range qs {
						visit(q)
					}
				}
			}
		}
	}
	for _, name := range names {
		pl := b.plans[name]
		if pl == nil {
			return nil, nil, fmt.Errorf("no pipeline %q in the manifest", name)
		}
		if len(pl.p.Stages) == 0 {
			return nil, nil, fmt.Errorf("pipeline %q has no stages, so there is no tree of it", name)
		}
		visit(pl)
	}
	slices.Sort(sources)
	return need, slices.Compact(sources), nil
}

// tree returns the tree that a pipeline ends in.
func (b *build) tree(ctx context.Context, pl *plan) (*store.Object, error) {
	have, obj := b.cachedUpTo(pl)
	if have == len(pl.steps)-1 {
		return obj, nil
	}
	// The trees that later stages read are wanted at once, so that they are made
	// while the first stages run.
	for i := have + 2; i < len(pl.steps); i++ {
		for _, q := range pl.needs(pl.steps[i]) {
			b.ahead(ctx, q)
		}
	}
	for i := have + 1; i < len(pl.steps); i++ {
		st := pl.steps[i]
		var err error
		base := obj
		if obj, err = b.step(ctx, pl, st, base); err != nil {
			return nil, err
		}
	}
	return obj, nil
}

// ahead makes the tree of a pipeline in the background. A failure ends the build:
// whoever wants the tree would come to it later.
func (b *build) ahead(ctx context.Context, q *plan) {
	b.mu.Lock()
	begun := b.begun[q]
	b.begun[q] = true
	b.mu.Unlock()
	if begun {
		return
	}
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		if _, err := b.tree(ctx, q); err != nil {
			b.cancel(err)
		}
	}()
}

// step makes the tree of one step, or waits for the one that is making it.
func (b *build) step(ctx context.Context, pl *plan, st step, base *store.Object) (*store.Object, error) {
	b.mu.Lock()
	f := b.work[st.key]
	if f != nil {
		b.mu.Unlock()
		select {
		case <-f.done:
			return f.obj, f.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	f = &future{done: make(chan struct{})}
	b.work[st.key] = f
	b.mu.Unlock()
	defer close(f.done)
	f.obj, f.err = b.runStep(ctx, pl, st, base)
	return f.obj, f.err
}

// runStep gets what the step needs, waits for a place, and runs it.
func (b *build) runStep(ctx context.Context, pl *plan, st step, base *store.Object) (*store.Object, error) {
	if from := pl.adopted(st); from != nil {
		obj, err := b.tree(ctx, from)
		if err != nil {
			return nil, err
		}
		obj, err = b.execute(ctx, pl, st, base, map[*plan]*store.Object{from: obj})
		b.progress(st)
		return obj, err
	}
	needed := pl.needs(st)
	trees := map[*plan]*store.Object{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, len(needed))
	for i, q := range needed {
		wg.Add(1)
		go func() {
			defer wg.Done()
			obj, err := b.tree(ctx, q)
			mu.Lock()
			defer mu.Unlock()
			trees[q], errs[i] = obj, err
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	wait := b.waiting(pl, st)
	select {
	case b.e.slots <- struct{}{}:
		defer func() { <-b.e.slots }()
	case <-ctx.Done():
	}
	wait.End(nil)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	obj, err := b.execute(ctx, pl, st, base, trees)
	b.progress(st)
	return obj, err
}

// progress tells that a step is over.
func (b *build) progress(st step) {
	b.mu.Lock()
	b.done += st.to - st.from
	done, total := b.done, b.total
	b.mu.Unlock()
	b.span.Progress(int64(done), int64(max(total, done)), "stages")
}

// needs are the pipelines whose trees a step needs: its build root, unless nothing
// runs in it, and what its stages read.
func (pl *plan) needs(st step) []*plan {
	if from := pl.adopted(st); from != nil {
		return []*plan{from}
	}
	var out []*plan
	if pl.build != nil {
		out = append(out, pl.build)
	}
	for i := st.from; i < st.to; i++ {
		for _, qs := range pl.inputs[i] {
			out = append(out, qs...)
		}
	}
	slices.SortFunc(out, func(a, b *plan) int { return cmp.Compare(a.p.Name, b.p.Name) })
	return slices.Compact(out)
}

func (b *build) target(pipeline string) string {
	if b.e.cfg.Target == nil {
		return ""
	}
	return b.e.cfg.Target(pipeline)
}

// adopted tells whether a step is nothing but the copy of a whole tree into an
// empty one. Its result is that tree, layer for layer: nothing needs to run.
func (pl *plan) adopted(st step) *plan {
	if st.from != 0 || st.to != 1 {
		return nil
	}
	s := pl.p.Stages[0]
	if pl.progs[0].native == nil || s.Type != "org.osbuild.copy" || len(s.Devices) > 0 || len(s.Mounts) > 0 || len(s.Inputs) != 1 || len(s.Options) != 1 {
		return nil
	}
	paths, _ := s.Options["paths"].([]any)
	if len(paths) != 1 {
		return nil
	}
	path, _ := paths[0].(map[string]any)
	from, _ := path["from"].(string)
	to, _ := path["to"].(string)
	for name, in := range s.Inputs {
		whole := len(path) == 2 && from == "input://"+name+"/" && (to == "tree:///" || to == "/" || to == "tree://")
		reads := pl.inputs[0][name]
		if whole && in.Type == "org.osbuild.tree" && len(in.Options) == 0 && len(reads) == 1 && len(reads[0].steps) > 0 {
			return reads[0]
		}
	}
	return nil
}
