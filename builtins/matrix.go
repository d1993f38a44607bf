// matrix: one target that stands for many images.

package builtins

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// maxVariants bounds a matrix: more cells than this are a mistake in its axes.
const maxVariants = 10_000

// matrixTarget calls its function for the variants that are asked for only, each
// one once.
type matrixTarget struct {
	target
	axes     []string
	variants []rulefile.Variant
	whole    []rulefile.Variant // what no suffix means; nil: all
	scope    *rulefile.Scope
	fn       starlark.Value

	mu    sync.Mutex
	cells map[string]*cell
}

type cell struct {
	once sync.Once
	img  *imageTarget
	err  error
}

var _ rulefile.VariantTarget = (*matrixTarget)(nil)

// Variants returns all variants, in the order of the axes and their values.
func (m *matrixTarget) Variants() []rulefile.Variant { return m.variants }

// Whole returns the variants that are meant when none is named.
func (m *matrixTarget) Whole() []rulefile.Variant {
	if m.whole != nil {
		return m.whole
	}
	return m.variants
}

// one returns the image that the matrix stands for where none of its variants is
// named, and where that is one by its own word; its label has no suffix then. Else
// it is nil.
func (m *matrixTarget) one() (*imageTarget, error) {
	if len(m.whole) != 1 {
		return nil, nil
	}
	t, err := m.Variant(m.whole[0].Name)
	if err != nil {
		return nil, err
	}
	img := *t.(*imageTarget)
	img.label.Variant = ""
	img.text = fmt.Sprintf("<image %s>", img.label)
	return &img, nil
}

// Variant returns the image of one variant.
func (m *matrixTarget) Variant(name string) (rulefile.Target, error) {
	var found *rulefile.Variant
	for i := range m.variants {
		if m.variants[i].Name == name {
			found = &m.variants[i]
		}
	}
	if found == nil {
		var known []string
		for _, v := range m.variants {
			known = append(known, v.Name)
		}
		return nil, &rulefile.Error{
			Msg: fmt.Sprintf("matrix %s has no variant %q", m.label, name), Hint: didYouMean(name, known), Pos: m.pos, Width: 1,
		}
	}
	m.mu.Lock()
	c := m.cells[name]
	if c == nil {
		c = &cell{}
		m.cells[name] = c
	}
	m.mu.Unlock()
	c.once.Do(func() { c.img, c.err = m.make(found) })
	if c.err != nil {
		return nil, c.err
	}
	return c.img, nil
}

// make calls the function for one variant.
func (m *matrixTarget) make(v *rulefile.Variant) (*imageTarget, error) {
	label := m.label
	label.Variant = v.Name
	in := "image " + label.String()
	var kwargs []starlark.Tuple
	for _, a := range v.Axes {
		kwargs = append(kwargs, starlark.Tuple{starlark.String(a.Name), starlark.String(a.Value)})
	}
	got, err := m.scope.Call(context.Background(), in, m.fn, nil, kwargs)
	if err != nil {
		return nil, err
	}
	img, ok := got.(*imageTarget)
	if !ok || img.label.Name != "" {
		msg := fmt.Sprintf("matrix: the function returned %s, not an image", describeType(got))
		if ok {
			msg = fmt.Sprintf("matrix: the function returned the image %s, which has a name", img.label)
		}
		return nil, &rulefile.Error{Msg: msg, Hint: "return image(pipeline = …), without a name", Pos: m.pos, Width: 1, In: in}
	}
	out := &imageTarget{target: img.target, pipeline: img.pipeline, files: img.files}
	out.label = label
	out.text = fmt.Sprintf("<image %s>", label)
	return out, nil
}

