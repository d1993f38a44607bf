// What pipelines need from the store, to be kept for their next build.
package engine

import (
	"slices"

	"github.com/osbuild-star/osbuild-star/manifest"
)

// Need is what the trees of a pipeline are made of.
type Need struct {
	Keys    []string // of its steps, and of those of the pipelines that it needs
	Sources []string // checksums of what their stages read
}

// Needs tells what each of these pipelines needs, by its name.
func (e *Engine) Needs(m *manifest.Manifest, pipelines []string) (map[string]Need, error) {
	all, err := e.taken(m)
	if err != nil {
		return nil, err
	}
	out := map[string]Need{}
	for _, name := range pipelines {
		var n Need
		seen := map[*plan]bool{}
		var visit func(pl *plan)
		visit = func(pl *plan) {
			if pl == nil || seen[pl] {
				return
			}
			seen[pl] = true
			visit(pl.build)
			if pl.custom != "" {
				n.Sources = append(n.Sources, pl.custom)
			}
			for _, st := range pl.steps {
				n.Keys = append(n.Keys, st.key)
			}
			for i, s := range pl.p.Stages {
				for _, in := range s.Inputs {
					if in.Origin == manifest.OriginSource {
						for _, ref := range in.References {
							n.Sources = append(n.Sources, ref.ID)
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
		visit(all[name])
		slices.Sort(n.Keys)
		slices.Sort(n.Sources)
		out[name] = Need{slices.Compact(n.Keys), slices.Compact(n.Sources)}
	}
	return out, nil
}
