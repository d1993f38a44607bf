// The critical path: the chain of what had to be waited for, from the end back.
package report

import (
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// Link is one part of the critical path.
type Link struct {
	Span  int     `json:"span"` // index in Spans, -1: a gap
	Begin float64 `json:"begin"`
	End   float64 `json:"end"`
	Why   string  `json:"why"`          // what it waited for before
	Of    int     `json:"of,omitempty"` // of a download: how many began with it
}

// needs says what the span of a stage waits for: other stages, by node, and sources.
type needs map[string][]string

// node names a stage as [Stage.Node] does.
func node(r *monitor.Record) string {
	if r.Category != monitor.CatStage || r.Stage == nil {
		return ""
	}
	return r.Stage.Key + " " + r.ID
}

// gapShown is the shortest time between two links that is told.
const gapShown = 2 * time.Millisecond

// critical walks back from the last thing that ended: what began because something
// else ended stands behind that one. What a stage needed is known, and what held its
// slot is what ended last in it; of other things it is what ended last before they
// began.
func critical(spans []monitor.Record, of needs) []Link {
	var steps []int // of those that something can wait for
	byNode, byID := map[string]int{}, map[string]int{}
	last := -1
	for i := range spans {
		r := &spans[i]
		if !waitedFor(spans, i) {
			continue
		}
		steps = append(steps, i)
		if n := node(r); n != "" {
			byNode[n] = i
		}
		if r.Category == monitor.CatSource {
			byID[r.ID] = i
		}
		if last < 0 || r.End > spans[last].End {
			last = i
		}
	}
	var out []Link
	seen := map[int]bool{}
	for at := last; at >= 0 && !seen[at]; {
		seen[at] = true
		r := &spans[at]
		begin, many := together(spans, at)
		out = append(out, Link{Span: at, Begin: seconds(begin), End: seconds(r.End), Of: many})
		prev, reason := -1, ""
		take := func(i int, what string) {
			if !seen[i] && spans[i].End <= begin+time.Millisecond && (prev < 0 || spans[i].End > spans[prev].End) {
				prev, reason = i, what
			}
		}
		for _, n := range of[node(r)] {
			if i, ok := byNode[n]; ok {
				take(i, "needed its tree")
			}
			if i, ok := byID[n]; ok {
				take(i, "needed its file")
			}
		}
		waited := r.Category != monitor.CatStage || held(spans, at)
		for _, i := range steps {
			switch s := &spans[i]; {
			case s.Category == monitor.CatRoot && r.Category == monitor.CatStage:
				take(i, "ran in this build root")
			case waited && s.Category == monitor.CatStage && r.Category == monitor.CatStage:
				take(i, "waited for its slot")
			case r.Category != monitor.CatStage:
				take(i, "came after it")
			}
		}
		if prev < 0 && begin > gapShown {
			// Nothing that it is known to need ran: whatever ended last before it.
			for _, i := range steps {
				take(i, "came after it")
			}
		}
		if prev >= 0 {
			out[len(out)-1].Why = reason
			if gap := begin - spans[prev].End; gap > gapShown {
				out = append(out, Link{Span: -1, Begin: seconds(spans[prev].End), End: seconds(begin)})
			}
		} else if begin > gapShown {
			out = append(out, Link{Span: -1, End: seconds(begin)})
		}
		at = prev
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// together tells when a span began, and of a download, when the first of those began
// that it was fetched with: they share a few connections, and which had to wait for
// which says nothing.
func together(spans []monitor.Record, at int) (begin time.Duration, many int) {
	r := &spans[at]
	if r.Category != monitor.CatSource || r.Parent == 0 {
		return r.Begin, 0
	}
	begin = r.Begin
	for i := range spans {
		if s := &spans[i]; s.Category == monitor.CatSource && s.Parent == r.Parent && waitedFor(spans, i) {
			begin, many = min(begin, s.Begin), many+1
		}
	}
	return begin, many
}

// waitedFor tells whether a span is something that others wait for as a whole: not a
// part of another one, and no collection of others.
func waitedFor(spans []monitor.Record, i int) bool {
	switch r := &spans[i]; r.Category {
	case monitor.CatStage, monitor.CatRoot, monitor.CatResolve, monitor.CatExport, monitor.CatTest:
		return true
	case monitor.CatSource:
		return r.ID != "" && !r.Cached
	}
	return false
}

// held tells whether a stage waited for a slot right before it began.
func held(spans []monitor.Record, at int) bool {
	r := &spans[at]
	for i := range spans {
		s := &spans[i]
		if s.Category == monitor.CatWait && s.Text == r.Text && s.End <= r.Begin+time.Millisecond && s.End+50*time.Millisecond > r.Begin {
			return true
		}
	}
	return false
}

func seconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }
