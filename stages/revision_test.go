// Ties the Revision of each stage to the code that it is made of.
package stages

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write revisions.txt anew")

// Every stage is made of these too; a change of them is told once, not for each.
var baseFiles = []string{"context.go", "stage.go", "tree.go"}

// baseName stands for baseFiles in revisions.txt.
const baseName = "(every-stage)"

const revisionsHeader = `# The revision of each stage, and a hash of the code that it is made of: see
# revision_test.go. Written by: go test ./stages -run Revision -update
`

// recorded is a line of revisions.txt.
type recorded struct {
	revision int
	hash     string
}

func TestRevisions(t *testing.T) {
	want, err := readRevisions("revisions.txt")
	if err != nil && !(*update && errors.Is(err, os.ErrNotExist)) {
		t.Fatal(err)
	}
	got := currentRevisions(t)
	for name, g := range got {
		w, known := want[name]
		switch {
		case known && g.revision < w.revision:
			t.Errorf("%s: the revision is %d and was %d: it never goes back, since old trees would be taken for new ones", name, g.revision, w.revision)
		case *update || g == w:
		case !known:
			t.Errorf("%s is new: run go test ./stages -run Revision -update", name)
		case name == baseName:
			t.Errorf("%s changed. If any stage makes another tree from the same options now, raise its Revision. "+
				"Then run go test ./stages -run Revision -update", strings.Join(baseFiles, ", "))
		case g.revision == w.revision:
			t.Errorf("%s: its code changed, and its Revision (%d) did not. If it makes another tree from the same options now, "+
				"raise Revision: else old trees are used as if they were new. If it does not (another text, the same work), leave it. "+
				"Then run go test ./stages -run Revision -update", name, g.revision)
		default:
			t.Errorf("%s has the new Revision %d: run go test ./stages -run Revision -update", name, g.revision)
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok && !*update {
			t.Errorf("%s is gone: run go test ./stages -run Revision -update", name)
		}
	}
	if !*update || t.Failed() {
		return
	}
	var out strings.Builder
	out.WriteString(revisionsHeader)
	for _, name := range slices.Sorted(maps.Keys(got)) {
		fmt.Fprintf(&out, "%s %d %s\n", name, got[name].revision, got[name].hash)
	}
	if err := os.WriteFile("revisions.txt", []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readRevisions(file string) (map[string]recorded, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	out := map[string]recorded{}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var name string
		var r recorded
		if _, err := fmt.Sscanf(line, "%s %d %s", &name, &r.revision, &r.hash); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		out[name] = r
	}
	return out, nil
}

// currentRevisions computes what revisions.txt should say.
func currentRevisions(t *testing.T) map[string]recorded {
	t.Helper()
	fset := token.NewFileSet()
	files := parsePackage(t, fset)
	uses := dependencies(t, fset, files)
	hashes := map[string]string{}
	for name, f := range files {
		h := sha256.New()
		h.Write(code(t, f))
		for _, dir := range localImports(f) {
			h.Write(directory(t, dir))
		}
		hashes[name] = hex.EncodeToString(h.Sum(nil))
	}
	sum := func(names []string) string {
		h := sha256.New()
		for _, n := range names {
			fmt.Fprintf(h, "%s %s\n", n, hashes[n])
		}
		return hex.EncodeToString(h.Sum(nil)[:16])
	}
	out := map[string]recorded{baseName: {hash: sum(baseFiles)}}
	where := stageFiles(files)
	for _, s := range All() {
		file, ok := where[s.Name]
		if !ok {
			t.Fatalf("no file has the name of the stage %s in it", s.Name)
		}
		out[s.Name] = recorded{s.Revision, sum(closure(uses, file))}
	}
	return out
}

// dependencies says which files declare what a file uses, base files left out.
func dependencies(t *testing.T, fset *token.FileSet, files map[string]*ast.File) map[string][]string {
	t.Helper()
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	// What is imported is not of interest here: without it the rest still resolves.
	conf := types.Config{Importer: noImporter{}, Error: func(error) {}}
	conf.Check("stages", fset, slices.Collect(maps.Values(files)), info)
	out := map[string][]string{}
	for id, obj := range info.Uses {
		if !obj.Pos().IsValid() {
			continue
		}
		from, to := fset.Position(id.Pos()).Filename, fset.Position(obj.Pos()).Filename
		if from != to && !slices.Contains(baseFiles, to) && !slices.Contains(out[from], to) {
			out[from] = append(out[from], to)
		}
	}
	return out
}

type noImporter struct{}

func (noImporter) Import(string) (*types.Package, error) { return nil, errors.New("not imported") }

// closure returns the file and all that it uses, sorted.
func closure(uses map[string][]string, file string) []string {
	seen := []string{file}
	for i := 0; i < len(seen); i++ {
		for _, f := range uses[seen[i]] {
			if !slices.Contains(seen, f) {
				seen = append(seen, f)
			}
		}
	}
	slices.Sort(seen)
	return seen
}

// localImports returns the directories below this one that a file imports.
func localImports(f *ast.File) []string {
	var out []string
	for _, i := range f.Imports {
		if _, dir, ok := strings.Cut(strings.Trim(i.Path.Value, `"`), "/osbuild-star/stages/"); ok {
			out = append(out, dir)
		}
	}
	slices.Sort(out)
	return out
}

// directory returns the code of a package below this one, and of those it imports.
func directory(t *testing.T, dir string) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, name...), code(t, f)...)
		for _, below := range localImports(f) {
			if below != dir {
				out = append(out, directory(t, below)...)
			}
		}
	}
	return out
}

