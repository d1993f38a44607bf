// Trees of executables: what is found in them, what is described, and what not.
package libdir

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
)

// tree makes a directory of files by their paths.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t testing.TB, files map[string]string) *Dir {
	t.Helper()
	d, err := Open(tree(t, files))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenErrors(t *testing.T) {
	dir := tree(t, map[string]string{"file": "", "empty/": "", "other/x": ""})
	for _, c := range []struct{ path, want string }{
		{"gone", "does not exist"}, {"file", "is no directory"}, {"empty", "holds no modules"}, {"other", "holds no modules"},
	} {
		_, err := Open(filepath.Join(dir, c.path))
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Msg, c.want) || e.Hint == "" {
			t.Errorf("%s: %v", c.path, err)
		}
	}
	if _, err := Open(filepath.Join(open(t, map[string]string{"runners/": ""}).Path)); err != nil {
		t.Errorf("a tree of nothing but runners: %v", err)
	}
}

func TestFind(t *testing.T) {
	const good = `{"summary":"s","description":["a","b"],"capabilities":["CAP_NET_ADMIN","CAP_MAC_ADMIN","CAP_NET_ADMIN"],"schema_2":{"options":{"type":"object"}}}`
	d := open(t, map[string]string{
		"stages/org.x.good": "#!/bin/sh\n", "stages/org.x.good.meta.json": good,
		"stages/org.x.both": "", "stages/org.x.both.meta.json": `{"summary":"","description":[],"schema":{"a":{}},"schema_2":{}}`,
		"stages/org.x.shell": "#!/bin/sh\necho hi # SCHEMA\n",
		"stages/org.x.python": `"""Do it

More.
"""
SCHEMA = """
"type": "object"
"""
CAPABILITIES = {"CAP_SYS_PTRACE"}
`,
		"stages/org.x.compiled":         "\x7fELF\x00\x00 SCHEMA = 'x'",
		"stages/org.x.alone.meta.json":  good,
		"stages/org.x.dir/x":            "",
		"stages/org.x.json":             "",
		"stages/org.x.json.meta.json":   `{"summary":`,
		"stages/org.x.nosum":            "",
		"stages/org.x.nosum.meta.json":  `{"description":[],"schema":{}}`,
		"stages/org.x.nodesc":           "",
		"stages/org.x.nodesc.meta.json": `{"summary":"","schema":{}}`,
		"stages/org.x.none":             "",
		"stages/org.x.none.meta.json":   `{"summary":"","description":[]}`,
		"stages/org.x.extra":            "",
		"stages/org.x.extra.meta.json":  `{"summary":"","description":[],"schema":{},"more":1}`,
		"stages/org.x.list":             "",
		"stages/org.x.list.meta.json":   `{"summary":"","description":[],"schema":[]}`,
		"stages/org.x.syntax":           "SCHEMA = '''\n\"a\": 1\n\"b\": 2'''\n",
		"assemblers/org.x.good":         "",
		"stages/.hidden":                "",
		"outside":                       "",
	})
	for _, c := range []struct {
		kind Kind
		name string
		want *Module // nil: not found
		err  string
	}{
		{kind: Stages, name: "org.x.good", want: &Module{Summary: "s", Description: "a\nb", Capabilities: []string{"MAC_ADMIN", "NET_ADMIN"}, Schema2: []byte(`{"options":{"type":"object"}}`)}},
		{kind: Stages, name: "org.x.both", want: &Module{Schema: []byte(`{"a":{}}`), Schema2: []byte(`{}`)}},
		{kind: Stages, name: "org.x.shell", want: &Module{}},
		{kind: Stages, name: "org.x.python", want: &Module{Summary: "Do it", Description: "\nMore.", Capabilities: []string{"SYS_PTRACE"}, Schema: []byte("{\n\"type\": \"object\"\n}")}},
		{kind: Stages, name: "org.x.compiled", want: &Module{}},
		{kind: Stages, name: "org.x.alone"},
		{kind: Stages, name: "org.x.dir"},
		{kind: Stages, name: "org.x.good.meta.json"},
		{kind: Stages, name: "../outside"},
		{kind: Stages, name: ""},
		{kind: Stages, name: ".."},
		{kind: Stages, name: ".hidden"},
		{kind: Inputs, name: "org.x.good"},
		{kind: Assemblers, name: "org.x.good", want: &Module{}},
		{kind: Stages, name: "org.x.json", err: "unexpected EOF"},
		{kind: Stages, name: "org.x.nosum", err: "no summary"},
		{kind: Stages, name: "org.x.nodesc", err: "no description"},
		{kind: Stages, name: "org.x.none", err: "neither schema nor schema_2"},
		{kind: Stages, name: "org.x.extra", err: `unknown field "more"`},
		{kind: Stages, name: "org.x.list", err: "schema is no object"},
		{kind: Stages, name: "org.x.syntax", err: "line 3 of its constant SCHEMA"},
	} {
		m, err := d.Find(c.kind, c.name)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), c.name) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.want != nil {
			c.want.Kind, c.want.Name, c.want.Path = c.kind, c.name, filepath.Join(d.Path, string(c.kind), c.name)
		}
		if diff := cmp.Diff(c.want, m); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	want := []string{"org.x.both", "org.x.compiled", "org.x.extra", "org.x.good", "org.x.json", "org.x.list", "org.x.nodesc", "org.x.none", "org.x.nosum", "org.x.python", "org.x.shell", "org.x.syntax"}
	if diff := cmp.Diff(want, d.Names(Stages)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if d.Names(Mounts) != nil {
		t.Error("a directory that is not there has names")
	}
	var none *Dir
	if m, err := none.Find(Stages, "org.x.good"); m != nil || err != nil {
		t.Error("no tree has modules")
	}
}

