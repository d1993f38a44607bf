// Programs of a library directory as stages: what they see and what becomes of what
// they say; runners that are programs; and what makes a stage run again.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/libdir"
	"github.com/osbuild-star/osbuild-star/manifest"
)

// showScript is a stage that notes in the tree what it sees.
const showScript = `#!/bin/sh
set -e
cd /run/osbuild/tree
mkdir seen
cp /run/osbuild/api/arguments seen/arguments
env | grep -v -e ^PWD= -e ^OLDPWD= -e ^_= | sort >seen/env
echo "$0" "$@" >seen/argv
find /run/osbuild -mindepth 1 -maxdepth 2 -not -path '*/.*' -not -path '/run/osbuild/tree/*' | sort >seen/paths
grep -e ^CapEff -e ^NoNewPrivs /proc/self/status >seen/status
id -u >seen/uid
readlink /proc/self/fd/0 >seen/stdin
for d in lib api; do if touch /run/osbuild/$d/x 2>/dev/null; then echo $d; fi; done >seen/writable
if test -b /dev/mapper/disk; then dd if=/dev/mapper/disk bs=4 count=1 of=seen/device 2>/dev/null; fi
if test -b /dev/of-mapper-disk; then dd if=/dev/of-mapper-disk bs=4 count=1 of=seen/parent 2>/dev/null; fi
cp -r /run/osbuild/inputs /run/osbuild/mounts seen/
if test -e /etc/ran; then cp /etc/ran seen/; fi
echo '{"n": 12345678901234567890}' >/run/osbuild/meta
echo to stdout
echo to stderr >&2
`

// contentsOf reads the files of an exported tree below a directory.
func contentsOf(t *testing.T, e *Engine, res *Result, pipeline, dir string) map[string]string {
	t.Helper()
	files, err := contents(filepath.Join(exported(t, e, res.Trees[pipeline]), dir))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestProgram(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"stages/org.x.show":           showScript,
		"stages/org.x.show.meta.json": `{"summary":"","description":[],"capabilities":["CAP_NET_ADMIN"],"schema":{}}`,
		"stages/org.x.plain":          showScript,
		"osbuild/api.py":              "",
	})
	e := newEngine(t, newStore(t), with(d, false))
	epoch := int64(1700000000)
	const opts = `{"b":{"z":1.50,"a":[]},"n":12345678901234567890}`
	p := pipe("tree", stage("org.x.show", opts))
	p.Stages[0].SetText([]byte(opts))
	p.SourceEpoch = &epoch
	q := pipe("plain", stage("org.x.plain", `{}`))
	m := plan1(p, q)
	res := mustBuild(t, e, m, "tree", "plain")
	got, plain := contentsOf(t, e, res, "tree", "seen"), contentsOf(t, e, res, "plain", "seen")
	if got["status"] == plain["status"] {
		t.Errorf("a capability of the description makes no difference: %s", got["status"])
	}
	if !strings.Contains(got["status"], "NoNewPrivs:\t1") {
		t.Error(got["status"])
	}
	delete(got, "status")
	want := map[string]string{
		// Golden, with a digest that is the ID of the stage.
		"arguments": `{"tree":"/run/osbuild/tree","paths":{"devices":"/dev","inputs":"/run/osbuild/inputs","mounts":"/run/osbuild/mounts"},` +
			`"options":{"b":{"z":1.50,"a":[]},"n":12345678901234567890},"inputs":{},"devices":{},"mounts":{},"meta":{"id":"ID","source-epoch":1700000000}}`,
		"env": "LC_CTYPE=C.UTF-8\nPATH=/usr/sbin:/usr/bin\nPYTHONPATH=/run/osbuild/lib\nPYTHONUNBUFFERED=1\n" +
			"SOURCE_DATE_EPOCH=1700000000\nTERM=dumb\ncontainer=bwrap-osbuild\n",
		"argv": "/run/osbuild/bin/org.x.show\n",
		"paths": "/run/osbuild/api\n/run/osbuild/api/arguments\n/run/osbuild/api/osbuild\n/run/osbuild/api/remoteloop\n/run/osbuild/bin\n/run/osbuild/bin/org.x.show\n" +
			"/run/osbuild/inputs\n/run/osbuild/lib\n/run/osbuild/lib/osbuild\n/run/osbuild/lib/stages\n/run/osbuild/meta\n/run/osbuild/mounts\n/run/osbuild/tree\n",
		"uid": "0\n", "stdin": "/dev/null\n", "writable": "",
	}
	ids, err := m.IDs()
	if err != nil {
		t.Fatal(err)
	}
	got["arguments"] = strings.Replace(got["arguments"], ids.Stage(p, 0), "ID", 1)
	var a, b any
	if unmarshal([]byte(got["arguments"]), &a) != nil || unmarshal([]byte(want["arguments"]), &b) != nil {
		t.Errorf("arguments: %s", got["arguments"])
	}
	if diff := cmp.Diff(b, a); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if !strings.Contains(got["arguments"], `"options":`+opts) {
		t.Errorf("options are not as they were written: %s", got["arguments"])
	}
	got["arguments"] = want["arguments"]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a program sees (-want +got):\n%s", diff)
	}
	r := res.Stages[0]
	if strings.TrimSpace(string(r.Metadata)) != `{"n": 12345678901234567890}` && string(r.Metadata) != `{"n":12345678901234567890}` || r.Output != "to stdout\nto stderr\n" || !r.Success {
		t.Errorf("result: %+v", r)
	}
	checkIdle(t, e)
}

