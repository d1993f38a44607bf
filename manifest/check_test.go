// Tests of schema checks: what is found, and how it is worded.

package manifest

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/osbuild-star/osbuild-star/stages"
)

// The files beside the manifests are what upstream printed; "traceback" where its
// check came to no end.
func TestInvalid(t *testing.T) {
	for _, path := range glob(t, "testdata/invalid/*.json") {
		t.Run(path, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(path, ".json") + ".errors")
			if err != nil {
				t.Fatal(err)
			}
			_, err = LoadChecked(data, anything{Builtin()})
			var invalid *ValidationError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v", err)
			}
			if died := string(want) == "traceback\n"; died != invalid.Malformed || died != (invalid.ExitCode() == 1) {
				t.Errorf("exit code %d for %v", invalid.ExitCode(), err)
			} else if !died {
				compareJSON(t, shorten(t, want), shorten(t, marshal(t, invalid)))
			}
		})
	}
}

// shorten cuts schemas out of messages: ours are written in other words.
func shorten(t *testing.T, report []byte) []byte {
	t.Helper()
	var v struct {
		Type, Title string
		Success     bool
		Errors      []SchemaError
	}
	if err := json.Unmarshal(report, &v); err != nil {
		t.Fatal(err)
	}
	for i := range v.Errors {
		m := &v.Errors[i].Message
		if head, _, ok := strings.Cut(*m, "is valid under each of"); ok {
			*m = head + "is valid under each of …"
		}
	}
	return marshal(t, v)
}

