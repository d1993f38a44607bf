// stage(…) and stage.hostname(…): a step of a pipeline, checked against the schema
// of the stage where it is written.

package builtins

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/osbuild-star/osbuild-star/manifest"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// stageParams are what every stage takes beside its options.
var stageParams = []Param{
	{Name: "inputs", Type: "dict[string, input | pipeline | source | deb_packages | list[source]] | any", Default: "{}", Keyword: true,
		Doc: "What the stage reads, by name: a pipeline is its tree; sources and package sets are files."},
	{Name: "devices", Type: "dict[string, device] | any", Default: "{}", Keyword: true, Doc: "Block devices made of files of the tree, by name."},
	{Name: "mounts", Type: "list[mount] | any", Default: "[]", Keyword: true, Doc: "File systems of the devices, in the order in which they are mounted."},
}

var stageCompiled = (&Builtin{Name: "stage", Params: stageParams}).compile()

// stageTypes are the types of stageParams without the "any" that leaves room for an
// option of the same name.
var stageTypes = func() (types []*typ) {
	for _, p := range stageParams {
		types = append(types, parseType(strings.TrimSuffix(p.Type, " | any")))
	}
	return types
}()

// The prefixes of stage names: upstream's own come first where both have a name.
var stagePrefixes = []string{"org.osbuild.", "org.osbuild-star."}

// stageFunc is the name "stage": a function, and each stage is an attribute of it.
type stageFunc struct {
	p       *Project
	generic *starlark.Builtin
}

func (f *stageFunc) String() string        { return "<built-in function stage>" }
func (f *stageFunc) Type() string          { return f.generic.Type() }
func (f *stageFunc) Freeze()               {}
func (f *stageFunc) Truth() starlark.Bool  { return starlark.True }
func (f *stageFunc) Hash() (uint32, error) { return f.generic.Hash() }
func (f *stageFunc) Name() string          { return "stage" }

func (f *stageFunc) CallInternal(t *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return f.generic.CallInternal(t, args, kwargs)
}

func (f *stageFunc) AttrNames() []string {
	return slices.Sorted(maps.Keys(f.p.short()))
}

func (f *stageFunc) Attr(attr string) (starlark.Value, error) {
	full, ok := f.p.short()[attr]
	if !ok {
		return nil, starlark.NoSuchAttrError(fmt.Sprintf("there is no stage.%s", attr))
	}
	b := &Builtin{
		Name:   "stage." + attr,
		Params: stageParams,
		com:    stageCompiled,
		Rest:   "options",
		run: func(c *call) (starlark.Value, error) {
			return c.makeStage(full, c.rest)
		},
	}
	return b.value(f.p), nil
}

// shortName is the attribute of a stage's full name: "org.osbuild.mkfs.ext4" is
// "mkfs_ext4". A name of another origin is written out in full.
func shortName(full string) string {
	for _, prefix := range stagePrefixes {
		if rest, ok := strings.CutPrefix(full, prefix); ok {
			full = rest
			break
		}
	}
	return underscored(full)
}

