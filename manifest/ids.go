// Identifiers: SHA-256 over canonical JSON, the same as upstream osbuild's for
// everything that upstream knows.

package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Error is a manifest that cannot be used, with a hint for the person who wrote it.
// Upstream ends with exit code 1 and a traceback where this is returned.
type Error struct {
	Msg    string
	Hint   string // what to do, or ""
	Origin Origin // of the stage, if it is known
}

func (e *Error) Error() string { return e.Msg }

func errorf(hint, format string, args ...any) *Error {
	return &Error{Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// IDs holds the identifiers of one manifest, as it was when [Manifest.IDs] made
// them. All are 64 lower-case hexadecimal digits; "" is upstream's null.
type IDs struct {
	m         *Manifest
	stages    map[*Pipeline][]stageIDs
	builds    map[*Pipeline]string
	pipelines map[string]string
}

type stageIDs struct {
	id      string
	inputs  map[string]string
	devices map[string]string
	order   []string // names of the devices, parents first
	mounts  []string
	refs    map[string][]Reference // of the inputs, resolved
}

// hash is the digest of canonical texts put together without a separator.
func hash(parts ...any) string {
	var buf [512]byte
	b := buf[:0]
	for _, p := range parts {
		b = appendCanonical(b, p)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// orNull is what an identifier is in hashed text.
func orNull(id string) any {
	if id == "" {
		return nil
	}
	return id
}

// object is what options are in hashed text: never null.
func object(options map[string]any) map[string]any {
	if options == nil {
		return map[string]any{}
	}
	return options
}

// IDs computes the identifiers of every stage and pipeline. It returns an *[Error]
// when two pipelines have one name, or when something refers to a pipeline that
// does not come before it, or to a device that the stage does not have, and when
// devices are parents of each other.
//
// The rules are upstream's. A stage's identifier covers its type, the identifiers
// of its build root and of the stage before it, its options, the source epoch,
// inputs and mounts; of the devices only what the mounts use. References of an
// input that come from a pipeline and do not start with "name:" do not count, and
// references to pipelines of the same identifier are one: the last one's options
// hold.
func (m *Manifest) IDs() (*IDs, error) {
	ids := &IDs{
		m:         m,
		stages:    make(map[*Pipeline][]stageIDs, len(m.Pipelines)),
		builds:    make(map[*Pipeline]string, len(m.Pipelines)),
		pipelines: make(map[string]string, len(m.Pipelines)),
	}
	for _, p := range m.Pipelines {
		if _, dup := ids.pipelines[p.Name]; dup {
			return nil, errorf("give each pipeline a name of its own", "two pipelines are named %q", p.Name)
		}
		if p.Build != nil && p.Build.Pipeline != "" {
			id, err := ids.resolve(p.Build.Pipeline, p)
			if err != nil {
				return nil, fmt.Errorf("build root of pipeline %q: %w", p.Name, err)
			}
			ids.builds[p] = id
		}
		base := ""
		all := make([]stageIDs, len(p.Stages))
		for i, s := range p.Stages {
			if err := ids.stage(&all[i], p, s, base); err != nil {
				if err.Origin == (Origin{}) {
					err.Origin = s.Origin
				}
				return nil, fmt.Errorf("pipeline %q, stage %d (%s): %w", p.Name, i+1, s.Type, err)
			}
			base = all[i].id
		}
		ids.stages[p] = all
		ids.pipelines[p.Name] = base
	}
	return ids, nil
}

func (ids *IDs) stage(out *stageIDs, p *Pipeline, s *Stage, base string) *Error {
	parts := []any{s.Type, orNull(ids.builds[p]), orNull(base), object(s.Options)}
	if p.SourceEpoch != nil {
		parts = append(parts, *p.SourceEpoch)
	}
	if len(s.Inputs) > 0 {
		out.inputs = make(map[string]string, len(s.Inputs))
		out.refs = make(map[string][]Reference, len(s.Inputs))
		all := make(map[string]any, len(s.Inputs))
		for _, name := range sortedKeys(s.Inputs) {
			in := s.Inputs[name]
			refs, err := ids.references(in, p)
			if err != nil {
				err.Msg = fmt.Sprintf("input %q: %s", name, err.Msg)
				return err
			}
			id := inputID(in, refs)
			out.refs[name], out.inputs[name], all[name] = refs, id, id
		}
		parts = append(parts, all)
	}
	if err := out.setDevices(s.Devices); err != nil {
		return err
	}
	if len(s.Mounts) > 0 {
		all := make([]any, len(s.Mounts))
		seen := make(map[string]bool, len(s.Mounts))
		for i, mnt := range s.Mounts {
			if seen[mnt.Name] {
				return errorf("give each mount of a stage a name of its own", "two mounts are named %q", mnt.Name)
			}
			seen[mnt.Name] = true
			id, err := out.mountID(mnt)
			if err != nil {
				return err
			}
			out.mounts, all[i] = append(out.mounts, id), id
		}
		parts = append(parts, all)
	}
	out.id = hash(parts...)
	return nil
}

func inputID(in *Input, refs []Reference) string {
	all := make(map[string]any, len(refs))
	for _, r := range refs {
		if r.ID == "" {
			r.ID = "null" // as Python writes the key None
		}
		all[r.ID] = object(r.Options)
	}
	return hash(in.Type, in.Origin, all, object(in.Options))
}

// references resolves what an input refers to: pipelines to identifiers, and each
// of them once.
func (ids *IDs) references(in *Input, p *Pipeline) ([]Reference, *Error) {
	out := make([]Reference, 0, len(in.References))
	at := make(map[string]int, len(in.References))
	for _, r := range in.References {
		if in.Origin == OriginPipeline {
			name, ok := strings.CutPrefix(r.ID, "name:")
			if !ok {
				continue
			}
			id, err := ids.resolve(name, p)
			if err != nil {
				return nil, err
			}
			r.ID = id
		}
		if i, dup := at[r.ID]; dup {
			out[i] = r
			continue
		}
		at[r.ID] = len(out)
		out = append(out, r)
	}
	if _, empty := at[""]; empty && len(out) > 1 && in.Origin == OriginPipeline {
		return nil, errorf("refer to it in an input of its own", "refers to a pipeline without stages and to others at once")
	}
	return out, nil
}

// resolve returns the identifier of a pipeline that comes before p.
func (ids *IDs) resolve(name string, p *Pipeline) (string, *Error) {
	if id, ok := ids.pipelines[name]; ok {
		return id, nil
	}
	switch {
	case name == p.Name:
		return "", errorf("a pipeline can use only those before it", "pipeline %q refers to itself", name)
	case ids.m.Pipeline(name) != nil:
		return "", errorf(fmt.Sprintf("put pipeline %q before %q", name, p.Name), "unknown pipeline reference: name:%s comes later", name)
	}
	hint := "the manifest has no other pipelines before it"
	if names := sortedKeys(ids.pipelines); len(names) > 0 {
		hint = "pipelines before it: " + strings.Join(names, ", ")
	}
	return "", errorf(hint, "unknown pipeline reference: name:%s", name)
}

// setDevices sorts the devices, parents first and otherwise by name, and names them.
func (out *stageIDs) setDevices(devices map[string]*Device) *Error {
	if len(devices) == 0 {
		return nil
	}
	out.devices = make(map[string]string, len(devices))
	todo := sortedKeys(devices)
	for len(todo) > 0 {
		var later []string
		for _, name := range todo {
			d := devices[name]
			parts := []any{d.Type}
			if d.Parent != "" {
				if devices[d.Parent] == nil {
					return errorf("the parent is the name of another device of the stage", "missing parent device %q for %q", d.Parent, name)
				}
				parent, ok := out.devices[d.Parent]
				if !ok {
					later = append(later, name)
					continue
				}
				parts = append(parts, parent)
			}
			out.devices[name] = hash(append(parts, object(d.Options))...)
			out.order = append(out.order, name)
		}
		if len(later) == len(todo) {
			return errorf("devices cannot be parents of each other: "+strings.Join(todo, ", "), "cycle detected in the devices")
		}
		todo = later
	}
	return nil
}

func (out *stageIDs) mountID(mnt *Mount) (string, *Error) {
	parts := []any{mnt.Type}
	if mnt.Source != "" {
		id, ok := out.devices[mnt.Source]
		if !ok {
			return "", errorf("the source is the name of a device of the stage", "unknown device %q for mount %q", mnt.Source, mnt.Name)
		}
		parts = append(parts, id)
	}
	if mnt.Partition != 0 {
		parts = append(parts, mnt.Partition)
	}
	if mnt.Target != "" {
		parts = append(parts, mnt.Target)
	}
	return hash(append(parts, object(mnt.Options))...), nil
}

func (ids *IDs) at(p *Pipeline, i int) stageIDs {
	if all := ids.stages[p]; i >= 0 && i < len(all) {
		return all[i]
	}
	return stageIDs{}
}

// Stage returns the identifier of the i-th stage of p, "" if there is none.
func (ids *IDs) Stage(p *Pipeline, i int) string { return ids.at(p, i).id }

// Pipeline returns the identifier of the tree that a pipeline makes: that of its
// last stage, "" when it has none or when there is no such pipeline.
func (ids *IDs) Pipeline(name string) string { return ids.pipelines[name] }

// Build returns the identifier of the tree that is the build root of p. It is ""
// when that is the host: p has no build root, or one whose pipeline has no stages.
func (ids *IDs) Build(p *Pipeline) string { return ids.builds[p] }

// InputID returns the identifier of an input of the i-th stage of p.
func (ids *IDs) InputID(p *Pipeline, i int, name string) string { return ids.at(p, i).inputs[name] }

// References returns what an input of the i-th stage of p refers to, once each,
// with the identifier of the pipeline in place of "name:…" ("" for one without
// stages).
func (ids *IDs) References(p *Pipeline, i int, name string) []Reference {
	return ids.at(p, i).refs[name]
}

// DeviceID returns the identifier of a device of the i-th stage of p.
func (ids *IDs) DeviceID(p *Pipeline, i int, name string) string { return ids.at(p, i).devices[name] }

// Devices returns the names of the devices of the i-th stage of p in the order in
// which they must be opened: parents first.
func (ids *IDs) Devices(p *Pipeline, i int) []string { return ids.at(p, i).order }

// MountID returns the identifier of the n-th mount of the i-th stage of p.
func (ids *IDs) MountID(p *Pipeline, i, n int) string {
	if mounts := ids.at(p, i).mounts; n >= 0 && n < len(mounts) {
		return mounts[n]
	}
	return ""
}

// SourceID returns what upstream's monitors call the source of that type, "" if the
// manifest has none.
func (ids *IDs) SourceID(sourceType string) string {
	src := ids.m.Sources[sourceType]
	if src == nil {
		return ""
	}
	return hash(sourceType, object(src.Items))
}

// Find returns the pipeline of that name, else the first one of that identifier,
// else nil: what upstream's --export takes.
func (ids *IDs) Find(nameOrID string) *Pipeline {
	if p := ids.m.Pipeline(nameOrID); p != nil || nameOrID == "" {
		return p
	}
	for _, p := range ids.m.Pipelines {
		if ids.pipelines[p.Name] == nameOrID {
			return p
		}
	}
	return nil
}
