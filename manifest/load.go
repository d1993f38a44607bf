// Reading manifests: which version a document has, and version 2 of it.

package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// UnsupportedVersionError is a document of a version that nobody reads. Upstream
// prints "Unsupported manifest format" and ends with exit code 2.
type UnsupportedVersionError struct {
	Version any // what the document has in its place
}

func (e *UnsupportedVersionError) Error() string {
	return fmt.Sprintf(`unsupported manifest format: version %s, known are "1" and "2"`, Canonical(e.Version))
}

// Load reads a manifest of version 1 or 2 and checks its form, but not the options
// of its modules: see [LoadChecked].
//
// It returns a *[ValidationError] for a document that is not a manifest, an
// *[UnsupportedVersionError], or a plain error (an *[Error], if it is about what
// the manifest says) where upstream ends with a traceback: names that are not
// unique, references to nothing, cycles.
//
// In the result each pipeline has the runner it is built with in Build.Runner, and
// the one that was written on it in Runner. A build root given by its identifier is
// replaced by the name of the pipeline that makes it; references of inputs to
// pipelines that do not start with "name:" have no effect in upstream, and are left
// out; those to items of sources are sorted.
func Load(data []byte) (*Manifest, error) { return LoadChecked(data, nil) }

// LoadChecked is [Load] with the checks of [Manifest.Check] on the document as it
// was written, before anything else, as upstream does it. Nil mods check the form
// only.
func LoadChecked(data []byte, mods Modules) (*Manifest, error) {
	v, err := decodeJSON(data)
	if err != nil {
		return nil, fmt.Errorf("the manifest is not JSON: %w", err)
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, errorf("it starts with {\"version\": \"2\", …", "a manifest is a JSON object, not a list or a single value")
	}
	version := 1
	if v, ok := doc["version"]; ok {
		switch v {
		case "1":
		case "2":
			version = 2
		default:
			return nil, &UnsupportedVersionError{Version: v}
		}
	}
	order := sync.OnceValue(func() keyOrder { return orderOf(data) })
	if err := checkDocument(doc, version, mods, order); err != nil {
		return nil, err
	}
	if version == 1 {
		return load1(doc)
	}
	m, err := load2(doc, order)
	if err == nil {
		m.keepTexts(data)
	}
	return m, err
}

// keepTexts gives the stages of a version 2 document their options as written.
func (m *Manifest) keepTexts(data []byte) {
	var doc struct {
		Pipelines []struct {
			Stages []struct {
				Options json.RawMessage `json:"options"`
			} `json:"stages"`
		} `json:"pipelines"`
	}
	if json.Unmarshal(data, &doc) != nil || len(doc.Pipelines) != len(m.Pipelines) {
		return
	}
	for i, p := range m.Pipelines {
		for j, s := range p.Stages {
			if j < len(doc.Pipelines[i].Stages) {
				s.SetText(doc.Pipelines[i].Stages[j].Options)
			}
		}
	}
}

// The getters below serve documents whose form was checked.

func text(m map[string]any, key string) string { s, _ := m[key].(string); return s }

func members(m map[string]any, key string) map[string]any {
	o, _ := m[key].(map[string]any)
	return o
}

// options reads an object that may be left out; an empty one is left out too.
func options(m map[string]any) map[string]any {
	if o := members(m, "options"); len(o) > 0 {
		return o
	}
	return nil
}

func items(m map[string]any, key string) []any { a, _ := m[key].([]any); return a }

func load2(doc map[string]any, order func() keyOrder) (*Manifest, error) {
	m := &Manifest{}
	if meta := members(doc, "metadata"); len(meta) > 0 {
		m.Metadata = meta
	}
	l := loader2{m: m, order: order, known: map[string]bool{}, raw: map[*Pipeline]string{}}
	sources := members(doc, "sources")
	for _, name := range sortedKeys(sources) {
		desc, _ := sources[name].(map[string]any)
		all, ok := desc["items"].(map[string]any)
		if !ok {
			return nil, errorf("write them as an object: checksum → where it is from", "the items of source %s are a list", name)
		}
		for id := range all {
			l.known[id] = true
		}
		if m.Sources == nil {
			m.Sources = map[string]*Source{}
		}
		m.Sources[name] = &Source{Items: all, Options: options(desc)}
	}
	for i, p := range items(doc, "pipelines") {
		p, _ := p.(map[string]any)
		if err := l.pipeline(p, i); err != nil {
			return nil, err
		}
	}
	if err := l.rawBuilds(); err != nil {
		return nil, err
	}
	ids, err := m.IDs()
	if err != nil {
		return nil, err
	}
	m.placeRunners(ids)
	return m, nil
}

