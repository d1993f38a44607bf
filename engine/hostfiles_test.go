// What of the host counts where it is the build root: programs that stages name, their
// libraries and interpreters, and files that they read.
package engine

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/stages"
)

// toolStage copies the program of its option "tool" from the build root into the tree.
const toolStage = "org.osbuild-star.test.tool"

func init() {
	stages.Register(&stages.Stage{
		Name: toolStage, Revision: 1,
		ToolsFor: func(o map[string]any) []string { return []string{o["tool"].(string)} },
		Reads: func(o map[string]any) []string {
			if dir, _ := o["reads"].(string); dir != "" {
				return []string{dir}
			}
			return nil
		},
		Run: func(c *stages.Context) error {
			var o struct{ Tool, Reads string }
			if err := c.Decode(&o); err != nil {
				return err
			}
			b, err := os.ReadFile("/usr/bin/" + o.Tool)
			if err != nil {
				return err
			}
			return os.WriteFile(c.TreePath(o.Tool), b, 0o644)
		},
	})
}

func tool(name string) *manifest.Stage { return stage(toolStage, fmt.Sprintf(`{"tool":%q}`, name)) }

// hostTree makes a tree of files that stands for the host's.
func hostTree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		put(t, dir, name, text)
	}
	return dir
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if to, ok := strings.CutPrefix(text, "-> "); ok {
		os.Remove(p)
		if err := os.Symlink(to, p); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// A program of the host that is another one now makes again what it made, and what
// follows from it, and nothing else; when the old one is back, nothing runs.
func TestHostToolsChange(t *testing.T) {
	dir := hostTree(t, map[string]string{"usr/bin/a": "1", "usr/bin/b": "1", "usr/bin/c": "1", "usr/lib/x": "1"})
	e := newEngine(t, newStore(t), func(c *Config) { c.Host = Host{Tree: dir, Runner: "org.osbuild.linux"} })
	p := pipe("p", note("first", "1"), tool("a"), tool("b"), note("last", "1"))
	q := pipe("q", tool("b"), note("last", "1"))
	for _, p := range []*manifest.Pipeline{p, q} {
		p.Build = &manifest.BuildRoot{Runner: "org.osbuild.linux"}
	}
	for _, c := range []struct {
		file, text string
		ran        []string
		a, b       string
	}{
		{"usr/bin/c", "2", []string{"p note", "p tool", "p tool", "p note", "q tool", "q note"}, "1", "1"},
		{"usr/bin/c", "3", []string{}, "1", "1"},
		{"usr/lib/x", "2", []string{}, "1", "1"},
		{"usr/bin/b", "2", []string{"p tool", "p note", "q tool", "q note"}, "1", "2"},
		{"usr/bin/a", "2", []string{"p tool", "p tool", "p note"}, "2", "2"},
		{"usr/bin/a", "1", []string{}, "1", "2"},
		{"usr/bin/b", "1", []string{}, "1", "1"},
		{"usr/bin/a", "-> c", []string{"p tool", "p tool", "p note"}, "3", "1"},
	} {
		put(t, dir, c.file, c.text)
		// As another invocation has it: nothing is remembered but in the store.
		e.files = hostFiles{store: e.cfg.Store}
		res := mustBuild(t, e, plan1(p, q), "p", "q")
		if diff := cmp.Diff(c.ran, ran(res)); diff != "" {
			t.Errorf("%s is %q: ran (-want +got):\n%s", c.file, c.text, diff)
		}
		want := map[string]string{"first": "1", "last": "1", "a": c.a, "b": c.b}
		if diff := cmp.Diff(want, contentsOf(t, e, res, "p", ".")); diff != "" {
			t.Errorf("%s is %q: the tree (-want +got):\n%s", c.file, c.text, diff)
		}
	}
}

// Each change of the host's tree, and whose keys change with it.
func TestHostKeys(t *testing.T) {
	xz, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("needs a program with shared libraries: ", err)
	}
	files := map[string]string{
		"etc/os-release":           "ID=x\n",
		"usr/bin/old-name":         "1",
		"usr/bin/script":           "#! /usr/bin/shell -e\n1",
		"usr/bin/shell":            "1",
		"usr/bin/linked":           "-> ../../usr/lib/programs/linked",
		"usr/lib/programs/linked":  "1",
		"usr/sbin/twice":           "1",
		"usr/bin/twice":            "1",
		"usr/share/data/one/a":     "1",
		"usr/share/data/b":         "1",
		"usr/share/more":           "1",
		"usr/bin/runs-on-anything": "1",
	}
	dir := hostTree(t, files)
	libs := copyProgram(t, xz, dir)
	d := newLibdir(t, map[string]string{"stages/org.x.s": "#!/usr/bin/env shell\n", "runners/org.x.os1": "#!/usr/bin/script\n"})
	reading := stage(toolStage, `{"tool":"linked","reads":"/usr/share/data"}`)
	pipes := map[string]*manifest.Pipeline{
		"xz": pipe("xz", tool("xz")), "script": pipe("script", tool("script")), "linked": pipe("linked", reading),
		"names": pipe("names", tool("new-name|old-name")), "twice": pipe("twice", tool("twice")),
		"program": pipe("program", stage("org.x.s", `{}`)), "none": pipe("none", note("a", "1")),
		"ext4":    pipe("ext4", stage("org.osbuild.mkfs.ext4", `{"uuid":"6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}`)),
		"through": pipe("through", stage("org.x.s", `{}`)),
	}
	inTree := pipe("in a tree", tool("xz"))
	inTree.Build = &manifest.BuildRoot{Pipeline: "none"}
	pipes["in a tree"] = inTree
	pipes["none"].Build = &manifest.BuildRoot{Runner: "org.osbuild.linux"}
	for _, p := range pipes {
		if p.Build == nil || p.Build.Pipeline == "" {
			p.Build = &manifest.BuildRoot{Runner: "org.osbuild.linux"}
		}
	}
	inTree.Build.Runner = "org.osbuild.linux"
	pipes["through"].Build.Runner = "org.x.os1"
	m := plan1(pipes["none"])
	for name, p := range pipes {
		if name != "none" {
			m.Pipelines = append(m.Pipelines, p)
		}
	}
	keys := func() map[string]string {
		t.Helper()
		e := New(Config{Host: Host{Tree: dir, Runner: "org.osbuild.linux"}, Programs: Programs{Dir: d}})
		all, err := e.plans(m)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for name, pl := range all {
			out[name] = pl.key
		}
		return out
	}
	was := keys()
	for _, c := range []struct {
		name   string
		change func()
		want   []string
	}{
		{"nothing", func() {}, nil},
		{"a program", func() { grow(t, filepath.Join(dir, xz)) }, []string{"xz"}},
		{"its library", func() { grow(t, libs["liblzma"]) }, []string{"xz"}},
		{"the C library", func() { grow(t, libs["libc"]) }, nil},
		{"a script", func() { put(t, dir, "usr/bin/script", "#! /usr/bin/shell -e\n2") }, []string{"script", "through"}},
		{"an interpreter", func() { put(t, dir, "usr/bin/shell", "2") }, []string{"program", "script", "through"}},
		{"what a link leads to", func() { put(t, dir, "usr/lib/programs/linked", "2") }, []string{"linked"}},
		{"where a link leads", func() {
			put(t, dir, "usr/lib/programs/other", "3")
			put(t, dir, "usr/bin/linked", "-> /usr/lib/programs/other")
		}, []string{"linked"}},
		{"another name that is there now", func() { put(t, dir, "usr/bin/new-name", "1") }, []string{"names"}},
		{"one that is hidden by another", func() { put(t, dir, "usr/bin/twice", "2") }, nil},
		{"one that hides another", func() { put(t, dir, "usr/sbin/twice", "2") }, []string{"twice"}},
		{"configuration that programs see", func() { put(t, dir, "etc/mke2fs.conf", "1") }, []string{"ext4", "program", "through"}},
		{"a program that is gone", func() { os.Remove(filepath.Join(dir, "usr/bin/shell")) }, []string{"program", "script", "through"}},
		{"a file of a directory that is read", func() { put(t, dir, "usr/share/data/one/a", "2") }, []string{"linked"}},
		{"a file more in it", func() { put(t, dir, "usr/share/data/one/more", "1") }, []string{"linked"}},
		{"a file beside it", func() { put(t, dir, "usr/share/more", "2") }, nil},
		{"a program that no stage names", func() { put(t, dir, "usr/bin/runs-on-anything", "2") }, nil},
		{"the system", func() { put(t, dir, "etc/os-release", "ID=y\n") }, []string{
			"ext4", "in a tree", "linked", "names", "none", "program", "script", "through", "twice", "xz",
		}},
	} {
		c.change()
		now := keys()
		var changed []string
		for name := range pipes {
			if now[name] != was[name] {
				changed = append(changed, name)
			}
		}
		slices.Sort(changed)
		if diff := cmp.Diff(c.want, changed); diff != "" {
			t.Errorf("%s: other keys of (-want +got):\n%s", c.name, diff)
		}
		was = now
	}
}

