// The console: what came over the serial port, as bytes for a terminal and for
// the parser of command output, and as lines for those who wait for something.

package vm

import (
	"context"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	keepRaw   = 4 << 20 // bytes of the raw stream
	keepLines = 20000   // complete lines
	keepText  = 8 << 20 // bytes in them

	tailLines  = 40  // of the console, in an error
	tailBefore = 15  // of them before a failure
	tailMost   = 150 // but no more than that
)

// console collects. One goroutine writes, any number read.
type console struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	eof     bool
	last    time.Time // when the last byte came

	raw     []byte
	rawBase int64 // offset in the stream of raw[0]

	term     lineTerm
	lines    []string
	lineBase int // number of lines that are no longer kept
	lineSize int // bytes in lines

	// Where waitLine goes on: the line, and how much of it was matched already.
	atLine, atCol int

	quiet    bool // a session is open: only the patterns that a command's output does not have by accident
	failure  *Failure
	failedAt int  // the number of its line
	system   bool // something of a kernel or an init was seen

	onLine func(string) // gets each complete line, outside the lock; may be nil
	ready  []string     // lines for onLine
}

func newConsole(onLine func(string)) *console {
	c := &console{changed: make(chan struct{}), onLine: onLine}
	c.term.emit = c.addLine
	return c
}

// Write takes what came over the port. It never fails.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.last = time.Now()
	c.raw = append(c.raw, p...)
	if over := len(c.raw) - keepRaw; over > keepRaw/4 { // not at every write
		c.raw = append(c.raw[:0:0], c.raw[over:]...)
		c.rawBase += int64(over)
	}
	c.term.Write(p)
	c.inspect(c.term.Partial())
	c.wake()
	return len(p), nil
}

// close says that nothing more will come.
func (c *console) close() {
	c.mu.Lock()
	c.term.End()
	c.eof = true
	c.wake()
}

// wake tells the readers and unlocks; the callbacks are called without the lock.
func (c *console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
	ready := c.ready
	c.ready = nil
	c.mu.Unlock()
	if c.onLine != nil {
		for _, l := range ready {
			c.onLine(l)
		}
	}
}

func (c *console) addLine(s string) {
	c.inspect(s)
	c.lines = append(c.lines, s)
	c.lineSize += len(s)
	if len(c.lines) > keepLines+keepLines/4 || c.lineSize > keepText+keepText/4 {
		drop := 0
		for ; len(c.lines)-drop > keepLines || c.lineSize > keepText; drop++ {
			c.lineSize -= len(c.lines[drop])
		}
		c.lines = append(c.lines[:0:0], c.lines[drop:]...)
		c.lineBase += drop
	}
	if s, ok := visible(s); ok {
		c.ready = append(c.ready, s)
	}
}

func (c *console) inspect(line string) {
	if !c.system && systemRE.MatchString(line) {
		c.system = true
	}
	if c.failure != nil || line == "" {
		return
	}
	if c.failure = detect(line, c.quiet); c.failure != nil {
		c.failedAt = c.lineBase + len(c.lines)
	}
}

// story returns the end of the console for an error: so many lines, or more to
// have what led to a failure, before the trace that a panic prints.
func (c *console) story() string {
	c.mu.Lock()
	n := tailLines
	if c.failure != nil {
		n = max(n, min(c.lineBase+len(c.lines)-c.failedAt+tailBefore, tailMost))
	}
	c.mu.Unlock()
	return c.tail(n)
}

// setQuiet is called when a session begins.
func (c *console) setQuiet() {
	c.mu.Lock()
	c.quiet = true
	c.mu.Unlock()
}

// state returns the failure that was seen, if the stream has ended, when the
// last byte came, and what is closed at the next change.
func (c *console) state() (f *Failure, eof bool, last time.Time, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure, c.eof, c.last, c.changed
}

// match looks for re in the lines that were not matched yet, the unfinished one
// included, one at a time. What was matched is not looked at again.
func (c *console) match(re *regexp.Regexp) ([]string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.atLine < c.lineBase {
		c.atLine, c.atCol = c.lineBase, 0
	}
	for {
		i := c.atLine - c.lineBase
		complete := i < len(c.lines)
		var s string
		if complete {
			s = c.lines[i]
		} else {
			s = c.term.Partial()
		}
		from := min(c.atCol, len(s))
		if loc := re.FindStringSubmatchIndex(s[from:]); loc != nil && (loc[1] > 0 || complete) {
			m := submatches(s[from:], loc)
			c.atCol = from + loc[1]
			return m, true
		}
		if !complete {
			return nil, false
		}
		c.atLine, c.atCol = c.atLine+1, 0
	}
}

func submatches(s string, loc []int) []string {
	m := make([]string, len(loc)/2)
	for i := range m {
		if loc[2*i] >= 0 {
			m[i] = s[loc[2*i]:loc[2*i+1]]
		}
	}
	return m
}

// skip makes match look at what comes from now on only.
func (c *console) skip() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.atLine, c.atCol = c.lineBase+len(c.lines), len(c.term.Partial())
}

// quietFor tells if nothing has come for so long.
func (c *console) quietFor(d time.Duration) bool { return time.Since(c.lastByte()) >= d }

func (c *console) lastByte() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// sawSystem tells if a kernel or an init was heard, not just a firmware.
func (c *console) sawSystem() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.system
}

// partial is the unfinished line.
func (c *console) partial() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term.Partial()
}

// tail returns the last n lines that are not empty, the unfinished one
// included, without a newline at the end, and without what makes a session.
func (c *console) tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for i := len(c.lines); i >= 0 && len(out) < n; i-- {
		s := c.term.Partial()
		if i < len(c.lines) {
			s = c.lines[i]
		}
		s, ok := visible(s)
		if s = strings.TrimRight(s, " "); ok && s != "" {
			out = append(out, s)
		}
	}
	slices.Reverse(out)
	return strings.Join(out, "\n")
}

// offset is where the raw stream ends now.
func (c *console) offset() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rawBase + int64(len(c.raw))
}

// read returns what the raw stream has from an offset on, and the offset after
// it; lost says that older bytes than that are no longer kept. Without any it
// waits. io.EOF is returned when nothing more will come.
func (c *console) read(ctx context.Context, from int64) (p []byte, next int64, lost bool, err error) {
	for {
		c.mu.Lock()
		if from < c.rawBase {
			from, lost = c.rawBase, true
		}
		if i := int(from - c.rawBase); i < len(c.raw) {
			p = append([]byte(nil), c.raw[i:]...)
			c.mu.Unlock()
			return p, from + int64(len(p)), lost, nil
		}
		changed, eof := c.changed, c.eof
		c.mu.Unlock()
		if eof {
			return nil, from, lost, io.EOF
		}
		select {
		case <-ctx.Done():
			return nil, from, lost, ctx.Err()
		case <-changed:
		}
	}
}