// placeRunners gives each pipeline the runner that is written on its build root. Of
// pipelines that make the same tree the last one's counts, as in upstream.
func (m *Manifest) placeRunners(ids *IDs) {
	runners := map[string]string{}
	for _, p := range m.Pipelines {
		runners[ids.Pipeline(p.Name)] = p.Runner
	}
	for _, p := range m.Pipelines {
		if id := ids.Build(p); id != "" {
			p.Build.Runner = runners[id]
		}
	}
}

// loader2 reads the pipelines of one document.
type loader2 struct {
	m     *Manifest
	order func() keyOrder
	known map[string]bool      // items of all sources
	raw   map[*Pipeline]string // build roots that are given by identifier
}

func (l *loader2) pipeline(desc map[string]any, i int) error {
	name, ok := desc["name"].(string)
	if !ok {
		return errorf("add \"name\": \"…\"", "pipeline %d %s", i+1, either(desc["name"] == nil, "has no name", "has a name that is not a string"))
	}
	at := pointer("/pipelines", i)
	p := &Pipeline{Name: name, Runner: text(desc, "runner")}
	if build, ok := desc["build"].(string); ok {
		if build == "" {
			return errorf("leave it out to build on the host", "pipeline %q: the build root is an empty name", name)
		}
		p.Build = &BuildRoot{}
		if name, ok := strings.CutPrefix(build, "name:"); ok {
			p.Build.Pipeline = name
		} else {
			l.raw[p] = build
		}
	}
	if n, ok := desc["source-epoch"].(json.Number); ok {
		epoch, err := strconv.ParseInt(string(n), 10, 64)
		if err != nil {
			return errorf("it is in seconds since 1970", "pipeline %q: source-epoch %s is out of range", name, n)
		}
		p.SourceEpoch = &epoch
	}
	for i, s := range items(desc, "stages") {
		s, _ := s.(map[string]any)
		stage, err := l.stage(s, pointer(pointer(at, "stages"), i))
		if err != nil {
			return fmt.Errorf("pipeline %q, stage %d (%s): %w", name, i+1, text(s, "type"), err)
		}
		p.Stages = append(p.Stages, stage)
	}
	l.m.Pipelines = append(l.m.Pipelines, p)
	return nil
}

const typeHint = `give the name of a module, like "type": "org.osbuild.…"`

func (l *loader2) stage(desc map[string]any, at string) (*Stage, error) {
	s := &Stage{Type: text(desc, "type"), Options: options(desc)}
	if s.Type == "" {
		return nil, errorf(typeHint, "it has no type")
	}
	for name, x := range members(desc, "devices") {
		d, _ := x.(map[string]any)
		if s.Devices == nil {
			s.Devices = map[string]*Device{}
		}
		if text(d, "type") == "" {
			return nil, errorf(typeHint, "device %q has no type", name)
		}
		s.Devices[name] = &Device{Type: text(d, "type"), Parent: text(d, "parent"), Options: options(d)}
	}
	inputs := members(desc, "inputs")
	for _, name := range sortedKeys(inputs) {
		in, _ := inputs[name].(map[string]any)
		if text(in, "type") == "" {
			return nil, errorf(typeHint, "input %q has no type", name)
		}
		refs, err := l.references(in, pointer(pointer(at, "inputs"), name))
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", name, err)
		}
		if s.Inputs == nil {
			s.Inputs = map[string]*Input{}
		}
		s.Inputs[name] = &Input{Type: text(in, "type"), Origin: text(in, "origin"), References: refs, Options: options(in)}
	}
	for _, x := range items(desc, "mounts") {
		mnt, _ := x.(map[string]any)
		if text(mnt, "type") == "" {
			return nil, errorf(typeHint, "mount %q has no type", text(mnt, "name"))
		}
		number, err := partitionOf(mnt)
		if err != nil {
			return nil, err
		}
		s.Mounts = append(s.Mounts, &Mount{
			Name: text(mnt, "name"), Type: text(mnt, "type"), Source: text(mnt, "source"),
			Partition: number, Target: text(mnt, "target"), Options: options(mnt),
		})
	}
	return s, nil
}

