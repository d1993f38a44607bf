// What a plan has, told to those who explain builds: its stages, what each waits for,
// and what of it is in the store; and trees, shown as they are.
package engine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/store"
)

// Described is a stage of a plan. What it depends on is in parts, so that two builds
// can be compared.
type Described struct {
	Pipeline string
	Index    int // in the pipeline
	Type     string
	ID       string
	Key      string // of the layer that it is part of
	Target   string
	Origin   manifest.Origin
	Options  string            // a digest of what it is asked to do
	Program  string            // and runner, as they are in keys
	Base     string            // key of the tree that it changes, "" for an empty one
	Build    string            // key of the build root, "" for the host
	Inputs   map[string]string // keys of the trees that it reads, by input name
	Needs    []string          // what it waits for: [Described.Node] of stages, and checksums of sources
	Stored   bool              // the store has its layer
	Size     int64             // bytes of that layer, on the last stage of it
}

// Node names the stage in the Needs of others.
func (d Described) Node() string { return d.Key + " " + d.ID }

// Describe lists the stages of these pipelines and of all that they need, pipeline by
// pipeline.
func (e *Engine) Describe(m *manifest.Manifest, names []string) ([]Described, error) {
	all, err := e.taken(m)
	if err != nil {
		return nil, err
	}
	need := map[*plan]bool{}
	var visit func(pl *plan)
	visit = func(pl *plan) {
		if pl == nil || need[pl] {
			return
		}
		need[pl] = true
		visit(pl.build)
		for _, st := range pl.steps {
			for _, q := range pl.needs(st) {
				visit(q)
			}
		}
	}
	for _, name := range names {
		visit(all[name])
	}
	b := &build{e: e, m: m, plans: all}
	var out []Described
	for _, p := range m.Pipelines {
		if pl := all[p.Name]; need[pl] {
			ds, err := b.describe(pl)
			if err != nil {
				return nil, err
			}
			out = append(out, ds...)
		}
	}
	return out, nil
}

func (b *build) describe(pl *plan) ([]Described, error) {
	var out []Described
	base := ""
	for _, st := range pl.steps {
		obj, stored := b.e.cfg.Store.Lookup(st.key)
		needed := pl.needs(st)
		for i := st.from; i < st.to; i++ {
			s := pl.p.Stages[i]
			program, err := pl.progs[i].key()
			if err != nil {
				return nil, err
			}
			runner, err := pl.setup.key(pl.progs[i])
			if err != nil {
				return nil, err
			}
			d := Described{
				Pipeline: pl.p.Name, Index: i, Type: s.Type, ID: pl.ids.Stage(pl.p, i), Key: st.key, Target: b.target(pl.p.Name), Origin: s.Origin,
				Program: program + ", " + runner, Base: base, Inputs: map[string]string{}, Stored: stored,
			}
			if pl.build != nil {
				d.Build = pl.build.key
			}
			if stored && !obj.Adopted && i == st.to-1 {
				d.Size = obj.Size
			}
			var files []string
			for name, in := range s.Inputs {
				if in.Origin == manifest.OriginSource {
					for _, ref := range in.References {
						files = append(files, ref.ID)
					}
				}
				for _, q := range pl.inputs[i][name] {
					d.Inputs[name] += q.key
				}
			}
			slices.Sort(files)
			d.Options = digest(string(s.OptionsJSON()), s.Devices, s.Mounts, files)
			switch {
			case i > st.from:
				d.Needs = append(d.Needs, out[len(out)-1].Node())
			default:
				if base != "" {
					d.Needs = append(d.Needs, out[len(out)-1].Node())
				}
				for _, q := range needed {
					if n := len(q.p.Stages); n > 0 {
						d.Needs = append(d.Needs, q.key+" "+q.ids.Stage(q.p, n-1))
					}
				}
				for j := st.from; j < st.to; j++ {
					d.Needs = append(d.Needs, sourcesOf(pl.p.Stages[j])...)
				}
			}
			out = append(out, d)
		}
		base = st.key
	}
	return out, nil
}

func sourcesOf(s *manifest.Stage) []string {
	var out []string
	for _, in := range s.Inputs {
		if in.Origin == manifest.OriginSource {
			for _, ref := range in.References {
				out = append(out, ref.ID)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Tree is the tree of a pipeline in the store.
type Tree struct {
	Pipeline string
	Object   *store.Object
}

// Reads shows visit the tree of a pipeline and those that its stages read, and what
// those read, the nearest first: of a disk, its image and what is on it. What a tree
// read is not looked at where visit wants no more. Build roots are not among them, nor
// what the store has not.
func (e *Engine) Reads(m *manifest.Manifest, pipeline string, visit func(Tree) (further bool, err error)) error {
	all, err := e.taken(m)
	if err != nil {
		return err
	}
	todo := []*plan{all[pipeline]}
	seen := map[*plan]bool{}
	for len(todo) > 0 {
		pl := todo[0]
		todo = todo[1:]
		if pl == nil || seen[pl] {
			continue
		}
		seen[pl] = true
		if o, ok := e.cfg.Store.Lookup(pl.key); ok {
			if further, err := visit(Tree{pl.p.Name, o}); err != nil {
				return err
			} else if !further {
				continue
			}
		}
		for _, in := range pl.inputs {
			for _, name := range slices.Sorted(maps.Keys(in)) {
				todo = append(todo, in[name]...)
			}
		}
	}
	return nil
}

// View shows f the tree of an object, read-only. The directory is open and has no
// path: what is below it is reached by openat.
func (e *Engine) View(o *store.Object, f func(dir *os.File) error) (err error) {
	if err := e.prepare(); err != nil {
		return err
	}
	at := filepath.Join(e.work.Path, fmt.Sprintf("view-%d", e.number()))
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	defer os.Remove(at)
	var dir *os.File
	err = e.space.Do(func() error {
		if err := e.mountObject(o, at); err != nil {
			return err
		}
		if dir, err = os.Open(at); err != nil {
			return errors.Join(err, buildroot.Unmount(at))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("showing a tree: %w", err)
	}
	defer func() {
		dir.Close()
		if uerr := e.space.Do(func() error { return buildroot.Unmount(at) }); err == nil {
			err = uerr
		}
	}()
	return f(dir)
}
