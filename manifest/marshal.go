// Writing manifests: version 2 as upstream reads it, and what upstream's --inspect
// prints.

package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// ordered is a JSON object with its members in the order in which they are written.
type ordered []member

type member struct {
	key   string
	value any
}

func (o *ordered) add(key string, value any) { *o = append(*o, member{key, value}) }

// addOptions adds options if there are any.
func (o *ordered) addOptions(options map[string]any) {
	if len(options) > 0 {
		o.add("options", plainMap(options))
	}
}

// addStageOptions adds the options of a stage in the order they were written in.
func (o *ordered) addStageOptions(s *Stage) {
	if len(s.Options) > 0 {
		o.add("options", arranged(plainMap(s.Options), "", orderOf(s.Text)))
	}
}

// arranged gives the objects in v an order.
func arranged(v any, at string, order keyOrder) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(ordered, 0, len(v))
		for _, k := range order.keys(at, v) {
			out.add(k, arranged(v[k], pointer(at, k), order))
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = arranged(e, pointer(at, i), order)
		}
		return out
	}
	return v
}

// plain is the object as the kinds that values have.
func (o ordered) plain() any {
	m := make(map[string]any, len(o))
	for _, e := range o {
		m[e.key] = plainOrdered(e.value)
	}
	return m
}

func plainOrdered(v any) any {
	switch v := v.(type) {
	case ordered:
		return v.plain()
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plainOrdered(e)
		}
		return out
	}
	return v
}

// AppendJSON appends a value of the kinds that options have, without spaces, the
// members of objects sorted.
func AppendJSON(b []byte, v any) []byte { return appendJSON(b, plain(v)) }

// appendJSON writes a value without spaces, objects in their order or sorted.
func appendJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return appendQuoted(b, v, false)
	case json.Number:
		if isNumber(string(v)) {
			return append(b, v...)
		}
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, e)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, k := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, k, false), ':')
			b = appendJSON(b, v[k])
		}
		return append(b, '}')
	case ordered:
		b = append(b, '{')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, e.key, false), ':')
			b = appendJSON(b, e.value)
		}
		return append(b, '}')
	}
	return appendCanonical(b, v)
}

// MarshalJSON writes the manifest as upstream's version 2, always in the same order:
// the members of the plan as this package has them, keys of options and items
// sorted. Members that are empty are left out; the references of inputs are
// objects.
//
// What upstream does not know (architectures, directories for /var, the programs of
// runners, origins) is not
// written. Nor is the runner of a pipeline that is built in the host's tree: that is
// the host's there.
//
// The runner of a build root is written on the pipeline that makes it: its own
// Runner, else the one that its users agree on. An *[Error] says when they do not.
func (m *Manifest) MarshalJSON() ([]byte, error) {
	doc, err := m.document(2, nil, "")
	if err != nil {
		return nil, err
	}
	return appendJSON(nil, doc), nil
}

