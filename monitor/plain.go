// The readers for people: a plain log, a line for each thing that ended, and on a
// terminal a status line below it that is drawn again and again.
package monitor

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Plain writes a log for people.
type Plain struct {
	W       io.Writer
	Verbose bool // every line of output, every phase
	Quiet   bool // warnings only
	Color   bool

	// Status, when it is set, is asked for the width of the terminal in columns;
	// the log then has a status line as its last one.
	Status func() int

	mu      sync.Mutex
	open    map[uint64]*openSpan
	order   []uint64
	drawn   bool
	done    int64
	total   int64
	started time.Time
	stop    chan struct{}
	stopped sync.WaitGroup
}

type openSpan struct {
	ev    Event
	start time.Time
	last  string // last line of output
	done  int64
	total int64
	unit  string
}

// Event writes what the event tells.
func (p *Plain) Event(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open, p.started = map[uint64]*openSpan{}, e.Time
		if p.Status != nil {
			p.stop = make(chan struct{})
			p.stopped.Add(1)
			go p.tick()
		}
	}
	switch e.Kind {
	case Start:
		p.open[e.Span] = &openSpan{ev: e, start: e.Time}
		p.order = append(p.order, e.Span)
	case End:
		o := p.open[e.Span]
		delete(p.open, e.Span)
		for i, id := range p.order {
			if id == e.Span {
				p.order = append(p.order[:i], p.order[i+1:]...)
				break
			}
		}
		if o != nil && !p.Quiet {
			p.ended(o, e)
		}
	case Progress:
		if o := p.open[e.Span]; o != nil {
			o.done, o.total, o.unit = e.Done, e.Total, e.Unit
			if o.ev.Category == CatBuild && e.Unit == "stages" {
				p.done, p.total = e.Done, e.Total
			}
		}
	case Output:
		if o := p.open[e.Span]; o != nil {
			o.last = clean(e.Text)
		}
		if p.Verbose {
			p.line("  %s | %s", p.dim(short(e.Name)), clean(e.Text))
		}
	case Note:
		if !p.Quiet {
			p.line("%s", e.Text)
		}
	case Warning:
		p.line("%s %s", p.paint("33", "warning:"), e.Text)
	}
}

// brief is how long a stage takes that nobody wants a line about: an image has dozens
// of them.
const brief = 100 * time.Millisecond

// ended writes the line of a span that is over, where a person wants to know.
func (p *Plain) ended(o *openSpan, e Event) {
	took := fmt.Sprintf("%6.1fs", e.Duration.Seconds())
	mark := " "
	if e.Err != "" {
		mark = p.paint("31", "✗")
	}
	switch o.ev.Category {
	case CatStage:
		if e.Err == "" && e.Duration < brief && !p.Verbose {
			return
		}
		where := o.ev.Text
		if o.ev.Target != "" {
			where = o.ev.Target + " " + where
		}
		p.line("%s %s %s %s", p.dim(took), mark, p.dim(where), short(o.ev.Name))
	case CatExport:
		if e.Err == "" && e.Duration < brief && !p.Verbose {
			return
		}
		p.line("%s %s %s", p.dim(took), mark, o.ev.Name)
	case CatResolve, CatTest:
		p.line("%s %s %s", p.dim(took), mark, o.ev.Name)
	case CatSource:
		if o.total > 0 && o.unit == "bytes" && o.ev.Name != "" && e.Duration > 500*time.Millisecond {
			p.line("%s %s %s (%s)", p.dim(took), mark, o.ev.Name, Bytes(o.total))
		}
	case CatPhase, CatRoot:
		if p.Verbose {
			p.line("%s %s   %s", p.dim(took), mark, o.ev.Name)
		}
	}
}

// line writes a line above the status line.
func (p *Plain) line(format string, args ...any) {
	p.erase()
	fmt.Fprintf(p.W, format+"\n", args...)
	p.draw()
}