// copyProgram copies a program with its libraries into a tree, and returns where those
// are by the beginnings of their names.
func copyProgram(t testing.TB, prog, dir string) map[string]string {
	t.Helper()
	libs := map[string]string{}
	out, err := exec.Command("ldd", prog).Output()
	if err != nil {
		t.Skip("no shared libraries: ", err)
	}
	all := []string{prog}
	for _, f := range strings.Fields(string(out)) {
		if strings.HasPrefix(f, "/") {
			all = append(all, f)
			name, _, _ := strings.Cut(filepath.Base(f), ".")
			libs[name] = filepath.Join(dir, f)
		}
	}
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		put(t, dir, f, string(b))
	}
	if libs["liblzma"] == "" || libs["libc"] == "" {
		t.Skip("xz has no shared libraries")
	}
	return libs
}

// grow adds a byte to a file.
func grow(t testing.TB, p string) {
	t.Helper()
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "x"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is known of a file is kept in the store, for as long as it is that file.
func TestHostFilesAreRemembered(t *testing.T) {
	defer func(d time.Duration) { hostFresh = d }(hostFresh)
	hostFresh = 0
	dir := hostTree(t, map[string]string{"usr/bin/a": "1", "d/x": "1"})
	s := newStore(t)
	key := func() string {
		h := hostFiles{store: s}
		defer h.keep()
		return h.round(dir).key([]string{"a"}, []string{"/d"})
	}
	was := key()
	var known map[string]hostFile
	if !s.ReadMemo(hostMemo, &known) || len(known) != 2 {
		t.Fatalf("remembered: %+v", known)
	}
	for name, f := range known {
		f.Sum = "told " + filepath.Base(name)
		known[name] = f
	}
	if err := s.WriteMemo(hostMemo, known); err != nil {
		t.Fatal(err)
	}
	if want, got := "file /d sha256:told d\nprogram a sha256:told a", key(); got != want {
		t.Errorf("what is remembered is not used: %q", got)
	}
	put(t, dir, "usr/bin/a", "2")
	if got := key(); !strings.HasPrefix(got, "file /d sha256:told d\n") || strings.Contains(got, "told a") {
		t.Errorf("a program that changed: %q", got)
	}
	put(t, dir, "d/x", "2")
	if got := key(); strings.Contains(got, "told") || got == was {
		t.Errorf("a file of a directory that changed: %q", got)
	}
	put(t, s.Dir, "memo/host-files.json", "{")
	put(t, dir, "usr/bin/a", "1")
	put(t, dir, "d/x", "1")
	if got := key(); got != was {
		t.Errorf("a damaged memo: %q, want %q", got, was)
	}
}

func BenchmarkHostKeys(b *testing.B) {
	s := newStore(b)
	for b.Loop() {
		h := hostFiles{store: s}
		h.round("/").key([]string{"cp", "mkfs.ext4", "grub2-mkimage|grub-mkimage", "qemu-img", "useradd", "sfdisk", "mcopy"}, []string{"/usr/lib/grub/i386-pc", "/usr/lib/grub/x86_64-efi", "/etc/mke2fs.conf"})
		h.keep()
	}
}
