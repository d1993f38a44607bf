// Errors for people and, as JSON, for programs.

package starlark

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// FormatOptions say how Format writes.
type FormatOptions struct {
	Color     bool   // with ANSI colours
	Traceback bool   // with the active calls of each error
	Level     string // the first word; "" is "error"
	// Source reads a file by Position.File. It may be nil, and is asked only for
	// errors that do not carry their line.
	Source func(file string) ([]byte, error)
}

const (
	bold  = "1"
	red   = "1;31"
	blue  = "1;34"
	plain = ""
)

// Format writes the error as a person should see it, with the line that is to blame
// and a mark under what is wrong in it. Several errors (errors.Join, ErrorList) are
// written one after another, with an empty line between them.
func Format(w io.Writer, err error, o FormatOptions) {
	if err == nil {
		return
	}
	var b strings.Builder
	for i, err := range flatten(err) {
		if i > 0 {
			b.WriteByte('\n')
		}
		o.format(&b, err)
	}
	io.WriteString(w, b.String()) //nolint:errcheck // nobody is left to tell
}

func (o *FormatOptions) paint(style, s string) string {
	if !o.Color || style == plain {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

func (o *FormatOptions) format(b *strings.Builder, err error) {
	e := asError(err)
	level := o.Level
	if level == "" {
		level = "error"
	}
	head, more, _ := strings.Cut(clean(e.Msg), "\n")
	b.WriteString(o.paint(red, level) + o.paint(bold, ": "+head) + "\n")
	line, num := o.line(e), ""
	hint := clean(e.Hint)
	if e.Pos.IsValid() {
		if line != "" {
			num = strconv.Itoa(int(e.Pos.Line))
		}
		pad := strings.Repeat(" ", max(2, len(num)))
		b.WriteString(pad + o.paint(blue, "--> ") + clean(e.Pos.String()) + "\n")
	}
	gutter := strings.Repeat(" ", max(2, len(num))) + " "
	if line != "" {
		text, under := underline(line, e.Pos.Col, e.Width)
		b.WriteString(gutter + o.paint(blue, "|") + "\n")
		b.WriteString(o.paint(blue, fmt.Sprintf("%*s |", max(2, len(num)), num)) + " " + text + "\n")
		mark := under
		if hint != "" && !strings.Contains(hint, "\n") && len(mark)+len(hint) < 110 {
			mark += " " + hint
			hint = ""
		}
		indent := mark[:len(mark)-len(strings.TrimLeft(mark, " \t"))]
		b.WriteString(gutter + o.paint(blue, "|") + " " + indent + o.paint(red, mark[len(indent):]) + "\n")
	}
	note := func(s string) {
		for i, part := range strings.Split(s, "\n") {
			sign := o.paint(blue, "= ")
			if i > 0 {
				sign = "  "
			}
			b.WriteString(gutter + sign + part + "\n")
		}
	}
	if more != "" {
		note(more)
	}
	if hint != "" {
		note(hint)
	}
	if e.In != "" {
		note("in " + clean(e.In))
	}
	if o.Traceback && len(e.Frames) > 0 {
		note("calls, outermost first:")
		for _, f := range e.Frames {
			where := "built in"
			if f.Pos.IsValid() {
				where = f.Pos.String()
			}
			b.WriteString(gutter + "    " + clean(where) + ": " + clean(f.Func) + "\n")
		}
	}
}

// asError finds the *Error in err, with the whole message of what wraps it.
func asError(err error) *Error {
	var own *Error
	if !errors.As(err, &own) {
		e := &Error{Msg: err.Error(), Err: err}
		var none *NoMatchError
		if errors.As(err, &none) {
			e.Hint = none.Hint
		}
		return e
	}
	if err == error(own) {
		return own
	}
	e := *own
	e.Msg = wrappedMessage(err, own)
	return &e
}

// line is the source line of the error, if it can be had.
func (o *FormatOptions) line(e *Error) string {
	if e.Line != "" || e.Pos.Line == 0 || o.Source == nil {
		return e.Line
	}
	src, err := o.Source(e.Pos.File)
	if err != nil {
		return ""
	}
	return sourceLine(src, e.Pos.Line)
}

// maxShown is how many runes of a source line are shown.
const maxShown = 160

// underline gives the line as it is shown, and what stands below it: blanks up to
// col, then width marks. Of long lines only the part around the mark is shown.
func underline(line string, col, width int32) (text, under string) {
	runes := []rune(clean(strings.ReplaceAll(line, "\n", " ")))
	start := min(max(0, int(col)-1), len(runes))
	end := min(start+max(1, int(width)), max(len(runes), start+1))
	if len(runes) > maxShown {
		from := max(0, start-maxShown/3)
		to := min(len(runes), from+maxShown)
		end = min(end, to)
		cut := runes[from:to:to]
		start, end = start-from, end-from
		if from > 0 {
			cut = append([]rune("…"), cut...)
			start, end = start+1, end+1
		}
		if to < len(runes) {
			cut = append(cut, '…')
		}
		runes = cut
	}
	if col < 1 {
		return string(runes), ""
	}
	var b strings.Builder
	for _, r := range runes[:start] {
		switch {
		case r == '\t':
			b.WriteByte('\t')
		case wide(r):
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
	}
	for i := start; i < max(end, start+1); i++ {
		b.WriteByte('^')
		if i < len(runes) && wide(runes[i]) {
			b.WriteByte('^')
		}
	}
	return string(runes), b.String()
}

// wide reports whether terminals give the rune two columns.
func wide(r rune) bool {
	for _, span := range [...][2]rune{
		{0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3}, {0xf900, 0xfaff}, {0xfe30, 0xfe6f},
		{0xff00, 0xff60}, {0xffe0, 0xffe6}, {0x1f300, 0x1f64f}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd},
	} {
		if span[0] <= r && r <= span[1] {
			return true
		}
	}
	return false
}

// clean replaces what could drive a terminal, or turn text around, by U+FFFD.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return r
		case unicode.IsControl(r), 0x202a <= r && r <= 0x202e, 0x2066 <= r && r <= 0x2069:
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// jsonError is one error as FormatJSON writes it.
type jsonError struct {
	Message string  `json:"message"`
	Hint    string  `json:"hint,omitempty"`
	File    string  `json:"file,omitempty"`
	Line    int32   `json:"line,omitempty"`
	Col     int32   `json:"col,omitempty"`
	Width   int32   `json:"width,omitempty"`
	Source  string  `json:"source,omitempty"`
	In      string  `json:"in,omitempty"`
	Func    string  `json:"func,omitempty"`
	Arg     string  `json:"arg,omitempty"`
	Calls   []Frame `json:"calls,omitempty"`
}

// FormatJSON writes the errors in err as one JSON array of objects with the members
// message, hint, file, line, col, width, source, in, func, arg and calls, all but the
// first only where they are known.
func FormatJSON(w io.Writer, err error) error {
	list := []jsonError{}
	for _, err := range flatten(err) {
		e := asError(err)
		list = append(list, jsonError{
			Message: e.Msg, Hint: e.Hint, File: e.Pos.File, Line: e.Pos.Line, Col: e.Pos.Col, Width: e.Width,
			Source: e.Line, In: e.In, Func: e.Func, Arg: e.Arg, Calls: e.Frames,
		})
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(list)
}