func TestProgramFails(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"stages/org.x.exit":           "#!/bin/sh\necho so; exit 7\n",
		"stages/org.x.killed":         "#!/bin/sh\nkill -TERM $$\n",
		"stages/org.x.throw":          "self",
		"stages/org.x.broken":         "#!/bin/sh\n",
		"stages/org.x.noshell":        "#!/no/such/shell\n",
		"stages/org.x.meta":           "#!/bin/sh\necho '{' >/run/osbuild/meta\n",
		"stages/org.x.both":           "#!/bin/sh\n",
		"stages/org.x.both.meta.json": `{`,
	})
	e := newEngine(t, newStore(t), with(d, false))
	for _, c := range []struct {
		typ, msg, output, exception string
		status                      int
	}{
		{typ: "org.x.exit", status: 7, output: "so\n"},
		{typ: "org.x.killed", status: 128 + 15},
		{typ: "org.x.throw", status: 2, output: "about to throw\n", msg: "KeyError: 'x'", exception: `{"data":{"type":"KeyError","value":"'x'","traceback":"line 1"},"type":"exception"}`},
		{typ: "org.x.noshell", status: 1, msg: "no such file or directory"},
	} {
		res, err := e.Build(context.Background(), plan1(pipe("tree", stage(c.typ, `{}`))), []string{"tree"}, nil)
		var se *StageError
		if !errors.As(err, &se) || se.Status != c.status || !strings.Contains(se.Msg, c.msg) || !strings.Contains(se.Output, c.output) || string(se.Exception) != c.exception {
			t.Errorf("%s: %v, %+v", c.typ, err, se)
			continue
		}
		if len(res.Stages) != 1 || res.Stages[0].Success || string(res.Stages[0].Exception) != c.exception {
			t.Errorf("%s: %+v", c.typ, res.Stages)
		}
	}
	res := mustBuild(t, e, plan1(pipe("tree", stage("org.x.meta", `{}`))), "tree")
	if res.Stages[0].Metadata != nil {
		t.Errorf("metadata that are no JSON: %s", res.Stages[0].Metadata)
	}
	for typ, want := range map[string]string{"org.x.both": "unexpected EOF", "org.x.none": `unknown stage "org.x.none"`, "../stages/org.x.exit": "unknown stage"} {
		if _, err := e.Build(context.Background(), plan1(pipe("tree", stage(typ, `{}`))), []string{"tree"}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

const runnerScript = `#!/bin/sh
echo "$0 $*" >/etc/ran
mkdir -p /var/lib/x
"$@"
`

func TestRunnerProgram(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"runners/org.x.os12":        runnerScript,
		"runners/org.x.os15":        "#!/bin/sh\nexit 9\n",
		"runners/org.x.strict":      "#!/bin/sh\nexit 9\n",
		"runners/org.osbuild.linux": runnerScript,
		"stages/org.x.show":         showScript,
		"stages/" + noteStage:       "#!/bin/sh\ncp /etc/ran /run/osbuild/tree/ran\n",
	})
	build := func(prefer bool, runner string, s *manifest.Stage) (map[string]string, error) {
		t.Helper()
		e := newEngine(t, newStore(t), with(d, prefer))
		p := &manifest.Pipeline{Name: "tree", Build: &manifest.BuildRoot{Runner: runner}, Stages: []*manifest.Stage{s}}
		res, err := e.Build(context.Background(), plan1(p), []string{"tree"}, nil)
		if err != nil {
			return nil, err
		}
		return contentsOf(t, e, res, "tree", "."), nil
	}
	for _, c := range []struct {
		name, runner string
		prefer       bool
		stage        *manifest.Stage
		file, want   string
	}{
		{"one that is not built in", "org.x.os14", false, stage("org.x.show", `{}`), "seen/ran", "/run/osbuild/runner/org.x.os12 /run/osbuild/bin/org.x.show\n"},
		{"one that is built in", "org.osbuild.linux", false, stage("org.x.show", `{}`), "seen/ran", ""},
		{"one that is preferred", "org.osbuild.linux", true, stage("org.x.show", `{}`), "seen/ran", "/run/osbuild/runner/org.osbuild.linux /run/osbuild/bin/org.x.show\n"},
		{"by its short name", "linux", true, stage("org.x.show", `{}`), "seen/ran", "/run/osbuild/runner/org.osbuild.linux /run/osbuild/bin/org.x.show\n"},
		{"a stage of the agent", "org.x.os12", false, note("file", "native"), "file", "native"},
		{"a stage of the agent and a program of its name", "org.x.os12", true, note("file", "native"), "ran", "/run/osbuild/runner/org.x.os12 /run/osbuild/bin/" + noteStage + "\n"},
	} {
		got, err := build(c.prefer, c.runner, c.stage)
		if err != nil || got[c.file] != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	// Its exit status is that of the stage.
	_, err := build(false, "org.x.os20", stage("org.x.show", `{}`))
	var se *StageError
	if !errors.As(err, &se) || se.Status != 9 {
		t.Errorf("a runner that fails: %v", err)
	}
	for runner, want := range map[string]string{"org.x.os11": "org.x.os12, org.x.os15", "org.y.z": "org.x.strict"} {
		if _, err := build(false, runner, stage("org.x.show", `{}`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", runner, err)
		}
	}
}

// A program that changes makes what it made again, and so does everything that takes
// part in running it; what does not take part makes no difference.
func TestProgramKeys(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"runners/org.x.os1": "#!/bin/sh\n: one\n\"$@\"\n", "runners/org.x.os2": "#!/bin/sh\n: one\n\"$@\"\n",
		"stages/org.x.s": "#!/bin/sh\necho one >/run/osbuild/tree/s\n", "stages/org.x.other": "#!/bin/sh\necho one\n",
		"inputs/org.x.i": "one", "devices/org.x.d": "one", "mounts/org.x.m": "one", "sources/org.x.c": "one",
		"osbuild/api.py":           "one = 1",
		"stages/org.x.s.meta.json": `{"summary":"one","description":[],"capabilities":["CAP_MAC_ADMIN"],"schema":{}}`,
	})
	s := stage("org.x.s", `{}`)
	s.Inputs = map[string]*manifest.Input{"i": {Type: "org.x.i", Origin: manifest.OriginSource}}
	s.Devices = map[string]*manifest.Device{"d": {Type: "org.x.d"}}
	s.Mounts = []*manifest.Mount{{Name: "m", Type: "org.x.m", Source: "d"}}
	native := note("a", "b")
	p := &manifest.Pipeline{Name: "p", Build: &manifest.BuildRoot{Runner: "org.x.os1"}, Stages: []*manifest.Stage{s}}
	q := &manifest.Pipeline{Name: "q", Build: &manifest.BuildRoot{Runner: "linux"}, Stages: []*manifest.Stage{native}}
	keys := func(dir *libdir.Dir) (string, string) {
		t.Helper()
		e := New(Config{Programs: Programs{Dir: dir}})
		all, err := e.plans(plan1(p, q))
		if err != nil {
			t.Fatal(err)
		}
		return all["p"].key, all["q"].key
	}
	// A tree of its own is read for each, as by another process.
	again := func() (string, string) {
		t.Helper()
		fresh, err := libdir.Open(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		return keys(fresh)
	}
	was, wasNative := again()
	for _, c := range []struct {
		file  string
		takes bool // part in it
	}{
		{"stages/org.x.s", true}, {"runners/org.x.os1", true}, {"inputs/org.x.i", true}, {"devices/org.x.d", true},
		{"mounts/org.x.m", true}, {"osbuild/api.py", true},
		{"stages/org.x.other", false}, {"runners/org.x.os2", false}, {"sources/org.x.c", false}, {"stages/org.x.s.meta.json", false},
	} {
		rewrite(t, d, c.file, "one", "two")
		now, nowNative := again()
		if (now != was) != c.takes {
			t.Errorf("%s: the key changed: %v, want %v", c.file, now != was, c.takes)
		}
		if nowNative != wasNative {
			t.Errorf("%s changes the key of a stage of the agent", c.file)
		}
		was = now
	}
	rewrite(t, d, "stages/org.x.s.meta.json", "MAC_ADMIN", "NET_ADMIN")
	if now, _ := again(); now == was {
		t.Error("the capabilities of a program do not change its key")
	}
	e := New(Config{})
	all, err := e.plans(plan1(q))
	if err != nil || all["q"].key != wasNative {
		t.Errorf("a library directory changes the key of a stage of the agent: %v", err)
	}
}

func TestProgramChanges(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"stages/org.x.s": "#!/bin/sh\necho one >>/run/osbuild/tree/s\n", "stages/org.x.t": "#!/bin/sh\necho one >>/run/osbuild/tree/t\n",
		"assemblers/org.x.s": "#!/bin/sh\necho asm >/run/osbuild/tree/s\n",
	})
	st := newStore(t)
	e := newEngine(t, st, with(d, false))
	m := plan1(pipe("tree", stage("org.x.s", `{}`), stage("org.x.t", `{}`)))
	for _, c := range []struct {
		change func()
		ran    []string
		want   map[string]string
	}{
		{func() {}, []string{"tree s", "tree t"}, map[string]string{"s": "one\n", "t": "one\n"}},
		{func() {}, []string{}, map[string]string{"s": "one\n", "t": "one\n"}},
		{func() { rewrite(t, d, "stages/org.x.t", "one", "two") }, []string{"tree t"}, map[string]string{"s": "one\n", "t": "two\n"}},
		{func() { rewrite(t, d, "stages/org.x.s", "one", "two") }, []string{"tree s", "tree t"}, map[string]string{"s": "two\n", "t": "two\n"}},
		{func() { rewrite(t, d, "stages/org.x.s", "two", "one") }, []string{}, map[string]string{"s": "one\n", "t": "two\n"}},
	} {
		c.change()
		res := mustBuild(t, e, m, "tree")
		if diff := cmp.Diff(c.ran, ran(res)); diff != "" {
			t.Errorf("ran (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(c.want, contentsOf(t, e, res, "tree", ".")); diff != "" {
			t.Errorf("tree (-want +got):\n%s", diff)
		}
	}
	// The same name as an assembler is another program.
	asm := stage("org.x.s", `{}`)
	asm.Assembler = true
	res := mustBuild(t, e, plan1(pipe("tree", asm)), "tree")
	if got := contentsOf(t, e, res, "tree", "."); got["s"] != "asm\n" {
		t.Errorf("the assembler made %q", got)
	}
}

