// Package monitor is the stream of events that everything else writes to, and
// the types of those events. Readers (the terminal, a plain log, JSON lines, a
// trace; monitor/report makes a page) are in files of their own; none of them is ever
// waited for by a build longer than it takes to copy the event. sample.go adds what
// the machine does meanwhile.
package monitor

import (
	"sync"
	"time"
)

// Kind says what an event tells.
type Kind string

// The kinds of events.
const (
	Start    Kind = "start"    // a span begins
	End      Kind = "end"      // a span ended; Err says how
	Output   Kind = "output"   // one line that a program printed
	Progress Kind = "progress" // Done of Total, in Unit
	Note     Kind = "note"     // a message for the person that watches
	Warning  Kind = "warning"  // a message that asks for attention
	Hit      Kind = "hit"      // a stage that came from the store; it has no span
	Counters Kind = "counters" // what the machine does, see [Sample]
)

// Event is one thing that happened.
type Event struct {
	Time     time.Time     `json:"time"`
	Kind     Kind          `json:"kind"`
	Span     uint64        `json:"span,omitempty"`   // the span it belongs to
	Parent   uint64        `json:"parent,omitempty"` // on Start: the span above
	Category string        `json:"category,omitempty"`
	Name     string        `json:"name,omitempty"`
	Target   string        `json:"target,omitempty"` // label of the target
	ID       string        `json:"id,omitempty"`     // of the stage or pipeline
	Text     string        `json:"text,omitempty"`
	Done     int64         `json:"done,omitempty"`
	Total    int64         `json:"total,omitempty"`
	Unit     string        `json:"unit,omitempty"` // "bytes", "stages", …
	Cached   bool          `json:"cached,omitempty"`
	Err      string        `json:"error,omitempty"`
	Duration time.Duration `json:"duration,omitempty"` // on End; nanoseconds
	Stage    *Stage        `json:"stage,omitempty"`    // on End and Hit of a stage
	Sample   *Sample       `json:"sample,omitempty"`   // on Counters
}

// Stage is what is known of a stage once it is over.
type Stage struct {
	Key    string        `json:"key,omitempty"`     // of the layer that it is part of
	CPU    time.Duration `json:"cpu,omitempty"`     // nanoseconds
	MaxRSS int64         `json:"max_rss,omitempty"` // bytes
	Layer  int64         `json:"layer,omitempty"`   // bytes of the layer, on the last stage of it
	File   string        `json:"file,omitempty"`    // of the rule that made it
	Line   int           `json:"line,omitempty"`
}

// Sample is what the machine does at a moment. What cannot be told is left out.
type Sample struct {
	CPU       float64 `json:"cpu"`              // percent of all processors that is busy
	BuildCPU  float64 `json:"build_cpu"`        // and the part of this process and its descendants
	Memory    int64   `json:"memory"`           // bytes resident in these; shared pages count for each
	Available int64   `json:"memory_available"` // bytes that could be had
	Read      float64 `json:"disk_read"`        // bytes per second, of the store's disk
	Written   float64 `json:"disk_written"`     // bytes per second
	Free      int64   `json:"store_free"`       // bytes
}

// Categories of spans.
const (
	CatBuild    = "build"
	CatPipeline = "pipeline"
	CatStage    = "stage"
	CatPhase    = "phase" // of a stage: prepare, run, commit
	CatSource   = "source"
	CatResolve  = "resolve"
	CatExport   = "export"
	CatTest     = "test"
	CatRoot     = "buildroot" // a build root starts
	CatWait     = "wait"      // a stage could run, and no slot is free
)

// A Reader gets every event, in order, one at a time.
type Reader interface{ Event(Event) }

// ReaderFunc makes a Reader of a function.
type ReaderFunc func(Event)

// Event calls f.
func (f ReaderFunc) Event(e Event) { f(e) }

// Stream hands events to its readers. The zero value and nil discard them, so a
// library can be called without one.
type Stream struct {
	mu      sync.Mutex
	readers []Reader
	next    uint64
}

// New makes a stream with these readers.
func New(readers ...Reader) *Stream { return &Stream{readers: readers} }

// Emit sends one event; an empty time is filled in.
func (s *Stream) Emit(e Event) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	for _, r := range s.readers {
		r.Event(e)
	}
}

// Span is something that takes time. A nil span takes every call and does nothing.
type Span struct {
	s     *Stream
	id    uint64
	ev    Event
	start time.Time
	stage *Stage
}

// Start begins a span; e names it (Category, Name, Target, ID, Total).
func (s *Stream) Start(parent *Span, e Event) *Span {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	s.next++
	sp := &Span{s: s, id: s.next, start: time.Now()}
	s.mu.Unlock()
	e.Kind, e.Span, e.Time = Start, sp.id, sp.start
	if parent != nil {
		e.Parent = parent.id
		if e.Target == "" {
			e.Target = parent.ev.Target
		}
	}
	sp.ev = e
	s.Emit(e)
	return sp
}

// Start begins a span below this one.
func (p *Span) Start(e Event) *Span {
	if p == nil {
		return nil
	}
	return p.s.Start(p, e)
}

// Emit sends an event that belongs to the span.
func (p *Span) Emit(e Event) {
	if p == nil {
		return
	}
	e.Span = p.id
	if e.Target == "" {
		e.Target = p.ev.Target
	}
	if e.Name == "" {
		e.Name = p.ev.Name
	}
	if e.Category == "" {
		e.Category = p.ev.Category
	}
	if e.ID == "" {
		e.ID = p.ev.ID
	}
	p.s.Emit(e)
}

// Progress tells how much of the span is done.
func (p *Span) Progress(done, total int64, unit string) {
	p.Emit(Event{Kind: Progress, Done: done, Total: total, Unit: unit})
}

// Tell says what is known of a stage; End passes it on.
func (p *Span) Tell(st Stage) {
	if p != nil {
		p.stage = &st
	}
}

// End closes the span; a nil error is success.
func (p *Span) End(err error) { p.end(err, false) }

// EndCached closes a span whose result was there already.
func (p *Span) EndCached() { p.end(nil, true) }

func (p *Span) end(err error, cached bool) {
	if p == nil {
		return
	}
	e := Event{Kind: End, Duration: time.Since(p.start), Cached: cached, Stage: p.stage}
	if err != nil {
		e.Err = err.Error()
	}
	p.Emit(e)
}
