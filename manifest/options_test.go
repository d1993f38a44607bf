// Tests of the list of options that a schema makes.

package manifest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/stages"
)

// one is Modules with a single stage.
type one struct {
	Modules
	schema *ModuleSchema
}

func (o one) Stage(name string) *ModuleSchema {
	if name == o.schema.Name {
		return o.schema
	}
	return nil
}

const optionsText = `{
  "type": "object",
  "required": ["name", "mode"],
  "properties": {
    "name": {"type": "string", "description": "what it is called"},
    "count": {"type": "integer", "default": 3},
    "any": {},
    "mode": {"enum": ["on", "off", 1]},
    "alias": {"$ref": "#/definitions/alias"},
    "users": {"type": "array", "items": {"$ref": "#/definitions/user"}},
    "map": {"additionalProperties": {"type": "string"}},
    "either": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "list": {"type": ["null", "array"], "items": {"type": "number"}}
  },
  "oneOf": [
    {"required": ["path"], "properties": {"path": {"type": "string"}, "depth": {"type": "integer"}}},
    {"required": ["url", "path"], "properties": {"url": {"type": "string"}, "path": {"type": "integer"}}}
  ],
  "definitions": {
    "alias": {"type": "string", "description": "another name"},
    "user": {"type": "object", "required": ["uid"], "properties": {"uid": {"type": "integer"}, "home": {"type": "string"}, "friends": {"type": "array", "items": {"$ref": "#/definitions/user"}}}}
  }
}`

func TestSchemaOptions(t *testing.T) {
	want := []Option{
		{Name: "name", Type: "string", Required: true, Description: "what it is called"},
		{Name: "count", Type: "integer", Default: json.Number("3")},
		{Name: "any"},
		{Name: "mode", Type: "string|integer", Required: true, Enum: []any{"on", "off", json.Number("1")}},
		{Name: "alias", Type: "string", Description: "another name"},
		{Name: "users", Type: "array", Items: "object", Options: []Option{
			{Name: "uid", Type: "integer", Required: true},
			{Name: "home", Type: "string"},
			{Name: "friends", Type: "array", Items: "object"},
		}},
		{Name: "map", Type: "object"},
		{Name: "either", Type: "string|array"},
		{Name: "list", Type: "null|array", Items: "number"},
		{Name: "path", Type: "string|integer", Required: true},
		{Name: "depth", Type: "integer"},
		{Name: "url", Type: "string"},
	}
	forms := map[string]*ModuleSchema{
		"schema":   NewModuleSchema(StageModule, "x", []byte(optionsText), nil),
		"schema_2": NewModuleSchema(StageModule, "x", nil, []byte(`{"options": `+optionsText+`, "inputs": {}}`)),
	}
	for form, schema := range forms {
		t.Run(form, func(t *testing.T) {
			got, err := SchemaOptions(one{schema: schema}, "x")
			if err != nil {
				t.Fatal(err)
			}
			friends := &got[5].Options[2]
			if len(friends.Options) != 3 || friends.Options[0].Name != "uid" {
				t.Errorf("friends: %+v", friends.Options)
			}
			friends.Options = nil // and so on
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := SchemaOptions(Builtin(), "org.osbuild.nope"); err == nil || !strings.Contains(err.Error(), `there is no stage "org.osbuild.nope"`) {
		t.Errorf("got %v", err)
	}
}

// Every native stage has a schema that can be listed, with a description of each of
// its options.
func TestSchemaOptionsOfStages(t *testing.T) {
	for _, s := range stages.All() {
		all, err := SchemaOptions(Builtin(), s.Name)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		for _, o := range all {
			if o.Description == "" {
				t.Errorf("%s: option %s has no description", s.Name, o.Name)
			}
		}
	}
}

func TestLayered(t *testing.T) {
	own := NewModuleSchema(StageModule, "org.osbuild.hostname", nil, nil)
	mods := Layered(one{Builtin(), own}, Builtin())
	if got := mods.Stage("org.osbuild.hostname"); got != own {
		t.Errorf("got %v", got)
	}
	if mods.Device("org.osbuild.loopback") == nil || mods.Mount("org.osbuild.xfs") == nil || mods.Input("org.osbuild.tree") == nil || mods.Source("org.osbuild.curl") == nil {
		t.Error("a module is missing")
	}
	if mods.Stage("x") != nil || mods.(Assemblers).Assembler("x") != nil || mods.Device("org.osbuild.ext4") != nil {
		t.Error("found what is not there")
	}
}