func TestPrefer(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"stages/" + noteStage:     "#!/bin/sh\necho program >/run/osbuild/tree/file\n",
		"stages/org.osbuild.copy": "#!/bin/sh\ncp /run/osbuild/inputs/tree/file /run/osbuild/tree/copied\n",
		"runners/org.x.none":      "#!/bin/sh\n",
	})
	for prefer, want := range map[bool]string{false: "native", true: "program\n"} {
		e := newEngine(t, newStore(t), with(d, prefer))
		res := mustBuild(t, e, plan1(pipe("tree", note("file", "native"))), "tree")
		if got := contentsOf(t, e, res, "tree", "."); got["file"] != want {
			t.Errorf("prefer %v: %q", prefer, got)
		}
		// The copy of a whole tree, which is no work for the one that is built in.
		name := map[bool]string{false: "file", true: "copied"}[prefer]
		res = mustBuild(t, e, plan1(pipe("tree", note("file", "native")), pipe("copy", copyOf("tree"))), "copy")
		if got := contentsOf(t, e, res, "copy", "."); len(got) != 1 || got[name] != want {
			t.Errorf("prefer %v: a copy has %q", prefer, got)
		}
	}
}

// The document of version 1 names an assembler; its input is the tree.
func TestProgramV1(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"stages/org.x.t": "#!/bin/sh\necho hi >/run/osbuild/tree/hello\n",
		"assemblers/org.x.t": `#!/bin/sh
: '
SCHEMA = """
"required": ["name"], "properties": {"name": {"type": "string"}}
"""
'
cp /run/osbuild/inputs/tree/hello "/run/osbuild/tree/$(sed 's/.*"name":"\([a-z]*\)".*/\1/' /run/osbuild/api/arguments)"
`,
		"assemblers/org.x.t.meta.json": `{"summary":"","description":[],"schema":{"required":["name"],"properties":{"name":{"type":"string"}}}}`,
	})
	mods := manifest.Layered(manifest.Builtin(), d.Modules())
	const doc = `{"pipeline":{"stages":[{"name":"org.x.t","options":{}}],"assembler":{"name":"org.x.t","options":{"name":"image"}}}}`
	if _, err := manifest.LoadChecked([]byte(strings.ReplaceAll(doc, `"name":"image"`, `"name":1`)), mods); err == nil || !strings.Contains(err.Error(), "1 is not of type 'string'") {
		t.Errorf("options of the assembler: %v", err)
	}
	m, err := manifest.LoadChecked([]byte(doc), mods)
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, newStore(t), with(d, false))
	res := mustBuild(t, e, m, "assembler")
	if diff := cmp.Diff(map[string]string{"image": "hi\n"}, contentsOf(t, e, res, "assembler", ".")); diff != "" {
		t.Error(diff)
	}
}

