// The timeline: what all readers that look back over a build are made from.
package monitor

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Timeline keeps what happened: spans in rows, where those of one row are behind or
// within each other and never across, stages that came from the store, and counters.
type Timeline struct {
	mu       sync.Mutex
	start    time.Time
	last     time.Time
	open     map[uint64]*Record
	rows     map[string][]uint64 // by lane and row: the span that occupies it; 0: free
	spans    []*Record
	hits     []Event
	counters []Event
	warnings []string
}

// Record is one span of a timeline.
type Record struct {
	Event                // that began it, and of its end Stage and Err
	Begin  time.Duration // since the first event
	End    time.Duration
	Lane   string // which kind of thing runs there
	Row    int    // of the lane, from 0
	Open   bool   // it had not ended
	Output []string
	Bytes  int64 // of a download
}

// lanes are the kinds of rows, in the order in which they are shown.
var lanes = []string{"build", "slot", "build roots", "downloads", "waiting"}

func laneOf(category string) string {
	switch category {
	case CatStage:
		return "slot"
	case CatRoot:
		return "build roots"
	case CatSource:
		return "downloads"
	case CatWait:
		return "waiting"
	}
	return "build"
}

// keptOutput is how many lines of a span's output are kept.
const keptOutput = 60

// Event takes the event into the timeline.
func (t *Timeline) Event(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open, t.rows, t.start = map[uint64]*Record{}, map[string][]uint64{}, e.Time
	}
	if e.Time.After(t.last) {
		t.last = e.Time
	}
	switch e.Kind {
	case Start:
		r := &Record{Event: e, Begin: e.Time.Sub(t.start), Open: true}
		t.place(r)
		t.open[e.Span] = r
		t.spans = append(t.spans, r)
	case End:
		r := t.open[e.Span]
		if r == nil {
			return
		}
		r.End, r.Open, r.Err, r.Stage, r.Cached = r.Begin+e.Duration, false, e.Err, e.Stage, e.Cached
		t.close(r)
	case Output:
		if r := t.open[e.Span]; r != nil {
			if len(r.Output) == keptOutput {
				r.Output = append(r.Output[:0], r.Output[1:]...)
			}
			r.Output = append(r.Output, clean(e.Text))
		}
	case Progress:
		if r := t.open[e.Span]; r != nil && e.Unit == "bytes" {
			r.Bytes = e.Done
		}
	case Hit:
		t.hits = append(t.hits, e)
	case Counters:
		t.counters = append(t.counters, e)
	case Warning:
		t.warnings = append(t.warnings, clean(e.Text))
	}
}

// place finds the row of a span: below its parent where that is the last one of its
// row and of the same lane, else the first that is free.
func (t *Timeline) place(r *Record) {
	r.Lane = laneOf(r.Category)
	p := t.open[r.Parent]
	if p != nil && r.Category == CatPhase {
		r.Lane = p.Lane
	}
	rows := t.rows[r.Lane]
	r.Row = -1
	if p != nil && p.Lane == r.Lane && rows[p.Row] == p.Span {
		r.Row = p.Row
	}
	if r.Row < 0 {
		r.Row = slices.Index(rows, 0)
	}
	if r.Row < 0 {
		r.Row, rows = len(rows), append(rows, 0)
	}
	rows[r.Row] = r.Span
	t.rows[r.Lane] = rows
}

func (t *Timeline) close(r *Record) {
	delete(t.open, r.Span)
	rows := t.rows[r.Lane]
	if rows[r.Row] != r.Span {
		return
	}
	rows[r.Row] = 0
	if p := t.open[r.Parent]; p != nil && p.Lane == r.Lane && p.Row == r.Row {
		rows[r.Row] = p.Span
	}
}

// Past is a copy of what a timeline has.
type Past struct {
	Start    time.Time
	Total    time.Duration
	Spans    []Record // in the order of their beginning
	Rows     []Row
	Hits     []Event
	Counters []Event
	Warnings []string
}

// Row is a row of a timeline.
type Row struct {
	Lane string
	Row  int
}

// Name is what the row is called.
func (r Row) Name() string {
	if r.Row == 0 && r.Lane != "slot" {
		return r.Lane
	}
	return strings.TrimSuffix(r.Lane, "s") + " " + strconv.Itoa(r.Row+1)
}

// Past returns what happened so far. Spans that are open end now.
func (t *Timeline) Past() Past {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := Past{Start: t.start, Hits: slices.Clone(t.hits), Counters: slices.Clone(t.counters), Warnings: slices.Clone(t.warnings)}
	if len(t.open) > 0 {
		if now := time.Now(); now.After(t.last) {
			t.last = now
		}
	}
	p.Total = t.last.Sub(t.start)
	for _, r := range t.spans {
		c := *r
		c.Output = slices.Clone(r.Output)
		if c.Open {
			c.End = p.Total
		}
		p.Spans = append(p.Spans, c)
	}
	for _, lane := range lanes {
		for i := range t.rows[lane] {
			p.Rows = append(p.Rows, Row{lane, i})
		}
	}
	return p
}
