// Build environments by label: a buildroot() target in the form that takes the place
// of the host.

package builtins

import (
	"context"
	"fmt"

	"github.com/osbuild-star/osbuild-star/manifest"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// Environment makes a build environment of a buildroot target, with a plan of its own:
// its Manifest, LocalFiles and Packages are what the environment needs. ok is false for
// a target of another kind.
func (p *Project) Environment(ctx context.Context, t rulefile.Target, r Resolve) (env *manifest.Environment, plan *Plan, ok bool, err error) {
	b, ok := t.(*buildrootTarget)
	if !ok {
		return nil, nil, false, nil
	}
	pl, err := p.planner(ctx, []*pipelineValue{b.root.pipeline}, r)
	if err != nil {
		return nil, nil, true, err
	}
	pl.suffix = b.label.Name
	name, err := pl.pipeline(b.root.pipeline)
	if err != nil {
		return nil, nil, true, err
	}
	m := pl.plan.Manifest
	// It is added after all that it needs.
	if last := m.Pipelines[len(m.Pipelines)-1]; last.Name != name {
		return nil, nil, true, fmt.Errorf("%s: its tree is not the last of its pipelines", b.label)
	}
	env = &manifest.Environment{Runner: b.root.runner, Var: b.root.varDir, Pipelines: m.Pipelines, Sources: m.Sources}
	if own := b.root.setup.program; own != nil {
		env.Program = own.id
		pl.addSource(own)
	}
	return env, pl.plan, true, nil
}
