// One step: a stage, or a run of stages that change the same file, whose changes
// become one layer.
package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/stages"
	"github.com/osbuild-star/osbuild-star/store"
)

// Where a stage finds things: upstream osbuild's places.
const (
	insideTree   = "/run/osbuild/tree"
	insideInputs = "/run/osbuild/inputs"
	insideMounts = "/run/osbuild/mounts"
)

// maxTail bounds how much output of a stage is kept.
const maxTail = 64 << 10

// arguments is what a stage gets: upstream's form.
type arguments struct {
	Tree    string          `json:"tree"`
	Paths   stages.PathsArg `json:"paths"`
	Options json.RawMessage `json:"options"`
	Inputs  map[string]any  `json:"inputs"`
	Devices map[string]any  `json:"devices"`
	Mounts  map[string]any  `json:"mounts"`
	Meta    stages.MetaArg  `json:"meta"`
}

// execute runs the stages of a step and commits the result.
func (b *build) execute(ctx context.Context, pl *plan, st step, base *store.Object, trees map[*plan]*store.Object) (_ *store.Object, err error) {
	last := pl.p.Stages[st.to-1]
	info := store.Info{Key: st.key, ID: pl.ids.Stage(pl.p, st.to-1), Type: last.Type, Meta: map[string]json.RawMessage{}}
	if from := pl.adopted(st); from != nil {
		span := b.stageSpan(pl, st.from)
		obj, err := b.e.cfg.Store.Adopt(info, trees[from], b.e.run.Path)
		span.Tell(stageFacts(pl, st, st.from, StageResult{}))
		span.End(err)
		b.record(StageResult{Pipeline: pl.p.Name, Type: last.Type, ID: info.ID, Success: err == nil})
		return obj, err
	}
	began, err := fileTime()
	if err != nil {
		return nil, err
	}
	w, err := b.e.worktree(ctx, base)
	if err != nil {
		return nil, err
	}
	kept := false
	defer func() {
		if !kept {
			w.close()
		}
	}()
	var buildTree *store.Object
	if pl.build != nil {
		buildTree = trees[pl.build]
	}
	var stage *monitor.Span // the last one has the commit in it
	var facts monitor.Stage
	defer func() {
		stage.Tell(facts)
		stage.End(err)
	}()
	for i := st.from; i < st.to; i++ {
		stage.Tell(facts)
		stage.End(nil)
		var res StageResult
		res, stage, err = b.stage(ctx, pl, i, buildTree, trees, w.at, w.tree)
		facts = stageFacts(pl, st, i, res)
		if res.Type != "" {
			b.record(res)
		}
		if err != nil {
			return nil, err
		}
		if res.Metadata != nil {
			info.Meta[res.ID] = res.Metadata
		}
	}
	span := stage.Start(monitor.Event{Category: monitor.CatPhase, Name: "commit"})
	defer func() { span.End(err) }()
	obj, kept, err := b.e.conclude(ctx, info, base, w, began, pl.p.SourceEpoch)
	if err == nil {
		facts.Layer = obj.Size // none of a stage that changed nothing
		b.e.committed()
	}
	return obj, err
}

func (b *build) record(r StageResult) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results[r.Pipeline] = append(b.results[r.Pipeline], r)
}

// stage runs one stage on the mounted tree. Its span is for the caller to end; it
// is nil when it was never begun.
func (b *build) stage(ctx context.Context, pl *plan, i int, buildTree *store.Object, trees map[*plan]*store.Object, at, tree string) (res StageResult, span *monitor.Span, err error) {
	s := pl.p.Stages[i]
	prog := pl.progs[i]
	id := pl.ids.Stage(pl.p, i)
	fail := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		res = StageResult{Pipeline: pl.p.Name, Type: s.Type, ID: id, Output: err.Error() + "\n"}
		return &StageError{
			Pipeline: pl.p.Name, Type: s.Type, ID: id, Origin: s.Origin, Target: b.target(pl.p.Name),
			Msg: err.Error(), Hint: b.e.hint(err, ""), Err: err,
		}
	}
	prepared, through := pl.setup.of(prog, pl.runner)
	if err := b.checkRunner(ctx, pl); err != nil {
		err = fail(err)
		return res, span, err
	}
	br, err := b.e.buildRoot(ctx, pl, prepared, buildTree, b.span)
	if err != nil {
		err = fail(err)
		return res, span, err
	}
	if prog.startsTree() {
		if err = b.e.runPrograms(pl, tree); err != nil {
			err = fail(err)
			return res, span, err
		}
	}
	span = b.stageSpan(pl, i)
	prepare := span.Start(monitor.Event{Category: monitor.CatPhase, Name: "prepare"})
	env := &environment{ctx: ctx, span: span, b: b, pl: pl, i: i, stage: s, trees: trees, tree: tree, dir: filepath.Join(at, fmt.Sprintf("stage-%d", i))}
	args, mounts, err := env.open()
	prepare.End(err)
	defer func() {
		cerr := env.close()
		if cerr != nil && err == nil {
			err = fail(cerr)
		}
	}()
	if err != nil {
		err = fail(err)
		return res, span, err
	}
	args.Meta = stages.MetaArg{ID: id, SourceEpoch: pl.p.SourceEpoch}
	raw, err := json.Marshal(args)
	var job buildroot.Job
	if err == nil {
		job, err = b.e.job(prog, through)
	}
	if err != nil {
		err = fail(err)
		return res, span, err
	}
	out := newTail(maxTail)
	running := span.Start(monitor.Event{Category: monitor.CatPhase, Name: "run"})
	job.Arguments, job.Epoch, job.Arch, job.Mounts, job.Limit = raw, pl.p.SourceEpoch, pl.p.Arch, mounts, b.e.cfg.Limit
	job.Line = func(line string) {
		out.line(line)
		span.Emit(monitor.Event{Kind: monitor.Output, Text: line})
	}
	r, err := br.Run(ctx, job)
	running.End(err)
	res = StageResult{Pipeline: pl.p.Name, Type: s.Type, ID: id, Output: out.String()}
	if r != nil {
		res.Wall, res.CPU, res.MaxRSS, res.Metadata = r.Wall, r.CPU, r.MaxRSS, r.Metadata
		res.Success = err == nil && r.Status == 0 && r.Err == nil
	}
	if res.Success {
		return res, span, nil
	}
	if ctx.Err() != nil {
		return res, span, context.Cause(ctx)
	}
	se := &StageError{
		Pipeline: pl.p.Name, Type: s.Type, ID: id, Origin: s.Origin, Target: b.target(pl.p.Name), Output: out.String(), Err: err,
	}
	if r != nil {
		se.Status, se.Signal = r.Status, r.Signal
		switch {
		case r.Err != nil:
			se.Msg = r.Err.Error()
		case r.Exception != nil:
			se.Msg = r.Exception.Error()
			se.Exception, _ = json.Marshal(map[string]any{"type": "exception", "data": r.Exception}) // strings
			res.Exception = se.Exception
		}
		se.Hint = b.e.hint(cmp.Or(r.Err, err), se.Output)
	}
	if errors.Is(err, buildroot.ErrOutput) {
		se.Hint = "a program that waits for an answer can ask for ever"
	}
	err = se
	return res, span, se
}

// tail keeps the end of a stage's output.
type tail struct {
	buf []byte
	max int
}

func newTail(max int) *tail { return &tail{max: max} }

func (t *tail) line(s string) {
	t.buf = append(append(t.buf, s...), '\n')
	if len(t.buf) > 2*t.max {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.max:]...)
	}
}

func (t *tail) String() string { return string(t.buf[max(0, len(t.buf)-t.max):]) }
