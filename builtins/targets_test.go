package builtins

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"
)

const paramsFile = `
name = param("host", "a", values = ["a", "b"], doc = "the name")
count = param("count", 2)
yes = param("yes", False)
word = param("word")
image("x", pipeline("p", [stage.hostname(hostname = "%s-%d-%s-%s" % (name, count, yes, word))]))
-- MODULE.star --
module(name = "m", word = "hi")
`

func TestParams(t *testing.T) {
	for _, tt := range []struct {
		defines map[string]string
		want    string // the hostname, or a part of the error
	}{
		{nil, "a-2-False-hi"},
		{map[string]string{"host": "b", "count": "0x10", "yes": "true", "word": "ho"}, "b-16-True-ho"},
		{map[string]string{"host": "c"}, `-D host=c: it cannot have this value`},
		{map[string]string{"count": "many"}, `-D count=many: a whole number is wanted`},
		{map[string]string{"yes": "perhaps"}, `-D yes=perhaps: true or false is wanted`},
		{map[string]string{"hots": "b"}, `-D hots: no parameter of that name`},
	} {
		p, _ := openArchive(t, paramsFile, tt.defines)
		targets, err := p.Match(context.Background(), []string{"//:all"}, "")
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v: got error %v, want %s", tt.defines, err, tt.want)
			}
			continue
		}
		plan, err := p.Plan(context.Background(), targets, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := plan.Manifest.Pipelines[0].Stages[0].Options["hostname"]; got != tt.want {
			t.Errorf("%v: got %v, want %s", tt.defines, got, tt.want)
		}
		if len(plan.Params) != len(tt.defines) {
			t.Errorf("%v: params of the plan are %v", tt.defines, plan.Params)
		}
	}
}

const matrixFile = `
def server(os, arch):
    print("made", os, arch)
    return image(pipeline = pipeline("os", [stage.hostname(hostname = os + "-" + arch)], arch = arch), files = ["etc/hostname"])

matrix(
    name = "server",
    axes = {"os": ["r8", "r9"], "arch": ["x86_64", "aarch64", "s390x"]},
    exclude = [{"os": "r8", "arch": ["s390x", "aarch64"]}],
    include = [{"os": "r10", "arch": "riscv64"}],
    image = server,
)
image_test("t", image = ":server@r9-s390x")
`

func TestMatrix(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		want    []string
	}{
		{"//:server", []string{"r8-x86_64", "r9-x86_64", "r9-aarch64", "r9-s390x", "r10-riscv64"}},
		{"//:server@r9-s390x", []string{"r9-s390x"}},
		{"//:server@os=r9", []string{"r9-x86_64", "r9-aarch64", "r9-s390x"}},
		{"//:t", []string{"r9-s390x"}},
	} {
		p, out := openArchive(t, matrixFile, nil)
		plan := planOf(t, p, tt.pattern)
		var got []string
		for _, a := range plan.Artifacts {
			got = append(got, a.Label.Variant)
			if a.Arch == "" || a.Label.String() != "//:server@"+a.Label.Variant {
				t.Errorf("artifact %+v", a)
			}
		}
		for _, x := range plan.Tests {
			got = append(got, x.Image.Variant)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.pattern, diff)
		}
		if n := strings.Count(out.String(), "made"); n != len(tt.want) {
			t.Errorf("%s: %d variants were made:\n%s", tt.pattern, n, out)
		}
		if n := len(plan.Manifest.Pipelines); n != len(tt.want) {
			t.Errorf("%s: %d pipelines", tt.pattern, n)
		}
	}
}

