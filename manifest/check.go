// Checks of manifests against schemas: the form of the document, and every stage,
// input, device, mount and source against that of its module.

package manifest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// SchemaError is one place of a document that its schema does not allow.
type SchemaError struct {
	Message string // as Python's jsonschema words it
	Path    []any  // keys (string) and indexes (int) from the root of the document
}

// unknownModule begins the message about a module without a schema.
const unknownModule = "could not find schema information for "

// Unknown tells that the error is only that a module is not known, and its name.
func (e SchemaError) Unknown() (name string, ok bool) {
	name, ok = strings.CutPrefix(e.Message, unknownModule)
	return strings.Trim(name, "'"), ok
}

// Place is the path as upstream prints it: ".pipelines[0].stages[2].options"; the
// root is ".".
func (e SchemaError) Place() string {
	if len(e.Path) == 0 {
		return "."
	}
	var b strings.Builder
	for _, step := range e.Path {
		s, ok := step.(string)
		switch {
		case !ok:
			fmt.Fprintf(&b, "[%d]", step)
		case strings.Contains(s, " "):
			fmt.Fprintf(&b, ".'%s'", s)
		default:
			b.WriteString("." + s)
		}
	}
	return b.String()
}

func (e SchemaError) String() string { return e.Place() + ": " + e.Message }

// MarshalJSON writes the object that upstream reports: message and path.
func (e SchemaError) MarshalJSON() ([]byte, error) {
	path := e.Path
	if path == nil {
		path = []any{}
	}
	return json.Marshal(map[string]any{"message": e.Message, "path": path})
}

// ValidationError is a manifest that its schemas do not allow. Upstream prints what
// MarshalJSON returns.
type ValidationError struct {
	Errors []SchemaError // sorted by [SchemaError.Place], without duplicates

	// Malformed documents are those on which upstream's check itself fails, with a
	// traceback: a stage without a type, an object where a list belongs.
	Malformed bool
}

// ExitCode is that of upstream: 2, or 1 for a document that is malformed.
func (e *ValidationError) ExitCode() int {
	if e.Malformed {
		return 1
	}
	return 2
}

func (e *ValidationError) Error() string {
	switch len(e.Errors) {
	case 0:
		return "the manifest is not valid"
	case 1:
		return "the manifest is not valid: " + e.Errors[0].String()
	}
	return fmt.Sprintf("the manifest is not valid: %s (and %d more)", e.Errors[0], len(e.Errors)-1)
}

// MarshalJSON writes upstream's report of a failed validation.
func (e *ValidationError) MarshalJSON() ([]byte, error) {
	errs := e.Errors
	if errs == nil {
		errs = []SchemaError{}
	}
	return json.Marshal(map[string]any{
		"type":    "https://osbuild.org/validation-error",
		"title":   "JSON Schema validation failed",
		"success": false,
		"errors":  errs,
	})
}

// tidy sorts errors in the way of upstream and drops duplicates.
func tidy(errs []SchemaError) []SchemaError {
	type keyed struct {
		place string
		err   SchemaError
	}
	all := make([]keyed, len(errs))
	for i, e := range errs {
		all[i] = keyed{e.Place(), e}
	}
	slices.SortFunc(all, func(a, b keyed) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.err.Message, b.err.Message))
	})
	all = slices.CompactFunc(all, func(a, b keyed) bool { return a.place == b.place && a.err.Message == b.err.Message })
	out := errs[:0]
	for _, k := range all {
		out = append(out, k.err)
	}
	return out
}

// Check holds the manifest against the schemas of mods and of the document, and
// returns a *[ValidationError] that names everything that does not fit. Paths are
// those of the document that [Manifest.MarshalJSON] writes (of version 1 for a
// manifest that was read from one). A manifest that comes from a file is better
// checked by [LoadChecked], which sees it as it was written.
func (m *Manifest) Check(mods Modules) error {
	version := 2
	if m.V1 {
		version = 1
	}
	doc, err := m.document(version, nil, "")
	if err != nil {
		return err
	}
	return checkDocument(doc.plain().(map[string]any), version, mods, nil)
}

// CheckStage holds one stage against the schemas of its module and of its inputs,
// devices and mounts. Paths begin at the stage, as in ["options", "hostname"].
// Missing options count as empty ones, so that a required option is missed even
// where upstream would leave that to the stage.
func CheckStage(mods Modules, s *Stage) []SchemaError {
	doc, err := describeStage(s, nil)
	if err != nil {
		return []SchemaError{{Message: err.Error()}}
	}
	stage := doc.plain().(map[string]any)
	if stage["options"] == nil {
		stage["options"] = map[string]any{}
	}
	c := checker{mods: mods, version: 2}
	v := validation{root: documentSchemas[1]()}
	v.check(stage, map[string]any{"$ref": "#/definitions/stage"}, nil)
	c.errs = v.errs
	c.stage(stage, nil)
	return tidy(c.errs)
}

// checkDocument checks a decoded document; order is that of its text, or nil.
// Without mods only the form is checked.
func checkDocument(doc map[string]any, version int, mods Modules, order func() keyOrder) error {
	v := validation{root: documentSchemas[version-1](), order: order}
	v.check(doc, v.root, nil)
	c := checker{mods: mods, version: version, order: order, errs: v.errs}
	if version == 1 {
		c.document1(doc, nil)
	} else {
		c.document2(doc)
	}
	if len(c.errs) > 0 {
		return &ValidationError{Errors: tidy(c.errs), Malformed: c.died}
	}
	return nil
}

