// Checks of all stages that are registered: what they say about themselves, and
// that this fits the options that they read.
package stages

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// parsePackage reads the Go files of the package that are no tests, without
// comments, by name.
func parsePackage(t *testing.T, fset *token.FileSet) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = f
	}
	return files
}

// stageLiterals finds the composite literals "Stage{…}" of a file.
func stageLiterals(f *ast.File) []*ast.CompositeLit {
	var out []*ast.CompositeLit
	ast.Inspect(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.CompositeLit); ok {
			if id, ok := l.Type.(*ast.Ident); ok && id.Name == "Stage" {
				out = append(out, l)
			}
		}
		return true
	})
	return out
}

// stageFiles returns the file of each stage whose name stands in it.
func stageFiles(files map[string]*ast.File) map[string]string {
	out := map[string]string{}
	for name, f := range files {
		for _, l := range stageLiterals(f) {
			for _, e := range l.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok || fmt.Sprint(kv.Key) != "Name" {
					continue
				}
				if lit, ok := kv.Value.(*ast.BasicLit); ok {
					if s, err := strconv.Unquote(lit.Value); err == nil {
						out[s] = name
					}
				}
			}
		}
	}
	return out
}

// schemaOf decodes the schema of a stage, or fails.
func schemaOf(t *testing.T, s *Stage) map[string]any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(s.Schema))
	if err != nil {
		t.Fatalf("%s: the schema is no JSON: %v", s.Name, err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%s: the schema is no object", s.Name)
	}
	return m
}

// compile makes a validator of a schema.
func compile(t *testing.T, name string, schema any) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4)
	if err := c.AddResource(name, schema); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	out, err := c.Compile(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func TestSchemas(t *testing.T) {
	for _, s := range All() {
		t.Run(s.Name, func(t *testing.T) {
			schema := schemaOf(t, s)
			if _, ok := schema["options"]; !ok {
				t.Error("there is no schema of the options")
			}
			for part, v := range schema {
				if !slices.Contains([]string{"options", "inputs", "devices", "mounts"}, part) {
					t.Errorf("unknown part %q", part)
					continue
				}
				compile(t, s.Name+"."+part+".json", v)
				describe(t, part, v)
			}
		})
	}
}

// describe looks for properties without a description.
func describe(t *testing.T, at string, v any) {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			describe(t, fmt.Sprintf("%s[%d]", at, i), e)
		}
	case map[string]any:
		for k, e := range v {
			at := at + "." + k
			// In a "not" or an "enum" there is nothing to describe, and beside a
			// "oneOf" of properties their description stands at the side.
			if k == "not" || k == "enum" || k == "default" {
				continue
			}
			if props, ok := e.(map[string]any); ok && k == "properties" && !strings.Contains(at, "oneOf") {
				for name, p := range props {
					m, _ := p.(map[string]any)
					if d, _ := m["description"].(string); strings.TrimSpace(d) == "" {
						t.Errorf("%s.%s has no description", at, name)
					}
				}
			}
			describe(t, at, e)
		}
	}
}

func TestDocs(t *testing.T) {
	for _, s := range All() {
		if s.Summary == "" || strings.ContainsAny(s.Summary, "\n") || strings.HasSuffix(s.Summary, ".") || len(s.Summary) > 80 {
			t.Errorf("%s: the summary %q is not one short line without a full stop", s.Name, s.Summary)
		}
		if r := []rune(s.Summary); len(r) > 1 && unicode.IsUpper(r[0]) && !unicode.IsUpper(r[1]) {
			t.Errorf("%s: the summary %q begins with a capital letter", s.Name, s.Summary)
		}
		if len(s.Doc) < 40 {
			t.Errorf("%s has no documentation", s.Name)
		}
		if s.Run == nil {
			t.Errorf("%s does nothing", s.Name)
		}
		options := compile(t, s.Name, schemaOf(t, s)["options"])
		for _, example := range examples(s.Doc) {
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(example))
			if err == nil {
				err = options.Validate(v)
			}
			if err != nil {
				t.Errorf("%s: the example %s\n%v", s.Name, example, err)
			}
		}
	}
}

// examples finds the JSON objects in the code blocks of a text.
func examples(doc string) []string {
	var out []string
	var block []string
	for line := range strings.SplitSeq(doc+"\n", "\n") {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			block = append(block, code)
			continue
		}
		if text := strings.Join(block, "\n"); strings.HasPrefix(text, "{") {
			out = append(out, text)
		}
		block = nil
	}
	return out
}

// A stage is in the file that has its name, or the beginning of it, whatever stands
// between its words.
func TestFileNames(t *testing.T) {
	files := stageFiles(parsePackage(t, token.NewFileSet()))
	between := regexp.MustCompile(`[^a-z0-9]`)
	for _, s := range All() {
		file, ok := files[s.Name]
		if !ok {
			t.Errorf("no file has the name of the stage %s in it", s.Name)
			continue
		}
		name := strings.TrimPrefix(s.Name, "org.osbuild.")
		short := between.ReplaceAllString(strings.TrimPrefix(name, "org.osbuild-star."), "")
		got := between.ReplaceAllString(strings.TrimSuffix(file, ".go"), "")
		if !strings.HasPrefix(short, got) && !strings.HasPrefix("star"+short, got) {
			t.Errorf("the stage %s is in %s, want %s.go", s.Name, file, strings.NewReplacer(".", "_", "-", "_").Replace(name))
		}
	}
}

