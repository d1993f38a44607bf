// Finding the token that an error is about in the source of its file. This is done
// only once there is an error, so nothing is kept for it while all goes well.

package starlark

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"go.starlark.net/syntax"
)

// lenient reads whatever any dialect allows; positions do not depend on it.
var lenient = &syntax.FileOptions{Set: true, While: true, TopLevelControl: true, GlobalReassign: true, Recursion: true}

// parsed parses a file that was run before; nil if that fails. The tree is kept:
// where there is one error there are often several.
func (l *Loader) parsed(file string) *syntax.File {
	src, err := l.Source(file)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	f, ok := l.trees[file]
	l.mu.Unlock()
	if ok {
		return f
	}
	f, err = lenient.Parse(file, src, 0)
	if err != nil || tooDeep(f) {
		f = nil
	}
	l.mu.Lock()
	l.trees[file] = f
	l.mu.Unlock()
	return f
}

// line is the text of the line that pos is in, without its end.
func (l *Loader) line(pos Position) string {
	src, err := l.Source(pos.File)
	if err != nil {
		return ""
	}
	return sourceLine(src, pos.Line)
}

func sourceLine(src []byte, n int32) string {
	s := string(src)
	for i := int32(1); ; i++ {
		line, rest, more := strings.Cut(s, "\n")
		if i == n {
			return strings.TrimSuffix(line, "\r")
		}
		if !more {
			return ""
		}
		s = rest
	}
}

// mark moves e.Pos from where the interpreter says that it is (the parenthesis of a
// call, the dot of an attribute) to the token a person would point at, and fills in
// Width and Line.
func (l *Loader) mark(e *Error) {
	if e.Pos.Line == 0 {
		return
	}
	e.Line = l.line(e.Pos)
	if pos, width, ok := locate(l.parsed(e.Pos.File), e.Pos); ok {
		e.Pos, e.Width = pos, width
		e.Line = l.line(pos)
		return
	}
	e.Width = tokenWidth(e.Line, e.Pos.Col)
}

// locate finds the expression that the interpreter reports at pos.
func locate(f *syntax.File, at Position) (pos Position, width int32, ok bool) {
	if f == nil {
		return at, 0, false
	}
	is := func(p syntax.Position) bool { return p.Line == at.Line && p.Col == at.Col }
	set := func(start, end syntax.Position) {
		pos, ok = Position{at.File, start.Line, start.Col}, true
		width = 1
		if end.Line == start.Line && end.Col > start.Col {
			width = end.Col - start.Col
		}
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		if n == nil || ok {
			return false
		}
		switch n := n.(type) {
		case *syntax.CallExpr:
			if is(n.Lparen) {
				set(calleeSpan(n.Fn))
			}
		case *syntax.DotExpr:
			if is(n.Dot) {
				set(n.Name.Span())
			}
		case *syntax.IndexExpr:
			if is(n.Lbrack) {
				set(n.Y.Span())
			}
		case *syntax.LoadStmt:
			if is(n.Load) {
				set(n.Module.Span())
			}
		case *syntax.Ident:
			if is(n.NamePos) {
				set(n.Span())
			}
		case *syntax.BinaryExpr:
			if is(n.OpPos) {
				set(n.OpPos, after(n.OpPos, n.Op))
			}
		case *syntax.AssignStmt:
			if is(n.OpPos) {
				set(n.OpPos, after(n.OpPos, n.Op))
			}
		}
		return !ok
	})
	return pos, width, ok
}

func after(p syntax.Position, tok syntax.Token) syntax.Position {
	p.Col += int32(len(tok.String()))
	return p
}

// calleeSpan is the part of a callee to mark: all of "stage.hostname" if it is on
// one line, else its last name.
func calleeSpan(fn syntax.Expr) (start, end syntax.Position) {
	start, end = fn.Span()
	if start.Line != end.Line {
		if dot, ok := fn.(*syntax.DotExpr); ok {
			return dot.Name.Span()
		}
		return end, end
	}
	return start, end
}

