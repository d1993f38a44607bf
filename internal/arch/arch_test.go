package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/osbuild-star/osbuild-star/"

// allowed says which packages of the module a package may import; the left may
// import the right, never the other way. Tests may import more.
var allowed = map[string][]string{
	"cmd/osbuild-star": {
		"agent", "agent/start", "builtins", "engine", "engine/vm", "internal/scratch", "libdir", "manifest", "monitor", "monitor/report", "runners", "sources", "sources/apt", "sources/lock", "starlark", "stages", "store",
	},

	// The language: from rule files to a manifest.
	"builtins": {"manifest", "rules", "runners", "stages", "starlark"},
	"starlark": {"internal/edit"},
	"rules":    {},

	// The plan, and what it is made from.
	"manifest":        {"stages"}, // their schemas
	"libdir":          {"manifest"},
	"sources":         {"manifest", "monitor", "sources/aptconf", "store"},
	"sources/apt":     {"internal/edit", "internal/scratch", "manifest", "monitor", "sources", "sources/aptconf"},
	"sources/aptconf": {},
	"sources/lock":    {"manifest", "sources", "sources/apt"},

	// Execution.
	"engine":    {"agent/wire", "buildroot", "buildroot/binfmt", "hostapi", "internal/scratch", "libdir", "manifest", "monitor", "runners", "sources", "stages", "store"},
	"engine/vm": {"monitor"},
	"buildroot": {"agent/seccomp", "agent/wire", "buildroot/binfmt", "hostapi", "internal/scratch", "runners"},
	"hostapi":   {},
	"store":     {"internal/scratch"},

	// Which programs the kernel runs, and making it run more.
	"buildroot/binfmt": {},

	// How far two names are apart.
	"internal/edit": {},

	// What runs inside a build root.
	"agent":              {"agent/seccomp", "agent/wire", "runners", "stages"},
	"agent/seccomp":      {},
	"agent/start":        {"agent"},
	"agent/wire":         {},
	"runners":            {},
	"stages":             {"stages/deb"},
	"stages/deb":         {"stages/deb/xz"},
	"stages/deb/xz":      {},
	"stages/deb/debtest": {"stages/deb"},

	"monitor":          {},
	"monitor/report":   {"monitor"},
	"internal/scratch": {},
	"internal/arch":    {},
	"internal/testenv": {"internal/scratch", "manifest", "runners"},
	"internal/mutant":  {},
}

// testOnly are packages that only tests import.
var testOnly = []string{"internal/testenv", "stages/deb/debtest"}

// external says which modules a package, and all that it imports, may reach beyond
// those of everybody, which are golang.org/x/{sys,sync}. The agent needs them
// inside a build root: one more is code that runs there.
var external = map[string][]string{
	"agent":              {"github.com/klauspost/compress"},
	"agent/start":        {"github.com/klauspost/compress"},
	"stages":             {"github.com/klauspost/compress"},
	"stages/deb":         {"github.com/klauspost/compress"},
	"stages/deb/debtest": {"github.com/klauspost/compress"},
	"internal/testenv":   {"github.com/klauspost/compress"},
	"manifest":           {"github.com/klauspost/compress"},
	"libdir":             {"github.com/klauspost/compress"},
	"sources":            {"github.com/klauspost/compress"},
	"sources/apt":        {"github.com/klauspost/compress"},
	"sources/lock":       {"github.com/klauspost/compress"},
	"store":              {"github.com/klauspost/compress"},
	"engine":             {"github.com/klauspost/compress", "github.com/cilium/ebpf"},
	"buildroot":          {"github.com/cilium/ebpf"},
	"engine/vm":          {"golang.org/x/term"},
	"starlark":           {"go.starlark.net"},
	"builtins":           {"go.starlark.net", "github.com/klauspost/compress"},
	"cmd/osbuild-star":   {"github.com/cilium/ebpf", "go.starlark.net", "github.com/klauspost/compress", "github.com/spf13/pflag", "golang.org/x/term", "golang.org/x/text"},
}

var everybody = []string{"golang.org/x/sys", "golang.org/x/sync"}

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	Standard     bool
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	Deps         []string
	Module       *struct{ Path string }
	Error        *struct{ Err string }
}

func (p *pkg) short() string { return strings.TrimPrefix(p.ImportPath, module) }

