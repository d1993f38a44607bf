// What a plan has and what the stream tells of it: stages and what they wait for, the
// phases of each, those that come from the store; and trees that are shown.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"golang.org/x/sys/unix"
)

// describePlan has a tree, a disk in place that reads it, and a build root.
func describePlan() *manifest.Manifest {
	os1 := pipe("os", note("a", "1"), note("b", "2"))
	os1.Stages[1].Origin = manifest.Origin{File: "BUILD.star", Line: 7}
	read := stage(readStage, `{}`)
	read.Inputs = map[string]*manifest.Input{"tree": treeOf("os")}
	return plan1(os1, pipe("unused", note("u", "1")), pipe("copy", copyOf("os"), note("c", "3")), pipe("out", read))
}

func TestDescribe(t *testing.T) {
	e := newEngine(t, newStore(t))
	m := describePlan()
	describe := func(names ...string) []Described {
		t.Helper()
		ds, err := e.Describe(m, names)
		if err != nil {
			t.Fatal(err)
		}
		return ds
	}
	ds := describe("out", "copy")
	byNode := map[string]string{}
	var got []string
	for _, d := range ds {
		name := fmt.Sprintf("%s.%d", d.Pipeline, d.Index)
		byNode[d.Node()] = name
		line := name
		for _, n := range d.Needs {
			line += " " + byNode[n]
		}
		got = append(got, line)
		if d.Stored || d.Size != 0 {
			t.Errorf("%s is in an empty store", name)
		}
	}
	if diff := cmp.Diff([]string{"os.0", "os.1 os.0", "copy.0 os.1", "copy.1 copy.0", "out.0 os.1"}, got); diff != "" {
		t.Errorf("needs (-want +got):\n%s", diff)
	}
	if o := ds[1].Origin; o.File != "BUILD.star" || o.Line != 7 {
		t.Errorf("origin: %+v", o)
	}
	if ds[1].Base != ds[0].Key || ds[4].Inputs["tree"] != ds[1].Key {
		t.Errorf("bases and inputs: %+v", ds)
	}
	mustBuild(t, e, m, "os")
	for _, d := range describe("os") {
		if !d.Stored || d.Size <= 0 {
			t.Errorf("%s is not in the store: %+v", d.Type, d)
		}
	}
	// A changed option shows in its stage, and in those after it as their base.
	next := *m // what a build was made of stays as it is
	m = &next
	m.Pipelines[0].Stages[0] = note("a", "changed")
	now := describe("os")
	if now[0].Options == ds[0].Options || now[1].Options != ds[1].Options || now[1].Base == ds[1].Base || now[1].Program != ds[1].Program {
		t.Errorf("before %+v, after %+v", ds[:2], now)
	}
}

