// Errors of go.starlark.net, said in this package's own terms.

package starlark

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

var (
	// what go.starlark.net appends to a message when it has a suggestion
	suggestion = lazyRegexp(` \(did you mean \.?([^ ?]+)\?\)$`)
	undefined  = lazyRegexp(`^undefined: (\S+)$`)
	badCall    = lazyRegexp(`^function (\S+) (accepts|missing|got|called recursively)`)
	unexpected = lazyRegexp(`^function \S+ got an unexpected keyword argument "?([^" ]+)"?$`)
)

// lazyRegexp compiles an expression when it is needed first: when something went wrong.
func lazyRegexp(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// hints for messages of the parser, the resolver and the interpreter.
var hints = []struct{ in, hint string }{
	{"does not support while loops", `use "for … in range(n)", or a comprehension`},
	{"cannot reassign", "a global is set once; use a new name, or do it in a function"},
	{"called recursively", "functions do not call themselves, not even through others: use a loop"},
	{"not within a function", "move it into a function, or use a comprehension"},
	{"load statement within", "load() stands at the top level of a file"},
	{"names with leading underscores are not exported", "what begins with _ is private to its file: rename it there"},
	{"cannot insert into frozen", "values of a loaded file do not change: make a copy, as in dict(x) or list(x)"},
	{"cannot append to frozen", "values of a loaded file do not change: make a copy, as in list(x)"},
	{"frozen", "values of a loaded file do not change: make a copy"},
	{"during iteration", "iterate over a copy, as in list(x)"},
	{"got '=', want", `compare with "==", and put only names before "="`},
	{"unexpected indentation", "statements of one block begin in the same column"},
	{"newline in string", `end the string on its line, or use """`},
}

func hintFor(msg string) string {
	for _, h := range hints {
		if strings.Contains(msg, h.in) {
			return h.hint
		}
	}
	return ""
}

// staticError translates what Parse and FileProgram return; known are the names
// that the file could have meant.
func (l *Loader) staticError(err error, f *syntax.File, known func() []string) error {
	translate := func(pos syntax.Position, msg string) *Error {
		e := &Error{Msg: strings.TrimSpace(msg), Pos: position(pos), Err: err}
		if m := suggestion().FindStringSubmatchIndex(e.Msg); m != nil {
			e.Hint = didYouMean(e.Msg[m[2]:m[3]])
			e.Msg = e.Msg[:m[0]]
		}
		if m := undefined().FindStringSubmatch(e.Msg); m != nil {
			if near := Suggest(m[1], known()); near != "" {
				e.Hint = didYouMean(near)
			}
		}
		if e.Hint == "" {
			e.Hint = hintFor(e.Msg)
		}
		l.mark(e)
		if f != nil && e.Pos.Line != 0 && kindOf(e.Pos.File) == BuildFile {
			e.In = inOf(f, e.Pos)
		}
		return e
	}
	var list resolve.ErrorList
	if errors.As(err, &list) {
		errs := make([]error, len(list))
		for i, e := range list {
			errs[i] = translate(e.Pos, e.Msg)
		}
		return joinErrors(errs...)
	}
	var syn syntax.Error
	if errors.As(err, &syn) {
		if strings.HasPrefix(syn.Msg, "got end of file") {
			if src, srcErr := l.Source(syn.Pos.Filename()); srcErr == nil {
				if line, col, bracket := unclosed(src); bracket != 0 {
					syn.Pos.Line, syn.Pos.Col = line, col
					syn.Msg = fmt.Sprintf("%q is never closed", string(bracket))
				}
			}
		}
		return translate(syn.Pos, syn.Msg)
	}
	return err
}

// unclosed finds the innermost bracket that is open at the end of the source; 0 if
// there is none.
func unclosed(src []byte) (line, col int32, bracket rune) {
	type open struct {
		line, col int32
		bracket   rune
	}
	var stack []open
	s := string(src)
	line, col = 1, 1
	skip := func(n int) {
		for _, r := range s[:n] {
			col++
			if r == '\n' {
				line, col = line+1, 1
			}
		}
		s = s[n:]
	}
	for s != "" {
		n := 1
		switch c := s[0]; c {
		case '(', '[', '{':
			stack = append(stack, open{line, col, rune(c)})
		case ')', ']', '}':
			if len(stack) > 0 {
				stack = stack[:len(stack)-1]
			}
		case '#':
			if n = strings.IndexByte(s, '\n'); n < 0 {
				n = len(s)
			}
		case '"', '\'':
			quote := s[:1]
			if strings.HasPrefix(s, strings.Repeat(quote, 3)) {
				quote = strings.Repeat(quote, 3)
			}
			for n = len(quote); n < len(s) && !strings.HasPrefix(s[n:], quote); n++ {
				if s[n] == '\\' {
					n++
				}
			}
			n = min(n+len(quote), len(s))
		default:
			_, n = utf8.DecodeRuneInString(s)
		}
		skip(n)
	}
	if len(stack) == 0 {
		return 0, 0, 0
	}
	last := stack[len(stack)-1]
	return last.line, last.col, last.bracket
}

// globalNames lists what a file defines at its top level and loads.
func globalNames(f *syntax.File) []string {
	var names []string
	var add func(x syntax.Expr)
	add = func(x syntax.Expr) {
		switch x := x.(type) {
		case *syntax.Ident:
			names = append(names, x.Name)
		case *syntax.ParenExpr:
			add(x.X)
		case *syntax.TupleExpr:
			for _, e := range x.List {
				add(e)
			}
		case *syntax.ListExpr:
			for _, e := range x.List {
				add(e)
			}
		}
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.AssignStmt:
			add(n.LHS)
		case *syntax.DefStmt:
			names = append(names, n.Name.Name)
			return false
		case *syntax.LoadStmt:
			for _, id := range n.To {
				names = append(names, id.Name)
			}
		case *syntax.ForStmt:
			add(n.Vars)
		case syntax.Expr:
			return false
		}
		return true
	})
	return names
}