// makeStage makes a stage of its name, the arguments that all stages have, and
// its options.
func (c *call) makeStage(name string, options []starlark.Tuple) (starlark.Value, error) {
	schema := c.p.schema(name)
	if schema == nil {
		known := c.p.stageNames()
		hint := "dir(stage) lists the stages"
		if near := rulefile.Suggest(name, known); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		} else if near := c.p.short()[underscored(name)]; near != "" {
			hint = fmt.Sprintf("the full name is %q", near)
		}
		return nil, c.fail("type", hint, "there is no stage %q", name)
	}
	s := &stageValue{stage: name, options: map[string]any{}, origin: c.origin()}

	// Upstream has stages with an option "mounts" or "inputs" of their own: what is
	// not a mount or an input is then meant for it.
	typed := map[string]bool{}
	for i, prm := range stageParams {
		v := c.args[prm.Name]
		msg := stageTypes[i].check(prm.Name, v)
		switch {
		case msg == "":
			typed[prm.Name] = true
		case schema.option(prm.Name) != "":
			options = append(options, starlark.Tuple{starlark.String(prm.Name), v})
		default:
			return nil, c.fail(prm.Name, "", "%s", msg)
		}
	}
	texts := map[string][]byte{}
	for _, kv := range options {
		arg := string(kv[0].(starlark.String))
		key := schema.option(arg)
		if key == "" {
			key = arg // for the check to judge: there are stages that take any
		}
		x, err := toPlain(arg, kv[1])
		if err != nil {
			hint := ""
			switch kv[1].(type) {
			case *sourceValue, *pipelineValue, *inputValue, *packagesValue:
				hint = fmt.Sprintf("give it to the stage as an input: inputs = {\"file\": %s}", kv[1].Type())
			}
			return nil, c.fail(arg, hint, "%v", err)
		}
		if kv[1] == starlark.None {
			continue // as if it had not been given: rules pass what they were not given either
		}
		if _, dup := s.options[key]; dup {
			return nil, c.fail(arg, "", "option %q is given twice", key)
		}
		s.options[key] = x
		texts[key] = appendOrdered(nil, kv[1])
	}
	s.optionsText = optionsText(texts)
	var err error
	if typed["inputs"] {
		if s.inputs, err = c.stageInputs(); err != nil {
			return nil, err
		}
	}
	if typed["devices"] {
		s.devices = map[string]*deviceValue{}
		for _, kv := range c.args["devices"].(*starlark.Dict).Items() {
			s.devices[string(kv[0].(starlark.String))] = kv[1].(*deviceValue)
		}
	}
	if typed["mounts"] {
		if err := c.stageMounts(s); err != nil {
			return nil, err
		}
	}
	if err := c.checkSchema(s); err != nil {
		return nil, err
	}
	s.value = value{
		typ: "stage", text: fmt.Sprintf("<stage %s at %s>", name, originOf(s.origin)),
		attrs: starlark.StringDict{"type": starlark.String(name), "options": fromPlain(s.options)},
	}
	return s, nil
}

// optionsText is the text of the options: what is in them in the order in which it
// was written, which some stages go by, and they themselves sorted, so that the order
// of keyword arguments means nothing.
func optionsText(texts map[string][]byte) []byte {
	b := []byte{'{'}
	for i, key := range slices.Sorted(maps.Keys(texts)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(manifest.AppendJSON(b, key), ':')
		b = append(b, texts[key]...)
	}
	return append(b, '}')
}

// inputName is what upstream allows as the name of an input.
var inputName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,254}$`)

func (c *call) stageInputs() (map[string]*inputValue, error) {
	inputs := map[string]*inputValue{}
	for _, kv := range c.args["inputs"].(*starlark.Dict).Items() {
		name := string(kv[0].(starlark.String))
		if !inputName.MatchString(name) {
			return nil, c.fail("inputs", "a letter, then letters, digits, \"_\", \".\" and \"-\"", "%q cannot be the name of an input", name)
		}
		in, err := toInput(kv[1])
		if err != nil {
			return nil, c.fail("inputs", "", "input %q: %v", name, err)
		}
		inputs[name] = in
	}
	return inputs, nil
}

func (c *call) stageMounts(s *stageValue) error {
	seen := map[string]bool{}
	for _, v := range c.items("mounts") {
		m := v.(*mountValue)
		if seen[m.name] {
			return c.fail("mounts", "give one of them another name = …", "two mounts have the name %q", m.name)
		}
		seen[m.name] = true
		if m.source != "" && s.devices[m.source] == nil {
			return c.fail("mounts", didYouMean(m.source, slices.Sorted(maps.Keys(s.devices))), "mount %q is of the device %q, which the stage does not have", m.name, m.source)
		}
		s.mounts = append(s.mounts, m)
	}
	for name, d := range s.devices {
		if d.parent != "" && s.devices[d.parent] == nil {
			return c.fail("devices", "", "device %q has the parent %q, which the stage does not have", name, d.parent)
		}
	}
	return nil
}

// checkSchema holds the stage against its schema; what is wrong is told at the
// argument that it belongs to.
func (c *call) checkSchema(s *stageValue) error {
	probe := &manifest.Stage{Type: s.stage, Options: s.options, Inputs: map[string]*manifest.Input{}, Devices: map[string]*manifest.Device{}, Origin: s.origin}
	for name, in := range s.inputs {
		probe.Inputs[name] = in.probe()
	}
	for name, d := range s.devices {
		probe.Devices[name] = d.plan()
	}
	for _, m := range s.mounts {
		probe.Mounts = append(probe.Mounts, m.plan())
	}
	return c.p.checkStage(c, probe)
}