func TestReadsAndView(t *testing.T) {
	e := newEngine(t, newStore(t))
	m := describePlan()
	mustBuild(t, e, m, "out", "copy")
	reads := func(name, last string) (got []string) {
		t.Helper()
		err := e.Reads(m, name, func(tree Tree) (bool, error) {
			got = append(got, tree.Pipeline)
			return tree.Pipeline != last, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := reads("out", ""); !slices.Equal(got, []string{"out", "os"}) {
		t.Errorf("reads %v", got)
	}
	if got := reads("out", "out"); !slices.Equal(got, []string{"out"}) {
		t.Errorf("reads %v, past the one that was enough", got)
	}
	broken := errors.New("broken")
	if err := e.Reads(m, "out", func(Tree) (bool, error) { return true, broken }); !errors.Is(err, broken) {
		t.Errorf("error: %v", err)
	}
	res := mustBuild(t, e, m, "copy")
	err := e.View(res.Trees["copy"], func(dir *os.File) error {
		var names []string
		for _, name := range []string{"a", "b", "c", "u"} {
			fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			f := os.NewFile(uintptr(fd), name)
			text, err := io.ReadAll(f)
			f.Close()
			if err != nil {
				return err
			}
			names = append(names, name+"="+strings.TrimSpace(string(text)))
		}
		if !slices.Equal(names, []string{"a=1", "b=2", "c=3"}) {
			t.Errorf("the view has %v", names)
		}
		if err := unix.Mkdirat(int(dir.Fd()), "new", 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("writing to the view: %v", err)
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error: %v", err)
	}
	mustBuild(t, e, plan1(pipe("next", note("n", "1"))), "next")
	checkIdle(t, e)
}

// The stream: each stage has its three phases within it, one after the other, and
// says at its end what it is known by; what the store has is told without a span.
func TestStagesInTheStream(t *testing.T) {
	e := newEngine(t, newStore(t), func(c *Config) {
		c.Jobs = 1
		c.Target = func(p string) string { return "//:" + p }
	})
	m := plan1(pipe("os", note("a", "1")), pipe("p", note("b", "1"), stage("org.osbuild.mkdir", `{"paths":[{"path":"/x"}]}`)))
	watch := func() (past monitor.Past) {
		t.Helper()
		tl := &monitor.Timeline{}
		span := monitor.New(tl).Start(nil, monitor.Event{Category: monitor.CatBuild, Name: "build"})
		if _, err := e.Build(context.Background(), m, []string{"os", "p"}, span); err != nil {
			t.Fatal(explain(err))
		}
		span.End(nil)
		return tl.Past()
	}
	past := watch()
	ds, err := e.Describe(m, []string{"os", "p"})
	if err != nil {
		t.Fatal(err)
	}
	byNode := map[string]Described{}
	for _, d := range ds {
		byNode[d.Node()] = d
	}
	stages := 0
	for _, s := range past.Spans {
		if s.Open {
			t.Errorf("%s %s did not end", s.Category, s.Name)
		}
		if s.Category != monitor.CatStage {
			continue
		}
		stages++
		d, ok := byNode[s.Stage.Key+" "+s.ID]
		if !ok || s.Stage.Layer != d.Size || s.Stage.CPU <= 0 || s.Stage.MaxRSS <= 0 || s.Target != "//:"+d.Pipeline || s.Text != d.Pipeline {
			t.Errorf("stage %+v with %+v, planned as %+v", s, s.Stage, d)
		}
		at := s.Begin
		var phases []string
		for _, p := range past.Spans {
			if p.Parent != s.Span {
				continue
			}
			phases = append(phases, p.Name)
			if p.Begin < at || p.End > s.End || p.Row != s.Row || p.Lane != s.Lane {
				t.Errorf("phase %+v is not within %+v", p, s)
			}
			at = p.End
		}
		if diff := cmp.Diff([]string{"prepare", "run", "commit"}, phases); diff != "" {
			t.Errorf("%s: phases (-want +got):\n%s", s.Name, diff)
		}
	}
	if stages != 3 || len(past.Hits) != 0 {
		t.Errorf("%d stages, hits %+v", stages, past.Hits)
	}
	past = watch()
	var hits []string
	for _, h := range past.Hits {
		if _, ok := byNode[h.Stage.Key+" "+h.ID]; !ok || !h.Cached {
			t.Errorf("hit %+v", h)
		}
		hits = append(hits, h.Text+" "+h.Name)
	}
	if diff := cmp.Diff([]string{"os " + noteStage, "p " + noteStage, "p org.osbuild.mkdir"}, hits); diff != "" {
		t.Errorf("hits (-want +got):\n%s", diff)
	}
	if len(past.Spans) != 1 {
		t.Errorf("a build of nothing has spans: %+v", past.Spans)
	}
}

// A step that finds no room waits in a span of its own.
func TestWaitInTheStream(t *testing.T) {
	e := newEngine(t, newStore(t), func(c *Config) { c.Jobs = 1 })
	waited := 0
	m := plan1(pipe("a", note("a", "1")), pipe("b", note("b", "2")))
	_, err := e.Build(context.Background(), m, []string{"a", "b"}, onEvent(func(ev monitor.Event) {
		if ev.Category == monitor.CatWait && ev.Kind == monitor.Start {
			waited++
		}
	}))
	if err != nil || waited != 1 {
		t.Errorf("waited %d times, %v", waited, err)
	}
}
