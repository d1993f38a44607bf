// One call of a builtin: its arguments are unpacked and checked against the table,
// and every mistake is an error at the line of the call.

package builtins

import (
	"fmt"
	"math"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/osbuild-star/osbuild-star/manifest"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// call is what the code of a builtin gets: every parameter has a value, given or
// default, of the type that the table says.
type call struct {
	p     *Project
	t     *starlark.Thread
	b     *Builtin
	args  map[string]starlark.Value
	given map[string]bool  // the parameters that were written down
	at    map[string]int   // position among the positional arguments
	rest  []starlark.Tuple // keyword arguments that the table does not name, if it takes such
}

// compiled are the types and defaults of a builtin's parameters.
type compiled struct {
	types    []*typ
	defaults []starlark.Value // nil: the parameter is required
}

// compile reads types and defaults of a table's entry. A mistake there is one of
// the program, and panics.
func (b *Builtin) compile() *compiled {
	c := &compiled{}
	for _, p := range b.Params {
		c.types = append(c.types, parseType(p.Type))
		var v starlark.Value
		if p.Default != "" {
			var err error
			v, err = starlark.EvalOptions(&syntax.FileOptions{}, &starlark.Thread{}, b.Name, p.Default, nil)
			if err != nil {
				panic(fmt.Sprintf("builtins: %s: default of %s: %v", b.Name, p.Name, err))
			}
			v.Freeze()
		}
		c.defaults = append(c.defaults, v)
	}
	return c
}

// value makes the function that rule files see.
func (b *Builtin) value(p *Project) *starlark.Builtin {
	return starlark.NewBuiltin(b.Name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		c, err := b.unpack(p, t, args, kwargs)
		if err != nil {
			return nil, err
		}
		return b.run(c)
	})
}

// unpack checks the arguments of a call.
func (b *Builtin) unpack(p *Project, t *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (*call, error) {
	c := &call{p: p, t: t, b: b, args: map[string]starlark.Value{}, given: map[string]bool{}, at: map[string]int{}}
	com := b.com
	if b.Varargs != "" {
		c.args["*"] = args
		args = nil
	}
	positional := 0
	for _, prm := range b.Params {
		if !prm.Keyword {
			positional++
		}
	}
	if len(args) > positional {
		hint := ""
		if positional < len(b.Params) {
			hint = fmt.Sprintf("the others need their name: %s = …", b.Params[positional].Name)
		}
		return nil, rulefile.ArgError(t, b.Name, "", fmt.Sprintf("%s takes at most %d positional arguments, got %d", b.Name, positional, len(args)), hint)
	}
	for i, v := range args {
		name := b.Params[i].Name
		c.args[name], c.given[name], c.at[name] = v, true, i
	}
	for _, kv := range kwargs {
		name := string(kv[0].(starlark.String))
		switch {
		case b.param(name) == nil && b.Rest != "":
			c.rest = append(c.rest, kv)
		case b.param(name) == nil:
			return nil, rulefile.ArgError(t, b.Name, name, fmt.Sprintf("%s has no parameter %q", b.Name, name), didYouMean(name, b.names()))
		case c.given[name]:
			return nil, rulefile.ArgError(t, b.Name, name, fmt.Sprintf("%s got two values for %q", b.Name, name), "")
		default:
			c.args[name], c.given[name] = kv[1], true
		}
	}
	for i, prm := range b.Params {
		v, ok := c.args[prm.Name]
		switch {
		case ok:
			if msg := com.types[i].check(prm.Name, v); msg != "" {
				return nil, c.fail(prm.Name, hint(&prm, com.types[i], v), "%s", msg)
			}
		case com.defaults[i] == nil:
			return nil, rulefile.ArgError(t, b.Name, "", fmt.Sprintf("%s needs the argument %q", b.Name, prm.Name), prm.Name+": "+firstSentence(prm.Doc))
		default:
			c.args[prm.Name] = com.defaults[i]
		}
	}
	return c, nil
}

// hint helps with the most frequent slip: one value where a list of them is wanted.
func hint(p *Param, t *typ, v starlark.Value) string {
	for _, alt := range append([]typ{*t}, t.alts...) {
		if alt.name == "list" && alt.elem != nil && alt.elem.check("", v) == "" {
			if s, ok := v.(starlark.String); ok {
				return fmt.Sprintf("write %s = [%s]", p.Name, s)
			}
			return fmt.Sprintf("put it into brackets: %s = [ … ]", p.Name)
		}
	}
	return ""
}

func didYouMean(name string, known []string) string {
	if s := rulefile.Suggest(name, known); s != "" {
		return fmt.Sprintf("did you mean %q?", s)
	}
	if len(known) > 0 && len(known) <= 12 {
		return "it has " + strings.Join(known, ", ")
	}
	return ""
}

func firstSentence(doc string) string {
	s, _, _ := strings.Cut(doc, ". ")
	return strings.TrimSuffix(s, ".")
}

// fail is an error about one argument of the call.
func (c *call) fail(arg, hint, format string, args ...any) error {
	msg := c.b.Name + ": " + fmt.Sprintf(format, args...)
	if i, ok := c.at[arg]; ok && c.direct() {
		return rulefile.PosArgError(c.t, c.b.Name, i, msg, hint)
	}
	return rulefile.ArgError(c.t, c.b.Name, arg, msg, hint)
}

// direct says whether the call stands in the user's own file, and not in a rule
// that the user called.
func (c *call) direct() bool {
	if c.t.CallStackDepth() < 2 {
		return false
	}
	caller := c.t.CallFrame(1).Pos
	user := rulefile.CallerPos(c.t)
	return caller.Filename() == user.File && caller.Line == user.Line && caller.Col == user.Col
}

// origin is the position of the call in the user's own rule file.
func (c *call) origin() manifest.Origin {
	pos := rulefile.CallerPos(c.t)
	return manifest.Origin{File: pos.File, Line: int(pos.Line), Col: int(pos.Col)}
}

func (c *call) none(name string) bool { return c.args[name] == starlark.None }

// str is the string of a parameter, "" for None.
func (c *call) str(name string) string {
	s, _ := c.args[name].(starlark.String)
	return string(s)
}

func (c *call) bool(name string) bool { return bool(c.args[name].Truth()) }

// int is the integer of a parameter, which must lie in [lo, hi].
func (c *call) int(name string, lo, hi int64) (int64, error) {
	v, _ := c.args[name].(starlark.Int)
	n, ok := v.Int64()
	if !ok || n < lo || n > hi {
		if hi == math.MaxInt64 {
			return 0, c.fail(name, "", "%s is %s, must be at least %d", name, v, lo)
		}
		return 0, c.fail(name, "", "%s is %s, must be from %d to %d", name, v, lo, hi)
	}
	return n, nil
}

// strs is the list of strings of a parameter.
func (c *call) strs(name string) []string {
	var list []string
	for _, v := range c.items(name) {
		s, _ := v.(starlark.String)
		list = append(list, string(s))
	}
	return list
}

// items are the elements of a list or tuple; none for None.
func (c *call) items(name string) []starlark.Value { return elements(c.args[name]) }

func elements(v starlark.Value) []starlark.Value {
	seq, ok := v.(starlark.Indexable)
	if !ok || v.Type() == "string" {
		return nil
	}
	list := make([]starlark.Value, seq.Len())
	for i := range list {
		list[i] = seq.Index(i)
	}
	return list
}
