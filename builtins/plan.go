// From targets to one manifest: the pipelines that they need and no others, each
// once, in an order in which every one refers only to earlier ones.

package builtins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/osbuild-star/osbuild-star/manifest"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// Resolve turns requests into exact packages: answer i is that of request i.
type Resolve func(ctx context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error)

// Plan is what there is to build for some targets.
type Plan struct {
	Manifest  *manifest.Manifest
	Artifacts []Artifact // of the images asked for, in their order
	Tests     []Test     // of the tests asked for, in their order

	// LocalFiles are the files of the workspace among the sources: "sha256:…" → an
	// absolute path. Small ones stand in the manifest too, as inline sources.
	LocalFiles map[string]string

	// Packages are the answers that went into the plan, for "sha256:…" of each.
	Packages map[string]manifest.Package

	// Params are the parameters of the command line's -D that were used, by name.
	Params map[string]string
}

// Artifact is one image.
type Artifact struct {
	Label    rulefile.Label
	Pipeline string   // name in the manifest
	Files    []string // paths in its tree; nil: all of it
	Arch     string   // "x86_64"; "" is the host's
	Pos      rulefile.Position
}

// Test is one image_test.
type Test struct {
	Label         rulefile.Label
	Image         rulefile.Label
	ImagePipeline string   // name in the manifest
	Disk          string   // path of the disk in the tree of the pipeline; "": its only file
	Arch          string   // of the image; "" is the host's
	Firmware      []string // "bios", "uefi": one boot each
	Login         string
	Password      string
	Commands      []string // one line each, for the shell of the login
	Timeout       time.Duration
	Memory        int // MiB
	Pos           rulefile.Position
}

// roots are the images behind targets: those of the tests too.
type root struct {
	target rulefile.Target
	image  *imageTarget
}

func (p *Project) roots(ctx context.Context, targets []rulefile.Target) ([]root, error) {
	concrete, err := p.concrete(ctx, targets)
	if err != nil {
		return nil, err
	}
	var out []root
	for _, t := range concrete {
		switch t := t.(type) {
		case *imageTarget:
			out = append(out, root{t, t})
		case *testTarget:
			img, err := p.imageOf(ctx, t)
			if err != nil {
				return nil, err
			}
			out = append(out, root{t, img})
		default:
			return nil, fmt.Errorf("%s: a %s cannot be built", t.Label(), t.Kind())
		}
	}
	return out, nil
}

// Requests returns the package sets that the targets need: equal ones once, a
// base before what stands on it.
func (p *Project) Requests(ctx context.Context, targets []rulefile.Target) ([]*manifest.PackageRequest, error) {
	roots, err := p.roots(ctx, targets)
	if err != nil {
		return nil, err
	}
	var pipelines []*pipelineValue
	for _, r := range roots {
		pipelines = append(pipelines, r.image.pipeline)
	}
	for _, t := range targets {
		if b, ok := t.(*buildrootTarget); ok {
			pipelines = append(pipelines, b.root.pipeline)
		}
	}
	return requests(pipelines), nil
}

func requests(pipelines []*pipelineValue) []*manifest.PackageRequest {
	var out []*manifest.PackageRequest
	seenReq := map[string]bool{}
	var add func(r *manifest.PackageRequest)
	add = func(r *manifest.PackageRequest) {
		key := requestKey(r)
		if seenReq[key] {
			return
		}
		seenReq[key] = true
		if r.Base != nil {
			add(r.Base)
		}
		out = append(out, r)
	}
	seen := map[*pipelineValue]bool{}
	var visit func(p *pipelineValue)
	visit = func(p *pipelineValue) {
		if seen[p] {
			return
		}
		seen[p] = true
		if p.build != nil && p.build.pipeline != nil {
			visit(p.build.pipeline)
		}
		for _, s := range p.stages {
			for _, name := range slices.Sorted(maps.Keys(s.inputs)) {
				in := s.inputs[name]
				if in.tree != nil {
					visit(in.tree)
				}
				if in.packages != nil {
					add(in.packages.request)
				}
			}
		}
	}
	for _, p := range pipelines {
		visit(p)
	}
	return out
}

