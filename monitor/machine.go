// The readers for programs: JSON lines, and a trace that Perfetto and Chrome open.
package monitor

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// JSONLines writes each event as one line of JSON.
type JSONLines struct {
	W  io.Writer
	mu sync.Mutex
}

// Event writes the event.
func (j *JSONLines) Event(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, err := json.Marshal(e)
	if err != nil {
		return
	}
	j.W.Write(append(b, '\n'))
}

// Trace collects spans in Chrome's trace format: "X" events with times in
// microseconds, one row for each thing that runs at the same time.
type Trace struct {
	mu     sync.Mutex
	start  time.Time
	open   map[uint64]traceOpen
	rows   []uint64 // by row, the span that occupies it; 0: free
	events []traceEvent
}

type traceOpen struct {
	ev  Event
	row int
}

type traceEvent struct {
	Name string         `json:"name"`
	Cat  string         `json:"cat,omitempty"`
	Ph   string         `json:"ph"`
	TS   int64          `json:"ts"`
	Dur  int64          `json:"dur"`
	PID  int            `json:"pid"`
	TID  int            `json:"tid"`
	Args map[string]any `json:"args,omitempty"`
}

// Event takes the event into the trace.
func (t *Trace) Event(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open, t.start = map[uint64]traceOpen{}, e.Time
	}
	switch e.Kind {
	case Start:
		// A span is drawn below its parent when that is the last one of its row.
		row := -1
		if p, ok := t.open[e.Parent]; ok && t.rows[p.row] == e.Parent {
			row = p.row
		}
		for i := 0; row < 0 && i < len(t.rows); i++ {
			if t.rows[i] == 0 {
				row = i
			}
		}
		if row < 0 {
			row = len(t.rows)
			t.rows = append(t.rows, 0)
		}
		t.rows[row] = e.Span
		t.open[e.Span] = traceOpen{e, row}
	case End:
		o, ok := t.open[e.Span]
		if !ok {
			return
		}
		delete(t.open, e.Span)
		if t.rows[o.row] == e.Span {
			t.rows[o.row] = 0
			if p, ok := t.open[o.ev.Parent]; ok && p.row == o.row {
				t.rows[o.row] = o.ev.Parent
			}
		}
		args := map[string]any{}
		for k, v := range map[string]string{"id": o.ev.ID, "target": o.ev.Target, "pipeline": o.ev.Text, "error": e.Err} {
			if v != "" {
				args[k] = v
			}
		}
		t.events = append(t.events, traceEvent{
			Name: o.ev.Name, Cat: o.ev.Category, Ph: "X", PID: 1, TID: o.row + 1, Args: args,
			TS: o.ev.Time.Sub(t.start).Microseconds(), Dur: max(1, e.Duration.Microseconds()),
		})
	}
}

// WriteFile writes the trace.
func (t *Trace) WriteFile(path string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	events := t.events
	if events == nil {
		events = []traceEvent{}
	}
	b, err := json.Marshal(map[string]any{"displayTimeUnit": "ms", "traceEvents": events})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the trace: %w", err)
	}
	return nil
}
