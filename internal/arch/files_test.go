// What files look like: their length, their first words, the documentation of what
// they export, and what none of them may contain.
package arch

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const maxLines = 500

// longFiles may be longer, for the reason that is said.
var longFiles = map[string]string{}

func TestLength(t *testing.T) {
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		s := text(name)
		if strings.Contains(s, "\n// Code generated ") || strings.HasPrefix(s, "// Code generated ") {
			continue
		}
		n := strings.Count(s, "\n")
		_, long := longFiles[name]
		switch {
		case n > maxLines && !long:
			t.Errorf("%s has %d lines; %d is the most", name, n, maxLines)
		case n <= maxLines && long:
			t.Errorf("%s is short enough now: take it off the list", name)
		}
	}
}

// Each file begins with a comment that says its subject.
func TestFirstWords(t *testing.T) {
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata/") {
			continue
		}
		if s := text(name); s != "" && !strings.HasPrefix(s, "//") && !strings.HasPrefix(s, "/*") {
			t.Errorf("%s does not begin with a comment", name)
		}
	}
}

// methods whose meaning is that of the interface they are for.
var methods = []string{"Error", "Unwrap", "Is", "As", "String", "GoString", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "Len", "Less", "Swap", "Format", "Read", "Write", "Close"}

func TestDocumentation(t *testing.T) {
	_, own := packages(t)
	for _, p := range own {
		if p.Name == "main" {
			continue
		}
		fset := token.NewFileSet()
		var parsed []*ast.File
		for _, f := range p.GoFiles {
			af, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, parser.ParseComments)
			if err != nil {
				t.Logf("%s: %v", p.short(), err) // somebody writes it at this moment
				continue
			}
			parsed = append(parsed, af)
		}
		d, err := doc.NewFromFiles(fset, parsed, p.ImportPath)
		if err != nil {
			t.Fatal(err)
		}
		missing := func(what string) { t.Errorf("%s: %s has no documentation", p.short(), what) }
		if strings.TrimSpace(d.Doc) == "" {
			missing("the package")
		}
		values := func(all []*doc.Value) {
			for _, v := range all {
				for _, spec := range v.Decl.Specs {
					vs, ok := spec.(*ast.ValueSpec)
					if !ok || v.Doc != "" || vs.Doc.Text() != "" || vs.Comment.Text() != "" {
						continue
					}
					for _, n := range vs.Names {
						if n.IsExported() {
							missing(n.Name)
						}
					}
				}
			}
		}
		funcs := func(all []*doc.Func) {
			for _, f := range all {
				if f.Doc == "" && !(f.Recv != "" && slices.Contains(methods, f.Name)) {
					missing(strings.TrimPrefix(f.Recv+"."+f.Name, "."))
				}
			}
		}
		values(d.Consts)
		values(d.Vars)
		funcs(d.Funcs)
		for _, typ := range d.Types {
			if typ.Doc == "" && !specDoc(typ) {
				missing(typ.Name)
			}
			values(typ.Consts)
			values(typ.Vars)
			funcs(typ.Funcs)
			funcs(typ.Methods)
		}
	}
}

// specDoc tells whether a type of a group has a comment of its own.
func specDoc(typ *doc.Type) bool {
	for _, spec := range typ.Decl.Specs {
		if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.Name == typ.Name && (ts.Doc.Text() != "" || ts.Comment.Text() != "") {
			return true
		}
	}
	return false
}

var (
	hostOfURL = regexp.MustCompile(`\b(?:https?|ftp|rsync|git|ssh|oci|docker)://(?:[^/\s"'<>@]*@)?([A-Za-z0-9.-]+)`)
	// Names that mirrors and registries have.
	hostOfMirror = regexp.MustCompile(`\b(?:deb|rpm|ftp\d*|archive|old-releases|security|mirrors?|cdn|registry|repos?|packages|pkgs?|downloads?|dl|ports|snapshot|proxy|sum|index|quay|docker|ghcr|gcr)\.(?:[a-z0-9-]+\.)*(?:org|com|net|io|dev|eu|info|cloud)\b`)
	// Names that are nobody's (RFC 2606, RFC 6761), and this machine's own.
	nobodys = regexp.MustCompile(`(?i)^(?:(?:[a-z0-9-]+\.)*(?:example|invalid|test|localhost)(?:\.(?:com|org|net))?|127\.[0-9.]+|[a-z0-9-]+)\.?$`)
)

// pages are documents that comments refer to. No file is fetched from them.
var pages = []string{
	"osbuild.org", "github.com", "www.apache.org", "tukaani.org", "www.freedesktop.org", "systemd.io", "uapi-group.org", "docs.kernel.org", "pkg.go.dev", "ui.perfetto.dev",
}

// A mirror or a registry that is written into a file makes a build depend on it:
// hosts are given by whoever builds.
func TestNoHosts(t *testing.T) {
	for _, name := range files(t) {
		if filepath.Base(name) == "go.sum" {
			continue
		}
		for i, line := range strings.Split(text(name), "\n") {
			var hosts []string
			for _, m := range hostOfURL.FindAllStringSubmatch(line, -1) {
				hosts = append(hosts, m[1])
			}
			hosts = append(hosts, hostOfMirror.FindAllString(line, -1)...)
			for _, h := range hosts {
				if !nobodys.MatchString(h) && !slices.Contains(pages, h) {
					t.Errorf("%s:%d: the host %s", name, i+1, h)
				}
			}
		}
	}
}

func TestHostPatterns(t *testing.T) {
	for text, want := range map[string]bool{
		"https://deb." + "debian.org/debian":       true,
		"see ftp." + "de.debian.org":               true,
		"registry." + "npmjs.org":                  true,
		"http://user:pw@mirror" + ".kernel.org/x":  true,
		"https://deb.example.org/debian":           false,
		"https://example.com/a":                    false,
		"http://a.example/x":                       false,
		"http://127.0.0.1:8080/":                   false,
		"http://localhost/":                        false,
		"https://mirror.invalid/":                  false,
		"archive.tar.gz of packages.json":          false,
		"https://osbuild.org/validation-error":     false,
		"module go.starlark.net, golang.org/x/sys": false,
	} {
		got := false
		for _, m := range hostOfURL.FindAllStringSubmatch(text, -1) {
			got = got || !nobodys.MatchString(m[1]) && !slices.Contains(pages, m[1])
		}
		for _, h := range hostOfMirror.FindAllString(text, -1) {
			got = got || !nobodys.MatchString(h)
		}
		if got != want {
			t.Errorf("%q: taken for a host of somebody: %v", text, got)
		}
	}
}

// A path of the machine that somebody works on is of no use to another.
func TestNoMachinePaths(t *testing.T) {
	path := regexp.MustCompile(`(?:^|[^\w./$})-])/(?:` + "work" + `|` + "tmp/upstream" + `|` + "home/[a-z]+/go" + `|` + "root/go" + `)/`)
	for _, name := range files(t) {
		for i, line := range strings.Split(text(name), "\n") {
			if m := path.FindString(line); m != "" {
				t.Errorf("%s:%d: the path %q", name, i+1, m)
			}
		}
	}
}
