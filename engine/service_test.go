// Services of a library directory, real ones: inputs, devices, mounts and sources,
// their order, and what becomes of their errors.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/libdir"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
)

// servedLibdir has a service of every kind, and a stage that shows what it gets.
func servedLibdir(t *testing.T) *libdir.Dir {
	return newLibdir(t, map[string]string{
		"stages/org.x.show": showScript, "stages/org.x.exit": "#!/bin/sh\nexit 7\n",
		"inputs/org.x.in": "self", "devices/org.x.dev": "self", "mounts/org.x.mnt": "self", "sources/org.x.src": "self",
	})
}

func served(typ, opts string) *manifest.Mount {
	return &manifest.Mount{Name: "m", Type: typ, Target: "/", Options: options(opts)}
}

// argumentsOf is what the stage read from /run/osbuild/api/arguments.
func argumentsOf(t *testing.T, files map[string]string) map[string]any {
	t.Helper()
	args, _ := decoded(t, files["arguments"]).(map[string]any)
	return args
}

func TestServedInputs(t *testing.T) {
	st := newStore(t)
	e := newEngine(t, st, with(servedLibdir(t), false))
	if err := os.WriteFile(sources.Path(st.SourcesDir(), sum), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := stage("org.x.show", `{}`)
	pipeline := func(refs ...manifest.Reference) *manifest.Input {
		return &manifest.Input{Type: "org.x.in", Origin: manifest.OriginPipeline, References: refs}
	}
	s.Inputs = map[string]*manifest.Input{
		"whole": pipeline(ref("name:os", `{}`)), "part": pipeline(ref("name:os", `{"file":"etc/motd"}`)), "none": pipeline(ref("name:empty", `{}`)),
		"source": {Type: "org.x.in", Origin: manifest.OriginSource, References: []manifest.Reference{ref(sum, `{"n":1.50}`)}},
		"native": treeOf("os"), "files": {Type: "org.osbuild.files", Origin: manifest.OriginSource, References: []manifest.Reference{ref(sum, `{}`)}},
	}
	m := plan1(pipe("os", note("hello", "hi"), note("etc/motd", "1")), pipe("empty"), pipe("tree", s))
	var lines []string
	res, err := e.Build(context.Background(), m, []string{"tree"}, onEvent(func(ev monitor.Event) {
		if ev.Kind == monitor.Output && strings.HasPrefix(ev.Text, "input/whole ") {
			lines = append(lines, ev.Text)
		}
	}))
	if err != nil {
		t.Fatal(explain(err))
	}
	got := contentsOf(t, e, res, "tree", "seen")
	files := map[string]string{}
	for name, text := range got {
		if rel, ok := strings.CutPrefix(name, "inputs/"); ok {
			files[rel] = text
		}
	}
	want := map[string]string{
		"whole/hello": "hi", "whole/etc/motd": "1", "part/file": "1", "source/" + sum: "x",
		"native/hello": "hi", "native/etc/motd": "1", "files/" + sum: "x",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	wantArgs := decoded(t, fmt.Sprintf(`{
		"whole":{"path":"/run/osbuild/inputs/whole","data":{"seen":{"hello":"hi","tmp":true}}},
		"part":{"path":"/run/osbuild/inputs/part","data":{"seen":{"hello":"hi","tmp":true}}},
		"none":{"path":"/run/osbuild/inputs/none","data":{"seen":{"unknown":"null","tmp":true}}},
		"source":{"path":"/run/osbuild/inputs/source","data":{"seen":{%[1]q:{"n":1.50},"tmp":true}}},
		"native":{"path":"/run/osbuild/inputs/native"},
		"files":{"path":"/run/osbuild/inputs/files","data":{"files":{%[1]q:{}}}}}`, sum))
	if diff := cmp.Diff(wantArgs, argumentsOf(t, got)["inputs"]); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	wantLine := "input/whole (org.x.in): PYTHONPATH is " + e.cfg.Programs.Dir.Path + " and PYTHONUNBUFFERED 1"
	if diff := cmp.Diff([]string{wantLine}, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	checkIdle(t, e)
}

// When a source file was fetched does not show in what is made of it.
func TestServedLinksAreNew(t *testing.T) {
	st := newStore(t)
	d := newLibdir(t, map[string]string{"inputs/org.x.in": "self", "stages/org.x.copy": "#!/bin/sh\ncp -a /run/osbuild/inputs/f/* /run/osbuild/tree/\n"})
	e := newEngine(t, st, with(d, false))
	p := sources.Path(st.SourcesDir(), sum)
	if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := mustStat(t, p).ModTime().AddDate(-1, 0, 0)
	if err := os.Chtimes(p, old, old); err != nil {
		t.Fatal(err)
	}
	s := stage("org.x.copy", `{}`)
	s.Inputs = map[string]*manifest.Input{"f": {Type: "org.x.in", Origin: manifest.OriginSource, References: []manifest.Reference{ref(sum, `{}`)}}}
	pl := pipe("tree", s)
	epoch := int64(1700000000)
	pl.SourceEpoch = &epoch
	res := mustBuild(t, e, plan1(pl), "tree")
	if got := mustStat(t, filepath.Join(exported(t, e, res.Trees["tree"]), sum)).ModTime().Unix(); got != epoch {
		t.Errorf("time of the copy: %d, want %d", got, epoch)
	}
}

func mustStat(t *testing.T, p string) os.FileInfo {
	t.Helper()
	st, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestServedDevicesAndMounts(t *testing.T) {
	e := newEngine(t, newStore(t), with(servedLibdir(t), false))
	log := filepath.Join(t.TempDir(), "log")
	disk := stage(shStage, `{"script":"truncate -s 20M disk; mkfs.ext4 -q disk; printf data | dd of=disk conv=notrunc 2>/dev/null"}`)
	s := stage("org.x.show", `{}`)
	s.Devices = map[string]*manifest.Device{
		// By their names the child would come first.
		"a": {Type: "org.x.dev", Parent: "z", Options: options(fmt.Sprintf(`{"log":%q}`, log))},
		"z": {Type: "org.x.dev", Options: options(fmt.Sprintf(`{"log":%q,"filename":"disk"}`, log))},
		"p": {Type: "org.x.dev", Options: options(`{"filename":"disk","plain":true}`)},
		"l": loopback(`{"filename":"disk"}`), "c": {Type: "org.x.dev", Parent: "l"},
	}
	mount := func(name, source, target, opts string) *manifest.Mount {
		o := options(opts)
		o["log"] = log
		return &manifest.Mount{Name: name, Type: "org.x.mnt", Source: source, Target: target, Options: o}
	}
	s.Mounts = []*manifest.Mount{
		mount("root", "", "/", `{}`), mount("fs", "z", "/fs", `{"fstype":"ext4"}`), mount("in-tree", "", "", `{"tree":"sub"}`),
		{Name: "native", Type: "org.osbuild.ext4", Source: "l", Target: "/native"},
		{Name: "plain", Type: "org.x.mnt", Source: "p", Target: "/plain"},
		{Name: "part", Type: "org.x.mnt", Source: "l", Partition: 2, Target: "/part"},
	}
	s.Inputs = map[string]*manifest.Input{"i": {Type: "org.x.in", Origin: manifest.OriginSource, Options: options(fmt.Sprintf(`{"log":%q}`, log))}}
	res := mustBuild(t, e, plan1(pipe("tree", disk, s)), "tree")
	tree := contentsOf(t, e, res, "tree", ".")
	args := decoded(t, tree["seen/arguments"]).(map[string]any)
	devices := args["devices"].(map[string]any)
	node := func(name string) any { return devices[name].(map[string]any)["node"] }
	loop, plain := devices["l"].(map[string]any)["path"].(string), devices["p"].(map[string]any)["path"].(string)
	wantDevices := map[string]any{
		"z": map[string]any{"path": "/dev/mapper/disk", "more": "yes", "node": node("z")},
		"a": map[string]any{"path": "/dev/of-mapper-disk", "node": node("z")},
		"p": map[string]any{"path": plain, "more": "yes", "node": node("p")},
		"l": map[string]any{"path": loop, "node": node("l")},
		"c": map[string]any{"path": "/dev/of-" + strings.TrimPrefix(loop, "/dev/"), "node": node("l")},
	}
	if diff := cmp.Diff(wantDevices, devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if n := node("l").(map[string]any); fmt.Sprint(n["major"], n["minor"]) != "7 "+strings.TrimPrefix(loop, "/dev/loop") {
		t.Errorf("node of %s: %v", loop, n)
	}
	wantMounts := decoded(t, `{"root":{"path":"/run/osbuild/mounts/."},"fs":{"path":"/run/osbuild/mounts/fs"},"in-tree":{},
		"native":{"path":"/run/osbuild/mounts/native"},"plain":{"path":"/run/osbuild/mounts/plain"},"part":{"path":"/run/osbuild/mounts/part"}}`)
	if diff := cmp.Diff(wantMounts, args["mounts"]); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"seen/device": "data", "seen/parent": "data",
		"seen/mounts/called":    `{"options":{"log":"LOG"},"source":null,"target":"/"}`,
		"seen/mounts/fs/called": `{"options":{"fstype":"ext4","log":"LOG"},"source":"NODES/mapper/disk","target":"/fs"}`,
		// A device that has a name in /dev is mounted by that.
		"seen/mounts/plain/called": `{"options":{},"source":"` + plain + `","target":"/plain"}`,
		"seen/mounts/part/called":  `{"options":{},"source":"` + loop + `p2","target":"/part"}`,
	} {
		got := strings.ReplaceAll(tree[name], log, "LOG")
		if i, j := strings.Index(got, e.work.Path), strings.Index(got, "/mapper/disk"); i > 0 && j > i {
			got = got[:i] + "NODES" + got[j:]
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for name := range tree {
		if strings.HasPrefix(name, "sub/") {
			t.Errorf("what is mounted in the tree became a part of it: %s", name)
		}
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"input/i map", "device/z open", "device/a open", "mount/root mount", "mount/fs mount", "mount/in-tree mount",
		"mount/in-tree stop", "mount/fs stop", "mount/root stop", "device/a stop", "device/z stop", "input/i stop", "",
	}
	if diff := cmp.Diff(want, strings.Split(string(b), "\n")); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	// What was written through the device is in the tree.
	disk2 := stage(shStage, `{"script":"debugfs -R 'cat called' disk >out 2>/dev/null; rm disk"}`)
	res = mustBuild(t, e, plan1(pipe("tree", disk, s, disk2)), "tree")
	if got := contentsOf(t, e, res, "tree", ".")["out"]; !strings.Contains(got, `"fstype":"ext4"`) {
		t.Errorf("in the file system: %q", got)
	}
	checkIdle(t, e)
}

func TestServiceErrors(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	d := servedLibdir(t)
	for _, name := range []string{"inputs/org.x.sh", "devices/org.x.sh"} {
		if err := os.WriteFile(filepath.Join(d.Path, name), []byte("#!/bin/sh\necho cannot; exit 5\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.Path, "mounts/org.x.noexec"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, newStore(t), with(d, false))
	base := func() *manifest.Stage { return stage("org.x.show", `{}`) }
	for _, c := range []struct {
		name   string
		change func(s *manifest.Stage)
		want   []string
	}{
		{"an exception", func(s *manifest.Stage) { s.Mounts = []*manifest.Mount{served("org.x.mnt", `{"fail":"no space"}`)} },
			[]string{`mount "m"`, "service mount/m (org.x.mnt)", "ValueError: no space"}},
		{"a wrong path", func(s *manifest.Stage) {
			s.Inputs = map[string]*manifest.Input{"i": {Type: "org.x.in", Origin: manifest.OriginSource, Options: options(`{"outside":true}`)}}
		}, []string{`input "i"`, `"/etc", which is not below`}},
		{"it ends", func(s *manifest.Stage) { s.Devices = map[string]*manifest.Device{"d": {Type: "org.x.sh"}} },
			[]string{`device "d"`, "exit status 5", "cannot"}},
		{"it cannot be started", func(s *manifest.Stage) { s.Mounts = []*manifest.Mount{served("org.x.noexec", `{}`)} },
			[]string{"permission denied", "org.x.noexec"}},
		{"no such device", func(s *manifest.Stage) { s.Devices = map[string]*manifest.Device{"d": {Type: "org.x.nothing"}} },
			[]string{"devices of type org.x.nothing are not known"}},
		{"no such input", func(s *manifest.Stage) {
			s.Inputs = map[string]*manifest.Input{"i": {Type: "org.x.nothing", Origin: manifest.OriginSource}}
		}, []string{"inputs of type org.x.nothing"}},
		{"no such mount", func(s *manifest.Stage) { s.Mounts = []*manifest.Mount{served("org.x.nothing", `{}`)} },
			[]string{"mounts of type org.x.nothing are not known"}},
		{"what was opened before is closed", func(s *manifest.Stage) {
			s.Inputs = map[string]*manifest.Input{"i": {Type: "org.x.in", Origin: manifest.OriginSource, Options: options(fmt.Sprintf(`{"log":%q}`, log))}}
			s.Mounts = []*manifest.Mount{served("org.x.mnt", `{"fail":"later"}`)}
		}, []string{"later"}},
	} {
		s := base()
		c.change(s)
		_, err := e.Build(context.Background(), plan1(pipe("tree", s)), []string{"tree"}, nil)
		var se *StageError
		if !errors.As(err, &se) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", c.name, err, want)
			}
		}
		checkIdle(t, e)
	}
	if b, err := os.ReadFile(log); err != nil || string(b) != "input/i map\ninput/i stop\n" {
		t.Errorf("%q %v", b, err)
	}
	// Services end after a stage that fails.
	s := stage("org.x.exit", `{}`)
	s.Mounts = []*manifest.Mount{served("org.x.mnt", fmt.Sprintf(`{"log":%q}`, log))}
	if _, err := e.Build(context.Background(), plan1(pipe("tree", s)), []string{"tree"}, nil); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Error(err)
	}
	if b, err := os.ReadFile(log); err != nil || !strings.HasSuffix(string(b), "mount/m mount\nmount/m stop\n") {
		t.Errorf("%q %v", b, err)
	}
	checkIdle(t, e)
}

func TestDownload(t *testing.T) {
	st := newStore(t)
	d := newLibdir(t, map[string]string{"sources/org.x.src": "self", "sources/org.osbuild.inline": "self", "sources/org.x.sh": "#!/bin/sh\necho no; exit 1\n"})
	e := New(Config{Store: st, Programs: Programs{Dir: d}})
	m := &manifest.Manifest{Sources: map[string]*manifest.Source{
		"org.x.src":          {Items: map[string]any{"a": map[string]any{"text": "one"}, "b": map[string]any{"text": "two"}, "bad": map[string]any{}}},
		"org.osbuild.inline": {Items: map[string]any{sum: map[string]any{}}}, "org.x.nothing": {Items: map[string]any{}}, "org.x.sh": {},
	}}
	types := func(prefer bool, keep map[string]string) (own, through []string) {
		t.Helper()
		o, s, err := Programs{Dir: d, Prefer: prefer}.SplitSources(m, keep)
		if err != nil {
			t.Fatal(err)
		}
		return names(o.Sources), names(s)
	}
	for _, c := range []struct {
		prefer       bool
		keep         map[string]string
		own, through []string
	}{
		{false, nil, []string{"org.osbuild.inline", "org.x.nothing"}, []string{"org.x.sh", "org.x.src"}},
		{true, nil, []string{"org.x.nothing"}, []string{"org.osbuild.inline", "org.x.sh", "org.x.src"}},
		{true, map[string]string{sum: "/file"}, []string{"org.osbuild.inline", "org.x.nothing"}, []string{"org.x.sh", "org.x.src"}},
	} {
		own, through := types(c.prefer, c.keep)
		if diff := cmp.Diff([][]string{c.own, c.through}, [][]string{own, through}); diff != "" {
			t.Errorf("prefer %v (-want +got):\n%s", c.prefer, diff)
		}
	}
	program := func(name string) *libdir.Module {
		t.Helper()
		mod, err := d.Find(libdir.Sources, name)
		if err != nil || mod == nil {
			t.Fatal(mod, err)
		}
		return mod
	}
	got, err := e.Download(context.Background(), m, "org.x.src", program("org.x.src"), func(s string) bool { return s != "bad" && s != "b" }, nil)
	if diff := cmp.Diff([]Fetched{{Checksum: "a"}}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if b, err := os.ReadFile(sources.Path(st.SourcesDir(), "a")); err != nil || string(b) != "one" {
		t.Errorf("in the store: %q %v", b, err)
	}
	if _, err := os.Stat(sources.Path(st.SourcesDir(), "b")); err == nil {
		t.Error("an item that is not wanted was fetched")
	}
	got, err = e.Download(context.Background(), m, "org.x.src", program("org.x.src"), nil, nil)
	var se *SourceError
	if !errors.As(err, &se) || se.Type != "org.x.src" || se.Msg != "there is no text" || len(got) != 3 {
		t.Errorf("%v %+v", err, got)
	}
	_, err = e.Download(context.Background(), m, "org.x.sh", program("org.x.sh"), nil, nil)
	if !errors.As(err, &se) || !strings.Contains(se.Msg, "exit status 1") {
		t.Errorf("a program that ends: %v", err)
	}
	if b, err := json.Marshal(se); err != nil || len(b) == 0 {
		t.Error(err)
	}
}
