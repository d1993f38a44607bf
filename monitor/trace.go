// The trace: a timeline in the format that Perfetto and Chrome open.
package monitor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// traceEvent is one event of Chrome's trace format: "X" is a span with times in
// microseconds, "C" counters, "i" an instant, "M" the name of a process or row.
type traceEvent struct {
	Name  string         `json:"name"`
	Cat   string         `json:"cat,omitempty"`
	Ph    string         `json:"ph"`
	TS    int64          `json:"ts"`
	Dur   *int64         `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   int            `json:"tid"`
	Scope string         `json:"s,omitempty"` // of an instant
	Args  map[string]any `json:"args,omitempty"`
}

// traced is a command's name for viewers: all of a trace is one process.
const traced, tracePID = "osbuild-star", 1

// Trace writes what happened in Chrome's trace format.
func (p Past) Trace(w io.Writer) error {
	events := p.names()
	tids := map[Row]int{}
	for i, r := range p.Rows {
		tids[r] = i + 1
	}
	events = append(events, p.traceSpans(tids)...)
	for _, e := range p.Hits {
		args := map[string]any{"cached": true}
		add(args, "id", e.ID)
		add(args, "target", e.Target)
		add(args, "pipeline", e.Text)
		stageArgs(args, e.Stage)
		events = append(events, traceEvent{
			Name: e.Name, Cat: "cached", Ph: "i", Scope: "p", PID: tracePID, TID: 1, TS: p.since(e.Time).Microseconds(), Args: args,
		})
	}
	for _, e := range p.Counters {
		events = append(events, counters(p.since(e.Time).Microseconds(), e.Sample)...)
	}
	b, err := json.Marshal(map[string]any{"displayTimeUnit": "ms", "traceEvents": events})
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// names are the names of the process and of its rows, and the order of these.
func (p Past) names() []traceEvent {
	events := []traceEvent{}
	if len(p.Rows) == 0 {
		return events
	}
	name := traced
	if len(p.Spans) > 0 {
		name += " " + p.Spans[0].Name
	}
	meta := func(tid int, what, arg string, v any) {
		events = append(events, traceEvent{Name: what, Ph: "M", PID: tracePID, TID: tid, Args: map[string]any{arg: v}})
	}
	meta(0, "process_name", "name", name)
	for i, r := range p.Rows {
		meta(i+1, "thread_name", "name", r.Name())
		meta(i+1, "thread_sort_index", "sort_index", i+1)
	}
	return events
}

// traceSpans are the spans. Times are cut to whole microseconds, so a span is held
// within the one around it here.
func (p Past) traceSpans(tids map[Row]int) []traceEvent {
	var events []traceEvent
	type held struct {
		row     Row
		ts, end int64
	}
	spans := map[uint64]held{}
	for _, r := range p.Spans {
		row := Row{r.Lane, r.Row}
		ts, end := r.Begin.Microseconds(), max(r.End.Microseconds(), r.Begin.Microseconds()+1)
		if o, ok := spans[r.Parent]; ok && o.row == row {
			end = min(end, o.end)
			ts = max(o.ts, min(ts, end))
		}
		spans[r.Span] = held{row, ts, end}
		dur := end - ts
		events = append(events, traceEvent{
			Name: r.Name, Cat: r.Category, Ph: "X", PID: tracePID, TID: tids[row], TS: ts, Dur: &dur, Args: spanArgs(r),
		})
	}
	slices.SortStableFunc(events, func(a, b traceEvent) int {
		return cmp.Or(cmp.Compare(a.TS, b.TS), cmp.Compare(*b.Dur, *a.Dur))
	})
	return events
}

func spanArgs(r Record) map[string]any {
	args := map[string]any{}
	add(args, "id", r.ID)
	add(args, "target", r.Target)
	if r.Category == CatSource {
		add(args, "from", r.Text)
	} else {
		add(args, "pipeline", r.Text)
	}
	add(args, "error", r.Err)
	if r.Bytes > 0 {
		args["bytes"] = r.Bytes
	}
	if r.Open {
		args["unfinished"] = true
	}
	if r.Category == CatStage {
		args["cached"] = false
		args["why"] = "the store had no layer of this key"
		stageArgs(args, r.Stage)
	}
	return args
}

func stageArgs(args map[string]any, s *Stage) {
	if s == nil {
		return
	}
	add(args, "key", s.Key)
	if s.File != "" {
		args["rule"] = fmt.Sprintf("%s:%d", s.File, s.Line)
	}
	if s.CPU > 0 {
		args["cpu_seconds"] = s.CPU.Seconds()
	}
	if s.MaxRSS > 0 {
		args["max_rss_bytes"] = s.MaxRSS
	}
	if s.Layer > 0 {
		args["layer_bytes"] = s.Layer
	}
}

func add(args map[string]any, name, value string) {
	if value != "" {
		args[name] = value
	}
}

func counters(ts int64, s *Sample) []traceEvent {
	if s == nil {
		return nil
	}
	c := func(name string, args map[string]any) traceEvent {
		return traceEvent{Name: name, Ph: "C", PID: tracePID, TS: ts, Args: args}
	}
	return []traceEvent{
		c("CPU of the machine, %", map[string]any{"busy": s.CPU}),
		c("CPU of this build, %", map[string]any{"busy": s.BuildCPU}),
		c("memory of this build, bytes", map[string]any{"used": s.Memory}),
		c("memory available, bytes", map[string]any{"available": s.Available}),
		c("disk, bytes per second", map[string]any{"read": s.Read, "written": s.Written}),
		c("free space of the store, bytes", map[string]any{"free": s.Free}),
	}
}

// WriteWhole has a file written by f, which is there whole or not at all. What is no
// regular file, as /dev/stdout, is written to as it is.
func WriteWhole(path string, f func(io.Writer) error) (err error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		out, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		err = f(out)
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	err = f(tmp)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// since is a time of an event as a timeline counts it.
func (p Past) since(at time.Time) time.Duration { return max(0, at.Sub(p.Start)) }
