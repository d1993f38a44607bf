// Tests of reading manifests, and of what is refused.

package manifest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// anything takes any stage and assembler, and is Builtin else.
type anything struct{ Modules }

func (anything) Stage(name string) *ModuleSchema {
	if name != "org.osbuild.noop" && name != "org.osbuild.copy" && name != "org.osbuild.error" && name != "org.osbuild.machine-id" {
		return builtin.Stage(name)
	}
	return NewModuleSchema(StageModule, name, nil, []byte(`{"options": {}, "inputs": {}, "devices": {}, "mounts": {}}`))
}

// Upstream's exit code and JSON for manifests that must fail, before anything runs.
func TestUpstreamsErrors(t *testing.T) {
	later := map[string]bool{ // what goes wrong in the build, or needs the runners
		"checksum-mismatch": true, "empty-pipeline": true, "stage-exception": true, "stage-fails": true, "runner-unknown": true, "v1-build": true,
	}
	for _, path := range glob(t, conformance+"/errors/*.json") {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			expected, err := os.ReadFile(filepath.Join(conformance, "errors/expected", name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			code := strings.TrimPrefix(strings.SplitN(string(expected), "\n", 2)[0], "exit-code: ")
			if later[name] {
				code = "0"
			}
			_, err = LoadChecked(data, anything{Builtin()})
			var invalid *ValidationError
			var version *UnsupportedVersionError
			var plain *Error
			switch {
			case err == nil:
				if code != "0" {
					t.Errorf("it was loaded; upstream ends with %s", code)
				}
			case errors.As(err, &invalid):
				_, text, _ := strings.Cut(string(expected), "removed):\n")
				text, _, _ = strings.Cut(text, "last stderr line:")
				compareJSON(t, []byte(text), marshal(t, invalid))
				if code != "2" || invalid.ExitCode() != 2 {
					t.Errorf("%v; upstream ends with %s", err, code)
				}
			case errors.As(err, &version):
				if code != "2" || !strings.Contains(err.Error(), `"3"`) {
					t.Errorf("%v; upstream ends with %s", err, code)
				}
			case !errors.As(err, &plain) || plain.Hint == "" || code != "1":
				t.Errorf("%v (hint %+v); upstream ends with %s", err, plain, code)
			}
		})
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func compareJSON(t *testing.T, want, got []byte) {
	t.Helper()
	w, err := decodeJSON(want)
	if err != nil {
		t.Fatalf("wanted: %v\n%s", err, want)
	}
	g, err := decodeJSON(got)
	if err != nil {
		t.Fatalf("got: %v\n%s", err, got)
	}
	if diff := cmp.Diff(w, g, cmp.Comparer(func(a, b json.Number) bool { return string(Canonical(a)) == string(Canonical(b)) })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoad(t *testing.T) {
	epoch := int64(1700000000)
	const text = `{
  "version": "2",
  "metadata": {"generators": [{"name": "me"}]},
  "sources": {"org.osbuild.inline": {"items": {"sha256:a": {"encoding": "base64", "data": "aGk="}, "sha256:b": 1}, "options": {"x": 1}}},
  "pipelines": [
    {"name": "build", "runner": "org.osbuild.fedora38", "stages": [{"type": "org.osbuild.noop", "options": {}}]},
    {"name": "os", "build": "name:build", "runner": "org.osbuild.linux", "source-epoch": 1700000000, "stages": [{
      "type": "org.osbuild.copy",
      "options": {"n": 12345678901234567890123, "f": 1.50},
      "inputs": {
        "tree": {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": [{"id": "name:build", "options": {}}]},
        "files": {"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": ["sha256:b", "sha256:a", "sha256:b"], "options": {"o": true}}
      },
      "devices": {"d": {"type": "org.osbuild.loopback", "parent": "e", "options": {"filename": "x"}}, "e": {"type": "org.osbuild.loopback"}},
      "mounts": [{"name": "m", "type": "org.osbuild.ext4", "source": "d", "partition": 3, "target": "/", "options": {"readonly": true}}]
    }]},
    {"name": "image", "build": "beda46704765a47e6d4f44aff22168ae36866c9c0e6e11552b775b77776b2969"}
  ]
}`
	want := &Manifest{
		Metadata: map[string]any{"generators": []any{map[string]any{"name": "me"}}},
		Sources: map[string]*Source{"org.osbuild.inline": {
			Items:   map[string]any{"sha256:a": map[string]any{"encoding": "base64", "data": "aGk="}, "sha256:b": json.Number("1")},
			Options: map[string]any{"x": json.Number("1")},
		}},
		Pipelines: []*Pipeline{
			{Name: "build", Runner: "org.osbuild.fedora38", Stages: []*Stage{{Type: "org.osbuild.noop"}}},
			{Name: "os", Runner: "org.osbuild.linux", SourceEpoch: &epoch, Build: &BuildRoot{Runner: "org.osbuild.fedora38", Pipeline: "build"}, Stages: []*Stage{{
				Type:    "org.osbuild.copy",
				Options: map[string]any{"n": json.Number("12345678901234567890123"), "f": json.Number("1.50")},
				Text:    json.RawMessage(`{"n":12345678901234567890123,"f":1.50}`),
				Inputs: map[string]*Input{
					"tree":  {Type: "org.osbuild.tree", Origin: OriginPipeline, References: []Reference{{ID: "name:build"}}},
					"files": {Type: "org.osbuild.files", Origin: OriginSource, References: []Reference{{ID: "sha256:a"}, {ID: "sha256:b"}}, Options: map[string]any{"o": true}},
				},
				Devices: map[string]*Device{
					"d": {Type: "org.osbuild.loopback", Parent: "e", Options: map[string]any{"filename": "x"}},
					"e": {Type: "org.osbuild.loopback"},
				},
				Mounts: []*Mount{{Name: "m", Type: "org.osbuild.ext4", Source: "d", Partition: 3, Target: "/", Options: map[string]any{"readonly": true}}},
			}}},
			{Name: "image", Build: &BuildRoot{Runner: "org.osbuild.fedora38", Pipeline: "build"}},
		},
	}
	got, err := Load([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Of two build roots that are one tree, the runner of the last one counts.
func TestLoadRunnersOfOneTree(t *testing.T) {
	m := mustLoad(t, "testdata/inspect/runners.json")
	got := map[string]string{}
	for _, p := range m.Pipelines {
		if p.Build != nil {
			got[p.Name] = p.Build.Runner
		}
	}
	want := map[string]string{"os": "org.osbuild.rhel82", "os3": "org.osbuild.linux"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadV1(t *testing.T) {
	m := mustLoad(t, "testdata/inspect/v1-full.json")
	z, o, two := "sha256:"+strings.Repeat("0", 64), "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	build := &BuildRoot{Runner: "org.osbuild.rhel82", Pipeline: "build"}
	want := &Manifest{
		V1: true,
		Sources: map[string]*Source{"org.osbuild.curl": {Items: map[string]any{
			z: "https://example.com/z", o: map[string]any{"url": "https://example.com/o"},
		}}},
		Pipelines: []*Pipeline{
			{Name: "build-build", Runner: "org.osbuild.linux", Stages: []*Stage{{Type: "org.osbuild.noop"}}},
			{Name: "build", Runner: "org.osbuild.rhel82", Build: &BuildRoot{Runner: "org.osbuild.linux", Pipeline: "build-build"},
				Stages: []*Stage{{Type: "org.osbuild.noop", Options: map[string]any{"x": json.Number("1")}}}},
			{Name: "tree", Build: build, Stages: []*Stage{
				{
					Type: "org.osbuild.rpm",
					Options: map[string]any{"packages": []any{z, map[string]any{"checksum": o, "check_gpg": true},
						map[string]any{"checksum": two, "check_gpg": false}}},
					Inputs: map[string]*Input{"packages": {Type: "org.osbuild.files", Origin: OriginSource, References: []Reference{
						{ID: z}, {ID: o, Options: map[string]any{"metadata": map[string]any{"rpm.check_gpg": true}}}, {ID: two},
					}}},
				},
				{Type: "org.osbuild.noop"},
			}},
			{Name: "assembler", Build: build, Stages: []*Stage{{
				Type: "org.osbuild.tar", Assembler: true, Options: map[string]any{"filename": "a.tar"},
				Inputs: map[string]*Input{"tree": {Type: "org.osbuild.tree", Origin: OriginPipeline, References: []Reference{{ID: "name:tree"}}}},
			}}},
		},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadErrors(t *testing.T) {
	tests := []struct{ name, text, want, hint string }{
		{"a list", `[]`, "a manifest is a JSON object", "version"},
		{"no name", `{"version":"2","pipelines":[{}]}`, "pipeline 1 has no name", "name"},
		{"other name", `{"version":"2","pipelines":[{"name":1}]}`, "pipeline 1 has a name that is not a string", "name"},
		{"empty build", `{"version":"2","pipelines":[{"name":"a","build":""}]}`, `pipeline "a": the build root is an empty name`, "host"},
		{"epoch", `{"version":"2","pipelines":[{"name":"a","source-epoch":99999999999999999999}]}`, `pipeline "a": source-epoch 99999999999999999999 is out of range`, "seconds"},
		{"no type", `{"version":"2","pipelines":[{"name":"a","stages":[{"type":""}]}]}`, `pipeline "a", stage 1 (): it has no type`, "org.osbuild"},
		{"items", `{"version":"2","sources":{"x":{"items":["a"]}}}`, "the items of source x are a list", "object"},
		{"unknown items", `{"version":"2","pipelines":[{"name":"a","stages":[{"type":"x","inputs":{"i":{"type":"x","origin":"org.osbuild.source","references":["b","a"]}}}]}]}`,
			`pipeline "a", stage 1 (x): input "i": unknown source reference(s) b, a`, "source"},
		{"raw build", `{"version":"2","pipelines":[{"name":"a"},{"name":"b","build":"a"}]}`, `pipeline "b": no pipeline before it makes the build root a`, `"name:a"`},
		{"partition", `{"version":"2","pipelines":[{"name":"a","stages":[{"type":"x","mounts":[{"name":"m","type":"x","partition":1.5}]}]}]}`,
			`pipeline "a", stage 1 (x): mount "m": partition 1.5 is not a whole number`, "from 1"},
		{"options", `{"version":"2","pipelines":[{"name":"a","stages":[{"type":"x","inputs":{"i":{"type":"x","origin":"org.osbuild.source","references":{"b":1}}}}]}]}`,
			`pipeline "a", stage 1 (x): input "i": the options of reference "b" are 1`, "object"},
		{"v1 source", `{"sources":{"org.osbuild.inline":{}}}`, "source org.osbuild.inline is not known to version 1", "version 2"},
		{"v1 urls", `{"sources":{"org.osbuild.files":{"items":{}}}}`, `source org.osbuild.files has no member "urls"`, "object"},
		{"v1 rpm", `{"pipeline":{"stages":[{"name":"org.osbuild.rpm"}]}}`, `pipeline "tree", stage 1 (org.osbuild.rpm): it has no packages`, "checksums"},
		{"v1 package", `{"pipeline":{"stages":[{"name":"org.osbuild.rpm","options":{"packages":[1]}}]}}`, `a package is named by 1`, "sha256"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %s", err, test.want)
			}
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Hint, test.hint) {
				t.Errorf("hint of %#v, want %s", e, test.hint)
			}
		})
	}
}

// What is loaded can be written, is the same when it is loaded again, and has the
// same identifiers.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{conformance + "/errors/*.json", conformance + "/idexamples/*.json", "testdata/inspect/*.json", "testdata/invalid/*.json"} {
		for _, path := range glob(f, pattern) {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := LoadChecked(data, Builtin())
		if err != nil {
			if m != nil || err.Error() == "" {
				t.Fatalf("%v with %v", m, err)
			}
			if m, err = Load(data); err != nil {
				return
			}
		}
		before, err := m.Inspect()
		if err != nil {
			t.Fatal(err)
		}
		text, err := m.Format()
		if err != nil || m.V1 {
			return // version 1 says things that version 2 cannot
		}
		again, err := Load(text)
		if err != nil {
			t.Fatalf("%v of\n%s", err, text)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatal(diff)
		}
		after, err := again.Inspect()
		if err != nil || string(after) != string(before) {
			t.Fatalf("%v: %s\nbecame %s", err, before, after)
		}
	})
}
