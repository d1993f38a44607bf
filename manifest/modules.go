// What modules are there, and which schema each has: stages, devices, mounts,
// inputs and sources.

package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"sync"

	"github.com/osbuild-star/osbuild-star/stages"
)

// ModuleKind is one of the kinds of modules that a manifest names.
type ModuleKind int

// The kinds of modules.
const (
	StageModule ModuleKind = iota
	AssemblerModule
	DeviceModule
	MountModule
	InputModule
	SourceModule
)

// Modules finds the schema of a module by its name ("org.osbuild.hostname"); nil
// means that there is no such module. Implementations are safe for concurrent use.
type Modules interface {
	Stage(name string) *ModuleSchema
	Device(name string) *ModuleSchema
	Mount(name string) *ModuleSchema
	Input(name string) *ModuleSchema
	Source(name string) *ModuleSchema
}

// Assemblers is what [Modules] may offer beside: the assemblers of version 1
// documents. Without it, or without that assembler, the stage of that name counts.
type Assemblers interface {
	Assembler(name string) *ModuleSchema
}

func lookup(mods Modules, kind ModuleKind, name string) *ModuleSchema {
	switch kind {
	case StageModule:
		return mods.Stage(name)
	case DeviceModule:
		return mods.Device(name)
	case MountModule:
		return mods.Mount(name)
	case InputModule:
		return mods.Input(name)
	case SourceModule:
		return mods.Source(name)
	}
	if a, ok := mods.(Assemblers); ok {
		if s := a.Assembler(name); s != nil {
			return s
		}
	}
	return mods.Stage(name)
}

// ModuleSchema is what a manifest may say about one module. It is decoded when it
// is used first, and safe for concurrent use.
type ModuleSchema struct {
	Kind ModuleKind
	Name string

	v1, v2  []byte // as upstream's "schema" and "schema_2"
	broken  error  // why it cannot be read
	version [2]struct {
		once sync.Once
		root map[string]any
		err  error
	}
}

// NewModuleSchema makes the schema of a module from the members "schema" and
// "schema_2" of its description, either of which may be empty. That of a stage or
// an assembler is for its options in the first, and an object of schemas (options,
// inputs, devices, mounts) in the second; of a device it is for the options; of
// mounts (in the second), inputs and sources for the whole object.
func NewModuleSchema(kind ModuleKind, name string, schema, schema2 json.RawMessage) *ModuleSchema {
	return &ModuleSchema{Kind: kind, Name: name, v1: nonEmpty(schema), v2: nonEmpty(schema2)}
}

// BrokenSchema is that of a module whose description cannot be read: every use of
// the module is an error, which says why.
func BrokenSchema(kind ModuleKind, name string, err error) *ModuleSchema {
	return &ModuleSchema{Kind: kind, Name: name, broken: err}
}

// nonEmpty is text, or nothing when it is an empty object or null.
func nonEmpty(text []byte) []byte {
	if t := bytes.Join(bytes.Fields(text), nil); len(t) == 0 || string(t) == "{}" || string(t) == "null" {
		return nil
	}
	return text
}

// schema returns the schema for a document of version 1 or 2.
func (m *ModuleSchema) schema(version int) (map[string]any, error) {
	v := &m.version[version-1]
	v.once.Do(func() { v.root, v.err = m.build(version) })
	return v.root, v.err
}

// build puts the schema of the whole object together, in the way of upstream.
func (m *ModuleSchema) build(version int) (map[string]any, error) {
	if m.broken != nil {
		return nil, m.broken
	}
	v1, err := decodeObject(m.v1)
	if err != nil {
		return nil, err
	}
	v2, err := decodeObject(m.v2)
	if err != nil {
		return nil, err
	}
	root := map[string]any{"type": "object", "additionalProperties": false}
	props := map[string]any{}
	isName := map[string]any{"enum": []any{m.Name}}
	switch m.Kind {
	case StageModule, AssemblerModule:
		id := "type"
		switch {
		case version == 1:
			id = "name"
			if v1 == nil && v2 != nil {
				v1, _ = v2["options"].(map[string]any)
			}
			props["options"] = orAnything(v1)
		case v2 != nil:
			maps.Copy(props, v2)
		default:
			props["options"] = orAnything(v1)
		}
		props[id] = isName
		if props["mounts"] == nil {
			props["mounts"] = map[string]any{"type": "array"}
		}
		if props["devices"] == nil {
			props["devices"] = map[string]any{"type": "object"}
		}
		root["properties"], root["required"] = props, []any{id}
	case DeviceModule:
		delete(root, "additionalProperties")
		if version == 2 && v2 != nil {
			v1 = v2
		}
		root["properties"] = map[string]any{"type": isName, "options": orAnything(v1)}
	case MountModule:
		maps.Copy(root, v2)
		if given, ok := root["properties"].(map[string]any); ok {
			maps.Copy(props, given)
		}
		props["type"] = isName
		root["properties"] = props
	default:
		if version == 2 && v2 != nil {
			v1 = v2
		}
		maps.Copy(root, v1)
	}
	hoistDefinitions(root)
	return root, nil
}

