// A shell in the sandbox of a stage, right before it would run.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/stages"
	"github.com/osbuild-star/osbuild-star/store"
)

// Shell is a program to run where a stage would.
type Shell struct {
	Pipeline string   // its name
	Stage    string   // type, or the beginning of the ID, of the stage to stop before; "" is after the last
	Argv     []string // the program; nil: bash or sh
	Stdin    *os.File
	Stdout   *os.File
	Terminal bool // they are a terminal
}

// Shell builds what comes before the stage and runs the program in its sandbox,
// with its tree, inputs, devices and mounts. What the program changes is thrown
// away. It returns the exit status of the program.
func (e *Engine) Shell(ctx context.Context, m *manifest.Manifest, sh Shell, span *monitor.Span) (int, error) {
	cut, index, err := cutBefore(m, sh)
	if err != nil {
		return 0, err
	}
	all, err := e.plans(cut)
	if err != nil {
		return 0, err
	}
	pl := all[sh.Pipeline]
	// The trees that the stage reads and its build root.
	trees := map[*plan]*store.Object{}
	var names []string
	need := func(q *plan) {
		if q != nil && len(q.p.Stages) > 0 {
			trees[q] = nil
			names = append(names, q.p.Name)
		}
	}
	need(pl.build)
	if index < len(pl.p.Stages) {
		for _, qs := range pl.inputs[index] {
			for _, q := range qs {
				need(q)
			}
		}
	}
	// The stages before the one to stop at are a pipeline of their own, whose keys
	// are the same.
	before := *pl.p
	before.Stages = pl.p.Stages[:index]
	last := *cut
	last.Pipelines = append(append([]*manifest.Pipeline{}, cut.Pipelines[:len(cut.Pipelines)-1]...), &before)
	var base *store.Object
	if index > 0 {
		names = append(names, sh.Pipeline)
	}
	if len(names) > 0 {
		res, err := e.Build(ctx, &last, names, span)
		if err != nil {
			return 0, err
		}
		for q := range trees {
			trees[q] = res.Trees[q.p.Name]
		}
		base = res.Trees[sh.Pipeline]
	}
	if err := e.prepare(); err != nil {
		return 0, err
	}
	if pl.custom != "" && !sources.Have(e.cfg.Store.SourcesDir(), pl.custom, 0) && e.cfg.Fetch != nil {
		if err := e.cfg.Fetch(ctx, cut, []string{pl.custom}, span, func(string, error) {}); err != nil {
			return 0, err
		}
	}
	b := &build{e: e, m: cut, plans: all, span: span}
	return b.shell(ctx, pl, index, base, trees, sh)
}

// cutBefore returns the manifest with nothing behind the pipeline of the shell, and
// the index of the stage to stop before.
func cutBefore(m *manifest.Manifest, sh Shell) (*manifest.Manifest, int, error) {
	ids, err := m.IDs()
	if err != nil {
		return nil, 0, err
	}
	for n, p := range m.Pipelines {
		if p.Name != sh.Pipeline {
			continue
		}
		cut := *m
		cut.Pipelines = m.Pipelines[:n+1]
		if sh.Stage == "" {
			return &cut, len(p.Stages), nil
		}
		if i := StageIndex(ids, p, sh.Stage); i >= 0 {
			return &cut, i, nil
		}
		var known []string
		for _, s := range p.Stages {
			known = append(known, s.Type)
		}
		return nil, 0, fmt.Errorf("pipeline %q has no stage %q; it has %s", p.Name, sh.Stage, strings.Join(known, ", "))
	}
	return nil, 0, fmt.Errorf("there is no pipeline %q", sh.Pipeline)
}

// StageIndex finds the first stage of a pipeline that a person means by name: its
// type, the last part of its type, or the beginning of its ID, six digits at least.
// -1: there is none.
func StageIndex(ids *manifest.IDs, p *manifest.Pipeline, name string) int {
	for i, s := range p.Stages {
		if s.Type == name || strings.HasSuffix(s.Type, "."+name) || len(name) >= 6 && strings.HasPrefix(ids.Stage(p, i), name) {
			return i
		}
	}
	return -1
}

func (b *build) shell(ctx context.Context, pl *plan, index int, base *store.Object, trees map[*plan]*store.Object, sh Shell) (status int, err error) {
	w, err := b.e.worktree(ctx, base)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.close(), b.e.tidy()) }()
	tree := w.tree
	var buildTree *store.Object
	if pl.build != nil {
		buildTree = trees[pl.build]
	}
	if err := b.e.runPrograms(pl, tree); err != nil {
		return 0, err
	}
	st := &manifest.Stage{}
	var caps []string
	prog := program{}
	if index < len(pl.p.Stages) {
		st, prog = pl.p.Stages[index], pl.progs[index]
		caps = prog.capabilities()
	} else {
		index = len(pl.p.Stages) - 1
	}
	prepared, through := pl.setup.of(prog, pl.runner)
	if err := b.checkRunner(ctx, pl); err != nil {
		return 0, err
	}
	br, err := b.e.buildRoot(ctx, pl, prepared, buildTree, b.span)
	if err != nil {
		return 0, err
	}
	env := &environment{ctx: ctx, span: b.span, b: b, pl: pl, i: index, stage: st, trees: trees, tree: tree, dir: filepath.Join(w.at, "stage")}
	env.noDevices = st.Type == ""
	args, mounts, err := env.open()
	defer func() { err = errors.Join(err, env.close()) }()
	if err != nil {
		return 0, err
	}
	args.Meta = stages.MetaArg{SourceEpoch: pl.p.SourceEpoch}
	argv := sh.Argv
	if argv == nil {
		argv = []string{"/bin/sh", "-c", "cd /run/osbuild; if command -v bash >/dev/null; then exec bash --norc -i; fi; exec sh -i"}
		if !sh.Terminal {
			argv = []string{"/bin/sh"}
		}
	}
	job := buildroot.Job{
		Argv: argv, Caps: caps, Epoch: pl.p.SourceEpoch, Arch: pl.p.Arch, Mounts: mounts,
		Env:   []string{"PS1=[osbuild-star " + pl.p.Name + "] \\w# "},
		Stdin: sh.Stdin, Stdout: sh.Stdout, Terminal: sh.Terminal,
	}
	if err := b.e.library(&job, through); err != nil {
		return 0, err
	}
	r, err := br.Run(ctx, job)
	if err != nil {
		return 0, err
	}
	if r.Err != nil {
		return 0, r.Err
	}
	return r.Status, nil
}