// TestMatrixDefault: what the label of a matrix without a suffix means.
func TestMatrixDefault(t *testing.T) {
	with := func(d string) string {
		return strings.Replace(matrixFile, "    image = server,", "    image = server,\n    default = "+d+",", 1)
	}
	for _, tt := range []struct {
		def, pattern string
		want         []string
	}{
		{`{"os": "r9", "arch": "s390x"}`, "//:server", []string{"//:server"}},
		{`{"os": "r9", "arch": "s390x"}`, "//...", []string{"//:server", "//:t of //:server@r9-s390x"}},
		{`{"os": "r9", "arch": "s390x"}`, "//:server@r9-s390x", []string{"//:server@r9-s390x"}},
		{`{"os": "r9", "arch": "s390x"}`, "//:whole", []string{"//:whole of //:server"}},
		{`{"arch": ["x86_64", "s390x"]}`, "//:server", []string{"//:server@r8-x86_64", "//:server@r9-x86_64", "//:server@r9-s390x"}},
		{`{"arch": "s390x"}`, "//:server@all", []string{"//:server@r8-x86_64", "//:server@r9-x86_64", "//:server@r9-aarch64", "//:server@r9-s390x", "//:server@r10-riscv64"}},
		{`{"os": "r9"}`, "//:server -//:server@arch=aarch64", []string{"//:server@r9-x86_64", "//:server@r9-s390x"}},
	} {
		src := with(tt.def)
		if tt.pattern == "//:whole" {
			src += "image_test(\"whole\", image = \":server\")\n"
		}
		p, _ := openArchive(t, src, nil)
		plan := planOf(t, p, strings.Fields(tt.pattern)...)
		var got []string
		for _, a := range plan.Artifacts {
			got = append(got, a.Label.String())
		}
		for _, x := range plan.Tests {
			got = append(got, x.Label.String()+" of "+x.Image.String())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("default = %s: %s (-want +got):\n%s", tt.def, tt.pattern, diff)
		}
	}
	for def, want := range map[string]string{
		`{"arch": "ppc64le"}`: "no variant is",
		`{"cpu": "s390x"}`:    `there is no axis "cpu"`,
	} {
		p, _ := openArchive(t, with(def), nil)
		if _, err := p.Match(context.Background(), []string{"//:server"}, ""); err == nil || !strings.Contains(formatted(err), want) {
			t.Errorf("default = %s: %v", def, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	p, _ := openArchive(t, paramsFile+"-- sub/BUILD.star --\n"+matrixFile+`group("g", [":server", "//:x"])`+"\n", nil)
	targets, err := p.Match(context.Background(), []string{"//..."}, "")
	if err != nil {
		t.Fatal(formatted(err))
	}
	got := map[string]map[string]any{}
	for _, x := range targets {
		d := p.Describe(x)
		got[d["label"].(string)] = d
	}
	for label, want := range map[string]map[string]any{
		"//:x":         {"kind": "image", "label": "//:x", "file": "BUILD.star", "line": 6, "pipeline": "p"},
		"//sub:g":      {"kind": "group", "label": "//sub:g", "file": "sub/BUILD.star", "line": 14, "targets": []string{"//sub:server", "//:x"}},
		"//sub:t":      {"kind": "image_test", "label": "//sub:t", "file": "sub/BUILD.star", "line": 13, "image": "//sub:server@r9-s390x", "firmware": []string{}, "timeout": 600},
		"//:host":      {"kind": "param", "label": "//:host", "file": "BUILD.star", "line": 2, "default": "a", "value": "a", "doc": "the name", "values": []any{"a", "b"}},
		"//sub:server": {"kind": "matrix", "label": "//sub:server", "file": "sub/BUILD.star", "line": 6, "axes": []string{"os", "arch"}, "variants": []string{"r8-x86_64", "r9-x86_64", "r9-aarch64", "r9-s390x", "r10-riscv64"}},
	} {
		if diff := cmp.Diff(want, got[label]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", label, diff)
		}
	}
}

func TestValues(t *testing.T) {
	const src = `
def check(cond):
    if not cond:
        fail("no")

check(runner("debian12") == runner("org.osbuild.debian12"))
check(runner("debian12") != runner("debian11"))
check(source.inline("a") == source.inline("a"))
check({source.inline("a"): 1}[source.inline("a")] == 1)
check(file("motd") == source.inline("hello\n"))
check(file("motd").name == "motd" and file("motd").sha256 == source.inline("hello\n").id[7:])
check([f.name for f in glob(["conf/*"])] == ["conf/a", "conf/b"])
check(glob(["*.nope"], allow_empty = True) == [])
check(deb_packages([deb_repo("x")], ["a", "b"]) == deb_packages([deb_repo("x")], ["b", "a"]))
check(deb_repo("x").mirror == None and deb_repo("x", mirror = "file:///a").mirror == "file:///a")
check(stage.hostname(hostname = "a").options == {"hostname": "a"})
check(stage.hostname(hostname = "a").type == "org.osbuild.hostname")
check(pipeline("p", [stage.noop()]).build == buildroot.host)
check(uuid5("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "python.org") == "886313e1-3b8a-5372-9b90-0c9aee199e5d")
check(arch.host == "x86_64" and arch.aarch64 == "aarch64")
check("hostname" in dir(stage) and "mkfs_ext4" in dir(stage))
check(json.decode(json.encode({"a": [1]})) == {"a": [1]})
check(type(pipeline("p", [stage.noop()])) == "pipeline" and type(device.loopback("d")) == "device")
print(runner("debian12"), deb_repo("x", ["main", "contrib"]), buildroot.host, pipeline("p", [stage.noop()]), stage.noop())
warn("careful", 5)
-- motd --
hello
-- conf/b --
-- conf/a --
`
	p, out := openArchive(t, src, nil)
	if _, err := p.Match(context.Background(), []string{"//..."}, ""); err != nil && !strings.Contains(err.Error(), "no target") {
		t.Fatal(formatted(err))
	}
	want := `BUILD.star:24:6: runner("org.osbuild.debian12") deb_repo("x", ["main", "contrib"]) buildroot.host <pipeline "p"> <stage org.osbuild.noop at BUILD.star:24>
BUILD.star:25:5: warning: careful 5
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

// TestTable: the table is complete and in order, and what it says can be read.
func TestTable(t *testing.T) {
	var names []string
	for _, b := range Table() {
		names = append(names, b.Name)
		if b.Doc == "" || b.Result == "" || b.run == nil {
			t.Errorf("%s has no doc, result or code", b.Name)
		}
		c := b.compile()
		for i, p := range b.Params {
			if p.Doc == "" {
				t.Errorf("%s: %s has no doc", b.Name, p.Name)
			}
			if v := c.defaults[i]; v != nil {
				if msg := c.types[i].check(p.Name, v); msg != "" {
					t.Errorf("%s: default of %s", b.Name, msg)
				}
			}
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("the table is not sorted: %v", names)
	}
	ref := Reference()
	for _, want := range append(names, "debian_image", "stage.hostname", "gpt(", "output.qcow2(") {
		if !strings.Contains(ref, want) {
			t.Errorf("the reference does not speak of %s", want)
		}
	}
	for _, r := range Rules() {
		if r.Doc == "" {
			t.Errorf("%s of %s has no docstring", r.Name, r.File)
		}
	}
}

func FuzzParam(f *testing.F) {
	f.Add("1", 0)
	f.Add("true", 1)
	f.Add("x", 2)
	f.Fuzz(func(t *testing.T, text string, kind int) {
		like := []starlark.Value{starlark.MakeInt(0), starlark.False, starlark.String("")}[uint(kind)%3]
		v, err := parseParam(text, like)
		if err == nil && v.Type() != like.Type() {
			t.Errorf("%q as %s is %s", text, like.Type(), v.Type())
		}
	})
}

func FuzzUUID(f *testing.F) {
	f.Add("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "x")
	f.Fuzz(func(t *testing.T, ns, name string) {
		id, ok := uuid5(ns, name)
		if !ok {
			return
		}
		if again, ok := uuid5(id, ""); !ok || again == id || len(id) != 36 || id[14] != '5' {
			t.Errorf("uuid5(%q, %q) = %q", ns, name, id)
		}
	})
}
