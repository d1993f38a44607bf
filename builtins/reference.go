// The reference of the language, made of the table, the schemas of the stages and
// the docstrings of the rule library.

package builtins

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"go.starlark.net/syntax"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/rules"
	"github.com/osbuild-star/osbuild-star/stages"
)

// Reference is a page in Markdown of everything that rule files can use: the
// functions, the rules that ship, and the stages.
func Reference() string {
	var b strings.Builder
	b.WriteString("# Reference of rule files\n\nMade by `osbuild-star`; do not edit.\n")
	b.WriteString("\n## Functions\n")
	for i := range table {
		table[i].reference(&b)
	}
	b.WriteString("\n### `arch`\n\nArchitectures by name: `arch.host` is the one of this machine; " + code(architectures, "arch.") + ".\n")
	b.WriteString("\n### `struct`, `json`\n\nAs in Bazel: `struct(name = value)`, `json.encode(x)`, `json.decode(text)`, `json.indent(text)`.\n")
	b.WriteString("\n## Rules\n")
	for _, r := range Rules() {
		r.reference(&b)
	}
	b.WriteString("\n## Stages\n")
	for _, s := range stages.All() {
		stageReference(&b, manifest.Builtin(), StageDoc{s.Name, s.Summary, s.Doc})
	}
	return b.String()
}

// StageDoc is what is written about a stage.
type StageDoc struct {
	Name    string // "org.osbuild.hostname"
	Summary string // one line
	Doc     string // Markdown
}

// LibraryReference is the part of the page about stages of a library directory, whose
// schemas mods has.
func LibraryReference(mods manifest.Modules, list []StageDoc) string {
	var b strings.Builder
	b.WriteString("\n## Stages of the library directory\n")
	for _, s := range list {
		stageReference(&b, mods, s)
	}
	return b.String()
}

func code(list []string, prefix string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = "`" + prefix + s + "`"
	}
	return strings.Join(out, ", ")
}

// Signature is the function as its declaration would be written.
func (b *Builtin) Signature() string {
	var parts []string
	if b.Varargs != "" {
		parts = append(parts, "*args")
	}
	star := b.Varargs != ""
	for _, p := range b.Params {
		if p.Keyword && !star {
			parts, star = append(parts, "*"), true
		}
		s := p.Name
		if p.Default != "" {
			s += " = " + p.Default
		}
		parts = append(parts, s)
	}
	if b.Rest != "" {
		parts = append(parts, "**options")
	}
	return b.Name + "(" + strings.Join(parts, ", ") + ")"
}

func (b *Builtin) reference(w *strings.Builder) {
	fmt.Fprintf(w, "\n### `%s`\n\n%s\n\n    %s -> %s\n", b.Name, b.Doc, b.Signature(), b.Result)
	if len(b.Params) > 0 || b.Rest != "" || b.Varargs != "" {
		w.WriteString("\n| parameter | type | default | |\n|---|---|---|---|\n")
	}
	if b.Varargs != "" {
		fmt.Fprintf(w, "| `*args` | | | %s |\n", b.Varargs)
	}
	for _, p := range b.Params {
		def := ""
		if p.Default != "" {
			def = "`" + p.Default + "`"
		}
		typ := strings.TrimSuffix(p.Type, " | any")
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", p.Name, tableCell(typ), def, tableCell(p.Doc))
	}
	if b.Rest != "" {
		fmt.Fprintf(w, "| `**options` | | | %s |\n", b.Rest)
	}
}

// tableCell makes a text fit into a table.
func tableCell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s)
}

func stageReference(w *strings.Builder, mods manifest.Modules, s StageDoc) {
	fmt.Fprintf(w, "\n### `stage.%s`\n\n`%s`: %s.\n", shortName(s.Name), s.Name, s.Summary)
	if s.Doc != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(s.Doc))
	}
	options, err := manifest.SchemaOptions(mods, s.Name)
	if err != nil || len(options) == 0 {
		return
	}
	w.WriteString("\n| option | type | default | |\n|---|---|---|---|\n")
	optionRows(w, "", options, 0)
}

