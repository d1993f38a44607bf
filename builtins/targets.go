// image, image_test, group and param: what a BUILD.star file declares.

package builtins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.starlark.net/starlark"

	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// target is what all targets share.
type target struct {
	value
	kind  string
	label rulefile.Label
	pos   rulefile.Position
}

func (t *target) Kind() string           { return t.kind }
func (t *target) Label() rulefile.Label  { return t.label }
func (t *target) Pos() rulefile.Position { return t.pos }

type (
	// imageTarget is an artifact. Without a name it is only a value, with a zero label.
	imageTarget struct {
		target
		pipeline *pipelineValue
		files    []string // nil: all of the tree
	}

	// testTarget boots an image and runs commands in it.
	testTarget struct {
		target
		image    rulefile.Label
		disk     string
		firmware []string
		login    string
		password string
		commands []string
		timeout  time.Duration
		memory   int
	}

	// buildrootTarget is a buildroot() at the top of a BUILD.star: it has a label, by
	// which the command line can name it as a build environment.
	buildrootTarget struct {
		target
		root *buildrootValue
	}

	// groupTarget is a name for several targets.
	groupTarget struct {
		target
		members []rulefile.Label
	}

	// paramTarget is a value that the command line can set.
	paramTarget struct {
		target
		doc    string
		def    starlark.Value
		values []starlark.Value
		used   starlark.Value
	}
)

var targetTable = []Builtin{
	{
		Name:   "image",
		Doc:    "An artifact that a person can ask for: files of the tree that a pipeline ends in. Without a name it is a value, for `matrix` and for rules.",
		Result: "image",
		Target: true,
		Params: []Param{
			{Name: "name", Type: "string | None", Default: "None", Doc: "Name of the target."},
			{Name: "pipeline", Type: "pipeline", Doc: "The pipeline."},
			{Name: "files", Type: "list[string] | None", Default: "None", Doc: "Paths in its tree; None is all that is in it."},
		},
		run: runImage,
	},
	{
		Name: "image_test",
		Doc: "A test of an image: it boots in a virtual machine without a screen, once per firmware, a login at its serial console must work, " +
			"and each command that is typed there must end with 0.",
		Result: "None",
		Target: true,
		Params: []Param{
			{Name: "name", Type: "string", Doc: "Name of the target."},
			{Name: "image", Type: "string | image", Doc: "Label of the image."},
			{Name: "disk", Type: "string | None", Default: "None", Doc: "Which of the image's files is the disk; None is the only one that it has.", Keyword: true},
			{Name: "firmware", Type: "list[string]", Default: `[]`, Doc: `"bios", "uefi"; without any, what machines of the image's architecture have: "bios" on x86_64, "uefi" on aarch64.`, Keyword: true},
			{Name: "login", Type: "string", Default: `"root"`, Doc: "User to log in as.", Keyword: true},
			{Name: "password", Type: "string", Default: `""`, Doc: "The user's password, in clear text: of an image that is only for tests.", Keyword: true},
			{Name: "commands", Type: "list[string]", Default: "[]", Doc: "Command lines for the shell of the user.", Keyword: true},
			{Name: "timeout", Type: "int", Default: "600", Doc: "Seconds that one boot may take, login and commands included.", Keyword: true},
			{Name: "memory", Type: "int", Default: "1024", Doc: "Memory of the virtual machine in MiB.", Keyword: true},
		},
		run: runImageTest,
	},
	{
		Name:   "group",
		Doc:    "One name for several targets.",
		Result: "None",
		Target: true,
		Params: []Param{
			{Name: "name", Type: "string", Doc: "Name of the target."},
			{Name: "targets", Type: "list[string | image]", Doc: "Their labels."},
		},
		run: runGroup,
	},
	{
		Name: "param",
		Doc: "A value that the command line can set: `-D name=value`. It returns the value, of the type that the default has. " +
			"Without a default it is one that MODULE.star declares.",
		Result: "string | int | bool",
		Target: true,
		Params: []Param{
			{Name: "name", Type: "string", Doc: "Name of the parameter."},
			{Name: "default", Type: "string | int | bool | None", Default: "None", Doc: "The value when the command line has none."},
			{Name: "values", Type: "list[string | int | bool] | None", Default: "None", Doc: "All values that it may have; None is any.", Keyword: true},
			{Name: "doc", Type: "string", Default: `""`, Doc: "What it is for.", Keyword: true},
		},
		run: runParam,
	},
	{
		Name: "matrix",
		Doc: "One target with many variants: one for each combination of the values of its axes. `image` is a function of the axes' names that " +
			"returns an unnamed image; it is called for the variants that are asked for only. A variant's label is `//pkg:name@value-value`; " +
			"without a suffix all variants are meant, or those of `default`. Where that is one, it takes the place of an image of that name; `//pkg:name@all` is all.",
		Result: "None",
		Target: true,
		Params: []Param{
			{Name: "name", Type: "string", Doc: "Name of the target."},
			{Name: "axes", Type: "dict[string, list[string]]", Doc: "The axes, in order, and their values."},
			{Name: "exclude", Type: "list[dict[string, string | list[string]]]", Default: "[]", Doc: "Combinations to leave out: each variant that has all of these values.", Keyword: true},
			{Name: "include", Type: "list[dict[string, string]]", Default: "[]", Doc: "Further combinations, each with a value for every axis.", Keyword: true},
			{Name: "default", Type: "dict[string, string | list[string]] | None", Default: "None", Keyword: true,
				Doc: "Which variants are meant where none is named: `{\"arch\": arch.host}`; None is all."},
			{Name: "image", Type: "function", Doc: "The function."},
		},
		run: runMatrix,
	},
}