func TestModules(t *testing.T) {
	d := open(t, map[string]string{
		"stages/org.x.s":            "",
		"stages/org.x.s.meta.json":  `{"summary":"","description":[],"schema_2":{"options":{"type":"object","required":["a"]}}}`,
		"assemblers/org.x.a":        "SCHEMA = '\"required\": [\"b\"]'\n",
		"devices/org.x.d":           "",
		"devices/org.x.d.meta.json": `{"summary":"","description":[],"schema":{"required":["c"]}}`,
		"mounts/org.x.m":            "",
		"mounts/org.x.m.meta.json":  `{"summary":"","description":[],"schema_2":{"additionalProperties":true,"required":["target"]}}`,
		"inputs/org.x.i":            "",
		"inputs/org.x.i.meta.json":  `{"summary":"","description":[],"schema_2":{"additionalProperties":true,"required":["d"]}}`,
		"sources/org.x.c":           "",
		"sources/org.x.c.meta.json": `{"summary":"","description":[],"schema_2":{"additionalProperties":true,"required":["e"]}}`,
		"stages/org.x.bare":         "#!/bin/sh\n",
		"stages/org.x.b":            "",
		"stages/org.x.b.meta.json":  `{`,
	})
	mods := manifest.Layered(manifest.Builtin(), d.Modules())
	doc := `{"version":"2","sources":{"org.x.c":{"items":{}}},"pipelines":[{"name":"p","stages":[
		{"type":"org.x.s","options":{},"inputs":{}},
		{"type":"org.x.s","options":{"a":1},"devices":{"d":{"type":"org.x.d","options":{}}},"mounts":[{"name":"m","type":"org.x.m"}]},
		{"type":"org.osbuild.noop","inputs":{"i":{"type":"org.x.i","origin":"org.osbuild.source","references":["sha256:x"]}}},
		{"type":"org.x.b"},{"type":"org.x.bare"},{"type":"org.x.nothing"}]}]}`
	_, err := manifest.LoadChecked([]byte(doc), mods)
	var invalid *manifest.ValidationError
	if !errors.As(err, &invalid) {
		t.Fatal(err)
	}
	var got []string
	for _, e := range invalid.Errors {
		got = append(got, e.String())
	}
	want := []string{
		".pipelines[0].stages[0]: Additional properties are not allowed ('inputs' was unexpected)",
		".pipelines[0].stages[0].options: 'a' is a required property",
		".pipelines[0].stages[1].devices.d.options: 'c' is a required property",
		".pipelines[0].stages[1].mounts.m: 'target' is a required property",
		".pipelines[0].stages[2].inputs.i: 'd' is a required property",
		".pipelines[0].stages[3]: the schema of org.x.b is broken: stages/org.x.b.meta.json: unexpected EOF",
		".pipelines[0].stages[4]: could not find schema information for 'org.x.bare'",
		".pipelines[0].stages[5]: could not find schema information for 'org.x.nothing'",
		".sources.org.x.c: 'e' is a required property",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	_, err = manifest.LoadChecked([]byte(`{"pipeline":{"assembler":{"name":"org.x.a","options":{}}}}`), mods)
	if err == nil || !strings.Contains(err.Error(), "'b' is a required property") {
		t.Errorf("the assembler: %v", err)
	}
}

func TestRunner(t *testing.T) {
	files := map[string]string{}
	for _, n := range []string{"org.x.fedora30", "org.x.fedora38", "org.x.fedora100", "org.x.debian", "org.x.rhel82", "org.x.linux"} {
		files["runners/"+n] = ""
	}
	d := open(t, files)
	for name, want := range map[string]string{
		"org.x.fedora30": "org.x.fedora30", "org.x.fedora37": "org.x.fedora30", "org.x.fedora38": "org.x.fedora38",
		"org.x.fedora99": "org.x.fedora38", "org.x.fedora99999999999999999999999": "org.x.fedora100",
		"org.x.fedora29": "", "org.x.fedora": "", "org.x.debian12": "org.x.debian", "org.x.debian": "org.x.debian",
		"org.x.rhel7": "", "org.x.fed": "", "org.x.linux0": "org.x.linux", "": "", "12": "", "org.x.rhel082": "org.x.rhel82",
	} {
		m, err := d.Runner(name)
		got := ""
		if m != nil {
			got = m.Name
		}
		if err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", name, got, err, want)
		}
	}
	if diff := cmp.Diff([]string{"org.x.fedora100", "org.x.fedora30", "org.x.fedora38"}, d.RunnersOf("org.x.fedora2")); diff != "" {
		t.Error(diff)
	}
	if got := d.RunnersOf("org.x.suse15"); len(got) != 6 {
		t.Errorf("of an unknown system: %q", got)
	}
}

