// Errors of rule files, and how builtins make them.

package starlark

import (
	"errors"
	"fmt"
	"strings"

	"go.starlark.net/starlark"
)

// What stopped a rule file that did not end by itself; test with errors.Is.
var (
	ErrSteps   = errors.New("step limit exceeded")
	ErrTimeout = errors.New("time limit exceeded")
)

// An Error is something wrong in a rule file, label or workspace, said to a person.
type Error struct {
	Msg    string   // one line, lower case
	Hint   string   // what to do about it; `did you mean "hostname"?`
	Pos    Position // of the marked token; zero if no file is to blame
	Width  int32    // of the marked token in runes
	Line   string   // the text of the source line at Pos
	In     string   // what was being made: "image //images:rhel82"
	Frames []Frame  // active calls, outermost first
	Func   string   // on errors about an argument: the builtin that refused it,
	Arg    string   // and the name of its parameter
	Err    error    // cause, if any
}

// Error is the position and the message, without the hint.
func (e *Error) Error() string {
	if e.Pos.IsValid() {
		return e.Pos.String() + ": " + e.Msg
	}
	return e.Msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A Frame is one active call.
type Frame struct {
	Func string   `json:"func"`         // "<toplevel>" for the file itself
	Pos  Position `json:"pos,omitzero"` // zero in functions written in Go
}

// An ErrorList is several errors, each worth telling.
type ErrorList []error

// Error gives one line for each.
func (l ErrorList) Error() string {
	lines := make([]string, len(l))
	for i, err := range l {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors.
func (l ErrorList) Unwrap() []error { return l }

// joinErrors flattens, drops what is nil or there already, and returns nil, the one
// error, or an ErrorList.
func joinErrors(errs ...error) error {
	var list ErrorList
	for _, err := range flatten(errs...) {
		if !contains(list, err) {
			list = append(list, err)
		}
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return list
}

// contains reports whether the list has err, or an error that says the same of the
// same place.
func contains(list []error, err error) bool {
	e, _ := err.(*Error)
	for _, other := range list {
		o, _ := other.(*Error)
		if e == nil || o == nil {
			if e == nil && o == nil && err.Error() == other.Error() {
				return true
			}
			continue
		}
		if e == o || e.Pos == o.Pos && e.Msg == o.Msg && e.In == o.In {
			return true
		}
	}
	return false
}

// flatten opens errors.Join and ErrorList, at any depth.
func flatten(errs ...error) []error {
	var out []error
	for _, err := range errs {
		if err == nil {
			continue
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			if list := many.Unwrap(); len(list) > 0 && isJoin(err, list) {
				out = append(out, flatten(list...)...)
				continue
			}
		}
		out = append(out, err)
	}
	return out
}

// isJoin tells a mere list of errors from a fmt.Errorf with several %w, which has
// words of its own.
func isJoin(err error, list []error) bool {
	return err.Error() == ErrorList(list).Error()
}

// A NoMatchError tells that patterns named no target.
type NoMatchError struct {
	Pattern string // one or more, separated by spaces
	Hint    string
}

// Error says so.
func (e *NoMatchError) Error() string { return "no target matches " + e.Pattern }

// An UnknownLabelError is the cause of the *Error for a label that names nothing.
type UnknownLabelError struct {
	Label  Label   // Name is "" if the package is unknown and no target was asked for
	Nearby []Label // labels that may have been meant, the nearest first
}

// Error says so.
func (e *UnknownLabelError) Error() string { return "unknown label " + e.Label.String() }

// Errorf makes an error at the caller's position: the innermost call in the user's
// own files that is active on the thread. %w is understood.
func Errorf(t *starlark.Thread, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	e := errorAt(t, wrapped.Error())
	e.Err = errors.Unwrap(wrapped)
	if many, ok := wrapped.(interface{ Unwrap() []error }); ok {
		e.Err = errors.Join(many.Unwrap()...)
	}
	return e
}

// HintError is Errorf with a message that is ready and a hint.
func HintError(t *starlark.Thread, msg, hint string) *Error {
	e := errorAt(t, msg)
	e.Hint = hint
	return e
}

// ArgError makes an error about the argument arg of the builtin fn. The mark is on
// the keyword (or the key of a "**{…}" literal) of that name in the call that the
// innermost of the user's own frames is at, or on the function called if the call
// has none. msg is the whole message: `stage.hostname has no option "hostnme"`.
func ArgError(t *starlark.Thread, fn, arg, msg, hint string) *Error {
	return argError(t, fn, arg, -1, msg, hint)
}

// PosArgError is ArgError for the positional argument of that index, from 0.
func PosArgError(t *starlark.Thread, fn string, index int, msg, hint string) *Error {
	return argError(t, fn, "", index, msg, hint)
}

func argError(t *starlark.Thread, fn, arg string, index int, msg, hint string) *Error {
	e := errorAt(t, msg)
	e.Hint, e.Func, e.Arg = hint, fn, arg
	if s := FromThread(t); s != nil {
		raw := CallerPos(t)
		if pos, width, ok := locateArg(s.Loader.parsed(raw.File), raw, arg, index); ok {
			e.Pos, e.Width = pos, width
			e.Line = s.Loader.line(pos)
		}
	}
	return e
}

func errorAt(t *starlark.Thread, msg string) *Error {
	e := &Error{Msg: msg, Pos: CallerPos(t), Width: 1, Frames: CallerFrames(t)}
	if s := FromThread(t); s != nil {
		s.Loader.mark(e)
		e.In = s.in(e.Frames)
	}
	return e
}

// CallerPos is the position of the innermost active call in the user's own files;
// if there is none, that in the library. For a call it is the position of its
// opening parenthesis, as go.starlark.net has it.
func CallerPos(t *starlark.Thread) Position {
	var fallback Position
	for depth := range t.CallStackDepth() {
		pos := t.CallFrame(depth).Pos
		if pos.Line == 0 {
			continue // written in Go
		}
		p := position(pos)
		if !p.inLibrary() {
			return p
		}
		if !fallback.IsValid() {
			fallback = p
		}
	}
	return fallback
}

// CallerFrames lists the active calls, outermost first.
func CallerFrames(t *starlark.Thread) []Frame { return frames(t.CallStack()) }

func frames(stack starlark.CallStack) []Frame {
	out := make([]Frame, len(stack))
	for i, f := range stack {
		out[i].Func = f.Name
		if f.Pos.Line != 0 {
			out[i].Pos = position(f.Pos)
		}
	}
	return out
}

// userPos is CallerPos for frames.
func userPos(frames []Frame) Position {
	var fallback Position
	for i := len(frames) - 1; i >= 0; i-- {
		p := frames[i].Pos
		switch {
		case !p.IsValid():
		case !p.inLibrary():
			return p
		case !fallback.IsValid():
			fallback = p
		}
	}
	return fallback
}