// Plan makes the plan of the targets. Package sets are resolved by r, in one call,
// which is not made when there are none.
func (p *Project) Plan(ctx context.Context, targets []rulefile.Target, r Resolve) (*Plan, error) {
	roots, err := p.roots(ctx, targets)
	if err != nil {
		return nil, err
	}
	var pipelines []*pipelineValue
	for _, r := range roots {
		pipelines = append(pipelines, r.image.pipeline)
	}
	pl, err := p.planner(ctx, pipelines, r)
	if err != nil {
		return nil, err
	}
	for _, r := range roots {
		pl.suffix = r.image.label.Name
		if v := r.image.label.Variant; v != "" {
			pl.suffix += "-" + v
		}
		name, err := pl.pipeline(r.image.pipeline)
		if err != nil {
			return nil, err
		}
		switch t := r.target.(type) {
		case *imageTarget:
			pl.plan.Artifacts = append(pl.plan.Artifacts, Artifact{Label: t.label, Pipeline: name, Files: t.files, Arch: t.pipeline.arch, Pos: t.pos})
		case *testTarget:
			disk := t.disk
			if disk == "" && len(r.image.files) == 1 {
				disk = r.image.files[0]
			}
			if len(r.image.files) > 1 && disk == "" || disk != "" && r.image.files != nil && !slices.Contains(r.image.files, disk) {
				return nil, &rulefile.Error{
					Msg:  fmt.Sprintf("image_test: which file of %s is the disk?", t.image),
					Hint: "disk = one of " + quoteAll(r.image.files),
					Pos:  t.pos, Width: 1, In: "image_test " + t.label.String(),
				}
			}
			pl.plan.Tests = append(pl.plan.Tests, Test{
				Label: t.label, Image: t.image, ImagePipeline: name, Disk: disk, Arch: r.image.pipeline.arch,
				Firmware: slices.Clone(t.firmware), Login: t.login, Password: t.password, Commands: slices.Clone(t.commands),
				Timeout: t.timeout, Memory: t.memory, Pos: t.pos,
			})
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.used {
		pl.plan.Params[name] = p.cfg.Defines[name]
	}
	return pl.plan, nil
}

// planner makes the planner of these pipelines, with their package sets resolved.
func (p *Project) planner(ctx context.Context, pipelines []*pipelineValue, r Resolve) (*planner, error) {
	pl := &planner{
		project:  p,
		plan:     &Plan{Manifest: &manifest.Manifest{Sources: map[string]*manifest.Source{}}, LocalFiles: map[string]string{}, Packages: map[string]manifest.Package{}, Params: map[string]string{}},
		packages: map[string][]manifest.Package{},
		names:    map[*pipelineValue]string{},
		contents: map[string]string{},
		byName:   map[string]*manifest.Pipeline{},
		runners:  map[string]string{},
	}
	if reqs := requests(pipelines); len(reqs) > 0 {
		if r == nil {
			return nil, errors.New("the plan needs packages, and nothing is there to resolve them")
		}
		answers, err := r(ctx, reqs)
		if err != nil {
			return nil, err
		}
		if len(answers) != len(reqs) {
			return nil, fmt.Errorf("resolving packages: %d answers to %d requests", len(answers), len(reqs))
		}
		for i, req := range reqs {
			pl.packages[requestKey(req)] = answers[i]
		}
	}
	return pl, nil
}

// planner makes one plan.
type planner struct {
	project  *Project
	plan     *Plan
	packages map[string][]manifest.Package // by the key of the request
	names    map[*pipelineValue]string     // name in the manifest
	contents map[string]string             // content of a pipeline → name
	byName   map[string]*manifest.Pipeline
	runners  map[string]string // pipeline and runner → the pipeline's copy with that runner
	suffix   string            // of a name that is taken
}

// pipeline adds a pipeline, and what it needs before it, and returns its name.
func (pl *planner) pipeline(p *pipelineValue) (string, error) {
	if name, ok := pl.names[p]; ok {
		return name, nil
	}
	out := &manifest.Pipeline{SourceEpoch: p.epoch, Arch: p.arch}
	if out.SourceEpoch == nil {
		out.SourceEpoch = pl.project.cfg.Workspace.SourceEpoch
	}
	if b := p.build; b != nil && b.pipeline != nil {
		name, err := pl.pipeline(b.pipeline)
		if err != nil {
			return "", err
		}
		out.Build = &manifest.BuildRoot{Runner: b.runner, Pipeline: pl.withRunner(name, b.runner), Var: b.varDir}
		if own := b.setup.program; own != nil {
			out.Build.Program = own.id
			pl.addSource(own)
		}
	}
	for _, s := range p.stages {
		if len(out.Stages) > 0 && pl.installsNothing(s) {
			continue
		}
		st := &manifest.Stage{Type: s.stage, Options: s.options, Origin: s.origin}
		st.SetText(s.optionsText)
		if err := pl.inputs(st, s); err != nil {
			return "", err
		}
		for name, d := range s.devices {
			if st.Devices == nil {
				st.Devices = map[string]*manifest.Device{}
			}
			st.Devices[name] = d.plan()
		}
		for _, m := range s.mounts {
			st.Mounts = append(st.Mounts, m.plan())
		}
		out.Stages = append(out.Stages, st)
	}
	content := contentOf(out)
	name, ok := pl.contents[content]
	if !ok {
		name = pl.add(p.name, out)
		pl.contents[content] = name
	}
	pl.names[p] = name
	return name, nil
}

// add puts a pipeline into the manifest, under a name of its own.
func (pl *planner) add(want string, p *manifest.Pipeline) string {
	name := want
	for i := 1; pl.byName[name] != nil; i++ {
		name = want + "-" + pl.suffix
		if i > 1 {
			name = fmt.Sprintf("%s-%d", name, i)
		}
	}
	p.Name = name
	pl.byName[name] = p
	pl.plan.Manifest.Pipelines = append(pl.plan.Manifest.Pipelines, p)
	return name
}

// withRunner makes a pipeline the build root of a runner. A manifest writes the
// runner on the pipeline, so that a second runner needs a copy of it, which has
// the same IDs and is built once.
func (pl *planner) withRunner(name, runner string) string {
	p := pl.byName[name]
	if p.Runner == "" || p.Runner == runner {
		p.Runner = runner
		return name
	}
	key := name + "\x00" + runner
	if got, ok := pl.runners[key]; ok {
		return got
	}
	twin := *p
	twin.Runner = runner
	pl.runners[key] = pl.add(name, &twin)
	return pl.runners[key]
}

// installsNothing tells of a stage whose packages are all in their base: what a rule
// cannot know when it writes the stage. With options the stage may do more.
func (pl *planner) installsNothing(s *stageValue) bool {
	in := s.inputs["packages"]
	return s.stage == "org.osbuild-star.deb" && in != nil && in.packages != nil && in.packages.request.Base != nil &&
		len(pl.packages[in.packages.key]) == 0 && s.options["debconf"] == nil
}

// inputs adds the inputs of a stage, and their sources.
func (pl *planner) inputs(st *manifest.Stage, s *stageValue) error {
	for _, name := range slices.Sorted(maps.Keys(s.inputs)) {
		in := s.inputs[name]
		var pipeline string
		var ids []string
		switch {
		case in.tree != nil:
			var err error
			if pipeline, err = pl.pipeline(in.tree); err != nil {
				return err
			}
		case in.packages != nil:
			for _, p := range pl.packages[in.packages.key] {
				id := "sha256:" + p.SHA256
				if slices.Contains(ids, id) {
					continue
				}
				ids = append(ids, id)
				pl.source("org.osbuild.curl", id, p.URL)
				pl.plan.Packages[id] = p
			}
			if len(ids) == 0 {
				return &rulefile.Error{
					Msg:  fmt.Sprintf("%s: the input %q is a set of no packages: all that it names is in its base", s.stage, name),
					Hint: "leave the stage out",
					Pos:  position(s.origin), Width: 1,
				}
			}
		default:
			for _, src := range in.sources {
				if slices.Contains(ids, src.id) {
					continue
				}
				ids = append(ids, src.id)
				pl.addSource(src)
			}
		}
		if st.Inputs == nil {
			st.Inputs = map[string]*manifest.Input{}
		}
		st.Inputs[name] = in.plan(pipeline, ids)
	}
	return nil
}

// addSource adds content that a rule file names.
func (pl *planner) addSource(src *sourceValue) {
	typ, item := src.item()
	pl.source(typ, src.id, item)
	if src.path != "" {
		pl.plan.LocalFiles[src.id] = src.path
	}
}

// source adds an item, unless one of that checksum is there: content is content.
func (pl *planner) source(typ, id string, item any) {
	for _, s := range pl.plan.Manifest.Sources {
		if s.Items[id] != nil {
			return
		}
	}
	s := pl.plan.Manifest.Sources[typ]
	if s == nil {
		s = &manifest.Source{Items: map[string]any{}}
		pl.plan.Manifest.Sources[typ] = s
	}
	s.Items[id] = item
}

// contentOf is equal for pipelines of the same content. What they refer to is
// there by its name in the manifest, which is equal for equal content already.
func contentOf(p *manifest.Pipeline) string {
	c := map[string]any{"arch": p.Arch}
	if p.SourceEpoch != nil {
		c["epoch"] = fmt.Sprint(*p.SourceEpoch)
	}
	if p.Build != nil {
		c["build"] = map[string]any{"runner": p.Build.Runner, "pipeline": p.Build.Pipeline, "var": p.Build.Var, "program": p.Build.Program}
	}
	var stages []any
	for _, s := range p.Stages {
		st := map[string]any{"type": s.Type, "options": s.Options, "text": string(s.Text)}
		inputs, devices := map[string]any{}, map[string]any{}
		for name, in := range s.Inputs {
			refs := []any{}
			for _, r := range in.References {
				refs = append(refs, map[string]any{"id": r.ID, "options": r.Options})
			}
			inputs[name] = map[string]any{"type": in.Type, "origin": in.Origin, "references": refs, "options": in.Options}
		}
		for name, d := range s.Devices {
			devices[name] = map[string]any{"type": d.Type, "parent": d.Parent, "options": d.Options}
		}
		mounts := []any{}
		for _, m := range s.Mounts {
			mounts = append(mounts, map[string]any{
				"name": m.Name, "type": m.Type, "source": m.Source, "partition": fmt.Sprint(m.Partition), "target": m.Target, "options": m.Options,
			})
		}
		st["inputs"], st["devices"], st["mounts"] = inputs, devices, mounts
		stages = append(stages, st)
	}
	c["stages"] = stages
	return string(manifest.Canonical(c))
}
