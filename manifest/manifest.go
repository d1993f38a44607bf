// Package manifest is the plan as plain data: pipelines, the stages they are made
// of, and the sources those read. It knows upstream osbuild's JSON both ways, its
// identifiers bit for bit, and its schema checks; it knows nothing of Starlark and
// runs nothing.
//
// A tour: [Load] reads a manifest that upstream osbuild understands (version 1 or
// 2); [Manifest.MarshalJSON] writes version 2; [Manifest.IDs] names every stage the
// way upstream does; [Manifest.Check] holds every option against the schema of its
// stage. Everything here is safe to share between goroutines once it is built and
// not changed any more.
package manifest

import (
	"bytes"
	"encoding/json"
)

// Manifest is a whole plan: pipelines in an order in which each refers only to
// earlier ones, and the sources that they read.
type Manifest struct {
	Pipelines []*Pipeline
	Sources   map[string]*Source // by source type, e.g. "org.osbuild.curl"
	Metadata  map[string]any     // upstream's "metadata" member, carried through

	// V1 says that the manifest was read from a document of version 1: results and
	// [Manifest.Inspect] answer in that form.
	V1 bool
}

// Pipeline is a sequence of stages that makes one tree.
type Pipeline struct {
	Name        string
	Build       *BuildRoot // nil: the host is the build root; see [IDs.Build]
	Stages      []*Stage
	SourceEpoch *int64 // seconds since 1970; newer time stamps are clamped to it
	Arch        string // architecture of the tree ("x86_64"); "" is the host's

	// Runner is the runner of the pipelines that are built in this one; upstream
	// writes it here, and not on the pipelines that use it.
	Runner string
}

// BuildRoot is the environment the stages of a pipeline run in: a runner and the
// tree that it belongs to.
type BuildRoot struct {
	Runner   string // e.g. "org.osbuild.debian12"; "" is the host's runner
	Program  string // "sha256:…" of a source item that is the runner, a user's own; Runner is its name then. In no ID
	Pipeline string // the name of the pipeline that makes the tree; "" is the host's tree
	Var      string // directory of the host that backs /var, absolute; "" for the default. In no ID
}

// Stage is one step of a pipeline.
type Stage struct {
	Type    string // e.g. "org.osbuild.hostname"
	Options map[string]any
	Inputs  map[string]*Input
	Devices map[string]*Device
	Mounts  []*Mount
	Origin  Origin // where in the rule files it was made; not part of its identity

	// Text is the JSON of Options in the order in which it was written, when that is
	// not the order of the names: several stages do things in the order in which
	// they are told. It is compact, and no part of the ID.
	Text json.RawMessage

	// Assembler marks the last step of a version 1 document: its program is among
	// upstream's assemblers, not its stages.
	Assembler bool
}

// Origin is a position in a rule file.
type Origin struct {
	File string // slash-separated, relative to the workspace
	Line int    // from 1; 0 when it is not known
	Col  int    // from 1
}

// Input is something a stage reads: files of a source, or a tree.
type Input struct {
	Type       string // e.g. "org.osbuild.tree"
	Origin     string // OriginSource or OriginPipeline
	References []Reference
	Options    map[string]any
}

// The two places an input can come from.
const (
	OriginSource   = "org.osbuild.source"
	OriginPipeline = "org.osbuild.pipeline"
)

// Reference names one thing of an input: an item of a source by its checksum
// ("sha256:…"), or a pipeline ("name:os").
type Reference struct {
	ID      string
	Options map[string]any
}

// Device is a block device made of a file of the tree.
type Device struct {
	Type    string
	Parent  string // name of another device of the stage, or ""
	Options map[string]any
}

// Mount is a file system that a stage sees below its mounts directory.
type Mount struct {
	Name      string
	Type      string
	Source    string // name of a device of the stage, or ""
	Partition int64  // 0: none
	Target    string
	Options   map[string]any
}

// Source is a set of items of one source type, each by its checksum.
type Source struct {
	Items   map[string]any // "sha256:…" → URL string, object, …
	Options map[string]any
}

// Values in Options, Items and Metadata are those encoding/json makes with
// UseNumber: nil, bool, string, json.Number, []any, map[string]any. An integer
// keeps its digits at any size.

// Pipeline returns the pipeline of that name, or nil.
func (m *Manifest) Pipeline(name string) *Pipeline {
	for _, p := range m.Pipelines {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// SetText keeps the order of a stage's options, given as JSON. It is left out when
// it says no more than Options.
func (s *Stage) SetText(text []byte) {
	s.Text = nil
	order := orderOf(text)
	if len(s.Options) == 0 || order == nil {
		return
	}
	sorted := appendJSON(nil, plainMap(s.Options))
	if written := appendJSON(nil, arranged(plainMap(s.Options), "", order)); !bytes.Equal(written, sorted) {
		s.Text = written
	}
}

// OptionsJSON is what a stage is given as its options.
func (s *Stage) OptionsJSON() json.RawMessage {
	if s.Text != nil {
		return s.Text
	}
	return appendJSON(nil, plainMap(object(s.Options)))
}
