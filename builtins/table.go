// The one table of the language: every function that rule files call is declared
// here as data. Checking, help, the reference and editor stubs come from it.

package builtins

import (
	"fmt"
	"slices"

	"go.starlark.net/lib/json"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// Builtin declares one function of the language.
type Builtin struct {
	Name    string // "pipeline", "source.url"
	Doc     string // Markdown; the first sentence says what it is
	Params  []Param
	Rest    string // what further keyword arguments mean, or "" if there are none
	Varargs string // what further positional arguments mean, or ""; then Params are keywords only
	Result  string // type of the result
	Target  bool   // it declares a target: for BUILD.star files and functions they call

	run func(c *call) (starlark.Value, error)
	com *compiled
}

// Param declares one parameter.
type Param struct {
	Name    string
	Type    string // see [typ]: "string", "list[stage]", "int | None"
	Default string // as an expression of the language; "" when the argument is required
	Doc     string
	Keyword bool // only by its name
}

// Table returns every builtin, sorted by name. The caller must not change it.
func Table() []Builtin { return table }

func (b *Builtin) param(name string) *Param {
	for i := range b.Params {
		if b.Params[i].Name == name {
			return &b.Params[i]
		}
	}
	return nil
}

func (b *Builtin) names() []string {
	list := make([]string, len(b.Params))
	for i, p := range b.Params {
		list[i] = p.Name
	}
	return list
}

// table is filled by init, since the functions in it refer to it.
var table []Builtin

func init() {
	for _, part := range [][]Builtin{lowLevel, sourceTable, packageTable, ioTable, targetTable, generalTable} {
		table = append(table, part...)
	}
	slices.SortFunc(table, func(a, b Builtin) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	for i := range table {
		table[i].com = table[i].compile()
	}
}

func builtin(name string) *Builtin {
	for i := range table {
		if table[i].Name == name {
			return &table[i]
		}
	}
	return nil
}

// predeclared makes the names that a file of that kind sees.
func (p *Project) predeclared(kind rulefile.FileKind) starlark.StringDict {
	if kind == rulefile.ModuleFile {
		return nil // module() is the loader's own
	}
	env := starlark.StringDict{
		"struct": starlark.NewBuiltin("struct", starlarkstruct.Make),
		"json":   json.Module,
		"arch":   archModule(p.cfg.HostArch),
		"stage":  &stageFunc{p: p, generic: builtin("stage").value(p)},
		"buildroot": &callable{
			Builtin: builtin("buildroot").value(p),
			attrs:   starlark.StringDict{"host": hostRoot},
		},
	}
	modules := map[string]starlark.StringDict{}
	for i := range table {
		b := &table[i]
		mod, name, dotted := cutName(b.Name)
		switch {
		case dotted:
			if modules[mod] == nil {
				modules[mod] = starlark.StringDict{}
			}
			modules[mod][name] = b.value(p)
		case env[b.Name] == nil:
			env[b.Name] = b.value(p)
		}
	}
	for name, members := range modules {
		env[name] = newModule(name, members)
	}
	env.Freeze()
	return env
}

func cutName(name string) (mod, member string, dotted bool) {
	for i := range len(name) {
		if name[i] == '.' {
			return name[:i], name[i+1:], true
		}
	}
	return "", name, false
}

// newModule is a name with attributes: source, device, mount, arch.
func newModule(name string, members starlark.StringDict) *value {
	return &value{typ: "module", text: "<module " + name + ">", attrs: members}
}

// callable is a function that has attributes too.
type callable struct {
	*starlark.Builtin
	attrs starlark.StringDict
}

// Attr answers for the attributes that there are.
func (c *callable) Attr(name string) (starlark.Value, error) {
	if v, ok := c.attrs[name]; ok {
		return v, nil
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("%s has no .%s", c.Name(), name))
}

func (c *callable) AttrNames() []string { return c.attrs.Keys() }