// code prints a file without what changes nothing: comments, how it is laid out,
// and what a stage says about itself to people.
func code(t *testing.T, f *ast.File) []byte {
	t.Helper()
	for _, l := range stageLiterals(f) {
		l.Elts = slices.DeleteFunc(l.Elts, func(e ast.Expr) bool {
			kv, ok := e.(*ast.KeyValueExpr)
			return ok && slices.Contains([]string{"Summary", "Doc", "Revision"}, fmt.Sprint(kv.Key))
		})
	}
	f.Comments = nil
	var buf bytes.Buffer
	// An empty FileSet knows no lines, so that the layout is the printer's own.
	if err := printer.Fprint(&buf, token.NewFileSet(), f); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRevisionHash(t *testing.T) {
	hash := func(src string) string {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		return string(code(t, f))
	}
	const src = "package p\n\nvar s = Stage{Name: \"a\", Revision: 1, Summary: \"b\", Doc: `c`}\n\nfunc f(a int) int {\n\tb := a\n\treturn b + 1\n}\n"
	for what, other := range map[string]string{
		"comments": "// Package p.\npackage p\n\n// s is\n// a stage\nvar s = Stage{Name: \"a\", /* x */ Revision: 1, Summary: \"b\", Doc: `c`}\n\nfunc f(a int) int {\n\t// b\n\n\tb := a // a\n\n\treturn b + 1\n}\n",
		"layout":   strings.NewReplacer("{Name", "{\n\tName", "`c`}", "`c`,\n}", "\treturn", "\n\n\n\treturn").Replace(src),
		"text":     strings.NewReplacer(`"b"`, `"other"`, "`c`", "`\n\nother\n`", "Revision: 1", "Revision: 2").Replace(src),
	} {
		if hash(src) != hash(other) {
			t.Errorf("other %s make another hash:\n%s\n%s", what, hash(src), hash(other))
		}
	}
	for _, other := range []string{strings.Replace(src, "+ 1", "+ 2", 1), strings.Replace(src, `"a"`, `"b"`, 1), strings.Replace(src, "b := a", "b := a + 0", 1)} {
		if hash(src) == hash(other) {
			t.Errorf("the same hash for other code:\n%s", other)
		}
	}
}

func TestRevisionFiles(t *testing.T) {
	fset := token.NewFileSet()
	uses := dependencies(t, fset, parsePackage(t, fset))
	for file, want := range map[string][]string{
		"noop.go":         {"noop.go"},
		"groups.go":       {"groups.go", "ordered.go"},
		"systemd_unit.go": {"ordered.go", "patterns.go", "systemd_unit.go", "unitfile.go"},
		"locale.go":       {"firstboot.go", "locale.go"},
		"fstab.go":        {"fstab.go", "ordered.go", "ostree.go"},
	} {
		if got := closure(uses, file); !slices.Equal(got, want) {
			t.Errorf("%s is made of %v, want %v", file, got, want)
		}
	}
}