func decodeObject(text []byte) (map[string]any, error) {
	if text == nil {
		return nil, nil
	}
	v, err := decodeJSON(text)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s is not of type 'object'", pyRepr(v))
	}
	return m, nil
}

func orAnything(schema map[string]any) map[string]any {
	if schema == nil {
		return map[string]any{}
	}
	return schema
}

// hoistDefinitions moves the definitions that are written beside or inside the
// schema of the options to where their references look for them.
func hoistDefinitions(root map[string]any) {
	props, _ := root["properties"].(map[string]any)
	if defs, ok := props["definitions"]; ok {
		root["definitions"] = defs
		delete(props, "definitions")
	}
	options, _ := props["options"].(map[string]any)
	if defs, ok := options["definitions"]; ok {
		root["definitions"] = defs
		options = maps.Clone(options)
		delete(options, "definitions")
		props["options"] = options
	}
}

// check holds one object of a manifest against the schema. order is that of the
// document it is from, at its place there.
func (m *ModuleSchema) check(x any, version int, order func() keyOrder, at string) []SchemaError {
	root, err := m.schema(version)
	if err != nil {
		return []SchemaError{{Message: fmt.Sprintf("the schema of %s is broken: %v", m.Name, err)}}
	}
	v := validation{root: root, order: order, at: at}
	v.check(x, root, nil)
	return v.errs
}

// Layered makes Modules of several: the first that has a module gives it.
func Layered(mods ...Modules) Modules { return layered(mods) }

type layered []Modules

func (l layered) find(kind ModuleKind, name string) *ModuleSchema {
	for _, mods := range l {
		if kind == AssemblerModule {
			if a, ok := mods.(Assemblers); ok {
				if s := a.Assembler(name); s != nil {
					return s
				}
			}
		} else if s := lookup(mods, kind, name); s != nil {
			return s
		}
	}
	return nil
}

func (l layered) Stage(name string) *ModuleSchema     { return l.find(StageModule, name) }
func (l layered) Assembler(name string) *ModuleSchema { return l.find(AssemblerModule, name) }
func (l layered) Device(name string) *ModuleSchema    { return l.find(DeviceModule, name) }
func (l layered) Mount(name string) *ModuleSchema     { return l.find(MountModule, name) }
func (l layered) Input(name string) *ModuleSchema     { return l.find(InputModule, name) }
func (l layered) Source(name string) *ModuleSchema    { return l.find(SourceModule, name) }

// Builtin returns the modules of the program itself: the native stages, and the
// devices, mounts, inputs and sources that the engine serves.
func Builtin() Modules { return builtin }

var builtin = &builtinModules{known: map[string]*ModuleSchema{}}

// builtinModules keeps what was asked for, so that a schema is decoded once.
type builtinModules struct {
	mu    sync.Mutex
	known map[string]*ModuleSchema // by kind and name
}

func (b *builtinModules) find(kind ModuleKind, name string) *ModuleSchema {
	var schema, schema2 string
	switch kind {
	case StageModule:
		s := stages.Lookup(name)
		if s == nil {
			return nil
		}
		schema2 = s.Schema
	case MountModule:
		schema2 = builtinSchemas[kind][name]
	default:
		schema = builtinSchemas[kind][name]
	}
	if kind != StageModule && schema+schema2 == "" {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := fmt.Sprint(kind, name)
	m := b.known[key]
	if m == nil {
		m = NewModuleSchema(kind, name, json.RawMessage(schema), json.RawMessage(schema2))
		b.known[key] = m
	}
	return m
}

func (b *builtinModules) Stage(name string) *ModuleSchema  { return b.find(StageModule, name) }
func (b *builtinModules) Device(name string) *ModuleSchema { return b.find(DeviceModule, name) }
func (b *builtinModules) Mount(name string) *ModuleSchema  { return b.find(MountModule, name) }
func (b *builtinModules) Input(name string) *ModuleSchema  { return b.find(InputModule, name) }
func (b *builtinModules) Source(name string) *ModuleSchema { return b.find(SourceModule, name) }
