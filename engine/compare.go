// Comparing what two builds of the same plan made, each in a store of its own: which
// stage was the first that made another tree of the same things.
package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
)

// Comparison is what comparing the steps of two builds found.
type Comparison struct {
	Causes   []Cause // in the order of the build
	Compared int     // steps
	Unknown  int     // those that one of the stores does not have any more
}

// Cause is a step that made two different trees although all that it had was the same:
// what it stood on, what it read, what it ran in.
type Cause struct {
	Pipeline string
	Target   string
	Stages   []CauseStage
	Unknown  int // stages before it whose trees are not known: it may have been one of them
	NoEpoch  bool
	Files    []PathDifference
	More     int // further ones
}

// CauseStage is one stage of a step.
type CauseStage struct {
	Type   string
	ID     string
	Origin manifest.Origin
	Likely bool // of several on one file: the part that differs first is the stage's
}

// What is known of a step after comparing.
type verdict int

const (
	unknown verdict = iota
	same
	different // or made of something different
)

// comparison is one call of Compare.
type comparison struct {
	e     *Engine
	other *store.Store
	span  *monitor.Span
	steps map[string]verdict // by key
	out   *Comparison
}

// Compare compares what the engine's store and another one have of the pipelines of
// that name and of those that they need, step by step. A step that was made of
// something different is no cause, and is not looked at.
func (e *Engine) Compare(ctx context.Context, m *manifest.Manifest, names []string, other *store.Store, span *monitor.Span) (*Comparison, error) {
	all, err := e.taken(m)
	if err != nil {
		return nil, err
	}
	if err := e.prepare(); err != nil {
		return nil, err
	}
	c := &comparison{e: e, other: other, span: span, steps: map[string]verdict{}, out: &Comparison{}}
	needed := map[*plan]bool{}
	var need func(pl *plan)
	need = func(pl *plan) {
		if needed[pl] {
			return
		}
		needed[pl] = true
		for _, st := range pl.steps {
			for _, q := range pl.needs(st) {
				need(q)
			}
		}
	}
	for _, name := range names {
		if all[name] == nil {
			return nil, fmt.Errorf("no pipeline %q in the manifest", name)
		}
		need(all[name])
	}
	for _, p := range m.Pipelines { // each refers to earlier ones
		if pl := all[p.Name]; needed[pl] {
			if err := c.pipeline(ctx, pl); err != nil {
				return nil, err
			}
		}
	}
	return c.out, nil
}

func (c *comparison) pipeline(ctx context.Context, pl *plan) error {
	base, before, stages := same, "", 0
	for _, st := range pl.steps {
		v, known := c.steps[st.key]
		if !known {
			var err error
			if v, err = c.step(ctx, pl, st, base, before, stages); err != nil {
				return err
			}
			c.steps[st.key] = v
		}
		stages += st.to - st.from
		if v != unknown {
			stages = 0
		}
		base, before = v, st.key
	}
	return nil
}

// step compares the trees of one step, which stands on the one of the key before, of
// which base is known. missing is how many stages right before it are not known.
func (c *comparison) step(ctx context.Context, pl *plan, st step, base verdict, before string, missing int) (verdict, error) {
	if base == different {
		return different, nil
	}
	for _, q := range pl.needs(st) {
		if c.steps[q.key] == different {
			return different, nil
		}
	}
	if from := pl.adopted(st); from != nil {
		return c.steps[from.key], nil
	}
	var trees [2]*store.Object
	var sides [2]side
	for i, s := range []*store.Store{c.e.cfg.Store, c.other} {
		o, ok := s.Lookup(st.key)
		if !ok {
			c.out.Unknown += st.to - st.from
			return unknown, nil
		}
		trees[i] = o
		if base != same || before == "" {
			continue
		}
		below, ok := s.Lookup(before)
		if !ok || len(o.Layers) < len(below.Layers) || !slices.Equal(o.Layers[:len(below.Layers)], below.Layers) {
			base = unknown // a chain that was made one layer, say
			continue
		}
		sides[i].tops = o.LayerDirs()[len(below.Layers):]
	}
	if before == "" || base != same {
		sides[0].tops, sides[1].tops = nil, nil
	} else if len(sides[0].tops)+len(sides[1].tops) == 0 {
		return same, nil // nothing was changed, twice
	}
	span := c.span.Start(monitor.Event{Category: monitor.CatPhase, Name: "compare " + pl.p.Stages[st.to-1].Type, Text: pl.p.Name})
	files, more, err := c.compare(ctx, trees, sides)
	span.End(err)
	if err != nil {
		return unknown, err
	}
	c.out.Compared++
	if len(files) == 0 {
		return same, nil
	}
	cause := Cause{Pipeline: pl.p.Name, Unknown: missing, NoEpoch: pl.p.SourceEpoch == nil, Files: files, More: more}
	if c.e.cfg.Target != nil {
		cause.Target = c.e.cfg.Target(pl.p.Name)
	}
	for i := st.from; i < st.to; i++ {
		s := pl.p.Stages[i]
		cause.Stages = append(cause.Stages, CauseStage{s.Type, pl.ids.Stage(pl.p, i), s.Origin, st.to-st.from > 1 && covers(s, files)})
	}
	c.out.Causes = append(c.out.Causes, cause)
	return different, nil
}

// covers tells whether the options of a stage, or of one of its devices, name a part of a
// file, in sectors, that has the first byte which differs there.
func covers(s *manifest.Stage, files []PathDifference) bool {
	parts := []map[string]any{s.Options}
	for _, d := range s.Devices {
		parts = append(parts, d.Options)
	}
	for _, p := range parts {
		var o struct {
			Filename    string
			Start, Size int64
		}
		b, err := json.Marshal(p)
		if err != nil || json.Unmarshal(b, &o) != nil || o.Filename == "" || o.Size == 0 {
			continue
		}
		const sector = 512
		for _, f := range files {
			for _, ch := range f.Changes {
				if at := ch.Offset / sector; ch.What == "content" && path.Join("/", o.Filename) == f.Path && at >= o.Start && at < o.Start+o.Size {
					return true
				}
			}
		}
	}
	return false
}

// compare mounts two trees and compares them.
func (c *comparison) compare(ctx context.Context, trees [2]*store.Object, sides [2]side) (files []PathDifference, more int, err error) {
	e := c.e
	err = e.space.Do(func() error {
		for i := range trees {
			view := filepath.Join(e.work.Path, fmt.Sprintf("compare-%d", e.number()))
			if err := os.Mkdir(view, 0o755); err != nil {
				return err
			}
			defer os.Remove(view)
			if err := e.mountObject(trees[i], view); err != nil {
				return err
			}
			defer buildroot.Unmount(view)
			sides[i].view = view
		}
		var err error
		files, more, err = compareTrees(ctx, sides[0], sides[1])
		return err
	})
	return files, more, err
}