func TestProgramRemoteLoop(t *testing.T) {
	d := newLibdir(t, map[string]string{"stages/org.x.remote": "self"})
	e := newEngine(t, newStore(t), with(d, false))
	res := mustBuild(t, e, plan1(pipe("tree", stage("org.x.remote", `{}`))), "tree")
	disk := contentsOf(t, e, res, "tree", ".")["disk"]
	if len(disk) != 1<<20 || !strings.HasPrefix(disk[4096:], "through the device") || strings.TrimLeft(disk[:4096], "\x00") != "" {
		t.Errorf("%d bytes: %.40q", len(disk), strings.TrimLeft(disk, "\x00"))
	}
	checkIdle(t, e)
}

// Where the library directory has an empty osbuild/, the installed package is there.
func TestProgramLibrary(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"stages/org.x.s": "#!/bin/sh\ncd /run/osbuild/tree; cp /run/osbuild/lib/osbuild/api.py .; ls /run/osbuild/lib >lib\n", "osbuild/api.py": "own",
	})
	e := newEngine(t, newStore(t), with(d, false))
	got := contentsOf(t, e, mustBuild(t, e, plan1(pipe("tree", stage("org.x.s", `{}`))), "tree"), "tree", ".")
	if diff := cmp.Diff(map[string]string{"api.py": "own", "lib": "osbuild\nstages\n"}, got); diff != "" {
		t.Error(diff)
	}
	if err := os.Remove(filepath.Join(d.Path, "osbuild/api.py")); err != nil {
		t.Fatal(err)
	}
	installed := filepath.Join(t.TempDir(), "osbuild")
	for _, f := range []string{"__init__.py", "api.py"} {
		if err := os.MkdirAll(installed, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(installed, f), []byte("installed"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.Installed = installed
	e = newEngine(t, newStore(t), with(d, false))
	got = contentsOf(t, e, mustBuild(t, e, plan1(pipe("tree", stage("org.x.s", `{}`))), "tree"), "tree", ".")
	if diff := cmp.Diff(map[string]string{"api.py": "installed", "lib": "osbuild\nstages\n"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestProgramShell(t *testing.T) {
	d := newLibdir(t, map[string]string{"stages/org.x.s": "#!/bin/sh\nexit 1\n", "runners/org.x.os": runnerScript, "osbuild/api.py": ""})
	e := newEngine(t, newStore(t), with(d, false))
	p := &manifest.Pipeline{Name: "tree", Build: &manifest.BuildRoot{Runner: "org.x.os"}, Stages: []*manifest.Stage{stage("org.x.s", `{}`)}}
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, at := range []string{"org.x.s", ""} {
		pl := *p
		if at == "" {
			pl.Stages = []*manifest.Stage{note("a", "b")} // after it
		}
		if err := out.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		status, err := e.Shell(context.Background(), plan1(&pl), Shell{
			Pipeline: "tree", Stage: at, Argv: []string{"/bin/sh", "-c", "cat /etc/ran; ls /run/osbuild/lib; exit 5"}, Stdin: null, Stdout: out,
		}, nil)
		if err != nil || status != 5 {
			t.Errorf("status %d, %v", status, err)
		}
		b, err := os.ReadFile(out.Name())
		if want := regexp.MustCompile(`^/run/osbuild/runner/org.x.os /bin/sh -c .*\nosbuild\nrunners\nstages\n$`); err != nil || !want.Match(b) {
			t.Errorf("before %q: %q %v", at, b, err)
		}
	}
}

// What the host lacks to run programs is told before.
func TestProgramPreflight(t *testing.T) {
	d := newLibdir(t, map[string]string{
		"stages/org.x.a": "#!/usr/bin/no-such-shell\n", "stages/org.x.b": "#!/usr/bin/env no-such-python\n", "stages/org.x.c": "#!/bin/sh\n",
		"mounts/org.x.m": "#!/usr/bin/no-such-perl -w\n",
	})
	e := newEngine(t, newStore(t), with(d, false))
	s := stage("org.x.c", `{}`)
	s.Mounts = []*manifest.Mount{{Name: "m", Type: "org.x.m"}}
	missing, err := e.Preflight(plan1(pipe("tree", stage("org.x.a", `{}`), stage("org.x.b", `{}`), s)), []string{"tree"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range missing {
		got[m.What] = m.Package
	}
	want := map[string]string{"/usr/bin/no-such-shell": "no-such-shell", "no-such-python": "no-such-python", "/usr/bin/no-such-perl": "no-such-perl"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

// decoded is JSON as it is compared.
func decoded(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}
