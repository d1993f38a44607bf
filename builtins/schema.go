// Stages as rule files see them: their names, and their options by their schemas.

package builtins

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/stages"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// stageSchema is what a schema says about the options of a stage.
type stageSchema struct {
	keys    map[string]string // how an option may be written → its name in the schema
	options []manifest.Option
}

// schema returns that of a stage, or nil when there is no such stage.
func (p *Project) schema(name string) *stageSchema {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.schemas[name]; ok {
		return s
	}
	var s *stageSchema
	if p.cfg.Modules.Stage(name) != nil {
		s = &stageSchema{keys: map[string]string{}}
		// A schema that cannot be read has no options here; the check says so.
		s.options, _ = manifest.SchemaOptions(p.cfg.Modules, name)
		for _, o := range s.options {
			s.keys[o.Name] = o.Name
		}
		for _, o := range s.options {
			if under := underscored(o.Name); s.keys[under] == "" {
				s.keys[under] = o.Name
			}
		}
	}
	p.schemas[name] = s
	return s
}

// underscored is a name as an identifier: dots and dashes are underscores.
func underscored(name string) string { return strings.NewReplacer(".", "_", "-", "_").Replace(name) }

// option is the name in the schema of an option as it is written in a rule file;
// "" when the schema does not list it.
func (s *stageSchema) option(arg string) string { return s.keys[arg] }

// spellings are the names under which a rule file gives options and the rest: what
// a slip is compared with.
func (s *stageSchema) spellings() []string {
	var list []string
	for _, o := range s.options {
		list = append(list, underscored(o.Name))
	}
	for _, p := range stageParams {
		if !slices.Contains(list, p.Name) {
			list = append(list, p.Name)
		}
	}
	return list
}

// stageNames are the stages that rule files can name, sorted.
func (p *Project) stageNames() []string {
	var list []string
	for _, s := range stages.All() {
		list = append(list, s.Name)
	}
	list = append(list, p.cfg.StageNames...)
	slices.Sort(list)
	return slices.Compact(list)
}

func (p *Project) makeShortNames() map[string]string {
	names := map[string]string{}
	for _, full := range p.stageNames() {
		short := shortName(full)
		if have := names[short]; have == "" || strings.HasPrefix(full, stagePrefixes[0]) {
			names[short] = full
		}
	}
	return names
}

// checkStage holds a stage against its schema. The first thing that is wrong is
// told at the argument that it belongs to: a name that is not known before all.
func (p *Project) checkStage(c *call, s *manifest.Stage) error {
	errs := manifest.CheckStage(p.cfg.Modules, s)
	if len(errs) == 0 {
		return nil
	}
	schema := p.schema(s.Type)
	top := func(e manifest.SchemaError) bool { return len(e.Path) == 1 && e.Path[0] == "options" }
	for _, e := range errs {
		if !top(e) || !strings.HasPrefix(e.Message, "Additional properties") {
			continue
		}
		for _, kv := range c.rest {
			arg := string(kv[0].(starlark.String))
			if schema.option(arg) == "" {
				return rulefile.ArgError(c.t, c.b.Name, arg, fmt.Sprintf("%s has no option %q", c.b.Name, arg), didYouMean(arg, schema.spellings()))
			}
		}
	}
	for _, e := range errs {
		if m := required.FindStringSubmatch(e.Message); m != nil && top(e) {
			return c.fail("", describe(member(schema.options, m[1])), "the option %q is missing", underscored(m[1]))
		}
	}
	e := errs[0]
	arg, rest := "", e.Path
	if len(e.Path) > 0 {
		arg, _ = e.Path[0].(string)
		if arg == "options" {
			arg, rest = "", e.Path[1:]
		}
		if arg == "" && len(rest) > 0 {
			arg, _ = rest[0].(string)
		}
		// the mark is on the keyword as it was written
		if !slices.ContainsFunc(c.rest, func(kv starlark.Tuple) bool { return kv[0] == starlark.String(arg) }) {
			arg = underscored(arg)
		}
	}
	at := ""
	for i, step := range rest {
		switch step := step.(type) {
		case string:
			if i == 0 {
				at = underscored(step)
			} else {
				at += fmt.Sprintf("[%q]", step)
			}
		default:
			at += fmt.Sprintf("[%v]", step)
		}
	}
	msg, hint := schema.reword(e)
	if at != "" {
		msg = at + " " + msg
	}
	return c.fail(arg, hint, "%s", msg)
}

