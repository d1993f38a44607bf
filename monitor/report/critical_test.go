// The critical path of made-up builds.
package report

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/monitor"
)

func TestCritical(t *testing.T) {
	sec := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	rec := func(cat, name string, begin, end float64) monitor.Record {
		r := monitor.Record{Event: monitor.Event{Category: cat, Name: name, ID: name}, Begin: sec(begin), End: sec(end)}
		if cat == monitor.CatStage {
			r.Stage, r.Text = &monitor.Stage{Key: "k"}, name
		}
		return r
	}
	stage := func(name string, begin, end float64) monitor.Record { return rec(monitor.CatStage, name, begin, end) }
	wait := func(name string, begin, end float64) monitor.Record {
		r := rec(monitor.CatWait, name, begin, end)
		r.Text = name
		return r
	}
	file := func(name string, begin, end float64) monitor.Record {
		r := rec(monitor.CatSource, name, begin, end)
		r.Parent = 77
		return r
	}
	all := rec(monitor.CatSource, "fetch sources", 0, 3)
	all.Span, all.ID = 77, ""
	for _, c := range []struct {
		name  string
		spans []monitor.Record
		needs needs
		want  string
	}{
		{"nothing", nil, nil, ""},
		{
			"a chain, and what ran beside it",
			[]monitor.Record{rec(monitor.CatBuild, "build", 0, 9), stage("a", 0, 2), stage("b", 0, 5), stage("c", 5, 9)},
			needs{"k c": {"k a", "k b"}},
			"b, c (needed its tree)",
		},
		{
			"what it needed, not what merely ended before it", // the longer of the two had nothing to do with it
			[]monitor.Record{stage("a", 0, 2), stage("b", 0, 2.9), stage("c", 2, 9)},
			needs{"k c": {"k a"}},
			"a, c (needed its tree)",
		},
		{
			"phases are parts of a stage",
			[]monitor.Record{stage("a", 0, 2), rec(monitor.CatPhase, "run", 1, 2), stage("b", 2, 9), rec(monitor.CatPhase, "commit", 8, 9)},
			needs{"k b": {"k a"}},
			"a, b (needed its tree)",
		},
		{
			"a slot",
			[]monitor.Record{stage("a", 0, 2), stage("b", 0, 5), wait("c", 2, 5), stage("c", 5, 9)},
			needs{"k c": {"k a"}},
			"b, c (waited for its slot)",
		},
		{
			"no slot was waited for",
			[]monitor.Record{stage("a", 0, 2), stage("b", 0, 5), stage("c", 5.5, 9)},
			needs{"k c": {"k a"}},
			"a, gap, c (needed its tree)",
		},
		{
			"downloads are one",
			[]monitor.Record{all, file("x", 0.1, 1), file("y", 0.2, 3), file("z", 1, 2), stage("a", 3, 4)},
			needs{"k a": {"x", "y"}},
			"gap, y of 3, a (needed its file)",
		},
		{
			"a build root, and a step that nothing ran before",
			[]monitor.Record{rec(monitor.CatResolve, "resolve", 0, 1), rec(monitor.CatRoot, "start", 1, 2), stage("a", 2, 4), rec(monitor.CatExport, "export", 4, 5)},
			nil,
			"resolve, start (came after it), a (ran in this build root), export (came after it)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, l := range critical(c.spans, c.needs) {
				s := "gap"
				if l.Span >= 0 {
					s = c.spans[l.Span].Name
				}
				if l.Of > 0 {
					s += " of 3"
				}
				if l.Why != "" {
					s += " (" + l.Why + ")"
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(c.want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