// Format is [Manifest.MarshalJSON], indented by two spaces and with a newline at
// the end.
func (m *Manifest) Format() ([]byte, error) {
	text, err := m.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return nil, fmt.Errorf("formatting the manifest: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// InspectOption changes what [Manifest.Inspect] prints.
type InspectOption func(*inspection)

type inspection struct{ hostRunner string }

// HostRunner says which runner the host has ("org.osbuild.debian"): upstream prints
// it on build roots that name none.
func HostRunner(name string) InspectOption {
	return func(i *inspection) { i.hostRunner = name }
}

// Inspect returns what upstream's --inspect prints: the manifest with the
// identifiers of its stages, and with identifiers in place of the names of
// pipelines. A manifest that was read from version 1 is printed in that form. The
// order of members is that of [Manifest.MarshalJSON].
func (m *Manifest) Inspect(opts ...InspectOption) ([]byte, error) {
	var i inspection
	for _, o := range opts {
		o(&i)
	}
	ids, err := m.IDs()
	if err != nil {
		return nil, err
	}
	version := 2
	if m.V1 {
		version = 1
	}
	doc, err := m.document(version, ids, i.hostRunner)
	if err != nil {
		return nil, err
	}
	return appendJSON(nil, doc), nil
}

// document describes the manifest: with ids in the way of --inspect, else as it can
// be read again.
func (m *Manifest) document(version int, ids *IDs, hostRunner string) (ordered, error) {
	if version == 1 {
		return m.document1(ids, hostRunner), nil
	}
	doc := ordered{{"version", "2"}}
	if len(m.Metadata) > 0 {
		doc.add("metadata", plainMap(m.Metadata))
	}
	runners, err := m.runners(ids, hostRunner)
	if err != nil {
		return nil, err
	}
	pipelines := []any{}
	for _, p := range m.Pipelines {
		desc, err := describePipeline(p, ids, runners[p])
		if err != nil {
			return nil, err
		}
		pipelines = append(pipelines, desc)
	}
	doc.add("pipelines", pipelines)
	if len(m.Sources) > 0 {
		var all ordered
		for _, name := range sortedKeys(m.Sources) {
			src := m.Sources[name]
			desc := ordered{{"items", object(plainMap(src.Items))}}
			if ids == nil && !m.V1 {
				desc.addOptions(src.Options)
			}
			all.add(name, desc)
		}
		doc.add("sources", all)
	}
	return doc, nil
}

// runners says which runner to write on which pipeline.
func (m *Manifest) runners(ids *IDs, hostRunner string) (map[*Pipeline]string, error) {
	out := map[*Pipeline]string{}
	if ids != nil {
		byID := map[string]string{}
		for _, p := range m.Pipelines {
			if id := ids.Build(p); id != "" {
				byID[id] = p.Build.Runner
				if byID[id] == "" {
					byID[id] = hostRunner
				}
			}
		}
		for _, p := range m.Pipelines {
			out[p] = byID[ids.Pipeline(p.Name)]
		}
		return out, nil
	}
	users := map[string]*Pipeline{} // build pipeline → the first that says its runner
	for _, p := range m.Pipelines {
		out[p] = p.Runner
		if p.Build == nil || p.Build.Runner == "" {
			continue
		}
		first := users[p.Build.Pipeline]
		switch build := m.Pipeline(p.Build.Pipeline); {
		case build == nil || build.Runner != "":
		case first == nil:
			users[build.Name], out[build] = p, p.Build.Runner
		case first.Build.Runner != p.Build.Runner:
			return nil, errorf("make the build root twice, under two names",
				"pipelines %q and %q are built in %q with different runners, %s and %s",
				first.Name, p.Name, build.Name, first.Build.Runner, p.Build.Runner)
		}
	}
	return out, nil
}

func describePipeline(p *Pipeline, ids *IDs, runner string) (ordered, error) {
	desc := ordered{{"name", p.Name}}
	switch {
	case p.Build == nil || p.Build.Pipeline == "":
	case ids == nil:
		desc.add("build", "name:"+p.Build.Pipeline)
	case ids.Build(p) != "":
		desc.add("build", ids.Build(p))
	}
	if runner != "" {
		desc.add("runner", runner)
	}
	if p.SourceEpoch != nil && ids == nil {
		desc.add("source-epoch", *p.SourceEpoch)
	}
	var all []any
	for i, s := range p.Stages {
		var at *stageIDs
		if ids != nil {
			v := ids.at(p, i)
			at = &v
		}
		stage, err := describeStage(s, at)
		if err != nil {
			return nil, fmt.Errorf("pipeline %q, stage %d (%s): %w", p.Name, i+1, s.Type, err)
		}
		all = append(all, stage)
	}
	if len(all) > 0 {
		desc.add("stages", all)
	}
	return desc, nil
}

// describeStage describes a stage; with ids in the way of --inspect.
func describeStage(s *Stage, ids *stageIDs) (ordered, error) {
	desc := ordered{{"type", s.Type}}
	if ids != nil {
		desc.add("id", ids.id)
	}
	desc.addStageOptions(s)
	if len(s.Inputs) > 0 {
		var all ordered
		for _, name := range sortedKeys(s.Inputs) {
			in := s.Inputs[name]
			if in == nil {
				return nil, errorf("", "input %q is nil", name)
			}
			d := ordered{{"type", in.Type}, {"origin", in.Origin}}
			refs := once(in.References)
			if in.Origin == OriginSource {
				slices.SortFunc(refs, func(a, b Reference) int { return strings.Compare(a.ID, b.ID) })
			}
			if ids != nil {
				refs = ids.refs[name]
			}
			var objects ordered
			for _, r := range refs {
				if r.ID == "" {
					r.ID = "null"
				}
				objects.add(r.ID, object(plainMap(r.Options)))
			}
			if len(objects) > 0 || ids == nil {
				d.add("references", objects)
			}
			d.addOptions(in.Options)
			all.add(name, d)
		}
		desc.add("inputs", all)
	}
	if len(s.Devices) > 0 {
		var all ordered
		for _, name := range sortedKeys(s.Devices) {
			dev := s.Devices[name]
			if dev == nil {
				return nil, errorf("", "device %q is nil", name)
			}
			d := ordered{{"type", dev.Type}}
			if dev.Parent != "" && ids == nil {
				d.add("parent", dev.Parent)
			}
			d.addOptions(dev.Options)
			all.add(name, d)
		}
		desc.add("devices", all)
	}
	if len(s.Mounts) > 0 {
		var all []any
		for i, mnt := range s.Mounts {
			if mnt == nil {
				return nil, errorf("", "mount %d is nil", i+1)
			}
			d := ordered{{"name", mnt.Name}, {"type", mnt.Type}}
			if mnt.Source != "" {
				d.add("source", mnt.Source)
			}
			if mnt.Partition != 0 {
				d.add("partition", mnt.Partition)
			}
			if mnt.Target != "" {
				d.add("target", mnt.Target)
			} else if ids != nil {
				d.add("target", nil)
			}
			d.addOptions(mnt.Options)
			all = append(all, d)
		}
		desc.add("mounts", all)
	}
	return desc, nil
}

// once is references without those that a later one of the same name replaces.
func once(refs []Reference) []Reference {
	at := make(map[string]int, len(refs))
	var out []Reference
	for _, r := range refs {
		if i, dup := at[r.ID]; dup {
			out[i] = r
			continue
		}
		at[r.ID] = len(out)
		out = append(out, r)
	}
	return out
}

// document1 describes a manifest that was read from version 1 in that form.
func (m *Manifest) document1(ids *IDs, hostRunner string) ordered {
	step := func(p *Pipeline, i int) ordered {
		s := p.Stages[i]
		desc := ordered{{"name", s.Type}}
		desc.addOptions(s.Options)
		if ids != nil {
			desc.add("id", ids.Stage(p, i))
		}
		return desc
	}
	var describe func(p *Pipeline) ordered
	describe = func(p *Pipeline) ordered {
		desc := ordered{}
		if p == nil {
			return desc
		}
		if p.Build != nil {
			build := m.Pipeline(p.Build.Pipeline)
			if build != nil && build != p && (ids == nil || ids.Build(p) != "") {
				runner := p.Build.Runner
				if runner == "" {
					runner = hostRunner
				}
				desc.add("build", ordered{{"pipeline", describe(build)}, {"runner", runner}})
			}
		}
		var all []any
		for i := range p.Stages {
			all = append(all, step(p, i))
		}
		if all != nil {
			desc.add("stages", all)
		}
		return desc
	}
	main := describe(m.Pipeline(v1Tree))
	if a := m.Pipeline(v1Assembler); a != nil && len(a.Stages) > 0 {
		main.add("assembler", step(a, 0))
	}
	doc := ordered{{"pipeline", main}}
	if len(m.Sources) > 0 {
		var all ordered
		for _, kind := range sortedKeys(m.Sources) {
			src := m.Sources[kind]
			name, key := kind, v1Items[kind]
			if kind == sourceCurl {
				name = sourceFiles
			}
			if key == "" {
				key = "items"
			}
			desc := ordered{{key, object(plainMap(src.Items))}}
			for _, k := range sortedKeys(src.Options) {
				desc.add(k, src.Options[k])
			}
			all.add(name, desc)
		}
		doc.add("sources", all)
	}
	return doc
}