// describe is "name: what the schema says about it".
func describe(o *manifest.Option) string {
	if o == nil || o.Description == "" {
		return ""
	}
	return underscored(o.Name) + ": " + o.Description
}

var (
	wrongType  = regexp.MustCompile(`(?s)^(.*) is not of type '(\w+)'$`)
	wrongEnum  = regexp.MustCompile(`(?s)^(.*) is not one of (\[.*\])$`)
	unexpected = regexp.MustCompile(`^Additional properties are not allowed \('([^']+)'`)
	required   = regexp.MustCompile(`^'([^']+)' is a required property$`)
	noMatch    = regexp.MustCompile(`^'([^']+)' does not match any of the regexes: (.*)$`)
)

// starlarkTypes are the names that the language has for the types of JSON.
var starlarkTypes = map[string]string{
	"string": "a string", "integer": "an int", "number": "a number", "boolean": "True or False", "array": "a list", "object": "a dict",
}

// reword says a finding of the validator, which speaks as Python's does, in the
// words of the language, with a hint.
func (s *stageSchema) reword(e manifest.SchemaError) (msg, hint string) {
	here, members := s.at(e.Path)
	if m := wrongType.FindStringSubmatch(e.Message); m != nil {
		return fmt.Sprintf("wants %s, got %s", starlarkTypes[m[2]], shorten(m[1])), describe(here)
	}
	if m := wrongEnum.FindStringSubmatch(e.Message); m != nil {
		value := strings.Trim(m[1], "'")
		if here != nil && here.Enum != nil {
			known := make([]string, len(here.Enum))
			for i, x := range here.Enum {
				known[i] = fmt.Sprint(x)
			}
			hint = didYouMean(value, known)
			if !strings.HasPrefix(hint, "did") {
				hint = "one of " + quoteAll(known)
			}
		}
		return fmt.Sprintf("cannot be %q", value), hint
	}
	if m := required.FindStringSubmatch(e.Message); m != nil {
		return fmt.Sprintf("needs a %q", m[1]), describe(member(members, m[1]))
	}
	if m := unexpected.FindStringSubmatch(e.Message); m != nil {
		known := make([]string, len(members))
		for i, o := range members {
			known[i] = o.Name
		}
		return fmt.Sprintf("has no %q", m[1]), didYouMean(m[1], known)
	}
	if m := noMatch.FindStringSubmatch(e.Message); m != nil {
		return fmt.Sprintf("cannot have %q", m[1]), "it must match " + m[2]
	}
	return "does not fit: " + shorten(e.Message), describe(here)
}

// shorten cuts a value that a message quotes.
func shorten(s string) string {
	if runes := []rune(s); len(runes) > 120 {
		return string(runes[:60]) + " … " + string(runes[len(runes)-50:])
	}
	return s
}

func member(all []manifest.Option, name string) *manifest.Option {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// at is the option that a place of the stage belongs to, nil where the schema does
// not list it, and the members that it may have.
func (s *stageSchema) at(path []any) (*manifest.Option, []manifest.Option) {
	if len(path) == 0 || path[0] != "options" {
		return nil, nil
	}
	var here *manifest.Option
	members := s.options
	for _, step := range path[1:] {
		name, ok := step.(string)
		if !ok {
			continue // an element of the list that here is
		}
		if here = member(members, name); here == nil {
			return nil, nil
		}
		members = here.Options
	}
	return here, members
}

// position is an origin as errors have it.
func position(o manifest.Origin) rulefile.Position {
	return rulefile.Position{File: o.File, Line: int32(o.Line), Col: int32(o.Col)}
}
