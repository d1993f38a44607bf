// A terminal of one line: turns what comes over a serial port (ANSI escapes,
// carriage returns, half characters) into lines of text.

package vm

import (
	"unicode/utf8"
)

const (
	maxLine   = 16 << 10 // characters in a line, before it is broken
	maxColumn = 512      // where the cursor can be sent: a few bytes must not make much text
)

// lineTerm takes bytes and keeps the line that is being written as a terminal
// would show it: a carriage return goes back to its start and what follows
// overwrites, erasing and moving within the line work, moving to another row
// ends it. Colours and everything else are dropped. The zero value is ready.
type lineTerm struct {
	line []rune
	col  int
	row  int // of the last absolute cursor address, 0 = not known

	state  escState
	params []byte // of a control sequence
	part   []byte // a character of which not all bytes have come

	emit func(string) // gets each complete line; not nil
}

type escState uint8

const (
	ground    escState = iota
	escape1            // after ESC
	escapeInt          // after ESC and an intermediate byte: one more follows
	csi                // control sequence: ESC [ … letter
	str                // OSC, DCS and others: until BEL or ESC \
	strEsc             // ESC within one of those
)

// Partial is the line that has not ended.
func (t *lineTerm) Partial() string { return string(t.line) }

// Write never fails.
func (t *lineTerm) Write(p []byte) (int, error) {
	for _, b := range p {
		t.byte(b)
	}
	return len(p), nil
}

// End ends an unfinished line, when nothing more will come.
func (t *lineTerm) End() {
	t.flushPart()
	if len(t.line) > 0 {
		t.newline()
	}
}

func (t *lineTerm) byte(b byte) {
	switch t.state {
	case escape1:
		switch {
		case b == '[':
			t.state, t.params = csi, t.params[:0]
		case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
			t.state = str
		case b == 'c': // reset
			t.state = ground
			t.breakLine()
		case b == 0x1b:
		case b >= 0x20 && b <= 0x2f:
			t.state = escapeInt
		case b < 0x20: // a control character in the wrong place acts, and ends it
			t.state = ground
			t.control(b)
		default:
			t.state = ground
		}
		return
	case escapeInt:
		if b == 0x1b {
			t.state = escape1
		} else if b < 0x20 || b > 0x2f {
			t.state = ground
			if b == '\n' || b == '\r' {
				t.control(b)
			}
		}
		return
	case csi:
		switch {
		case b == 0x1b:
			t.state = escape1
		case b == '\n' || b == '\r':
			t.state = ground
			t.control(b)
		case b >= 0x40 && b <= 0x7e:
			t.state = ground
			t.sequence(b)
		case b >= 0x20 && b < 0x40:
			if len(t.params) < 32 {
				t.params = append(t.params, b)
			}
		}
		return
	case str:
		switch b {
		case 0x07:
			t.state = ground
		case 0x1b:
			t.state = strEsc
		case '\n': // one that was never closed must not swallow the rest
			t.state = ground
			t.newline()
		}
		return
	case strEsc:
		t.state = str
		if b == '\\' {
			t.state = ground
		}
		return
	}
	if b >= 0x80 {
		t.part = append(t.part, b)
		if utf8.FullRune(t.part) {
			r, n := utf8.DecodeRune(t.part)
			rest := string(t.part[n:])
			t.part = t.part[:0]
			t.put(r)
			for i := 0; i < len(rest); i++ {
				t.byte(rest[i])
			}
		}
		return
	}
	t.flushPart()
	if b < 0x20 || b == 0x7f {
		t.control(b)
		return
	}
	t.put(rune(b))
}

// flushPart puts one replacement character for bytes that make none.
func (t *lineTerm) flushPart() {
	if len(t.part) > 0 {
		t.part = t.part[:0]
		t.put(utf8.RuneError)
	}
}

func (t *lineTerm) put(r rune) {
	for len(t.line) < t.col {
		t.line = append(t.line, ' ')
	}
	if t.col < len(t.line) {
		t.line[t.col] = r
	} else {
		t.line = append(t.line, r)
	}
	t.col++
	if len(t.line) >= maxLine {
		t.newline()
	}
}

func (t *lineTerm) control(b byte) {
	switch b {
	case '\n':
		if t.row > 0 {
			t.row++
		}
		t.newline()
	case '\r':
		t.col = 0
	case '\b':
		if t.col > 0 {
			t.col--
		}
	case '\t':
		for next := (t.col/8 + 1) * 8; t.col < next; {
			t.put(' ')
		}
	case 0x1b:
		t.state = escape1
	}
}

// newline ends the line and begins another at its first column.
func (t *lineTerm) newline() {
	s := string(t.line)
	t.line, t.col = t.line[:0], 0
	t.emit(s)
}

// breakLine ends the line if there is anything on it.
func (t *lineTerm) breakLine() {
	if len(t.line) > 0 {
		t.newline()
	}
	t.col = 0
}

// sequence acts on a control sequence with this last byte.
func (t *lineTerm) sequence(final byte) {
	if len(t.params) > 0 && t.params[0] >= '<' { // private ones do nothing visible
		return
	}
	arg := func(i, def int) int { return csiArg(t.params, i, def) }
	switch final {
	case 'H', 'f': // row; column
		row, col := arg(0, 1), arg(1, 1)
		// Where the row is not known, going to the end of the line is staying on it.
		if row != t.row && (t.row != 0 || col-1 != len(t.line)) {
			t.breakLine()
		}
		t.row, t.col = row, min(col-1, maxColumn)
	case 'A', 'B', 'E', 'F', 'd':
		t.breakLine()
		t.row = 0
	case 'C':
		t.col = max(t.col, min(t.col+arg(0, 1), maxColumn))
	case 'D':
		t.col = max(t.col-arg(0, 1), 0)
	case 'G':
		t.col = min(arg(0, 1)-1, maxColumn)
	case 'K':
		switch arg(0, 0) {
		case 0:
			t.line = t.line[:min(t.col, len(t.line))]
		case 1:
			for i := 0; i < min(t.col+1, len(t.line)); i++ {
				t.line[i] = ' '
			}
		case 2:
			t.line = t.line[:0]
		}
	case 'J':
		if arg(0, 0) >= 2 {
			t.breakLine()
		} else {
			t.line = t.line[:min(t.col, len(t.line))]
		}
	}
}

// csiArg reads the i-th of "1;2"; a missing one or zero is def, and none is
// larger than a screen can be.
func csiArg(params []byte, i, def int) int {
	n, at := 0, 0
	for _, b := range params {
		switch {
		case b == ';':
			at++
		case at == i && b >= '0' && b <= '9':
			n = min(n*10+int(b-'0'), 9999)
		}
	}
	if n == 0 {
		return def
	}
	return n
}