func optionRows(w *strings.Builder, prefix string, options []manifest.Option, depth int) {
	for _, o := range options {
		name := prefix + o.Name
		if depth == 0 {
			name = underscored(o.Name)
		}
		typ := o.Type
		if o.Items != "" {
			typ += " of " + o.Items
		}
		if o.Enum != nil {
			var words []string
			for _, x := range o.Enum {
				words = append(words, fromPlain(x).String())
			}
			typ = strings.Join(words, ", ")
		}
		def := ""
		switch {
		case o.Default != nil:
			def = "`" + fromPlain(o.Default).String() + "`"
		case o.Required:
			def = "required"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", name, tableCell(typ), def, tableCell(o.Description))
		if depth < 3 {
			optionRows(w, name+".", o.Options, depth+1)
		}
	}
}

// Rule is a function of the rule library that ships.
type Rule struct {
	File   string // "debian.star", to be loaded as "@osbuild//debian.star"
	Name   string
	Params []string // as written: `release = "bookworm"`
	Doc    string   // its docstring
}

// Rules returns the public functions of the library, by file and name. A mistake in
// the library itself is none of this function: such a file is left out.
func Rules() []Rule {
	var out []Rule
	names, _ := fs.Glob(rules.FS, "*.star") // the pattern is a good one
	for _, file := range names {
		src, err := rules.FS.ReadFile(file)
		if err != nil {
			continue
		}
		f, err := fileOptions.Parse(file, src, 0)
		if err != nil {
			continue
		}
		public := map[string]string{} // name of a function → how it is called
		for _, st := range f.Stmts {
			publicNames(st, public)
		}
		for _, st := range f.Stmts {
			if def, ok := st.(*syntax.DefStmt); ok && public[def.Name.Name] != "" {
				out = append(out, Rule{File: file, Name: public[def.Name.Name], Params: params(string(src), def), Doc: docstring(def)})
			}
		}
	}
	slices.SortFunc(out, func(a, b Rule) int { return strings.Compare(a.File+":"+a.Name, b.File+":"+b.Name) })
	return out
}

// publicNames adds the function that a statement declares, if it is public, or those
// that it puts into a struct: output = struct(raw = _raw).
func publicNames(st syntax.Stmt, public map[string]string) {
	switch st := st.(type) {
	case *syntax.DefStmt:
		if name := st.Name.Name; !strings.HasPrefix(name, "_") {
			public[name] = name
		}
	case *syntax.AssignStmt:
		to, isName := st.LHS.(*syntax.Ident)
		call, isCall := st.RHS.(*syntax.CallExpr)
		if !isName || !isCall || strings.HasPrefix(to.Name, "_") {
			return
		}
		if fn, ok := call.Fn.(*syntax.Ident); !ok || fn.Name != "struct" {
			return
		}
		for _, arg := range call.Args {
			b, ok := arg.(*syntax.BinaryExpr)
			if !ok || b.Op != syntax.EQ {
				continue
			}
			field, isField := b.X.(*syntax.Ident)
			fn, isFn := b.Y.(*syntax.Ident)
			if isField && isFn {
				public[fn.Name] = to.Name + "." + field.Name
			}
		}
	}
}

// fileOptions is the dialect of rule files.
var fileOptions = syntax.FileOptions{Set: true}

func docstring(def *syntax.DefStmt) string {
	if len(def.Body) == 0 {
		return ""
	}
	if e, ok := def.Body[0].(*syntax.ExprStmt); ok {
		if lit, ok := e.X.(*syntax.Literal); ok && lit.Token == syntax.STRING {
			return dedent(lit.Value.(string))
		}
	}
	return ""
}

// dedent takes the indentation of its body from a docstring.
func dedent(doc string) string {
	lines := strings.Split(strings.TrimSpace(doc), "\n")
	indent := -1
	for _, l := range lines[1:] {
		if t := strings.TrimLeft(l, " "); t != "" && (indent < 0 || len(l)-len(t) < indent) {
			indent = len(l) - len(t)
		}
	}
	for i := 1; i < len(lines); i++ {
		lines[i] = strings.TrimRight(lines[i][min(max(indent, 0), len(lines[i])):], " ")
	}
	return strings.Join(lines, "\n")
}

// params are the parameters as they stand in the source.
func params(src string, def *syntax.DefStmt) []string {
	lines := strings.Split(src, "\n")
	var out []string
	for _, p := range def.Params {
		start, end := p.Span()
		if start.Line != end.Line {
			if b, ok := p.(*syntax.BinaryExpr); ok {
				start, end = b.X.Span()
				out = append(out, part(lines, start, end)+" = …")
				continue
			}
		}
		out = append(out, part(lines, start, end))
	}
	return out
}

func part(lines []string, start, end syntax.Position) string {
	line := []rune(lines[start.Line-1])
	return string(line[start.Col-1 : min(int(end.Col)-1, len(line))])
}

func (r *Rule) reference(w *strings.Builder) {
	symbol, _, _ := strings.Cut(r.Name, ".")
	fmt.Fprintf(w, "\n### `%s`\n\n    load(\"@osbuild//%s\", %q)\n    %s(%s)\n\n%s\n", r.Name, r.File, symbol, r.Name, strings.Join(r.Params, ", "), markdown(r.Doc))
}

// markdown makes a list of the arguments of a docstring: what is indented below
// "Args:".
func markdown(doc string) string {
	var b strings.Builder
	section := false
	for line := range strings.SplitSeq(doc, "\n") {
		text := strings.TrimLeft(line, " ")
		switch indent := len(line) - len(text); {
		case indent == 0:
			section = text == "Args:"
			b.WriteString(text + "\n")
			if section {
				b.WriteString("\n")
			}
			continue
		case !section:
			b.WriteString(text)
		case indent == 2:
			if names, rest, ok := strings.Cut(text, ": "); ok && !strings.Contains(names, ".") {
				text = "`" + strings.ReplaceAll(names, ", ", "`, `") + "`: " + rest
				b.WriteString("- ")
			}
			b.WriteString(text)
		default:
			b.WriteString("  " + text)
		}
		b.WriteString("\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