// What the options structs read is what the schemas allow.
func TestOptionStructs(t *testing.T) {
	files := parsePackage(t, token.NewFileSet())
	structs := map[string]*ast.StructType{}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if ts, ok := n.(*ast.TypeSpec); ok {
				if st, ok := ts.Type.(*ast.StructType); ok {
					structs[ts.Name.Name] = st
				}
			}
			return true
		})
	}
	for stage, file := range stageFiles(files) {
		s := Lookup(stage)
		if s == nil {
			t.Errorf("%s: %s is not registered", file, stage)
			continue
		}
		schema := schemaOf(t, s)["options"]
		for _, name := range decoded(files[file]) {
			if st, ok := structs[name]; ok {
				checkStruct(t, structs, stage, st, schema)
			}
		}
	}
}

// decoded names the types of the variables whose address is given to Decode.
func decoded(f *ast.File) []string {
	var out []string
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		vars := map[string]string{}
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for _, id := range n.Names {
					if typ, ok := n.Type.(*ast.Ident); ok {
						vars[id.Name] = typ.Name
					}
				}
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || sel.Sel.Name != "Decode" || len(n.Args) != 1 {
					break
				}
				if addr, ok := n.Args[0].(*ast.UnaryExpr); ok {
					if name := vars[fmt.Sprint(addr.X)]; name != "" {
						out = append(out, name)
					}
				}
			}
			return true
		})
	}
	return out
}

// checkStruct compares the fields of a struct with the properties of a schema.
func checkStruct(t *testing.T, structs map[string]*ast.StructType, at string, st *ast.StructType, schema any) {
	t.Helper()
	fields := map[string]ast.Expr{}
	var collect func(st *ast.StructType)
	collect = func(st *ast.StructType) {
		for _, f := range st.Fields.List {
			tag := ""
			if f.Tag != nil {
				s, _ := strconv.Unquote(f.Tag.Value)
				tag, _, _ = strings.Cut(reflect.StructTag(s).Get("json"), ",")
			}
			if len(f.Names) == 0 && tag == "" {
				if inner, ok := structs[fmt.Sprint(f.Type)]; ok {
					collect(inner)
				}
				continue
			}
			if tag == "" {
				t.Errorf("%s: the field %v has no JSON name", at, f.Names)
			} else if tag != "-" {
				fields[tag] = f.Type
			}
		}
	}
	collect(st)
	props := map[string][]any{}
	properties(schema, props)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(props)), slices.Sorted(maps.Keys(fields))); diff != "" {
		t.Errorf("%s: the schema and the struct differ (-schema +struct):\n%s", at, diff)
		return
	}
	for name, typ := range fields {
		for _, p := range props[name] {
			inner, below := descend(structs, typ, p)
			if inner != nil && below != nil {
				checkStruct(t, structs, at+"."+name, inner, below)
			}
		}
	}
}

// properties collects what a schema says about each property, in all of its
// alternatives.
func properties(schema any, out map[string][]any) {
	m, _ := schema.(map[string]any)
	props, _ := m["properties"].(map[string]any)
	for name, p := range props {
		out[name] = append(out[name], p)
	}
	for _, k := range []string{"anyOf", "oneOf", "allOf"} {
		list, _ := m[k].([]any)
		for _, e := range list {
			properties(e, out)
		}
	}
}

// descend follows a type and a schema through pointers, lists and maps to a struct
// and the schema of it, or returns nil.
func descend(structs map[string]*ast.StructType, typ ast.Expr, schema any) (*ast.StructType, any) {
	m, _ := schema.(map[string]any)
	switch e := typ.(type) {
	case *ast.StarExpr:
		return descend(structs, e.X, schema)
	case *ast.ArrayType:
		return descend(structs, e.Elt, m["items"])
	case *ast.StructType:
		return e, schema
	case *ast.MapType:
		return descend(structs, e.Value, mapValue(m))
	case *ast.IndexExpr:
		if fmt.Sprint(e.X) == "looseList" {
			return descend(structs, e.Index, m["items"])
		}
		return descend(structs, e.Index, mapValue(m))
	case *ast.Ident:
		if st, ok := structs[e.Name]; ok && m != nil {
			return st, schema
		}
	}
	return nil, nil
}

// mapValue is the schema of the members of an object that are not named.
func mapValue(m map[string]any) any {
	patterns, _ := m["patternProperties"].(map[string]any)
	for _, p := range patterns {
		return p
	}
	return m["additionalProperties"]
}

// What a schema must refuse and take.
func TestSchemaVerdicts(t *testing.T) {
	b, err := os.ReadFile("testdata/options.txt")
	if err != nil {
		t.Fatal(err)
	}
	schemas := map[string]*jsonschema.Schema{}
	for n, line := range bytes.Split(b, []byte("\n")) {
		verdict, rest, _ := strings.Cut(string(line), " ")
		if verdict == "" || verdict == "#" {
			continue
		}
		name, options, _ := strings.Cut(rest, " ")
		name = "org.osbuild." + name
		s := Lookup(name)
		if s == nil {
			t.Errorf("options.txt:%d: no stage %s", n+1, name)
			continue
		}
		if schemas[name] == nil {
			schemas[name] = compile(t, name, schemaOf(t, s)["options"])
		}
		if !json.Valid([]byte(options)) {
			t.Errorf("options.txt:%d: no JSON", n+1)
			continue
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(options))
		if err != nil {
			t.Errorf("options.txt:%d: %v", n+1, err)
			continue
		}
		err = schemas[name].Validate(v)
		if ok := err == nil; ok != (verdict == "good") {
			t.Errorf("options.txt:%d: %s %s: %v, want it %s", n+1, name, options, err, verdict)
		}
	}
}
