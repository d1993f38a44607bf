// What runs and what does not: keys, sharing, running at the same time.
package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/runners"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/stages"
	"github.com/osbuild-star/osbuild-star/store"
)

func TestSecondBuildRunsNothing(t *testing.T) {
	s := newStore(t)
	m := plan1(pipe("p",
		stage("org.osbuild.mkdir", `{"paths":[{"path":"/srv/a","parents":true}]}`),
		stage("org.osbuild.hostname", `{"hostname":"one"}`),
		stage("org.osbuild.noop", `{}`)))
	e := newEngine(t, s)
	first := mustBuild(t, e, m, "p")
	if diff := cmp.Diff([]string{"p mkdir", "p hostname", "p noop"}, ran(first)); diff != "" || first.Cached != 0 {
		t.Errorf("first: %d cached (-want +got):\n%s", first.Cached, diff)
	}
	// Another process would open the store anew. It needs nothing of the system: no
	// mount points, no container.
	again, err := store.Open(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(t.TempDir(), "never made")
	e2 := New(Config{Host: testHost, Store: again, Work: work, Fetch: func(context.Context, *manifest.Manifest, []string, *monitor.Span, func(string, error)) error {
		t.Error("something was fetched")
		return nil
	}})
	res := mustBuild(t, e2, m, "p")
	if len(res.Stages) != 0 || res.Cached != 3 || res.Trees["p"].Key != first.Trees["p"].Key {
		t.Errorf("second: %v, %d cached", ran(res), res.Cached)
	}
	if err := e2.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(work); err == nil {
		t.Error("mount points were made")
	}
	got, err := contents(exported(t, e, res.Trees["p"]))
	if diff := cmp.Diff(map[string]string{"etc/hostname": "one\n"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

const sum = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881" // of "x"

// richPlan has one of everything that a key depends on.
func richPlan() *manifest.Manifest {
	base := pipe("base", note("a", "1"), stage("org.osbuild.hostname", `{"hostname":"one"}`))
	other := pipe("other", note("o", "1"))
	files := stage(readStage, `{}`)
	files.Inputs = map[string]*manifest.Input{"f": {Type: "org.osbuild.files", Origin: manifest.OriginSource, References: []manifest.Reference{{ID: sum}}}}
	device := stage(readStage, `{}`)
	device.Devices = map[string]*manifest.Device{"disk": loopback(`{"filename":"disk.img","start":8,"size":8}`)}
	tree := stage(readStage, `{}`)
	tree.Inputs = map[string]*manifest.Input{"t": treeOf("other")}
	image := pipe("image", copyOf("base"), note("b", "1"), files, stage("org.osbuild.truncate", `{"filename":"disk.img","size":"64K"}`), device, tree, note("end", "1"))
	m := plan1(base, other, image)
	m.Sources = map[string]*manifest.Source{"org.osbuild.curl": {Items: map[string]any{sum: "https://example.com/x"}}}
	return m
}

func TestWhatIsBuiltAgain(t *testing.T) {
	s := newStore(t)
	fetched := 0
	e := newEngine(t, s, func(c *Config) {
		c.Fetch = func(_ context.Context, _ *manifest.Manifest, sums []string, _ *monitor.Span, _ func(string, error)) error {
			fetched++
			if diff := cmp.Diff([]string{sum}, sums); diff != "" {
				t.Errorf("fetched (-want +got):\n%s", diff)
			}
			return os.WriteFile(sources.Path(s.SourcesDir(), sum), []byte("x"), 0o644)
		}
	})
	all := []string{
		"base note", "base hostname", "other note",
		"image copy", "image note", "image read", "image truncate", "image read", "image read", "image note",
	}
	if diff := cmp.Diff(all, ran(mustBuild(t, e, richPlan(), "image"))); diff != "" || fetched != 1 {
		t.Fatalf("fetched %d times, ran (-want +got):\n%s", fetched, diff)
	}
	image := func(from int) []string { return all[3+from:] }
	revision := func(name string) func(*manifest.Manifest) {
		return func(*manifest.Manifest) { stages.Lookup(name).Revision++ }
	}
	epoch := int64(1700000000)
	for _, c := range []struct {
		name   string
		change func(m *manifest.Manifest)
		want   []string
	}{
		{"nothing", func(m *manifest.Manifest) {}, []string{}},
		{"names of pipelines", func(m *manifest.Manifest) {
			m.Pipelines[0].Name, m.Pipelines[1].Name = "fundament", "another"
			m.Pipelines[2].Stages[0].Inputs["tree"] = treeOf("fundament")
			m.Pipelines[2].Stages[5].Inputs["t"] = treeOf("another")
		}, []string{}},
		{"where a source is", func(m *manifest.Manifest) {
			m.Sources["org.osbuild.curl"].Items[sum] = "https://example.org/mirror/x"
		}, []string{}},
		{"the line of a rule file", func(m *manifest.Manifest) {
			m.Pipelines[2].Stages[1].Origin = manifest.Origin{File: "BUILD.star", Line: 7}
		}, []string{}},
		{"the runner's other name", func(m *manifest.Manifest) {
			m.Pipelines[2].Build.Runner = strings.TrimPrefix(m.Pipelines[2].Build.Runner, runners.Prefix)
		}, []string{}},
		{"where /var is", func(m *manifest.Manifest) { m.Pipelines[2].Build.Var = "/elsewhere" }, []string{}},
		{"the last option", func(m *manifest.Manifest) { m.Pipelines[2].Stages[6] = note("end", "2") }, image(6)},
		{"an option in the middle", func(m *manifest.Manifest) { m.Pipelines[2].Stages[1] = note("b", "2") }, image(1)},
		{"an option of the base", func(m *manifest.Manifest) {
			m.Pipelines[0].Stages[1] = stage("org.osbuild.hostname", `{"hostname":"two"}`)
		}, append([]string{"base hostname"}, image(0)...)},
		{"an input tree", func(m *manifest.Manifest) { m.Pipelines[1].Stages[0] = note("o", "2") }, append([]string{"other note"}, image(5)...)},
		{"a device", func(m *manifest.Manifest) {
			m.Pipelines[2].Stages[4].Devices["disk"] = loopback(`{"filename":"disk.img","start":16,"size":8}`)
		}, image(3)}, // one layer with what is in place before it
		{"a stage less at the end", func(m *manifest.Manifest) { m.Pipelines[2].Stages = m.Pipelines[2].Stages[:6] }, []string{}},
		{"a stage more", func(m *manifest.Manifest) {
			m.Pipelines[2].Stages = append(m.Pipelines[2].Stages, stage("org.osbuild.noop", `{}`))
		}, []string{"image noop"}},
		{"the source epoch", func(m *manifest.Manifest) { m.Pipelines[2].SourceEpoch = &epoch }, image(0)},
		{"the architecture", func(m *manifest.Manifest) { m.Pipelines[2].Arch = "s390x" }, image(0)},
		{"the runner", func(m *manifest.Manifest) { m.Pipelines[2].Build.Runner = "org.osbuild.arch" }, image(0)},
		{"the program of a stage that all have", revision(noteStage), all},
		{"the program of a middle stage", revision(readStage), image(2)},
		{"the program of the hostname stage", revision("org.osbuild.hostname"), append([]string{"base hostname"}, image(0)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := map[string]int{}
			for _, s := range stages.All() {
				before[s.Name] = s.Revision
			}
			defer func() {
				for name, r := range before {
					stages.Lookup(name).Revision = r
				}
			}()
			m := richPlan()
			c.change(m)
			if diff := cmp.Diff(c.want, ran(mustBuild(t, e, m, "image"))); diff != "" {
				t.Errorf("ran (-want +got):\n%s", diff)
			}
		})
	}
	if got := ran(mustBuild(t, e, richPlan(), "image")); len(got) != 0 {
		t.Errorf("back to the beginning: %v", got)
	}
	checkIdle(t, e)
}

// What another machine's or a later runner does is another tree.
func TestRunnerRevision(t *testing.T) {
	e := newEngine(t, newStore(t))
	m := plan1(pipe("p", note("a", "1")))
	mustBuild(t, e, m, "p")
	r, err := runners.Lookup(m.Pipelines[0].Build.Runner)
	if err != nil {
		t.Fatal(err)
	}
	r.Revision++
	defer func() { r.Revision-- }()
	if diff := cmp.Diff([]string{"p note"}, ran(mustBuild(t, e, m, "p"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEqualStepsRunOnce(t *testing.T) {
	s := newStore(t)
	e := newEngine(t, s, func(c *Config) { c.Jobs = 4 })
	m := &manifest.Manifest{}
	var names []string
	for i := range 6 {
		name := fmt.Sprintf("p%d", i)
		m.Pipelines = append(m.Pipelines, pipe(name, note("a", "same"), note("b", "same"), note("c", fmt.Sprint(i/2))))
		names = append(names, name)
	}
	res := mustBuild(t, e, m, names...)
	if n := len(res.Stages); n != 5 {
		t.Errorf("%d stages ran: %v", n, ran(res))
	}
	if n := layerCount(t, s); n != 5 {
		t.Errorf("%d layers", n)
	}
	for i, name := range names {
		got, err := contents(exported(t, e, res.Trees[name]))
		if diff := cmp.Diff(map[string]string{"a": "same", "b": "same", "c": fmt.Sprint(i / 2)}, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

// Pipelines that do not wait for each other run at the same time; so does one that
// only a later stage of another needs. The stages wait for each other.
func TestAtTheSameTime(t *testing.T) {
	meet := func(at, who string) *manifest.Stage {
		return stage(meetStage, fmt.Sprintf(`{"at":%q,"who":%q}`, at, who))
	}
	e := newEngine(t, newStore(t))
	mustBuild(t, e, plan1(pipe("a", meet("one", "a")), pipe("b", meet("one", "b"))), "a", "b")
	reads := copyOf("os")
	res := mustBuild(t, e, plan1(pipe("os", meet("two", "os")), pipe("image", meet("two", "image"), note("x", "1"), reads)), "image")
	if len(res.Stages) != 4 {
		t.Errorf("ran %v", ran(res))
	}
	// With one place they run one after the other.
	var mu sync.Mutex
	running, most := 0, 0
	one := newEngine(t, newStore(t), func(c *Config) { c.Jobs = 1 })
	m := &manifest.Manifest{}
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprint(i))
		m.Pipelines = append(m.Pipelines, pipe(fmt.Sprint(i), note("f", fmt.Sprint(i))))
	}
	_, err := one.Build(context.Background(), m, names, onEvent(func(e monitor.Event) {
		if e.Category != monitor.CatStage {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		switch e.Kind {
		case monitor.Start:
			running++
			most = max(most, running)
		case monitor.End:
			running--
		}
	}))
	if err != nil || most != 1 || running != 0 {
		t.Errorf("%d at the same time, %d left, %v", most, running, err)
	}
}

// The copy of a whole tree into an empty one is that tree: no new layer, and the
// same as a copy that was made.
func TestAdoptedCopy(t *testing.T) {
	s := newStore(t)
	e := newEngine(t, s)
	os1 := pipe("os", stage(shStage, `{"script":"mkdir -p a/b; echo x > a/b/f; ln a/b/f hard; ln -s a/b soft; chmod 2751 a; chown 3:4 a; mkfifo fifo; touch -d @1000 a/b/f; chmod 711 ."}`), note("gone", "1"), stage(shStage, `{"script":"rm gone; touch -d @2000 ."}`))
	realCopy := copyOf("os")
	realCopy.Options = options(`{"paths":[{"from":"input://tree/","to":"tree:///."}]}`)
	m := plan1(os1, pipe("adopted", copyOf("os")), pipe("copied", realCopy), pipe("on top", copyOf("os"), note("more", "1")))
	// With an input of another name, and with what means nothing for an empty tree.
	for i, opts := range []string{`{"paths":[{"from":"input://root-tree/","to":"tree:///"}]}`, `{"paths":[{"from":"input://root-tree/","to":"tree:///","remove_destination":true}]}`} {
		again := stage("org.osbuild.copy", opts)
		again.Inputs = map[string]*manifest.Input{"root-tree": treeOf("os")}
		m.Pipelines = append(m.Pipelines, pipe(fmt.Sprintf("again %d", i), again))
	}
	res := mustBuild(t, e, m, "os", "adopted", "again 0", "again 1")
	if n := layerCount(t, s); n != 3 {
		t.Errorf("%d layers", n)
	}
	if diff := cmp.Diff(res.Trees["os"].Layers, res.Trees["adopted"].Layers); diff != "" {
		t.Errorf("layers:\n%s", diff)
	}
	if last := res.Stages[3]; last.Pipeline != "adopted" || !last.Success {
		t.Errorf("not told: %+v", last)
	}
	res = mustBuild(t, e, m, "adopted", "copied", "on top")
	want, got := exported(t, e, res.Trees["copied"]), exported(t, e, res.Trees["adopted"])
	if diff := cmp.Diff(describe(t, want), describe(t, got)); diff != "" {
		t.Errorf("(-copied +adopted):\n%s", diff)
	}
	for _, p := range []string{".", "a/b/f"} {
		a, err := os.Stat(filepath.Join(want, p))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.Stat(filepath.Join(got, p)); err != nil || !a.ModTime().Equal(b.ModTime()) {
			t.Errorf("time of %s: copied %s, adopted %s", p, a.ModTime(), b.ModTime())
		}
	}
	if n := len(res.Trees["on top"].Layers); n != 4 {
		t.Errorf("a layer more makes %d", n)
	}
	if got := ran(mustBuild(t, e, m, "adopted")); len(got) != 0 {
		t.Errorf("again: %v", got)
	}
}

// A copy of nothing is a copy that is made.
func TestCopyOfEmptyPipeline(t *testing.T) {
	e := newEngine(t, newStore(t))
	m := plan1(pipe("empty"), pipe("p", copyOf("empty"), note("f", "1")))
	res := mustBuild(t, e, m, "p")
	got, err := contents(exported(t, e, res.Trees["p"]))
	if diff := cmp.Diff(map[string]string{"f": "1"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// A build root that a pipeline made: it is started on the layers of that tree.
func TestBuiltInATree(t *testing.T) {
	e := newEngine(t, newStore(t))
	root := pipe("root", stage(shStage, `{"script":"mkdir -p usr/bin usr/lib; echo 1 > usr/version"}`), note("usr/second", "2"))
	in := pipe("p", stage("org.osbuild.hostname", `{"hostname":"inside"}`))
	in.Build = &manifest.BuildRoot{Runner: "org.osbuild.linux", Pipeline: "root"}
	m := plan1(root, in)
	res := mustBuild(t, e, m, "p")
	if diff := cmp.Diff([]string{"root sh", "root note", "p hostname"}, ran(res)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	root.Stages[1] = note("usr/second", "3")
	if diff := cmp.Diff([]string{"root note", "p hostname"}, ran(mustBuild(t, e, m, "p"))); diff != "" {
		t.Errorf("a changed build root (-want +got):\n%s", diff)
	}
	// The tree has no shell: the build root is not the host.
	in.Stages = append(in.Stages, stage(shStage, `{"script":"true"}`))
	_, err := e.Build(context.Background(), m, []string{"p"}, nil)
	if err == nil || !strings.Contains(err.Error(), "/bin/sh is not in the build root") {
		t.Errorf("error: %v", err)
	}
	checkIdle(t, e)
}

func TestInPlaceIsOneLayer(t *testing.T) {
	s := newStore(t)
	e := newEngine(t, s)
	mkfs := stage("org.osbuild.mkfs.ext4", `{"uuid":"6e4ff95f-f662-45ee-a82a-bdf44a2d0b75","label":"root"}`)
	mkfs.Devices = map[string]*manifest.Device{"device": loopback(`{"filename":"disk.img"}`)}
	// One that changes nothing in place by itself, and has a device.
	reads := stage(readStage, `{}`)
	reads.Devices = mkfs.Devices
	m := plan1(pipe("p", note("before", "1"), stage("org.osbuild.truncate", `{"filename":"disk.img","size":"16M"}`), mkfs, reads, note("after", "1")))
	res := mustBuild(t, e, m, "p")
	if n := len(res.Trees["p"].Layers); n != 3 {
		t.Errorf("%d layers", n)
	}
	if len(res.Stages) != 5 {
		t.Errorf("ran %v", ran(res))
	}
	// The first of a run of stages that change the file alone is not kept apart.
	m.Pipelines[0].Stages[4] = note("after", "2")
	if diff := cmp.Diff([]string{"p note"}, ran(mustBuild(t, e, m, "p"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMetadataOfStages(t *testing.T) {
	e := newEngine(t, newStore(t))
	p := pipe("p", note("a", "1"), stage(readStage, `{}`))
	epoch := int64(42)
	p.SourceEpoch = &epoch
	res := mustBuild(t, e, plan1(p), "p")
	var got seen
	if err := json.Unmarshal(res.Stages[1].Metadata, &got); err != nil || got.Epoch == nil || *got.Epoch != 42 {
		t.Errorf("%+v %v", got, err)
	}
	o := res.Trees["p"]
	if diff := cmp.Diff(map[string]json.RawMessage{res.Stages[1].ID: res.Stages[1].Metadata}, o.Meta, cmp.Transformer("text", func(r json.RawMessage) string {
		return strings.Join(strings.Fields(string(r)), "")
	})); diff != "" {
		t.Errorf("of the object (-want +got):\n%s", diff)
	}
}

// What cannot be planned is told before anything runs.
func TestBadPlans(t *testing.T) {
	e := New(Config{Host: testHost, Store: newStore(t)})
	for _, c := range []struct {
		name string
		m    *manifest.Manifest
		ask  string
		err  string
	}{
		{"no such pipeline", plan1(pipe("p", note("a", "1"))), "q", `no pipeline "q"`},
		{"no stages", plan1(pipe("p")), "p", "has no stages"},
		{"unknown stage", plan1(pipe("p", stage("org.osbuild.nothing", `{}`))), "p", `unknown stage "org.osbuild.nothing"`},
		{"unknown runner", plan1(&manifest.Pipeline{Name: "p", Build: &manifest.BuildRoot{Runner: "org.osbuild.plan9"}, Stages: []*manifest.Stage{note("a", "1")}}), "p", `no runner "org.osbuild.plan9"`},
		{"a later pipeline", plan1(pipe("p", copyOf("q")), pipe("q", note("a", "1"))), "p", "comes later"},
		{"itself", plan1(pipe("p", copyOf("p"))), "p", "refers to itself"},
		{"two of a name", plan1(pipe("p", note("a", "1")), pipe("p")), "p", `two pipelines are named "p"`},
	} {
		if _, err := e.Build(context.Background(), c.m, []string{c.ask}, nil); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
