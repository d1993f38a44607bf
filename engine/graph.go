// The graph of a build: the steps that have to run, each once, what they wait for,
// and who waits for them.
package engine

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
)

// node is a step that has to run. The first pipeline that has the step runs it, for
// all that have it.
type node struct {
	pl    *plan
	st    step
	base  made           // what it stands on
	trees map[*plan]made // what it reads, and its build root
	files []string       // checksums of the source items that it reads

	users  []*node       // steps that wait for it
	own    time.Duration // how long it is expected to take
	rest   time.Duration // and how long the longest way from its start to an end
	memory int64         // bytes that it is expected to take

	waits int           // for so many steps and files
	state nodeState     // guarded by the schedule
	obj   *store.Object // once it is done

	queued  *monitor.Span // while it is ready, and there is no room
	release func()        // of the claim on the step; nil: it is not ours
}

type nodeState int

const (
	waiting nodeState = iota
	ready
	running
	done
	failed // itself, or something that it needs
)

// made is a tree that is there, or the step that makes it; neither is the tree of a
// pipeline without stages.
type made struct {
	obj *store.Object
	by  *node
}

// object is the tree, once it is there.
func (m made) object() *store.Object {
	if m.by != nil {
		return m.by.obj
	}
	return m.obj
}

// graph is what a build has to do.
type graph struct {
	lookup func(key string) (*store.Object, bool)
	plans  map[string]*plan
	nodes  []*node          // in an order in which each is behind what it needs
	byKey  map[string]*node // of a step
	roots  map[*plan]made   // what pipelines end in, as far as they were looked at
	have   map[*plan][]step // their first steps, as far as the store has them
	total  int              // stages that have to run
	cached int              // stages whose results are there
}

// newGraph finds what has to run for pipelines.
func (e *Engine) newGraph(all map[string]*plan, names []string) (*graph, error) {
	g := &graph{lookup: e.lookup, plans: all, byKey: map[string]*node{}, roots: map[*plan]made{}, have: map[*plan][]step{}}
	for _, name := range names {
		pl := all[name]
		if pl == nil {
			return nil, fmt.Errorf("no pipeline %q in the manifest", name)
		}
		if len(pl.p.Stages) == 0 {
			return nil, fmt.Errorf("pipeline %q has no stages, so there is no tree of it", name)
		}
		g.tree(pl)
	}
	return g, nil
}

// tree finds what a pipeline ends in, with all that has to run for it.
func (g *graph) tree(pl *plan) made {
	if m, ok := g.roots[pl]; ok {
		return m
	}
	var m made
	// The last step whose tree is in the store; what is before it is not looked at.
	from := 0
	for i := len(pl.steps) - 1; i >= 0 && m.obj == nil; i-- {
		if obj, ok := g.lookup(pl.steps[i].key); ok {
			m.obj, from = obj, i+1
			g.have[pl] = pl.steps[:from]
			g.cached += pl.steps[i].to
		}
	}
	for _, st := range pl.steps[from:] {
		n := g.byKey[st.key]
		if n == nil {
			n = g.add(pl, st, m)
		}
		m = made{by: n}
	}
	g.roots[pl] = m
	return m
}

// add makes the node of a step on a base, behind those of what it needs.
func (g *graph) add(pl *plan, st step, base made) *node {
	n := &node{pl: pl, st: st, base: base, trees: map[*plan]made{}, files: pl.files(st)}
	before := []*node{base.by}
	for _, q := range pl.needs(st) {
		n.trees[q] = g.tree(q)
		before = append(before, n.trees[q].by)
	}
	for _, d := range before {
		if d != nil && !slices.Contains(d.users, n) {
			d.users = append(d.users, n)
			n.waits++
		}
	}
	n.waits += len(n.files)
	g.total += st.to - st.from
	g.byKey[st.key] = n
	g.nodes = append(g.nodes, n)
	return n
}

// files are the checksums of the source items that a step reads, with the program
// that prepares its build root.
func (pl *plan) files(st step) []string {
	var out []string
	if pl.custom != "" && pl.adopted(st) == nil {
		out = append(out, pl.custom)
	}
	for i := st.from; i < st.to; i++ {
		for _, in := range pl.p.Stages[i].Inputs {
			if in.Origin == manifest.OriginSource {
				for _, ref := range in.References {
					out = append(out, ref.ID)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
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
	options := len(path)
	if _, ok := path["remove_destination"].(bool); ok {
		options-- // there is nothing to remove
	}
	for name, in := range s.Inputs {
		whole := options == 2 && from == "input://"+name+"/" && (to == "tree:///" || to == "/" || to == "tree://")
		reads := pl.inputs[0][name]
		if whole && in.Type == "org.osbuild.tree" && len(in.Options) == 0 && len(reads) == 1 && len(reads[0].steps) > 0 {
			return reads[0]
		}
	}
	return nil
}

// stages are those of a step.
func (n *node) stages() []*manifest.Stage { return n.pl.p.Stages[n.st.from:n.st.to] }

// behind finds what cannot be made when these steps cannot.
func behind(failed []*node) map[*node]bool {
	out := map[*node]bool{}
	var visit func(n *node)
	visit = func(n *node) {
		if !out[n] {
			out[n] = true
			for _, u := range n.users {
				visit(u)
			}
		}
	}
	for _, n := range failed {
		visit(n)
	}
	return out
}
