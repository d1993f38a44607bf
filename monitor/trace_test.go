// The trace: JSON that viewers open, where spans of one row are below each other
// or behind each other, never across.
package monitor

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type traceFile struct {
	Unit   string       `json:"displayTimeUnit"`
	Events []traceEvent `json:"traceEvents"`
}

// written is the trace of a timeline, whose shape is what viewers need: every span has
// a time and a duration, those of one row are within or behind each other, and every
// row has a name.
func written(t *testing.T, tl *Timeline) traceFile {
	t.Helper()
	var b bytes.Buffer
	if err := tl.Past().Trace(&b); err != nil {
		t.Fatal(err)
	}
	var f traceFile
	if err := json.Unmarshal(b.Bytes(), &f); err != nil {
		t.Fatalf("%s: %v", b.Bytes(), err)
	}
	named := map[int]bool{}
	for i, a := range f.Events {
		switch a.Ph {
		case "M":
			if a.Name == "thread_name" {
				named[a.TID] = true
			}
		case "C":
			if len(a.Args) == 0 || a.Dur != nil {
				t.Errorf("a counter: %+v", a)
			}
		case "i":
			if a.Scope == "" {
				t.Errorf("an instant: %+v", a)
			}
		case "X":
			if a.Dur == nil || *a.Dur <= 0 || a.TS < 0 || !named[a.TID] {
				t.Errorf("a span: %+v", a)
				continue
			}
			for _, b := range f.Events[:i] {
				if b.Ph != "X" || a.TID != b.TID {
					continue
				}
				x, y := a, b
				if x.TS > y.TS {
					x, y = y, x
				}
				if xEnd, yEnd := x.TS+*x.Dur, y.TS+*y.Dur; y.TS > x.TS && y.TS < xEnd && yEnd > xEnd {
					t.Fatalf("two spans cross in row %d: %+v %+v", a.TID, x, y)
				}
			}
		default:
			t.Errorf("an event of phase %q", a.Ph)
		}
	}
	return f
}