func (p *Plain) tick() {
	defer p.stopped.Done()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			p.erase()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// mostShown is how many things that run the status line has room for.
const mostShown = 3

// running are the spans that the status line tells of: downloads, and then what began
// last.
func (p *Plain) running() []*openSpan {
	var downloads, others []*openSpan
	for _, id := range slices.Backward(p.order) {
		switch o := p.open[id]; o.ev.Category {
		case CatStage, CatResolve, CatTest, CatExport:
			others = append(others, o)
		case CatSource:
			if o.total > 0 { // not each file
				downloads = append(downloads, o)
			}
		}
	}
	return append(downloads, others...)
}

func (p *Plain) erase() {
	if p.drawn {
		io.WriteString(p.W, "\r\x1b[K")
		p.drawn = false
	}
}

// draw writes the status line: how far the build is, and what runs.
func (p *Plain) draw() {
	if p.Status == nil {
		return
	}
	width := p.Status()
	var b strings.Builder
	if p.total > 0 {
		fmt.Fprintf(&b, "[%d/%d] ", p.done, p.total)
	}
	running := p.running()
	named := map[string]int{}
	for _, o := range running {
		named[o.ev.Name]++
	}
	for i, o := range running {
		if i == mostShown {
			fmt.Fprintf(&b, " · and %d more", len(running)-i)
			break
		}
		if i > 0 {
			b.WriteString(" · ")
		}
		b.WriteString(short(o.ev.Name))
		if named[o.ev.Name] > 1 && o.ev.Target != "" {
			b.WriteString(" of " + o.ev.Target) // the same of several variants
		}
		if o.total > 0 && o.unit == "bytes" {
			fmt.Fprintf(&b, " %s of %s", Bytes(o.done), Bytes(o.total))
		} else if o.last != "" {
			b.WriteString(": " + o.last)
		}
		fmt.Fprintf(&b, " %.0fs", time.Since(o.start).Seconds())
	}
	if len(running) == 0 {
		return
	}
	s := b.String()
	if width > 8 && utf8.RuneCountInString(s) > width-1 {
		r := []rune(s)
		s = string(r[:width-2]) + "…"
	}
	io.WriteString(p.W, s)
	p.drawn = true
}

// Close takes the status line away.
func (p *Plain) Close() {
	p.mu.Lock()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
	p.erase()
	p.Status = nil
	p.mu.Unlock()
	p.stopped.Wait()
}

func (p *Plain) dim(s string) string { return p.paint("2", s) }

func (p *Plain) paint(code, s string) string {
	if !p.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// short leaves the prefix out that all upstream stages have.
func short(name string) string {
	name = strings.TrimPrefix(name, "org.osbuild.")
	return strings.TrimPrefix(name, "org.osbuild-star.")
}

// clean makes a line that a program printed harmless for a terminal: escape
// sequences and control characters are left out, and of a line that was written
// over, as progress is, the last text is kept.
func clean(s string) string {
	s = strings.TrimRight(s, "\r\n")
	s = s[strings.LastIndexByte(s, '\r')+1:]
	var b strings.Builder
	state := printed
	for _, r := range s {
		switch {
		case r == 0x1b:
			if state == inString {
				state = inStringEscape
			} else {
				state = inEscape
			}
		case state == inString:
			if r == 0x07 || r == 0x9c {
				state = printed
			}
		case state == inStringEscape: // what follows is "\\"
			state = printed
		case state == inEscape && r == '[', r == 0x9b:
			state = inControl
		case state == inEscape && strings.ContainsRune("]PX^_", r), r == 0x90, r == 0x98, r >= 0x9d && r <= 0x9f:
			state = inString
		case state == inEscape:
			if r < 0x20 || r > 0x2f { // those say that one more follows
				state = printed
			}
		case state == inControl:
			if r >= 0x40 && r <= 0x7e {
				state = printed
			}
		case r == '\t':
			b.WriteByte(' ')
		case r < 0x20 || r >= 0x7f && r < 0xa0:
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Where clean is in an escape sequence (ECMA-48).
const (
	printed        = iota
	inEscape       // after ESC
	inControl      // after ESC [, up to a letter
	inString       // a title, a link: up to BEL or ESC \
	inStringEscape // after an ESC in it
)

// Bytes is a number of bytes for people, in binary units.
func Bytes(n int64) string {
	switch f := float64(n); {
	case f >= 1023.95*(1<<20): // so that it is never written as 1024.0 MiB
		return fmt.Sprintf("%.2f GiB", f/(1<<30))
	case f >= 1023.95*(1<<10):
		return fmt.Sprintf("%.1f MiB", f/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", f/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