// declare makes the target known under its name.
func (c *call) declare(t *target, v rulefile.Target, kind string) error {
	scope, err := c.scope()
	if err != nil {
		return err
	}
	name := c.str("name")
	t.kind, t.pos = kind, rulefile.CallerPos(c.t)
	t.label, err = scope.ParseLabel(":" + name)
	if err != nil {
		return c.wrap("name", err)
	}
	t.value = value{typ: kind, text: fmt.Sprintf("<%s %s>", kind, t.label), attrs: t.attrs}
	if err := scope.Declare(v); err != nil {
		return c.wrap("name", err)
	}
	return nil
}

// labels reads a list of labels and targets.
func (c *call) labels(arg string, list []starlark.Value) ([]rulefile.Label, error) {
	scope, err := c.scope()
	if err != nil {
		return nil, err
	}
	var out []rulefile.Label
	for _, v := range list {
		if img, ok := v.(*imageTarget); ok {
			if img.label.Name == "" {
				return nil, c.fail(arg, "give the image a name", "an image without a name has no label")
			}
			out = append(out, img.label)
			continue
		}
		label, err := scope.ParseLabel(string(v.(starlark.String)))
		if err != nil {
			return nil, c.wrap(arg, err)
		}
		out = append(out, label)
	}
	return out, nil
}

func runImage(c *call) (starlark.Value, error) {
	img := &imageTarget{pipeline: c.args["pipeline"].(*pipelineValue)}
	if !c.none("files") {
		img.files = c.strs("files")
		if len(img.files) == 0 {
			return nil, c.fail("files", "leave it out for all files", "an image of no files")
		}
	}
	for _, f := range img.files {
		if !localPath(f) {
			return nil, c.fail("files", "a path below the root of the tree, without a leading \"/\"", "%q is not the path of a file", f)
		}
	}
	img.value = value{typ: "image", text: "<image>"}
	img.attrs = starlark.StringDict{"pipeline": img.pipeline, "files": starlark.None, "label": starlark.None}
	if img.files != nil {
		img.attrs["files"] = fromPlain(anyList(img.files))
	}
	img.kind, img.pos = "image", rulefile.CallerPos(c.t)
	if c.none("name") {
		return img, nil
	}
	if err := c.declare(&img.target, img, "image"); err != nil {
		return nil, err
	}
	img.attrs["label"] = starlark.String(img.label.String())
	return img, nil
}

func runImageTest(c *call) (starlark.Value, error) {
	labels, err := c.labels("image", []starlark.Value{c.args["image"]})
	if err != nil {
		return nil, err
	}
	t := &testTarget{
		image: labels[0], disk: c.str("disk"), firmware: c.strs("firmware"),
		login: c.str("login"), password: c.str("password"), commands: c.strs("commands"),
	}
	known := []string{"bios", "uefi"}
	for i, f := range t.firmware {
		if !slices.Contains(known, f) {
			return nil, c.fail("firmware", didYouMean(f, known), "there is no firmware %q", f)
		}
		if slices.Contains(t.firmware[:i], f) {
			return nil, c.fail("firmware", "", "firmware %q is given twice", f)
		}
	}
	for _, cmd := range t.commands {
		if strings.TrimSpace(cmd) == "" || strings.ContainsAny(cmd, "\n\r\x00") {
			return nil, c.fail("commands", "each command is one line", "%q is not a command line", cmd)
		}
	}
	seconds, err := c.int("timeout", 1, 24*3600)
	if err != nil {
		return nil, err
	}
	memory, err := c.int("memory", 64, 1<<20)
	if err != nil {
		return nil, err
	}
	t.timeout, t.memory = time.Duration(seconds)*time.Second, int(memory)
	return starlark.None, c.declare(&t.target, t, "image_test")
}

func runGroup(c *call) (starlark.Value, error) {
	members, err := c.labels("targets", c.items("targets"))
	if err != nil {
		return nil, err
	}
	g := &groupTarget{members: members}
	return starlark.None, c.declare(&g.target, g, "group")
}