func TestTrace(t *testing.T) {
	tl := &Timeline{}
	t0 := time.Unix(1000, 0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	start := func(ms int, span, parent uint64, cat, name string) {
		tl.Event(Event{Kind: Start, Time: at(ms), Span: span, Parent: parent, Category: cat, Name: name, Text: "os", ID: "id"})
	}
	end := func(ms int, span uint64, d int, err string, stage *Stage) {
		tl.Event(Event{Kind: End, Time: at(ms), Span: span, Duration: time.Duration(d) * time.Millisecond, Err: err, Stage: stage})
	}
	start(0, 1, 0, CatBuild, "build")
	tl.Event(Event{Kind: Hit, Time: at(1), Category: CatStage, Name: "z", ID: "zid", Text: "os", Cached: true, Stage: &Stage{Key: "zk"}})
	start(2, 6, 1, CatSource, "fetch sources")
	start(3, 7, 6, CatSource, "x.deb")
	tl.Event(Event{Kind: Progress, Time: at(4), Span: 7, Done: 5, Total: 5, Unit: "bytes"})
	start(4, 8, 6, CatSource, "y.deb") // at the same time: a row of its own
	end(5, 7, 2, "", nil)
	end(6, 8, 2, "", nil)
	end(6, 6, 4, "", nil)
	start(10, 2, 1, CatStage, "a")
	start(20, 3, 1, CatStage, "b")
	start(25, 4, 2, CatPhase, "run")
	tl.Event(Event{Kind: Output, Time: at(26), Span: 4, Text: "ignored"})
	tl.Event(Event{Kind: Counters, Time: at(27), Sample: &Sample{CPU: 50, BuildCPU: 25, Memory: 1, Available: 2, Read: 3, Written: 4, Free: 5}})
	end(30, 4, 5, "", nil)
	end(40, 2, 30, "broken", &Stage{Key: "k", CPU: time.Second, MaxRSS: 7, Layer: 8, File: "BUILD.star", Line: 3})
	start(45, 5, 1, CatStage, "c") // where a was
	end(50, 3, 30, "", nil)
	end(60, 5, 15, "", nil)
	start(61, 9, 1, CatWait, "d")
	end(70, 1, 70, "", nil)
	end(80, 99, 1, "", nil) // never begun
	got := written(t, tl)

	type line struct {
		Name, Cat, Ph string
		TS, Dur       int64
		Row           string
		Args          map[string]any
	}
	rows := map[int]string{}
	var lines []line
	for _, e := range got.Events {
		if e.Name == "thread_name" {
			rows[e.TID], _ = e.Args["name"].(string)
		}
		l := line{e.Name, e.Cat, e.Ph, e.TS, 0, rows[e.TID], e.Args}
		if e.Dur != nil {
			l.Dur = *e.Dur
		}
		if e.Ph != "M" {
			lines = append(lines, l)
		}
	}
	ran := func(args map[string]any) map[string]any {
		all := map[string]any{"id": "id", "pipeline": "os"}
		for k, v := range args {
			all[k] = v
		}
		return all
	}
	fetched := func(args map[string]any) map[string]any {
		all := ran(args)
		delete(all, "pipeline")
		all["from"] = "os"
		return all
	}
	const why = "the store had no layer of this key"
	want := []line{
		{"build", CatBuild, "X", 0, 70000, "build", ran(nil)},
		{"fetch sources", CatSource, "X", 2000, 4000, "downloads", fetched(nil)},
		{"x.deb", CatSource, "X", 3000, 2000, "downloads", fetched(map[string]any{"bytes": 5.0})},
		{"y.deb", CatSource, "X", 4000, 2000, "download 2", fetched(nil)},
		{"a", CatStage, "X", 10000, 30000, "slot 1", ran(map[string]any{
			"error": "broken", "cached": false, "why": why, "key": "k", "cpu_seconds": 1.0, "max_rss_bytes": 7.0, "layer_bytes": 8.0, "rule": "BUILD.star:3",
		})},
		{"b", CatStage, "X", 20000, 30000, "slot 2", ran(map[string]any{"cached": false, "why": why})},
		{"run", CatPhase, "X", 25000, 5000, "slot 1", ran(nil)},
		{"c", CatStage, "X", 45000, 15000, "slot 1", ran(map[string]any{"cached": false, "why": why})},
		// It had not ended: the moment of writing is far behind.
		{"d", CatWait, "X", 61000, 0, "waiting", ran(map[string]any{"unfinished": true})},
		{"z", "cached", "i", 1000, 0, "build", ran(map[string]any{"id": "zid", "cached": true, "key": "zk"})},
		{"CPU of the machine, %", "", "C", 27000, 0, "", map[string]any{"busy": 50.0}},
		{"CPU of this build, %", "", "C", 27000, 0, "", map[string]any{"busy": 25.0}},
		{"memory of this build, bytes", "", "C", 27000, 0, "", map[string]any{"used": 1.0}},
		{"memory available, bytes", "", "C", 27000, 0, "", map[string]any{"available": 2.0}},
		{"disk, bytes per second", "", "C", 27000, 0, "", map[string]any{"read": 3.0, "written": 4.0}},
		{"free space of the store, bytes", "", "C", 27000, 0, "", map[string]any{"free": 5.0}},
	}
	for i := range lines {
		if lines[i].Cat == CatWait {
			lines[i].Dur = 0
		}
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
}

func TestTraceOfNothing(t *testing.T) {
	if diff := cmp.Diff(traceFile{"ms", []traceEvent{}}, written(t, &Timeline{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A file is there whole or not at all, and what is no file is written to.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	put := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			io.WriteString(w, text)
			return err
		}
	}
	if err := WriteWhole(p, put("one", nil)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := WriteWhole(p, put("tw", broken)); !errors.Is(err, broken) {
		t.Errorf("error: %v", err)
	}
	if b, _ := os.ReadFile(p); string(b) != "one" {
		t.Errorf("after a failure the file has %q", b)
	}
	if ents, _ := os.ReadDir(dir); len(ents) != 1 {
		t.Errorf("left: %v", ents)
	}
	if err := WriteWhole("/dev/null", put("x", nil)); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat("/dev/null"); err != nil || st.Mode().IsRegular() {
		t.Errorf("/dev/null is %v, %v", st, err)
	}
	if err := WriteWhole(filepath.Join(dir, "no/such"), put("", nil)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error: %v", err)
	}
}

// Whatever begins and ends in whatever order: where a parent outlives its children
// no two spans of a row cross.
func TestTraceRowsNeverCross(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		tr := &Timeline{}
		t0 := time.Unix(0, 0)
		type span struct {
			id, parent uint64
			start      time.Time
			children   int
		}
		var open []*span
		byID := map[uint64]*span{}
		for id, now := uint64(1), 1; id <= 60 || len(open) > 0; now++ {
			at := t0.Add(time.Duration(now) * time.Millisecond)
			if id <= 60 && (len(open) == 0 || r.IntN(2) == 0) {
				s := &span{id: id, start: at}
				if len(open) > 0 && r.IntN(4) > 0 {
					p := open[r.IntN(len(open))]
					s.parent, p.children = p.id, p.children+1
				}
				open, byID[id] = append(open, s), s
				tr.Event(Event{Kind: Start, Time: at, Span: id, Parent: s.parent})
				id++
				continue
			}
			i := r.IntN(len(open))
			s := open[i]
			if s.children > 0 {
				continue
			}
			if p := byID[s.parent]; p != nil {
				p.children--
			}
			open = append(open[:i], open[i+1:]...)
			tr.Event(Event{Kind: End, Time: at, Span: s.id, Duration: at.Sub(s.start)})
		}
		spans := 0
		for _, e := range written(t, tr).Events {
			if e.Ph == "X" {
				spans++
			}
		}
		if spans != 60 {
			t.Fatalf("seed %d: %d spans", seed, spans)
		}
	}
}
