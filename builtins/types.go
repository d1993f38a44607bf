// Types of parameters: a small grammar in which the table of builtins says what a
// parameter takes, and the check of a value against it.

package builtins

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"
)

// A typ is the type of a parameter. The grammar is that of type annotations:
//
//	type  = one { "|" one }
//	one   = NAME | "list[" type "]" | "dict[" type "," type "]"
//
// NAME is what Starlark's type() answers for a value, or "any", "None" and
// "function" (whatever can be called). A list is also a tuple.
type typ struct {
	alts []typ  // a union, when there are two or more
	name string // "list" and "dict" too
	elem *typ   // of a list; the values of a dict
	key  *typ   // of a dict
}

// parseType reads the grammar; a mistake in it is one of the program, and panics.
func parseType(s string) *typ {
	p := typeParser{src: s}
	t := p.union()
	if p.skip(); p.pos != len(s) {
		panic("builtins: type " + s)
	}
	return t
}

type typeParser struct {
	src string
	pos int
}

func (p *typeParser) skip() {
	for p.pos < len(p.src) && p.src[p.pos] == ' ' {
		p.pos++
	}
}

func (p *typeParser) take(c byte) bool {
	if p.skip(); p.pos < len(p.src) && p.src[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *typeParser) must(c byte) {
	if !p.take(c) {
		panic(fmt.Sprintf("builtins: type %s: %q is missing", p.src, c))
	}
}

func (p *typeParser) union() *typ {
	t := p.one()
	if !p.take('|') {
		return t
	}
	alts := []typ{*t, *p.one()}
	for p.take('|') {
		alts = append(alts, *p.one())
	}
	return &typ{alts: alts}
}

func (p *typeParser) one() *typ {
	p.skip()
	start := p.pos
	for p.pos < len(p.src) && !strings.ContainsRune("|[], ", rune(p.src[p.pos])) {
		p.pos++
	}
	t := &typ{name: p.src[start:p.pos]}
	if t.name == "" {
		panic("builtins: type " + p.src)
	}
	if p.take('[') {
		if t.name == "dict" {
			t.key = p.union()
			p.must(',')
		}
		t.elem = p.union()
		p.must(']')
	}
	return t
}

func (t *typ) String() string {
	switch {
	case len(t.alts) > 0:
		var s []string
		for i := range t.alts {
			s = append(s, t.alts[i].String())
		}
		return strings.Join(s, " | ")
	case t.key != nil:
		return "dict[" + t.key.String() + ", " + t.elem.String() + "]"
	case t.elem != nil:
		return t.name + "[" + t.elem.String() + "]"
	}
	return t.name
}

// check says what is wrong with a value, or "": at is how the value is called
// ("stages", "stages[2]").
func (t *typ) check(at string, v starlark.Value) string {
	switch {
	case len(t.alts) > 0:
		// The alternative whose outer type fits explains best what is wrong inside.
		for i := range t.alts {
			if t.alts[i].outer(v) {
				return t.alts[i].check(at, v)
			}
		}
		return t.mismatch(at, v)
	case !t.outer(v):
		return t.mismatch(at, v)
	case t.key != nil:
		for _, kv := range v.(starlark.IterableMapping).Items() {
			if msg := t.key.check("a key of "+at, kv[0]); msg != "" {
				return msg
			}
			if msg := t.elem.check(at+"["+kv[0].String()+"]", kv[1]); msg != "" {
				return msg
			}
		}
	case t.elem != nil:
		seq := v.(starlark.Indexable)
		for i := range seq.Len() {
			if msg := t.elem.check(fmt.Sprintf("%s[%d]", at, i), seq.Index(i)); msg != "" {
				return msg
			}
		}
	}
	return ""
}

func (t *typ) mismatch(at string, v starlark.Value) string {
	return fmt.Sprintf("%s wants %s, got %s", at, t, describeType(v))
}

// describeType is type(v), and the value where it is short.
func describeType(v starlark.Value) string {
	switch v := v.(type) {
	case starlark.NoneType:
		return "None"
	case starlark.String:
		if len(v) <= 40 {
			return "string " + v.String()
		}
	case starlark.Int, starlark.Float, starlark.Bool:
		return v.Type() + " " + v.String()
	}
	return v.Type()
}

// outer says whether the value is of the type, its elements left aside.
func (t *typ) outer(v starlark.Value) bool {
	for i := range t.alts {
		if t.alts[i].outer(v) {
			return true
		}
	}
	if len(t.alts) > 0 {
		return false
	}
	switch t.name {
	case "any":
		return true
	case "None":
		return v == starlark.None
	case "function":
		_, ok := v.(starlark.Callable)
		return ok
	case "list":
		switch v.(type) {
		case *starlark.List, starlark.Tuple:
			return true
		}
		return false
	case "dict":
		_, ok := v.(*starlark.Dict)
		return ok
	case "struct":
		return v.Type() == "struct"
	}
	return v.Type() == t.name
}
