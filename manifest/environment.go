// Build environments: the pair of a runner and the pipeline of the tree that it sets
// up, given beside a manifest, in place of the host.

package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Environment is a build root that takes the place of the host's tree in a manifest:
// see [Manifest.In].
type Environment struct {
	Runner string // "org.osbuild.debian12"

	// Program is the source item of a runner of the user's own, as [BuildRoot] has it;
	// Var the directory that backs /var. JSON has neither.
	Program, Var string

	// Pipelines are in an order in which each refers only to earlier ones; the last
	// makes the tree, and those before are what it needs.
	Pipelines []*Pipeline
	Sources   map[string]*Source
}

// environmentHint shows the form that is wanted.
const environmentHint = `it is {"runner": "org.osbuild.debian12", "pipeline": {"stages": […]}, "sources": {…}}`

// LoadEnvironment reads a build environment from the JSON of upstream osbuild's old
// option --build-env: an object of "runner", "pipeline" and, if it needs any,
// "sources". The pipeline is that of a manifest of version 1 or of version 2; one of
// version 2 may need further ones, in "pipelines". Stages are checked against mods,
// unless they are nil.
//
// Errors are an *[Error] with a hint, a *[ValidationError], or plain ones with the
// line and column of what is no JSON.
func LoadEnvironment(data []byte, mods Modules) (*Environment, error) {
	if _, err := decodeJSON(data); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil || doc == nil {
		return nil, errorf(environmentHint, "a build environment is a JSON object")
	}
	for key := range doc {
		if !slices.Contains([]string{"runner", "pipeline", "pipelines", "sources"}, key) {
			return nil, errorf(environmentHint, "a build environment has no member %q", key)
		}
	}
	var runner string
	if json.Unmarshal(doc["runner"], &runner) != nil || runner == "" {
		return nil, errorf(environmentHint, "a build environment names its runner")
	}
	var pipeline map[string]json.RawMessage
	if json.Unmarshal(doc["pipeline"], &pipeline) != nil || pipeline == nil {
		return nil, errorf(environmentHint, "a build environment has the pipeline of its tree")
	}
	var stages []map[string]json.RawMessage
	if json.Unmarshal(pipeline["stages"], &stages) != nil || len(stages) == 0 {
		return nil, errorf(environmentHint, "the pipeline of a build environment has stages")
	}
	m, err := loadEnvironment(doc, pipeline, stages, runner, mods)
	if err != nil {
		return nil, err
	}
	return &Environment{Runner: runner, Pipelines: m.Pipelines, Sources: m.Sources}, nil
}

// loadEnvironment reads it as part of a whole manifest.
func loadEnvironment(doc, pipeline map[string]json.RawMessage, stages []map[string]json.RawMessage, runner string, mods Modules) (*Manifest, error) {
	whole := map[string]any{}
	if doc["sources"] != nil {
		whole["sources"] = doc["sources"]
	}
	_, named := stages[0]["name"]
	_, nested := pipeline["build"]
	nested = nested && bytes.HasPrefix(bytes.TrimSpace(pipeline["build"]), []byte("{"))
	if named || nested { // version 1
		if doc["pipelines"] != nil {
			return nil, errorf(`write "type" instead of "name" in its stages`, `"pipelines" goes with a pipeline of version 2`)
		}
		whole["pipeline"] = map[string]any{"build": map[string]any{"runner": runner, "pipeline": pipeline}}
		m, err := loadWhole(whole, mods)
		if err == nil {
			m.Pipelines = m.Pipelines[:len(m.Pipelines)-1] // the tree that nothing is in
		}
		return m, err
	}
	var all []json.RawMessage
	if doc["pipelines"] != nil && json.Unmarshal(doc["pipelines"], &all) != nil {
		return nil, errorf(environmentHint, `"pipelines" is the list of what the pipeline needs`)
	}
	if pipeline["name"] == nil {
		pipeline["name"] = json.RawMessage(`"build-env"`)
	}
	var err error
	if pipeline["runner"], err = json.Marshal(runner); err != nil {
		return nil, err
	}
	last, err := json.Marshal(pipeline)
	if err != nil {
		return nil, err
	}
	whole["version"], whole["pipelines"] = "2", append(all, last)
	return loadWhole(whole, mods)
}

