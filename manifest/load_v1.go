// Reading manifests of version 1: one pipeline with its build pipelines inside, and
// an assembler at its end.

package manifest

import (
	"fmt"
	"maps"
	"strings"
)

// Names that version 1 gives pipelines and sources.
const (
	v1Tree      = "tree"
	v1Assembler = "assembler"
	sourceFiles = "org.osbuild.files"
	sourceCurl  = "org.osbuild.curl"
)

// v1Items says which member of a source of version 1 holds its items.
var v1Items = map[string]string{
	sourceCurl:            "urls",
	"org.osbuild.ostree":  "commits",
	"org.osbuild.librepo": "items",
}

func load1(doc map[string]any) (*Manifest, error) {
	m := &Manifest{V1: true}
	pipeline := members(doc, "pipeline")
	tree, err := m.load1Pipeline(pipeline, 0)
	if err != nil {
		return nil, err
	}
	if a := members(pipeline, "assembler"); len(a) > 0 {
		p := &Pipeline{Name: v1Assembler, Stages: []*Stage{{
			Type: text(a, "name"), Options: options(a), Assembler: true,
			Inputs: map[string]*Input{"tree": {
				Type: "org.osbuild.tree", Origin: OriginPipeline,
				References: []Reference{{ID: "name:" + v1Tree}},
			}},
		}}}
		if tree.Build != nil {
			build := *tree.Build
			p.Build = &build
		}
		m.Pipelines = append(m.Pipelines, p)
	}
	sources := members(doc, "sources")
	for _, name := range sortedKeys(sources) {
		if err := m.load1Source(name, members(sources, name)); err != nil {
			return nil, err
		}
	}
	if _, err := m.IDs(); err != nil {
		return nil, err
	}
	return m, nil
}

// load1Pipeline adds a pipeline, and before it the one that it is built in. n is
// how many build pipelines are around it.
func (m *Manifest) load1Pipeline(desc map[string]any, n int) (*Pipeline, error) {
	p := &Pipeline{Name: v1Tree}
	if n > 0 {
		p.Name = strings.TrimSuffix(strings.Repeat("build-", n), "-")
	}
	if build := members(desc, "build"); len(build) > 0 {
		p.Build = &BuildRoot{Runner: text(build, "runner")}
		if inner := members(build, "pipeline"); len(inner) > 0 {
			q, err := m.load1Pipeline(inner, n+1)
			if err != nil {
				return nil, err
			}
			q.Runner = p.Build.Runner
			p.Build.Pipeline = q.Name
		}
	}
	for i, s := range items(desc, "stages") {
		s, _ := s.(map[string]any)
		stage := &Stage{Type: text(s, "name"), Options: options(s)}
		if stage.Type == "" {
			return nil, errorf(`give the name of a stage, like "name": "org.osbuild.…"`, "pipeline %q, stage %d has no name", p.Name, i+1)
		}
		if err := impliedInputs(stage); err != nil {
			return nil, fmt.Errorf("pipeline %q, stage %d (%s): %w", p.Name, i+1, stage.Type, err)
		}
		p.Stages = append(p.Stages, stage)
	}
	m.Pipelines = append(m.Pipelines, p)
	return p, nil
}

// impliedInputs adds the inputs of the two stages that in version 1 name them in
// their options.
func impliedInputs(s *Stage) error {
	switch s.Type {
	case "org.osbuild.rpm":
		in := &Input{Type: sourceFiles, Origin: OriginSource}
		if _, ok := s.Options["packages"].([]any); !ok {
			return errorf("it is a list of checksums", "it has no packages")
		}
		for _, x := range items(s.Options, "packages") {
			r := Reference{}
			if o, ok := x.(map[string]any); ok {
				x = o["checksum"]
				if gpg := o["check_gpg"]; !falsy(gpg) {
					r.Options = map[string]any{"metadata": map[string]any{"rpm.check_gpg": gpg}}
				}
			}
			id, ok := x.(string)
			if !ok {
				return errorf("it is \"sha256:…\"", "a package is named by %s and not by its checksum", Canonical(x))
			}
			r.ID = id
			in.References = append(in.References, r)
		}
		s.Inputs = map[string]*Input{"packages": in}
	case "org.osbuild.ostree":
		commit, ok := s.Options["commit"].(string)
		if !ok {
			return errorf("it is the checksum of a commit", "it has no commit")
		}
		r := Reference{ID: commit}
		if ref := s.Options["ref"]; !falsy(ref) {
			r.Options = map[string]any{"ref": ref}
		}
		s.Inputs = map[string]*Input{"commits": {Type: "org.osbuild.ostree", Origin: OriginSource, References: []Reference{r}}}
	}
	return nil
}

func (m *Manifest) load1Source(name string, desc map[string]any) error {
	kind := name
	if kind == sourceFiles {
		kind = sourceCurl
	}
	key, ok := v1Items[kind]
	if !ok {
		return errorf("write the manifest as version 2", "source %s is not known to version 1", name)
	}
	all, ok := desc[key].(map[string]any)
	if !ok {
		return errorf("it is an object", "source %s has no member %q", name, key)
	}
	if m.Sources == nil {
		m.Sources = map[string]*Source{}
	}
	src := m.Sources[kind]
	if src == nil {
		src = &Source{Items: map[string]any{}}
		m.Sources[kind] = src
	}
	maps.Copy(src.Items, all)
	for k, v := range desc {
		if k != key {
			if src.Options == nil {
				src.Options = map[string]any{}
			}
			src.Options[k] = v
		}
	}
	return nil
}
