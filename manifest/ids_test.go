// Tests of identifiers, against those that upstream gave.

package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const conformance = "../testdata/conformance"

func mustLoad(t testing.TB, path string) *Manifest {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(data)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return m
}

func mustIDs(t testing.TB, m *Manifest) *IDs {
	t.Helper()
	ids, err := m.IDs()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: no files (%v)", pattern, err)
	}
	return paths
}

// Every identifier is the one that upstream gave.
func TestIDsOfStages(t *testing.T) {
	for _, path := range glob(t, conformance+"/cases/*.json") {
		m := mustLoad(t, path)
		ids := mustIDs(t, m)
		var got strings.Builder
		for _, p := range m.Pipelines {
			for i, s := range p.Stages {
				fmt.Fprintln(&got, p.Name, s.Type, ids.Stage(p, i))
			}
		}
		compareFile(t, strings.TrimSuffix(path, ".json")+".ids.txt", got.String())
	}
}

func TestIDsOfPipelines(t *testing.T) {
	for _, path := range glob(t, conformance+"/images/*.json") {
		m := mustLoad(t, path)
		ids := mustIDs(t, m)
		var got strings.Builder
		for _, p := range m.Pipelines {
			fmt.Fprintln(&got, p.Name, ids.Pipeline(p.Name))
		}
		compareFile(t, strings.TrimSuffix(path, ".json")+".ids.txt", got.String())
	}
}

