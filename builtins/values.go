// The values of the language: what runner(), buildroot(), stage() and the others
// return. They cannot be changed once they are made.

package builtins

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/osbuild-star/osbuild-star/manifest"
)

// value is what all values of this package share: a type, a text, attributes.
// Two values are equal when they are the same one, or, where text is all that
// there is to them (runners, sources, repositories), when the texts are equal.
type value struct {
	typ   string
	text  string
	attrs starlark.StringDict
}

func (v *value) Type() string         { return v.typ }
func (v *value) String() string       { return v.text }
func (v *value) Freeze()              {} // immutable from the start
func (v *value) Truth() starlark.Bool { return starlark.True }
func (v *value) AttrNames() []string  { return slices.Sorted(maps.Keys(v.attrs)) }

func (v *value) Hash() (uint32, error) { return starlark.String(v.text).Hash() }

// Attr answers v.name; nil, nil is how an unknown attribute is told.
func (v *value) Attr(name string) (starlark.Value, error) { return v.attrs[name], nil }

type (
	// runnerValue is the program that sets up a build root.
	runnerValue struct {
		value
		name    string       // "org.osbuild.debian12"
		program *sourceValue // of the user's own, or nil
	}

	// buildrootValue is where stages run.
	buildrootValue struct {
		value
		runner   string         // its name
		setup    *runnerValue   // nil for the host's
		pipeline *pipelineValue // nil: the host's tree
		varDir   string
	}

	// stageValue is one step, its options plain data already.
	stageValue struct {
		value
		stage       string // the stage's name, "org.osbuild.hostname"
		options     map[string]any
		optionsText []byte // the same as JSON, in the order in which they were written
		inputs      map[string]*inputValue
		devices     map[string]*deviceValue
		mounts      []*mountValue
		origin      manifest.Origin
	}

	// pipelineValue is a sequence of stages.
	pipelineValue struct {
		value
		name   string
		stages []*stageValue
		build  *buildrootValue
		epoch  *int64
		arch   string
		origin manifest.Origin
	}

	// inputValue is what a stage reads: one of its fields is set.
	inputValue struct {
		value
		tree     *pipelineValue
		file     string // a file of tree: an input of files
		sources  []*sourceValue
		packages *packagesValue
		origin   manifest.Origin
	}

	deviceValue struct {
		value
		device  string // "org.osbuild.loopback"
		parent  string
		options map[string]any
	}

	mountValue struct {
		value
		mount     string // "org.osbuild.ext4"
		name      string
		source    string // name of a device of the stage
		partition int64
		target    string
		options   map[string]any
	}

	repoValue struct {
		value
		repo manifest.DebRepo
	}

	packagesValue struct {
		value
		request *manifest.PackageRequest
		key     string // equal requests have equal keys
	}
)

// CompareSameType makes runners with one name equal; see [value].
func (v *runnerValue) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	return equalText(op, v, y)
}

// CompareSameType makes repositories with the same content equal.
func (v *repoValue) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	return equalText(op, v, y)
}

// CompareSameType makes equal requests for packages equal.
func (v *packagesValue) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	return equality(op, v, y, v.key == y.(*packagesValue).key)
}

func equalText(op syntax.Token, x, y starlark.Value) (bool, error) {
	return equality(op, x, y, x.String() == y.String())
}

func equality(op syntax.Token, x, y starlark.Value, equal bool) (bool, error) {
	switch op {
	case syntax.EQL:
		return equal, nil
	case syntax.NEQ:
		return !equal, nil
	}
	return false, fmt.Errorf("%s %s %s is not defined", x.Type(), op, y.Type())
}

func newRunner(name string) *runnerValue {
	return &runnerValue{
		value: value{
			typ: "runner", text: fmt.Sprintf("runner(%q)", name),
			attrs: starlark.StringDict{"name": starlark.String(name)},
		},
		name: name,
	}
}

func newPipeline(name string, stages []*stageValue, build *buildrootValue) *pipelineValue {
	p := &pipelineValue{name: name, stages: stages, build: build}
	list := make(starlark.Tuple, len(stages))
	for i, s := range stages {
		list[i] = s
	}
	p.value = value{
		typ: "pipeline", text: fmt.Sprintf("<pipeline %q>", name),
		attrs: starlark.StringDict{
			"name": starlark.String(name), "stages": list, "build": build,
		},
	}
	return p
}

// noneOr is a string value, or None for "".
func noneOr(s string) starlark.Value {
	if s == "" {
		return starlark.None
	}
	return starlark.String(s)
}

func quoteAll(list []string) string {
	s := ""
	for i, v := range list {
		if i > 0 {
			s += ", "
		}
		s += strconv.Quote(v)
	}
	return s
}