func TestCheck(t *testing.T) {
	m := &Manifest{
		Pipelines: []*Pipeline{{Name: "os", Stages: []*Stage{
			{Type: "org.osbuild.noop"},
			{Type: "org.osbuild.hostname", Options: map[string]any{"hostname": 42, "hostnme": "x"}},
			{Type: "org.osbuild.nope"},
		}}},
		Sources: map[string]*Source{"org.osbuild.inline": {}},
	}
	err := m.Check(anything{Builtin()})
	var invalid *ValidationError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, e := range invalid.Errors {
		got = append(got, e.String())
	}
	want := []string{
		".pipelines[0].stages[1].options: Additional properties are not allowed ('hostnme' was unexpected)",
		".pipelines[0].stages[1].options.hostname: 42 is not of type 'string'",
		".pipelines[0].stages[2]: could not find schema information for 'org.osbuild.nope'",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(err.Error(), want[0]+" (and 2 more)") {
		t.Errorf("text: %v", err)
	}
	for _, path := range glob(t, "testdata/inspect/v1-*.json") {
		if err := mustLoad(t, path).Check(everything{Builtin()}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// everything is Builtin with every stage there may be.
type everything struct{ Modules }

func (everything) Stage(name string) *ModuleSchema {
	return NewModuleSchema(StageModule, name, nil, []byte(`{"options": {}, "inputs": {}}`))
}

func TestCheckStage(t *testing.T) {
	s := &Stage{
		Type:    "org.osbuild.hostname",
		Devices: map[string]*Device{"d": {Type: "org.osbuild.loopback", Options: map[string]any{"start": "x"}}},
		Mounts:  []*Mount{{Name: "m", Type: "org.osbuild.ext4", Source: "d"}},
	}
	want := []SchemaError{
		{"'filename' is a required property", []any{"devices", "d", "options"}},
		{"'x' is not of type 'number'", []any{"devices", "d", "options", "start"}},
		{"'target' is a required property", []any{"mounts", "m"}},
		{"'hostname' is a required property", []any{"options"}},
	}
	if diff := cmp.Diff(want, CheckStage(Builtin(), s)); diff != "" {
		t.Error(diff)
	}
	s = &Stage{Type: "org.osbuild.hostname", Options: map[string]any{"hostname": "x"}}
	if errs := CheckStage(Builtin(), s); len(errs) > 0 {
		t.Error(errs)
	}
}

// Places are sorted as texts, and written as upstream's are.
func TestPlace(t *testing.T) {
	for want, path := range map[string][]any{
		".":                nil,
		".a[0].b":          {"a", 0, "b"},
		".'a b'[10].c-d":   {"a b", 10, "c-d"},
		".sources.sha256:": {"sources", "sha256:"},
	} {
		if got := (SchemaError{Path: path}).Place(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Manifests that upstream builds are valid here too, as far as their stages are
// known here.
func TestCasesAreValid(t *testing.T) {
	for _, path := range glob(t, conformance+"/cases/*.json") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = LoadChecked(data, Builtin())
		var invalid *ValidationError
		if err == nil {
			continue
		}
		if !errors.As(err, &invalid) {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for _, e := range invalid.Errors {
			if !strings.HasPrefix(e.Message, "could not find schema information") {
				t.Errorf("%s: %v", path, e)
			}
		}
	}
}

// All schemas are draft 4, in the eyes of another implementation.
func TestSchemasAreSchemas(t *testing.T) {
	all := map[string]string{"document1": document1, "document2": document2}
	for kind, schemas := range builtinSchemas {
		for name, text := range schemas {
			all[string(rune('0'+kind))+name] = text
		}
	}
	for _, s := range stages.All() {
		var parts map[string]json.RawMessage
		if s.Schema == "" {
			continue
		}
		if err := json.Unmarshal([]byte(s.Schema), &parts); err != nil {
			t.Errorf("schema of %s: %v", s.Name, err)
		}
		for part, text := range parts {
			if part != "definitions" { // which others refer to
				all[s.Name+"/"+part] = strings.ReplaceAll(string(text), `"$ref"`, `"ref"`)
			}
		}
	}
	for name, text := range all {
		compileOther(t, name, text)
	}
}

func compileOther(t *testing.T, name, text string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("schema of %s: %v", name, err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4)
	if err := c.AddResource("test:///"+name, doc); err != nil {
		t.Fatalf("schema of %s: %v", name, err)
	}
	s, err := c.Compile("test:///" + name)
	if err != nil {
		t.Errorf("schema of %s: %v", name, err)
	}
	return s
}

func TestValidation(t *testing.T) {
	tests := []struct {
		schema, value string
		want          string // messages, or "" if it is valid
	}{
		{`{"type":"string"}`, `42`, `42 is not of type 'string'`},
		{`{"type":["string","null"]}`, `true`, `True is not of type 'string', 'null'`},
		{`{"type":"integer"}`, `1.0`, `1.0 is not of type 'integer'`},
		{`{"type":"integer"}`, `12345678901234567890`, ``},
		{`{"type":"number"}`, `false`, `False is not of type 'number'`},
		{`{"type":"string","enum":["a",1.0,null]}`, `2`, "2 is not of type 'string'; 2 is not one of ['a', 1.0, None]"},
		{`{"enum":[1]}`, `1.0`, ``},
		{`{"enum":[1]}`, `true`, `True is not one of [1]`},
		{`{"required":["a","b"]}`, `{"a":1}`, `'b' is a required property`},
		{`{"additionalProperties":false,"properties":{"a":{}}}`, `{"a":1,"c":1,"b":2}`, `Additional properties are not allowed ('b', 'c' were unexpected)`},
		{`{"additionalProperties":false,"patternProperties":{"^y":{},"^x":{}}}`, `{"b":1,"a":1}`, `'a', 'b' do not match any of the regexes: '^x', '^y'`},
		{`{"additionalProperties":{"type":"null"}}`, `{"a":1}`, `1 is not of type 'null'`},
		{`{"minProperties":1,"maxProperties":1}`, `{}`, `{} should be non-empty`},
		{`{"minProperties":3}`, `{"b":[1],"a":"it's"}`, `{'a': "it's", 'b': [1]} does not have enough properties`},
		{`{"maxProperties":1}`, `{"b":1,"a":2}`, `{'a': 2, 'b': 1} has too many properties`},
		{`{"maxProperties":0}`, `{"b":1}`, `{'b': 1} is expected to be empty`},
		{`{"dependencies":{"a":["b"],"c":{"required":["d"]}}}`, `{"a":1,"c":1}`, `'b' is a dependency of 'a'; 'd' is a required property`},
		{`{"items":{"type":"string"}}`, `["a",1]`, `1 is not of type 'string'`},
		{`{"items":[{"type":"string"}],"additionalItems":false}`, `[1,2,3]`, `Additional items are not allowed (2, 3 were unexpected); 1 is not of type 'string'`},
		{`{"items":[{}],"additionalItems":{"type":"null"}}`, `[1,2]`, `2 is not of type 'null'`},
		{`{"minItems":1}`, `[]`, `[] should be non-empty`},
		{`{"minItems":2}`, `["x"]`, `['x'] is too short`},
		{`{"maxItems":1}`, `[1,2]`, `[1, 2] is too long`},
		{`{"uniqueItems":true}`, `[1,{"a":1},{"a":1.0}]`, `[1, {'a': 1}, {'a': 1.0}] has non-unique elements`},
		{`{"minLength":3}`, `"hé"`, `'hé' is too short`},
		{`{"minLength":1}`, `""`, `'' should be non-empty`},
		{`{"maxLength":1}`, `"ab"`, `'ab' is too long`},
		{`{"pattern":"^a+$"}`, `"it's \"b\"\n"`, `'it\'s "b"\n' does not match '^a+$'`},
		{`{"minimum":1,"maximum":2}`, `0.5`, `0.5 is less than the minimum of 1`},
		{`{"maximum":99999999999999999998}`, `99999999999999999999`, `99999999999999999999 is greater than the maximum of 99999999999999999998`},
		{`{"minimum":1,"exclusiveMinimum":true}`, `1.0`, `1.0 is less than or equal to the minimum of 1`},
		{`{"maximum":1,"exclusiveMaximum":true}`, `1`, `1 is greater than or equal to the maximum of 1`},
		{`{"multipleOf":512}`, `513`, `513 is not a multiple of 512`},
		{`{"multipleOf":0.5}`, `1.5`, ``},
		{`{"not":{"required":["a"]}}`, `{"a":null}`, `{'a': None} should not be valid under {'required': ['a']}`},
		{`{"allOf":[{"type":"string"},{"enum":["x"]}]}`, `1`, `1 is not of type 'string'; 1 is not one of ['x']`},
		{`{"anyOf":[{"type":"string"},{"enum":["x"]}]}`, `1`, `1 is not valid under any of the given schemas`},
		{`{"oneOf":[{"type":"string"},{"enum":["x"]}]}`, `1`, `1 is not valid under any of the given schemas`},
		{`{"oneOf":[{"type":"string"},{"enum":["x"]}]}`, `"x"`, `'x' is valid under each of {'enum': ['x']}, {'type': 'string'}`},
		{`{"$ref":"#/definitions/a~1b","type":"null","definitions":{"a/b":{"type":"string"}}}`, `1`, `1 is not of type 'string'`},
		{`{"$ref":"#/definitions/nope"}`, `1`, `Unresolvable JSON pointer: 'definitions/nope'`},
		{`{"$ref":"#"}`, `1`, `the schema refers to itself without an end`},
		{`{"properties":{"next":{"$ref":"#"}},"required":["x"]}`, `{"x":1,"next":{"next":{"x":1}}}`, `'x' is a required property`},
		{`{"format":"ipv4","pattern":"("}`, `"x"`, ``},
	}
	for _, test := range tests {
		t.Run(test.schema+test.value, func(t *testing.T) {
			root, err := decodeObject([]byte(test.schema))
			if err != nil {
				t.Fatal(err)
			}
			value, err := decodeJSON([]byte(test.value))
			if err != nil {
				t.Fatal(err)
			}
			v := validation{root: root}
			v.check(value, root, nil)
			var got []string
			for _, e := range tidy(v.errs) {
				got = append(got, e.Message)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, "; ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPattern(t *testing.T) {
	const path = `^\/(?!\.\.)((?!\/\.\.\/).)+$` // as upstream writes it
	for s, want := range map[string]bool{"/etc": true, "etc": false, "/": false} {
		if got := pattern(path).MatchString(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
	if got, want := withoutLookaround(`a(?!b\)[)](c)|(d))e(?<=f)[^](?!]g`), `ae[^](?!]g`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A schema says yes and no to the same documents as another implementation does.
func FuzzVerdict(f *testing.F) {
	for _, pattern := range []string{"testdata/inspect/*.json", "testdata/invalid/*.json", conformance + "/idexamples/*.json"} {
		for _, path := range glob(f, pattern) {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	var t testing.T
	other := compileOther(&t, "document2", document2)
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := decodeJSON(data)
		if err != nil || strings.Contains(string(data), "source-epoch") {
			return // of which the other takes 1.0 too
		}
		root := documentSchemas[1]()
		v := validation{root: root}
		v.check(doc, root, nil)
		if err := other.Validate(doc); (err == nil) != (len(v.errs) == 0) {
			t.Errorf("%v, and the other: %v", v.errs, err)
		}
	})
}

func BenchmarkCheck60Stages(b *testing.B) {
	m := &Manifest{Pipelines: []*Pipeline{{Name: "os"}}}
	for range 60 {
		m.Pipelines[0].Stages = append(m.Pipelines[0].Stages, &Stage{
			Type: "org.osbuild.hostname", Options: map[string]any{"hostname": "x"},
			Devices: map[string]*Device{"d": {Type: "org.osbuild.loopback", Options: map[string]any{"filename": "x", "start": json.Number("1")}}},
			Mounts:  []*Mount{{Name: "m", Type: "org.osbuild.ext4", Source: "d", Target: "/"}},
			Inputs:  nil,
		})
	}
	for b.Loop() {
		if err := m.Check(Builtin()); err != nil {
			b.Fatal(err)
		}
	}
}