func runMatrix(c *call) (starlark.Value, error) {
	scope, err := c.scope()
	if err != nil {
		return nil, err
	}
	m := &matrixTarget{scope: scope, fn: c.args["image"], cells: map[string]*cell{}}
	values := map[string][]string{}
	total := 1
	for _, kv := range c.args["axes"].(*starlark.Dict).Items() {
		axis := string(kv[0].(starlark.String))
		for _, v := range elements(kv[1]) {
			text := string(v.(starlark.String))
			if text == "" || strings.ContainsAny(text, "@/:,= \t\n") || text == rulefile.AllVariants {
				return nil, c.fail("axes", "", "%q cannot be a value of an axis: it is part of a label", text)
			}
			values[axis] = append(values[axis], text)
		}
		if len(values[axis]) == 0 {
			return nil, c.fail("axes", "", "axis %q has no values", axis)
		}
		if total *= len(values[axis]); total > maxVariants {
			return nil, c.fail("axes", "", "more than %d variants", maxVariants)
		}
		m.axes = append(m.axes, axis)
	}
	if len(m.axes) == 0 {
		return nil, c.fail("axes", "", "a matrix has at least one axis")
	}
	var excludes []map[string][]string
	for _, e := range c.items("exclude") {
		cond, err := c.cellOf("exclude", e.(*starlark.Dict), m.axes)
		if err != nil {
			return nil, err
		}
		excludes = append(excludes, cond)
	}
	seen := map[string]bool{}
	add := func(v rulefile.Variant) {
		if !seen[v.Name] {
			seen[v.Name] = true
			m.variants = append(m.variants, v)
		}
	}
	var walk func(axes []rulefile.Axis)
	walk = func(axes []rulefile.Axis) {
		if len(axes) == len(m.axes) {
			if !hasAll(axes, excludes) {
				add(variantOf(axes))
			}
			return
		}
		axis := m.axes[len(axes)]
		for _, v := range values[axis] {
			walk(append(axes[:len(axes):len(axes)], rulefile.Axis{Name: axis, Value: v}))
		}
	}
	walk(nil)
	for _, e := range c.items("include") {
		cond, err := c.cellOf("include", e.(*starlark.Dict), m.axes)
		if err != nil {
			return nil, err
		}
		var axes []rulefile.Axis
		for _, a := range m.axes {
			if cond[a] == nil {
				return nil, c.fail("include", "", "%s has no value for the axis %q", e, a)
			}
			axes = append(axes, rulefile.Axis{Name: a, Value: cond[a][0]})
		}
		add(variantOf(axes))
	}
	if len(m.variants) == 0 {
		return nil, c.fail("exclude", "", "nothing is left of the matrix")
	}
	if d, ok := c.args["default"].(*starlark.Dict); ok {
		cond, err := c.cellOf("default", d, m.axes)
		if err != nil {
			return nil, err
		}
		for _, v := range m.variants {
			if hasAll(v.Axes, []map[string][]string{cond}) {
				m.whole = append(m.whole, v)
			}
		}
		if len(m.whole) == 0 {
			return nil, c.fail("default", "", "no variant is %s", d)
		}
	}
	m.attrs = starlark.StringDict{"axes": fromPlain(anyList(m.axes))}
	return starlark.None, c.declare(&m.target, m, "matrix")
}

// cellOf reads one entry of exclude or include: axis → values.
func (c *call) cellOf(arg string, d *starlark.Dict, axes []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, kv := range d.Items() {
		axis := string(kv[0].(starlark.String))
		known := false
		for _, a := range axes {
			known = known || a == axis
		}
		if !known {
			return nil, c.fail(arg, didYouMean(axis, axes), "there is no axis %q", axis)
		}
		if s, ok := kv[1].(starlark.String); ok {
			out[axis] = []string{string(s)}
			continue
		}
		for _, v := range elements(kv[1]) {
			out[axis] = append(out[axis], string(v.(starlark.String)))
		}
	}
	if len(out) == 0 {
		return nil, c.fail(arg, "", "an empty combination")
	}
	return out, nil
}

// hasAll says whether a cell has all the values of one of the conditions.
func hasAll(axes []rulefile.Axis, conditions []map[string][]string) bool {
	for _, cond := range conditions {
		hits := 0
		for _, a := range axes {
			for _, v := range cond[a.Name] {
				if v == a.Value {
					hits++
				}
			}
		}
		if hits == len(cond) {
			return true
		}
	}
	return false
}

func variantOf(axes []rulefile.Axis) rulefile.Variant {
	values := make([]string, len(axes))
	for i, a := range axes {
		values[i] = a.Value
	}
	return rulefile.Variant{Name: strings.Join(values, "-"), Axes: axes}
}