func partitionOf(mnt map[string]any) (int64, error) {
	n, ok := mnt["partition"].(json.Number)
	if !ok {
		return 0, nil
	}
	number, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil {
		return 0, errorf("partitions are counted from 1", "mount %q: partition %s is not a whole number", text(mnt, "name"), n)
	}
	return number, nil
}

// references reads the references of an input in any of their forms.
func (l *loader2) references(in map[string]any, at string) ([]Reference, error) {
	var refs []Reference
	where := map[string]int{}
	add := func(id string, x any) error {
		opts, ok := x.(map[string]any)
		if !ok && !falsy(x) {
			return errorf("they are an object", "the options of reference %q are %s", id, Canonical(x))
		}
		if len(opts) == 0 {
			opts = nil
		}
		r := Reference{ID: id, Options: opts}
		if i, dup := where[id]; dup {
			refs[i] = r
			return nil
		}
		where[id] = len(refs)
		refs = append(refs, r)
		return nil
	}
	switch all := in["references"].(type) {
	case map[string]any:
		keys := sortedKeys(all)
		if len(keys) > 1 && text(in, "origin") == OriginPipeline {
			keys = l.order().keys(pointer(at, "references"), all) // which one is the last decides
		}
		for _, id := range keys {
			if err := add(id, all[id]); err != nil {
				return nil, err
			}
		}
	case []any:
		for _, r := range all {
			id, isText := r.(string)
			o, _ := r.(map[string]any)
			if !isText {
				id = text(o, "id")
			}
			if err := add(id, o["options"]); err != nil {
				return nil, err
			}
		}
	}
	if text(in, "origin") == OriginPipeline {
		var named []Reference
		for _, r := range refs {
			if strings.HasPrefix(r.ID, "name:") {
				named = append(named, r)
			}
		}
		return named, nil
	}
	var unknown []string
	for _, r := range refs {
		if !l.known[r.ID] {
			unknown = append(unknown, r.ID)
		}
	}
	slices.SortFunc(refs, func(a, b Reference) int { return strings.Compare(a.ID, b.ID) })
	if unknown != nil {
		return nil, errorf("add them to the items of a source", "unknown source reference(s) %s", strings.Join(unknown, ", "))
	}
	return refs, nil
}

// falsy tells whether Python takes a value for false.
func falsy(x any) bool {
	switch x := x.(type) {
	case nil:
		return true
	case bool:
		return !x
	case string:
		return x == ""
	case []any:
		return len(x) == 0
	case map[string]any:
		return len(x) == 0
	}
	n, ok := numberText(x)
	return ok && compareNumbers(n, "0") == 0
}

// rawBuilds finds the pipelines that build roots name by their identifiers.
func (l *loader2) rawBuilds() error {
	if len(l.raw) == 0 {
		return nil
	}
	for i, p := range l.m.Pipelines {
		id, ok := l.raw[p]
		if !ok {
			continue
		}
		before := &Manifest{Pipelines: l.m.Pipelines[:i]}
		ids, err := before.IDs()
		if err != nil {
			return err
		}
		found := ""
		for _, q := range before.Pipelines {
			if ids.Pipeline(q.Name) == id {
				found = q.Name
			}
		}
		if found == "" {
			hint := "name a pipeline that comes before it, as in \"name:build\""
			if before.Pipeline(id) != nil {
				hint = fmt.Sprintf("write %q", "name:"+id)
			}
			return errorf(hint, "pipeline %q: no pipeline before it makes the build root %s", p.Name, id)
		}
		p.Build.Pipeline = found
	}
	return nil
}