var list = sync.OnceValues(func() (map[string]*pkg, error) {
	// -e: a package that does not compile is told by its own test.
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Dir,Name,Standard,GoFiles,TestGoFiles,XTestGoFiles,Imports,Deps,Module,Error", "./...")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	all := map[string]*pkg{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &pkg{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all[p.ImportPath] = p
	}
})

// packages returns every package that is reached, and those of this module.
func packages(t *testing.T) (all map[string]*pkg, own []*pkg) {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, p := range all {
		if strings.HasPrefix(p.ImportPath, module) && len(p.GoFiles) > 0 && !strings.Contains(p.ImportPath, "/testdata/") {
			own = append(own, p)
		}
	}
	if len(own) < 15 {
		t.Fatalf("only %d packages were found", len(own))
	}
	slices.SortFunc(own, func(a, b *pkg) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	return all, own
}

func TestImports(t *testing.T) {
	_, own := packages(t)
	for _, p := range own {
		may, ok := allowed[p.short()]
		if !ok {
			t.Errorf("%s is not in the table: say what it may import", p.short())
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if !slices.Contains(may, to) {
				t.Errorf("%s imports %s: the table does not allow it", p.short(), to)
			}
			if slices.Contains(testOnly, to) {
				t.Errorf("%s imports %s, which is for tests only", p.short(), to)
			}
		}
	}
}

// The table itself has a direction: nothing reaches itself.
func TestTableHasNoCycles(t *testing.T) {
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(name string, trail []string)
	visit = func(name string, trail []string) {
		switch state[name] {
		case 1:
			t.Fatalf("a cycle: %s", strings.Join(append(trail, name), " → "))
		case 2:
			return
		}
		if _, ok := allowed[name]; !ok {
			t.Errorf("%s may be imported, and is not in the table", name)
		}
		state[name] = 1
		for _, to := range allowed[name] {
			visit(to, append(trail, name))
		}
		state[name] = 2
	}
	for name := range allowed {
		visit(name, nil)
	}
}

func TestReach(t *testing.T) {
	all, own := packages(t)
	for _, p := range own {
		name := p.short()
		inside := name == "agent" || strings.HasPrefix(name, "agent/") || name == "runners" || name == "stages" || strings.HasPrefix(name, "stages/")
		for _, dep := range p.Deps {
			d := all[dep]
			if d == nil {
				continue
			}
			if to, ours := strings.CutPrefix(dep, module); ours {
				top, _, _ := strings.Cut(to, "/")
				if inside && !slices.Contains([]string{"agent", "runners", "stages"}, top) {
					t.Errorf("%s, which runs inside a build root, reaches %s", name, to)
				}
				continue
			}
			if d.Standard {
				// The network is for the host: sources fetch, machines are spoken to.
				if inside && slices.Contains([]string{"net/http", "net/rpc", "net/smtp", "plugin"}, dep) {
					t.Errorf("%s, which runs inside a build root, reaches %s", name, dep)
				}
				continue
			}
			if d.Module == nil {
				continue // it is missing, which another test tells
			}
			if m := d.Module.Path; !slices.Contains(everybody, m) && !slices.Contains(external[name], m) {
				t.Errorf("%s reaches %s of the module %s", name, dep, m)
			}
		}
	}
}

// Execution knows nothing of the language.
func TestNoStarlarkBelow(t *testing.T) {
	_, own := packages(t)
	below := []string{"buildroot", "runners", "stages", "store", "libdir", "manifest", "engine", "agent", "sources", "monitor", "internal"}
	for _, p := range own {
		if top, _, _ := strings.Cut(p.short(), "/"); !slices.Contains(below, top) {
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "go.starlark.net") || dep == module+"starlark" || dep == module+"builtins" {
				t.Errorf("%s reaches %s", p.short(), dep)
			}
		}
	}
}

// files lists what belongs to the project: what git has, or would take.
func files(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	var names []string
	if err == nil {
		names = strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	} else { // an unpacked archive
		err := filepath.WalkDir("../..", func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel("../..", p)
			if d.IsDir() && slices.Contains([]string{".git", "out", "bin"}, rel) {
				return fs.SkipDir
			}
			if d.Type().IsRegular() {
				names = append(names, rel)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) < 100 {
		t.Fatalf("only %d files were found", len(names))
	}
	return names
}

// text reads a file of the project; "" when it is gone or not text.
func text(name string) string {
	b, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil || bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 {
		return ""
	}
	return string(b)
}