func compareFile(t *testing.T, path, got string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// The parts of the worked examples, of which each hashed text is known.
func TestIDsOfParts(t *testing.T) {
	m := mustLoad(t, conformance+"/idexamples/ex3.json")
	ids := mustIDs(t, m)
	p := m.Pipelines[1]
	got := []string{ids.Stage(p, 0), ids.InputID(p, 0, "root-tree"), ids.DeviceID(p, 0, "root"), ids.MountID(p, 0, 0), ids.Pipeline("os"), ids.Pipeline("image")}
	want := []string{
		"eb6fb4de47f7c98c30d81ac56885b2307416c57001cc40ec724ce22ea52a258c",
		"ae76c418e4633b0de4df6cf9841ed1af552c8fd0b83807a426ecce2bf529a183",
		"3a0e7f0fd971f77c7bf0e69f697b48037a752c95b3fc4e1eeb79877886724c17",
		"741ddafaa82d398fa0d82ecd98647572945368e78ba6c220406970e7c1fae6b2",
		"beda46704765a47e6d4f44aff22168ae36866c9c0e6e11552b775b77776b2969",
		"eb6fb4de47f7c98c30d81ac56885b2307416c57001cc40ec724ce22ea52a258c",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if none := ids.Stage(p, 7) + ids.Stage(nil, 0) + ids.InputID(p, 0, "x") + ids.DeviceID(p, 0, "x") + ids.MountID(p, 0, 1) + ids.Pipeline("x") + ids.SourceID("x"); none != "" {
		t.Errorf("identifiers of nothing: %s", none)
	}

	m = mustLoad(t, conformance+"/idexamples/ex2.json")
	ids = mustIDs(t, m)
	if got, want := ids.Stage(m.Pipelines[1], 1), "70e8b89c113462128acf3cd32a203ba34d1ec9c2b272a1292c85c13dbe2e9d18"; got != want {
		t.Errorf("stage 2 of example 2: got %s, want %s", got, want)
	}
	if got, want := ids.Build(m.Pipelines[1]), ids.Pipeline(m.Pipelines[0].Name); got != want || got == "" {
		t.Errorf("build root: got %q, want %q", got, want)
	}
}

// Two names for one tree are one reference, and the last one's options hold.
func TestReferencesOfOneTree(t *testing.T) {
	noop := []*Stage{{Type: "org.osbuild.noop"}}
	in := &Input{Type: "org.osbuild.files", Origin: OriginPipeline, References: []Reference{
		{ID: "name:b", Options: map[string]any{"file": "one"}},
		{ID: "dropped"},
		{ID: "name:a", Options: map[string]any{"file": "two"}},
	}}
	m := &Manifest{Pipelines: []*Pipeline{
		{Name: "a", Stages: noop}, {Name: "b", Stages: noop},
		{Name: "os", Stages: []*Stage{{Type: "org.osbuild.noop", Inputs: map[string]*Input{"in": in}}}},
	}}
	ids := mustIDs(t, m)
	want := []Reference{{ID: ids.Pipeline("a"), Options: map[string]any{"file": "two"}}}
	if diff := cmp.Diff(want, ids.References(m.Pipelines[2], 0, "in")); diff != "" {
		t.Error(diff)
	}
}

func TestDevicesParentsFirst(t *testing.T) {
	d := func(parent string) *Device { return &Device{Type: "org.osbuild.loopback", Parent: parent} }
	m := &Manifest{Pipelines: []*Pipeline{{Name: "os", Stages: []*Stage{{
		Type: "org.osbuild.noop", Devices: map[string]*Device{"a": d("z"), "b": d(""), "m": d("a"), "z": d("")},
	}}}}}
	ids := mustIDs(t, m)
	got := ids.Devices(m.Pipelines[0], 0)
	for name, dev := range m.Pipelines[0].Stages[0].Devices {
		if dev.Parent != "" && slices.Index(got, dev.Parent) > slices.Index(got, name) {
			t.Errorf("%v: %s is before its parent %s", got, name, dev.Parent)
		}
	}
	if len(got) != 4 {
		t.Errorf("devices %v", got)
	}
}

func TestIDsErrors(t *testing.T) {
	stage := func(s *Stage) *Manifest {
		s.Type, s.Origin = "org.osbuild.noop", Origin{File: "BUILD.star", Line: 3}
		return &Manifest{Pipelines: []*Pipeline{{Name: "before"}, {Name: "os", Stages: []*Stage{s}}, {Name: "after"}}}
	}
	input := func(refs ...string) *Manifest {
		in := &Input{Origin: OriginPipeline}
		for _, r := range refs {
			in.References = append(in.References, Reference{ID: "name:" + r})
		}
		return stage(&Stage{Inputs: map[string]*Input{"in": in}})
	}
	tests := []struct {
		name string
		m    *Manifest
		want string
		hint string
	}{
		{"two of a name", &Manifest{Pipelines: []*Pipeline{{Name: "a"}, {Name: "a"}}}, `two pipelines are named "a"`, "own"},
		{"build", &Manifest{Pipelines: []*Pipeline{{Name: "a"}, {Name: "b", Build: &BuildRoot{Pipeline: "c"}}}}, `unknown pipeline reference: name:c`, "before it: a"},
		{"own build", &Manifest{Pipelines: []*Pipeline{{Name: "a", Build: &BuildRoot{Pipeline: "a"}}}}, `refers to itself`, "before"},
		{"unknown", input("nope"), "unknown pipeline reference: name:nope", "before it: before"},
		{"later", input("after"), "comes later", `put pipeline "after" before "os"`},
		{"itself", input("os"), "refers to itself", "before"},
		{"device", stage(&Stage{Mounts: []*Mount{{Name: "m", Source: "d"}}}), `unknown device "d" for mount "m"`, "device"},
		{"mounts", stage(&Stage{Mounts: []*Mount{{Name: "m"}, {Name: "m"}}}), `two mounts are named "m"`, "own"},
		{"parent", stage(&Stage{Devices: map[string]*Device{"a": {Parent: "b"}}}), `missing parent device "b" for "a"`, "device"},
		{"cycle", stage(&Stage{Devices: map[string]*Device{"a": {Parent: "b"}, "b": {Parent: "a"}}}), "cycle detected in the devices", "a, b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.m.IDs()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %s", err, test.want)
			}
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Hint, test.hint) {
				t.Fatalf("hint of %#v, want %s", e, test.hint)
			}
			for _, p := range test.m.Pipelines {
				if len(p.Stages) > 0 && e.Origin != p.Stages[0].Origin {
					t.Errorf("origin %v", e.Origin)
				}
			}
		})
	}
}

func TestFind(t *testing.T) {
	m := mustLoad(t, conformance+"/idexamples/ex3.json")
	ids := mustIDs(t, m)
	for _, name := range []string{"os", ids.Pipeline("os")} {
		if p := ids.Find(name); p != m.Pipelines[0] {
			t.Errorf("%s: found %v", name, p)
		}
	}
	if p := ids.Find("nope"); p != nil || ids.Find("") != nil {
		t.Errorf("found %v", p)
	}
}

func BenchmarkIDsAndInspect(b *testing.B) {
	m := mustLoad(b, conformance+"/bench/inspect-200-mixed.json")
	for b.Loop() {
		if _, err := m.Inspect(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadAndInspect(b *testing.B) {
	data, err := os.ReadFile(conformance + "/bench/inspect-200-mixed.json")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m, err := Load(data)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Inspect(); err != nil {
			b.Fatal(err)
		}
	}
}