// stop is why a thread was made to end.
type stop struct {
	msg, hint string
	err       error
}

// evalError translates what running Starlark returned. why is set if the thread was
// stopped; in is what Error.In says if nothing better is known.
func (s *Scope) evalError(err error, why *stop) error {
	if err == nil {
		return nil
	}
	l := s.Loader
	var eval *starlark.EvalError
	if !errors.As(err, &eval) {
		return err
	}
	stack := frames(eval.CallStack)
	if why != nil && strings.HasPrefix(eval.Msg, "Starlark computation cancelled") {
		e := &Error{Msg: why.msg, Hint: why.hint, Err: why.err, Frames: stack, Pos: userPos(stack), Width: 1}
		l.mark(e)
		e.In = s.in(stack)
		return e
	}
	var cause error = eval
	for {
		next, ok := cause.(*starlark.EvalError)
		if !ok || next.Unwrap() == nil {
			break
		}
		cause = next.Unwrap()
	}
	if flat := flatten(cause); len(flat) > 1 {
		return joinErrors(flat...)
	}
	var own *Error
	if errors.As(cause, &own) {
		e := *own
		if cause != error(own) {
			e.Msg, e.Err = wrappedMessage(cause, own), cause
		}
		if e.Frames == nil {
			e.Frames = stack
		}
		if !e.Pos.IsValid() {
			e.Pos = userPos(e.Frames)
			l.mark(&e)
		}
		if e.In == "" && e.Pos.File != "" {
			e.In = s.in(e.Frames)
		}
		return &e
	}
	e := &Error{Msg: eval.Msg, Err: cause, Frames: stack, Width: 1}
	if m := suggestion().FindStringSubmatchIndex(e.Msg); m != nil {
		e.Hint = didYouMean(e.Msg[m[2]:m[3]])
		e.Msg = e.Msg[:m[0]]
	}
	if e.Hint == "" {
		e.Hint = hintFor(e.Msg)
	}
	callee := Position{}
	if m := badCall().FindStringSubmatch(e.Msg); m != nil && len(stack) > 0 && stack[len(stack)-1].Func == m[1] {
		callee = stack[len(stack)-1].Pos
		if len(stack) > 1 {
			// A call that does not fit is the caller's fault, not the callee's.
			stack = stack[:len(stack)-1]
		}
	}
	raw := userPos(stack)
	e.Pos = raw
	l.mark(e)
	if m := unexpected().FindStringSubmatch(e.Msg); m != nil {
		e.Arg = m[1]
		e.Hint = didYouMean(Suggest(m[1], l.parameters(callee)))
		if pos, width, ok := locateArg(l.parsed(raw.File), raw, m[1], -1); ok {
			e.Pos, e.Width = pos, width
			e.Line = l.line(pos)
		}
	}
	e.In = s.in(stack)
	return e
}

// wrappedMessage is the text of an error that wraps own, without its position.
func wrappedMessage(err error, own *Error) string {
	return strings.Replace(err.Error(), own.Error(), own.Msg, 1)
}

// parameters lists the names of the parameters of the function that is or begins at
// pos.
func (l *Loader) parameters(pos Position) []string {
	f := l.parsed(pos.File)
	if f == nil {
		return nil
	}
	var names []string
	syntax.Walk(f, func(n syntax.Node) bool {
		if n == nil {
			return false
		}
		start, end := n.Span()
		inside := start.Line <= pos.Line && pos.Line <= end.Line
		var params []syntax.Expr
		switch n := n.(type) {
		case *syntax.DefStmt:
			params = n.Params
		case *syntax.LambdaExpr:
			params = n.Params
		case *syntax.File:
			return true
		}
		if inside && params != nil {
			names = nil // the innermost counts
			for _, p := range params {
				if b, ok := p.(*syntax.BinaryExpr); ok {
					p = b.X
				}
				if id, ok := p.(*syntax.Ident); ok {
					names = append(names, id.Name)
				}
			}
		}
		return inside
	})
	return names
}

// in says what was being made, from the outermost call: the target that the
// statement at the top level of a BUILD.star declares.
func (s *Scope) in(stack []Frame) string {
	if s.what != "" || s.Kind != BuildFile || len(stack) == 0 {
		return s.what
	}
	return inOf(s.Loader.parsed(stack[0].Pos.File), stack[0].Pos)
}

func inOf(f *syntax.File, pos Position) string {
	fn, name := declares(f, pos)
	if name == "" || checkName(name) != nil {
		return ""
	}
	pkg := strings.TrimSuffix(strings.TrimSuffix(pos.File, buildFile), "/")
	return fn + " " + Label{Package: pkg, Name: name}.String()
}

// contextStop says why a context ended a run.
func (l *Loader) contextStop(ctx context.Context, what string) *stop {
	cause := context.Cause(ctx)
	if errors.Is(cause, ErrTimeout) {
		return &stop{
			msg:  fmt.Sprintf("%s ran for more than %v", what, l.o.Timeout),
			hint: "a loop here takes too long",
			err:  ErrTimeout,
		}
	}
	return &stop{msg: what + " was interrupted", err: cause}
}
