// What is in a key beyond what upstream's ID says.
package engine

import (
	"testing"

	"github.com/osbuild-star/osbuild-star/manifest"
)

func TestKeyBeyondTheID(t *testing.T) {
	const part = `{"filename":"disk.img","start":8,"size":8}`
	plan := func(change func(p *manifest.Pipeline, s *manifest.Stage)) (key, id string) {
		t.Helper()
		s := stage(readStage, `{"a":1,"b":2}`)
		s.Devices = map[string]*manifest.Device{"disk": loopback(part), "other": loopback(part)}
		s.Mounts = []*manifest.Mount{{Name: "m", Type: "org.osbuild.ext4", Source: "disk", Target: "/", Partition: 1}}
		p := pipe("p", note("x", "1"), s)
		p.Build.Program = "sha256:one"
		change(p, s)
		m := plan1(p)
		all, err := New(Config{Host: testHost}).plans(m)
		if err != nil {
			t.Fatal(err)
		}
		return all["p"].key, all["p"].ids.Pipeline("p")
	}
	nothing := func(*manifest.Pipeline, *manifest.Stage) {}
	key, id := plan(nothing)
	for _, c := range []struct {
		name   string
		change func(p *manifest.Pipeline, s *manifest.Stage)
		key    bool // is another one
		id     bool
	}{
		{"nothing", nothing, false, false},
		{"an option of a device", func(_ *manifest.Pipeline, s *manifest.Stage) {
			s.Devices["other"] = loopback(`{"filename":"disk.img","start":16,"size":8}`)
		}, true, false},
		{"an option of the device of a mount", func(_ *manifest.Pipeline, s *manifest.Stage) {
			s.Devices["disk"] = loopback(`{"filename":"disk.img","start":16,"size":8}`)
		}, true, true},
		{"the type of a device", func(_ *manifest.Pipeline, s *manifest.Stage) { s.Devices["other"].Type = "org.osbuild.lvm2.lv" }, true, false},
		{"the parent of a device", func(_ *manifest.Pipeline, s *manifest.Stage) { s.Devices["other"].Parent = "disk" }, true, false},
		{"the name of a device", func(_ *manifest.Pipeline, s *manifest.Stage) {
			s.Devices["new"] = s.Devices["other"]
			delete(s.Devices, "other")
		}, true, false},
		{"the name of a mount", func(_ *manifest.Pipeline, s *manifest.Stage) { s.Mounts[0].Name = "n" }, true, false},
		{"an equal device of a mount", func(_ *manifest.Pipeline, s *manifest.Stage) { s.Mounts[0].Source = "other" }, true, false},
		{"an option of a mount", func(_ *manifest.Pipeline, s *manifest.Stage) { s.Mounts[0].Options = options(`{"ro":true}`) }, true, true},
		{"the partition of a mount", func(_ *manifest.Pipeline, s *manifest.Stage) { s.Mounts[0].Partition = 2 }, true, true},
		{"the target of a mount", func(_ *manifest.Pipeline, s *manifest.Stage) { s.Mounts[0].Target = "/boot" }, true, true},
		{"the order of options", func(_ *manifest.Pipeline, s *manifest.Stage) { s.SetText([]byte(`{"b":2,"a":1}`)) }, true, false},
		{"how options are laid out", func(_ *manifest.Pipeline, s *manifest.Stage) { s.SetText([]byte("{\n \"a\": 1, \"b\": 2}")) }, false, false},
		{"the architecture", func(p *manifest.Pipeline, _ *manifest.Stage) { p.Arch = "riscv64" }, true, false},
		{"the host's architecture by its name", func(p *manifest.Pipeline, _ *manifest.Stage) { p.Arch = HostArch() }, false, false},
		{"a runner of the user's own", func(p *manifest.Pipeline, _ *manifest.Stage) { p.Build.Program = "sha256:two" }, true, false},
		{"its name", func(p *manifest.Pipeline, _ *manifest.Stage) { p.Build.Runner = "mine" }, false, false},
		{"a runner with a name", func(p *manifest.Pipeline, _ *manifest.Stage) { p.Build.Program = "" }, true, false},
		{"where /var is", func(p *manifest.Pipeline, _ *manifest.Stage) { p.Build.Var = "/somewhere" }, false, false},
		{"the origin", func(_ *manifest.Pipeline, s *manifest.Stage) { s.Origin = manifest.Origin{File: "x.star", Line: 3} }, false, false},
	} {
		gotKey, gotID := plan(c.change)
		if (gotKey != key) != c.key || (gotID != id) != c.id {
			t.Errorf("%s: another key: %v, another ID: %v; want %v, %v", c.name, gotKey != key, gotID != id, c.key, c.id)
		}
	}
}

// What a look ahead has planned serves the build that follows, and no later one.
func TestPlansServeOneBuild(t *testing.T) {
	e := newEngine(t, newStore(t))
	m := plan1(pipe("p", note("a", "1")))
	if _, err := e.Preflight(m, []string{"p"}); err != nil {
		t.Fatal(err)
	}
	ahead := e.looked.plans["p"]
	if again, err := e.look(m); err != nil || again["p"] != ahead || ahead == nil {
		t.Errorf("planned twice: %v", err)
	}
	if other, err := e.look(plan1(pipe("p", note("a", "2")))); err != nil || other["p"].key == ahead.key {
		t.Errorf("the plans of another manifest: %v", err)
	}
	mustBuild(t, e, m, "p")
	m.Pipelines[0].Stages[0] = note("a", "2")
	if got := ran(mustBuild(t, e, m, "p")); len(got) != 1 {
		t.Errorf("changed after a build: ran %v", got)
	}
}