func runParam(c *call) (starlark.Value, error) {
	name := c.str("name")
	if c.none("default") {
		v, ok := c.p.moduleParams[name]
		if !ok {
			known := make([]string, 0, len(c.p.moduleParams))
			for k := range c.p.moduleParams {
				known = append(known, k)
			}
			slices.Sort(known)
			return nil, c.fail("name", didYouMean(name, known), "MODULE.star has no parameter %q, and this one has no default", name)
		}
		return v, nil
	}
	t := &paramTarget{doc: c.str("doc"), def: c.args["default"], values: c.items("values")}
	for _, v := range t.values {
		if v.Type() != t.def.Type() {
			return nil, c.fail("values", "", "%s is a %s, the default is a %s", v, v.Type(), t.def.Type())
		}
	}
	if len(t.values) > 0 && !contains(t.values, t.def) {
		return nil, c.fail("default", "", "the default %s is not among the values", t.def)
	}
	t.used = t.def
	if text, ok := c.p.define(name); ok {
		v, err := parseParam(text, t.def)
		if err != nil {
			return nil, c.fail("name", "", "-D %s=%s: %v", name, text, err)
		}
		if len(t.values) > 0 && !contains(t.values, v) {
			return nil, c.fail("values", "one of "+starlark.NewList(t.values).String(), "-D %s=%s: it cannot have this value", name, text)
		}
		t.used = v
	}
	if err := c.declare(&t.target, t, "param"); err != nil {
		return nil, err
	}
	return t.used, nil
}

func contains(list []starlark.Value, v starlark.Value) bool {
	return slices.ContainsFunc(list, func(x starlark.Value) bool {
		eq, err := starlark.Equal(x, v)
		return err == nil && eq
	})
}

// parseParam reads a value of the command line as the type of like.
func parseParam(text string, like starlark.Value) (starlark.Value, error) {
	switch like.(type) {
	case starlark.Int:
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil {
			return nil, errors.New("a whole number is wanted")
		}
		return starlark.MakeInt64(n), nil
	case starlark.Bool:
		switch strings.ToLower(text) {
		case "true", "yes", "1", "on":
			return starlark.True, nil
		case "false", "no", "0", "off":
			return starlark.False, nil
		}
		return nil, errors.New("true or false is wanted")
	}
	return starlark.String(text), nil
}

// concrete turns targets into images and tests: groups into their members,
// matrices into their variants. Parameters are left out. Each comes once.
func (p *Project) concrete(ctx context.Context, targets []rulefile.Target) ([]rulefile.Target, error) {
	var out []rulefile.Target
	seen := map[rulefile.Label]bool{}
	var visit func(rulefile.Target) error
	visit = func(t rulefile.Target) error {
		if seen[t.Label()] {
			return nil
		}
		seen[t.Label()] = true
		switch t := t.(type) {
		case *groupTarget:
			for _, label := range t.members {
				m, err := p.lookup(ctx, label, t)
				if err != nil {
					return err
				}
				if err := visit(m); err != nil {
					return err
				}
			}
		case *matrixTarget:
			if img, err := t.one(); err != nil {
				return err
			} else if img != nil {
				out = append(out, img)
				return nil
			}
			for _, v := range t.Whole() {
				img, err := t.Variant(v.Name)
				if err != nil {
					return err
				}
				if err := visit(img); err != nil {
					return err
				}
			}
		case *paramTarget, *buildrootTarget:
		default:
			out = append(out, t)
		}
		return nil
	}
	for _, t := range targets {
		if err := visit(t); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lookup finds a target that another one names.
func (p *Project) lookup(ctx context.Context, label rulefile.Label, from rulefile.Target) (rulefile.Target, error) {
	t, err := p.loader.Target(ctx, label)
	if err == nil {
		return t, nil
	}
	if err, ok := errors.AsType[*rulefile.Error](err); ok && !err.Pos.IsValid() {
		at := *err
		at.Pos, at.In = from.Pos(), from.Kind()+" "+from.Label().String()
		return nil, &at
	}
	return nil, err
}

// imageOf finds the image of a test.
func (p *Project) imageOf(ctx context.Context, t *testTarget) (*imageTarget, error) {
	found, err := p.lookup(ctx, t.image, t)
	if err != nil {
		return nil, err
	}
	if m, ok := found.(*matrixTarget); ok {
		img, err := m.one()
		if img != nil || err != nil {
			return img, err
		}
	}
	img, ok := found.(*imageTarget)
	if !ok {
		return nil, &rulefile.Error{
			Msg: fmt.Sprintf("image_test: %s is a %s, not an image", t.image, found.Kind()),
			Pos: t.pos, Width: 1, In: "image_test " + t.label.String(),
		}
	}
	return img, nil
}