func loadWhole(doc map[string]any, mods Modules) (*Manifest, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return LoadChecked(b.Bytes(), mods)
}

// Format writes the environment in the form that [LoadEnvironment] reads, of version 2,
// indented and with a newline at its end.
func (e *Environment) Format() ([]byte, error) {
	last := len(e.Pipelines) - 1
	if e.Program != "" {
		return nil, errorf("name the build environment by its label", "the runner %s is a program of the workspace, which JSON cannot have", e.Runner)
	}
	if last < 0 {
		return nil, errors.New("a build environment without a pipeline")
	}
	b, err := (&Manifest{Pipelines: e.Pipelines, Sources: e.Sources}).MarshalJSON()
	if err != nil {
		return nil, err
	}
	var doc struct {
		Pipelines []json.RawMessage          `json:"pipelines"`
		Sources   map[string]json.RawMessage `json:"sources"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	var pipeline map[string]json.RawMessage
	if err := json.Unmarshal(doc.Pipelines[last], &pipeline); err != nil {
		return nil, err
	}
	delete(pipeline, "runner")
	out := struct {
		Runner    string                     `json:"runner"`
		Pipeline  map[string]json.RawMessage `json:"pipeline"`
		Pipelines []json.RawMessage          `json:"pipelines,omitempty"`
		Sources   map[string]json.RawMessage `json:"sources,omitempty"`
	}{e.Runner, pipeline, doc.Pipelines[:last], doc.Sources}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(out); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// In returns the manifest with every pipeline that is built in the host's tree built in
// the environment instead, by its runner. The pipelines of the environment come first,
// under names of their own; it itself is built where it says, else on the host. Build
// roots are part of IDs, so those change. m and e stay as they are.
func (m *Manifest) In(e *Environment) (*Manifest, error) {
	ids, err := m.IDs()
	if err != nil {
		return nil, err
	}
	out := *m
	out.Pipelines = nil
	names := map[string]string{}
	for _, p := range e.Pipelines {
		name := p.Name
		for n := 2; m.Pipeline(name) != nil; n++ {
			name = fmt.Sprintf("%s-%d", p.Name, n)
		}
		names[p.Name] = name
	}
	for _, p := range e.Pipelines {
		out.Pipelines = append(out.Pipelines, p.renamed(names))
	}
	tree := out.Pipelines[len(out.Pipelines)-1]
	tree.Runner = e.Runner
	for _, p := range m.Pipelines {
		if ids.Build(p) == "" {
			q := *p
			q.Build = &BuildRoot{Runner: e.Runner, Program: e.Program, Pipeline: tree.Name, Var: e.Var}
			if p.Build != nil && p.Build.Var != "" {
				q.Build.Var = p.Build.Var
			}
			p = &q
		}
		out.Pipelines = append(out.Pipelines, p)
	}
	out.Sources = maps.Clone(m.Sources)
	if out.Sources == nil {
		out.Sources = map[string]*Source{}
	}
	for typ, s := range e.Sources {
		old := out.Sources[typ]
		if old == nil {
			out.Sources[typ] = s
			continue
		}
		both := &Source{Items: maps.Clone(s.Items), Options: old.Options}
		maps.Copy(both.Items, old.Items)
		if len(both.Options) == 0 {
			both.Options = s.Options
		}
		out.Sources[typ] = both
	}
	return &out, nil
}

// renamed copies a pipeline with other names for the ones that it refers to.
func (p *Pipeline) renamed(names map[string]string) *Pipeline {
	q := *p
	q.Name = names[p.Name]
	if p.Build != nil {
		b := *p.Build
		if to, ok := names[b.Pipeline]; ok {
			b.Pipeline = to
		}
		q.Build = &b
	}
	q.Stages = nil
	for _, s := range p.Stages {
		t := *s
		t.Inputs = nil
		for name, in := range s.Inputs {
			if in.Origin == OriginPipeline {
				other := *in
				other.References = slices.Clone(in.References)
				for i, r := range other.References {
					if to, ok := names[strings.TrimPrefix(r.ID, "name:")]; ok {
						other.References[i].ID = "name:" + to
					}
				}
				in = &other
			}
			if t.Inputs == nil {
				t.Inputs = map[string]*Input{}
			}
			t.Inputs[name] = in
		}
		q.Stages = append(q.Stages, &t)
	}
	return &q
}