// locateArg finds, in the call whose parenthesis is at pos, the keyword arg, or if
// arg is "" the positional argument of that index.
func locateArg(f *syntax.File, at Position, arg string, index int) (pos Position, width int32, ok bool) {
	call := callAt(f, at)
	if call == nil {
		return at, 0, false
	}
	set := func(n syntax.Node) (Position, int32, bool) {
		start, end := n.Span()
		width := int32(1)
		if start.Line == end.Line {
			width = max(1, end.Col-start.Col)
		}
		return Position{at.File, start.Line, start.Col}, width, true
	}
	for i, a := range call.Args {
		if arg == "" && i == index {
			if u, ok := a.(*syntax.UnaryExpr); ok && u.Op == syntax.STAR {
				break
			}
			return set(a)
		}
		switch a := a.(type) {
		case *syntax.BinaryExpr:
			if id, isIdent := a.X.(*syntax.Ident); isIdent && a.Op == syntax.EQ && id.Name == arg {
				return set(id)
			}
		case *syntax.UnaryExpr:
			if dict, isDict := a.X.(*syntax.DictExpr); isDict && a.Op == syntax.STARSTAR {
				for _, entry := range dict.List {
					key := entry.(*syntax.DictEntry).Key
					if lit, isLit := key.(*syntax.Literal); isLit && lit.Value == arg {
						return set(lit)
					}
				}
			}
		}
	}
	return at, 0, false
}

// callAt finds the call whose opening parenthesis is at pos.
func callAt(f *syntax.File, at Position) (call *syntax.CallExpr) {
	if f == nil {
		return nil
	}
	syntax.Walk(f, func(n syntax.Node) bool {
		if c, ok := n.(*syntax.CallExpr); ok && c.Lparen.Line == at.Line && c.Lparen.Col == at.Col {
			call = c
		}
		return n != nil && call == nil
	})
	return call
}

// declares says what the statement at pos declares, if it is a call with a literal
// name at the top level of a BUILD.star: "debian_image", "debian12".
func declares(f *syntax.File, at Position) (fn, name string) {
	if f == nil {
		return "", ""
	}
	for _, stmt := range f.Stmts {
		if x, ok := stmt.(*syntax.ExprStmt); ok {
			start, end := x.Span()
			if at.Line < start.Line || at.Line > end.Line {
				continue
			}
			if fn, name := declaration(x.X); name != "" {
				return fn, name
			}
		}
	}
	return "", ""
}

// declaration is the callee and the name of a call f(name = "…") or f("…").
func declaration(x syntax.Expr) (fn, name string) {
	call, ok := x.(*syntax.CallExpr)
	if !ok {
		return "", ""
	}
	switch f := call.Fn.(type) {
	case *syntax.Ident:
		fn = f.Name
	case *syntax.DotExpr:
		fn = f.Name.Name
	default:
		return "", ""
	}
	for i, a := range call.Args {
		if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			if id, ok := b.X.(*syntax.Ident); !ok || id.Name != "name" {
				continue
			}
			a = b.Y
		} else if i > 0 {
			continue
		}
		if lit, ok := a.(*syntax.Literal); ok && lit.Token == syntax.STRING {
			return fn, lit.Value.(string)
		}
	}
	return "", ""
}

// declaredNames lists the names that the source of a BUILD.star seems to declare,
// without running it; for suggestions only.
func declaredNames(src []byte) []string {
	f, err := lenient.Parse(buildFile, src, 0)
	if err != nil || tooDeep(f) {
		return nil
	}
	var names []string
	for _, stmt := range f.Stmts {
		if x, ok := stmt.(*syntax.ExprStmt); ok {
			if _, name := declaration(x.X); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// tokenWidth is the width of the token that begins at the column, seen as text.
func tokenWidth(line string, col int32) int32 {
	for ; col > 1 && line != ""; col-- {
		_, n := utf8.DecodeRuneInString(line)
		line = line[n:]
	}
	word := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	var width int32
	if quote, _ := utf8.DecodeRuneInString(line); quote == '"' || quote == '\'' {
		if end := strings.IndexRune(line[1:], quote); end >= 0 {
			return int32(utf8.RuneCountInString(line[:end+2]))
		}
	}
	for _, r := range line {
		if !word(r) {
			break
		}
		width++
	}
	return max(1, width)
}

// maxDepth bounds how deep an expression may be, for the recursion of the resolver
// and the compiler. The parser itself bounds brackets; what is left are chains such
// as 1+1+1… or f()()()…, of which honest files have dozens.
const maxDepth = 50_000

// tooDeep reports whether the syntax tree is deeper than that.
func tooDeep(f *syntax.File) bool {
	depth, deep := 0, false
	syntax.Walk(f, func(n syntax.Node) bool {
		if n == nil {
			depth--
			return false
		}
		if depth > maxDepth {
			deep = true
		}
		if deep {
			return false
		}
		depth++
		return true
	})
	return deep
}
