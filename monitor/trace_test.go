// The trace: JSON that viewers open, where spans of one row are below each other
// or behind each other, never across.
package monitor

import (
	"encoding/json"
	"errors"
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

func written(t *testing.T, tr *Trace) traceFile {
	t.Helper()
	p := filepath.Join(t.TempDir(), "trace.json")
	if err := tr.WriteFile(p); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	var f traceFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return f
}

func TestTrace(t *testing.T) {
	tr := &Trace{}
	t0 := time.Unix(1000, 0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	start := func(ms int, span, parent uint64, cat, name string) {
		tr.Event(Event{Kind: Start, Time: at(ms), Span: span, Parent: parent, Category: cat, Name: name, Text: "os", ID: "id"})
	}
	end := func(ms int, span uint64, d int, err string) {
		tr.Event(Event{Kind: End, Time: at(ms), Span: span, Duration: time.Duration(d) * time.Millisecond, Err: err})
	}
	start(0, 1, 0, CatBuild, "build")
	start(10, 2, 1, CatStage, "a")
	start(20, 3, 1, CatStage, "b") // at the same time: a row of its own
	start(25, 4, 2, CatPhase, "a run")
	tr.Event(Event{Kind: Output, Time: at(26), Span: 4, Text: "ignored"})
	end(30, 4, 5, "")
	end(40, 2, 30, "broken")
	start(45, 5, 1, CatStage, "c") // below build again
	end(50, 3, 30, "")
	end(60, 5, 15, "")
	end(70, 1, 70, "")
	end(80, 99, 1, "") // never begun
	got := written(t, tr)
	ev := func(name, cat string, row int, ts, dur int64, args map[string]any) traceEvent {
		a := map[string]any{"id": "id", "pipeline": "os"}
		for k, v := range args {
			a[k] = v
		}
		return traceEvent{Name: name, Cat: cat, Ph: "X", PID: 1, TID: row, TS: ts * 1000, Dur: dur * 1000, Args: a}
	}
	want := traceFile{"ms", []traceEvent{
		ev("a run", CatPhase, 1, 25, 5, nil),
		ev("a", CatStage, 1, 10, 30, map[string]any{"error": "broken"}),
		ev("b", CatStage, 2, 20, 30, nil),
		ev("c", CatStage, 1, 45, 15, nil),
		ev("build", CatBuild, 1, 0, 70, nil),
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
}

func TestTraceOfNothing(t *testing.T) {
	if diff := cmp.Diff(traceFile{"ms", []traceEvent{}}, written(t, &Trace{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := (&Trace{}).WriteFile(filepath.Join(t.TempDir(), "no/such/dir")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error: %v", err)
	}
}

// Whatever begins and ends in whatever order: where a parent outlives its children
// no two spans of a row cross.
func TestTraceRowsNeverCross(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		tr := &Trace{}
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
		events := written(t, tr).Events
		if len(events) != 60 {
			t.Fatalf("seed %d: %d events", seed, len(events))
		}
		for i, a := range events {
			for _, b := range events[:i] {
				if a.TID != b.TID {
					continue
				}
				if a.TS > b.TS {
					a, b = b, a
				}
				if aEnd, bEnd := a.TS+a.Dur, b.TS+b.Dur; b.TS < aEnd && bEnd > aEnd {
					t.Fatalf("seed %d: two spans cross in row %d: %+v %+v", seed, a.TID, a, b)
				}
			}
		}
	}
}