func TestDigest(t *testing.T) {
	d := open(t, map[string]string{"stages/org.x.s": "one", "osbuild/__init__.py": "a", "osbuild/util/x.py": "b"})
	m, err := d.Find(Stages, "org.x.s")
	if err != nil {
		t.Fatal(err)
	}
	sum := func() (string, string) {
		t.Helper()
		a, err := m.Digest()
		if err != nil {
			t.Fatal(err)
		}
		b, err := d.LibraryDigest()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(d.Path, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	prog, lib := sum()
	if want := "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"; prog != want {
		t.Errorf("digest of \"one\": %s", prog)
	}
	write("osbuild/__pycache__/x.pyc.140", "c")
	write("osbuild/util/y.pyc", "c")
	write("stages/org.x.other", "c")
	if p, l := sum(); p != prog || l != lib {
		t.Error("what Python writes, or another program, changes the digests")
	}
	write("stages/org.x.s", "two") // the same size
	if p, l := sum(); p == prog || l != lib {
		t.Error("a changed program does not change its digest, or the library's")
	}
	for _, name := range []string{"osbuild/util/x.py", "osbuild/new.py"} {
		write(name, "changed")
		_, l := sum()
		if l == lib {
			t.Errorf("%s does not change the digest of the library", name)
		}
		lib = l
	}
	empty := open(t, map[string]string{"stages/": ""})
	if _, err := empty.LibraryDigest(); err != nil {
		t.Errorf("a tree without a library: %v", err)
	}
}

func TestPython(t *testing.T) {
	places := tree(t, map[string]string{
		"python3.9/site-packages/osbuild/__init__.py": "", "python3.11/site-packages/osbuild/__init__.py": "",
		"python3.12/site-packages/other/__init__.py": "",
	})
	defer func(p []string) { pythonPlaces = p }(pythonPlaces)
	pythonPlaces = []string{"/nonexistent/python3*", filepath.Join(places, "python3*/site-packages")}
	installed := filepath.Join(places, "python3.11/site-packages")
	for _, c := range []struct {
		name, python, path string
		files              map[string]string
	}{
		{"its own", "", ".", map[string]string{"stages/": "", "osbuild/__init__.py": ""}},
		{"none at all", "", ".", map[string]string{"stages/": ""}},
		{"installed", installed + "/osbuild", installed, map[string]string{"stages/": "", "osbuild/": ""}},
	} {
		d := open(t, c.files)
		p, err := d.Python()
		if err != nil || p != c.python {
			t.Errorf("%s: %q %v", c.name, p, err)
		}
		want := c.path
		if want == "." {
			want = d.Path
		}
		if p, err := d.PythonPath(); err != nil || p != want {
			t.Errorf("%s: PYTHONPATH %q %v, want %s", c.name, p, err, want)
		}
	}
	pythonPlaces = nil
	d := open(t, map[string]string{"stages/": "", "osbuild/": ""})
	var e *Error
	if _, err := d.Python(); !errors.As(err, &e) || e.Hint == "" {
		t.Errorf("not installed: %v", err)
	}
	if _, err := d.LibraryDigest(); err == nil {
		t.Error("not installed, and the digest of it is known")
	}
}

// What is described can be decoded, whatever the source says.
func FuzzMeta(f *testing.F) {
	for _, s := range []string{
		`{"summary":"s","description":[],"schema":{}}`, "SCHEMA = \"\"\"\n\"a\": {}\n\"\"\"\n", "\"\"\"x\n\n  y\n\"\"\"\n",
		"CAPABILITIES = ['CAP_X',\n 'CAP_Y']\n", "SCHEMA = r'''\\d''' '\\x41' # c\n", "x = '''", "SCHEMA='\\", "'\\N{DASH}'", "(((", "\\\n\\",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var m Module
		if m.fromPython([]byte(text)) == nil {
			for _, s := range [][]byte{m.Schema, m.Schema2} {
				if s != nil && !json.Valid(s) {
					t.Errorf("schema %q", s)
				}
			}
		}
		m = Module{}
		if m.fromJSON([]byte(text)) == nil && m.Schema == nil && m.Schema2 == nil {
			t.Error("a description without a schema was taken")
		}
	})
}