// checker collects what modules have to say about a document. It goes through
// documents of any form: what has the wrong type is reported already, and skipped.
type checker struct {
	mods    Modules
	version int
	order   func() keyOrder
	errs    []SchemaError
	died    bool // upstream's check would not have come to its end
}

// module checks x by the module of that name. path is what errors are given, from
// is where x is in the document.
func (c *checker) module(kind ModuleKind, name string, x any, path, from []any) {
	if c.mods == nil {
		return
	}
	schema := lookup(c.mods, kind, name)
	if schema == nil {
		c.errs = append(c.errs, SchemaError{
			Message: unknownModule + pyQuoted(name),
			Path:    slices.Clone(path),
		})
		return
	}
	at := ""
	for _, step := range from {
		at = pointer(at, step)
	}
	for _, e := range schema.check(x, c.version, c.order, at) {
		c.errs = append(c.errs, SchemaError{Message: e.Message, Path: slices.Concat(path, e.Path)})
	}
}

// pyQuoted puts a name in the plain quotes that upstream's own messages have.
func pyQuoted(name string) string { return "'" + name + "'" }

// broken notes a place at which upstream's check itself ends with a traceback.
func (c *checker) broken() { c.died = true }

// walk calls f for the members of a list. Upstream walks through anything that
// Python can iterate over, and falls over what it finds in it.
func (c *checker) walk(x any, there bool, f func(i int, e map[string]any)) {
	if !there {
		return
	}
	all, ok := x.([]any)
	if !ok && (x == nil || x == false || !falsy(x) || isType(x, "number")) {
		c.broken()
	}
	for i, e := range all {
		m, ok := e.(map[string]any)
		if !ok {
			c.broken()
			continue
		}
		f(i, m)
	}
}

// object is the object of that name in m, which may be left out.
func (c *checker) object(m map[string]any, key string) map[string]any {
	x, there := m[key]
	o, ok := x.(map[string]any)
	if there && !ok {
		c.broken()
	}
	return o
}

// named checks a step of a pipeline by the module that it names.
func (c *checker) named(kind ModuleKind, s map[string]any, key string, path, from []any) {
	name, ok := s[key].(string)
	if name == "" {
		c.broken()
	}
	if ok {
		c.module(kind, name, s, path, from)
	}
}

func (c *checker) document2(doc map[string]any) {
	for name, src := range c.object(doc, "sources") {
		path := []any{"sources", name}
		c.module(SourceModule, name, src, path, path)
	}
	pipelines, there := doc["pipelines"]
	c.walk(pipelines, there, func(i int, p map[string]any) {
		all, there := p["stages"]
		c.walk(all, there, func(n int, s map[string]any) {
			c.stage(s, []any{"pipelines", i, "stages", n})
		})
	})
}

// stage checks one stage of version 2 and what it holds.
func (c *checker) stage(s map[string]any, path []any) {
	c.named(StageModule, s, "type", path, path)
	for _, group := range []struct {
		kind ModuleKind
		name string
	}{{DeviceModule, "devices"}, {InputModule, "inputs"}, {MountModule, "mounts"}} {
		all, ok := s[group.name].(map[string]any)
		index := map[string]int{} // of those in a list
		if list, isList := s[group.name].([]any); isList {
			// upstream goes by the name of each, and sees the last of a name only
			all, ok = map[string]any{}, true
			c.walk(list, true, func(i int, m map[string]any) {
				if name, ok := m["name"].(string); ok {
					all[name], index[name] = m, i
				} else if n, ok := numberText(m["name"]); !ok || isFloat(n) {
					c.broken()
				}
			})
		}
		if _, there := s[group.name]; there && !ok {
			c.broken()
		}
		for name, x := range all {
			m, ok := x.(map[string]any)
			if !ok {
				c.broken()
			} else if !falsy(m["type"]) {
				from := slices.Concat(path, []any{group.name, name})
				if i, ok := index[name]; ok {
					from[len(from)-1] = i
				}
				c.named(group.kind, m, "type", slices.Concat(path, []any{group.name, name}), from)
			}
		}
	}
}

func (c *checker) document1(doc map[string]any, path []any) {
	pipeline := c.object(doc, "pipeline")
	build := c.object(pipeline, "build")
	if inner, ok := build["pipeline"].(map[string]any); ok && len(inner) > 0 {
		c.document1(map[string]any{"pipeline": inner}, slices.Concat(path, []any{"pipeline", "build"}))
	} else if !ok && !falsy(build["pipeline"]) {
		c.broken()
	}
	all, there := pipeline["stages"]
	c.walk(all, there, func(i int, s map[string]any) {
		at := slices.Concat(path, []any{"pipeline", "stages", i})
		c.named(StageModule, s, "name", at, at)
	})
	if a := pipeline["assembler"]; !falsy(a) {
		if s := c.object(pipeline, "assembler"); s != nil {
			at := slices.Concat(path, []any{"pipeline", "assembler"})
			c.named(AssemblerModule, s, "name", at, at)
		}
	}
	for name, src := range c.object(doc, "sources") {
		kind := name
		if name == sourceFiles {
			kind = sourceCurl
		}
		c.module(SourceModule, kind, src, slices.Concat(path, []any{"sources", kind}), slices.Concat(path, []any{"sources", name}))
	}
}
