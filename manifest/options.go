// The options of a stage as a list: names, types, descriptions, in the order in
// which its schema has them. Typed constructors, suggestions for misspelt names and
// reference pages come from it.

package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Option is one option of a stage, or one member of an option that is an object.
type Option struct {
	Name string

	// Type is the JSON type: "string", "integer", "number", "boolean", "array",
	// "object"; several are joined with "|"; "" takes any value.
	Type string

	Items       string   // of an array: the type of its elements
	Required    bool     // must be given
	Description string   // one line or more, "" if the schema has none
	Enum        []any    // the values it can have, nil if they are not listed
	Default     any      // the value that counts when it is not given, nil if the schema names none
	Options     []Option // members of an object, or of the objects in an array
}

// SchemaOptions returns the options of a stage in the order of its schema. The
// members of alternatives (oneOf, anyOf) are put together; what not every
// alternative asks for is not required. It returns an *[Error] for a stage that
// mods do not know.
func SchemaOptions(mods Modules, stageType string) ([]Option, error) {
	m := mods.Stage(stageType)
	if m == nil {
		return nil, errorf("the name of a stage is like \"org.osbuild.hostname\"", "there is no stage %q", stageType)
	}
	root, err := m.schema(2)
	if err != nil {
		return nil, fmt.Errorf("the schema of %s is broken: %w", stageType, err)
	}
	props, _ := root["properties"].(map[string]any)
	w := optionWalk{root: root}
	if m.v2 != nil {
		w.order, w.options = orderOf(m.v2), "/options"
	} else if m.v1 != nil {
		w.order = orderOf(m.v1)
	}
	return w.members(props["options"], w.options, 0), nil
}

// optionWalk reads options from a schema whose text has the members of its objects
// in some order.
type optionWalk struct {
	root    map[string]any
	order   keyOrder
	options string // where the schema of the options is in the text
}

const maxOptionDepth = 8 // schemas that refer to themselves are cut there

// deref follows references; at is where the schema is in the text.
func (w *optionWalk) deref(x any, at string) (map[string]any, string) {
	s, _ := x.(map[string]any)
	for range maxOptionDepth {
		ref, ok := s["$ref"].(string)
		if !ok {
			break
		}
		v := validation{root: w.root}
		target, ok := v.resolve(ref)
		if !ok {
			return nil, at
		}
		s, _ = target.(map[string]any)
		// definitions are written beside the schema of the options, or inside it
		path := strings.TrimPrefix(ref, "#")
		at = path
		if _, beside := w.order[path]; !beside {
			at = w.options + path
		}
	}
	return s, at
}

// members lists the members that an object schema knows.
func (w *optionWalk) members(x any, at string, depth int) []Option {
	s, at := w.deref(x, at)
	if s == nil || depth > maxOptionDepth {
		return nil
	}
	var out []Option
	props, _ := s["properties"].(map[string]any)
	below := pointer(at, "properties")
	for _, name := range w.order.keys(below, props) {
		out = append(out, w.option(name, props[name], pointer(below, name), depth))
	}
	for _, keyword := range []string{"allOf", "oneOf", "anyOf"} {
		all, _ := s[keyword].([]any)
		var merged []Option
		for i, sub := range all {
			found := w.members(sub, pointer(pointer(at, keyword), i), depth+1)
			if keyword == "allOf" {
				out = mergeOptions(out, found, true)
				continue
			}
			if i > 0 {
				markOptional(merged, found)
				markOptional(found, merged)
			}
			merged = mergeOptions(merged, found, false)
		}
		out = mergeOptions(out, merged, true)
	}
	required, _ := s["required"].([]any)
	for _, r := range required {
		name, _ := r.(string)
		if i := optionIndex(out, name); i >= 0 {
			out[i].Required = true
		}
	}
	return out
}

func optionIndex(all []Option, name string) int {
	return slices.IndexFunc(all, func(o Option) bool { return o.Name == name })
}

// markOptional makes those of all optional that others do not require.
func markOptional(all, others []Option) {
	for i := range all {
		if n := optionIndex(others, all[i].Name); n < 0 || !others[n].Required {
			all[i].Required = false
		}
	}
}

// mergeOptions adds to all what it does not have; required says whether what is
// required in more is so in the result.
func mergeOptions(all, more []Option, required bool) []Option {
	for _, o := range more {
		i := optionIndex(all, o.Name)
		if i < 0 {
			all = append(all, o)
			continue
		}
		have := &all[i]
		have.Required = have.Required || required && o.Required
		if have.Description == "" {
			have.Description = o.Description
		}
		if have.Type != o.Type && o.Type != "" && !required {
			have.Type = joinTypes(have.Type, o.Type)
		}
		if !required {
			have.Enum = mergeEnums(have.Enum, o.Enum)
		}
		have.Options = mergeOptions(have.Options, o.Options, false)
	}
	return all
}

// mergeEnums joins the values of two alternatives; one that lists none takes all.
func mergeEnums(a, b []any) []any {
	if a == nil || b == nil {
		return nil
	}
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.ContainsFunc(out, func(y any) bool { return equal(x, y) }) {
			out = append(out, x)
		}
	}
	return out
}

func joinTypes(a, b string) string {
	names := strings.Split(a, "|")
	for _, n := range strings.Split(b, "|") {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return strings.Trim(strings.Join(names, "|"), "|")
}

func (w *optionWalk) option(name string, x any, at string, depth int) Option {
	o := Option{Name: name}
	if given, ok := x.(map[string]any); ok {
		o.Description, _ = given["description"].(string)
	}
	s, at := w.deref(x, at)
	if s == nil {
		return o
	}
	if o.Description == "" {
		o.Description, _ = s["description"].(string)
	}
	o.Type = w.typeOf(s, at, 0)
	o.Enum, _ = s["enum"].([]any)
	o.Default = s["default"]
	o.Options = w.members(s, at, depth+1)
	if items, ok := s["items"].(map[string]any); ok {
		items, below := w.deref(items, pointer(at, "items"))
		o.Items = w.typeOf(items, below, 0)
		o.Options = w.members(items, below, depth+1)
	}
	return o
}

// typeOf names the type that a schema asks for, or that it can only mean.
func (w *optionWalk) typeOf(s map[string]any, at string, depth int) string {
	switch t := s["type"].(type) {
	case string:
		return t
	case []any:
		all := ""
		for _, x := range t {
			if n, ok := x.(string); ok {
				all = joinTypes(all, n)
			}
		}
		return all
	}
	if all, ok := s["enum"].([]any); ok {
		names := ""
		for _, x := range all {
			for _, n := range []string{"string", "boolean", "integer", "number", "array", "object", "null"} {
				if isType(x, n) {
					names = joinTypes(names, n)
					break
				}
			}
		}
		return names
	}
	for _, keyword := range []string{"oneOf", "anyOf", "allOf"} {
		all, ok := s[keyword].([]any)
		if !ok || depth > maxOptionDepth {
			continue
		}
		names := ""
		for i, sub := range all {
			sub, below := w.deref(sub, pointer(pointer(at, keyword), i))
			t := w.typeOf(sub, below, depth+1)
			if t == "" && keyword != "allOf" {
				names = "" // one alternative takes anything
				break
			}
			if t != "" {
				names = joinTypes(names, t)
			}
		}
		if names != "" {
			return names
		}
	}
	switch {
	case s["properties"] != nil || s["patternProperties"] != nil || s["additionalProperties"] != nil:
		return "object"
	case s["items"] != nil:
		return "array"
	case s["pattern"] != nil:
		return "string"
	}
	return ""
}
