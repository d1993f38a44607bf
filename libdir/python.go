// Constants of a Python source: the strings and lists of strings that are assigned
// to names at its top level, and its documentation string. The text is read and
// nothing of it is run, so that modules can be described where there is no Python,
// or none that their imports would work with.
package libdir

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// pythonConstants are what is found.
type pythonConstants struct {
	doc     string
	strings map[string]string
	lists   map[string][]string
}

// tokenKind is what a token is.
type tokenKind int

const (
	tokEnd    tokenKind = iota // of a logical line
	tokName                    // identifiers and numbers
	tokString                  // a string without substitutions
	tokOther                   // an operator, or a string of another kind
)

type token struct {
	kind tokenKind
	text string // of a string its value
}

// constants reads the text of a source. Where the text is no Python it finds nothing,
// or little: a later error is that of the one who runs it.
func constants(text string) *pythonConstants {
	c := &pythonConstants{strings: map[string]string{}, lists: map[string][]string{}}
	text = strings.TrimPrefix(text, "\ufeff")
	s := &pythonScanner{text: strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")}
	for first := true; ; {
		line, indented, ok := s.line()
		if !ok {
			return c
		}
		if len(line) == 0 {
			continue
		}
		if !indented {
			for _, statement := range split(line, ";") {
				if value, ok := joined(statement); ok && first {
					c.doc = cleanDoc(value)
				}
				c.assign(statement)
				first = false
			}
		}
		first = false
	}
}

// split cuts a logical line at an operator that is not inside brackets.
func split(line []token, op string) [][]token {
	var out [][]token
	depth, from := 0, 0
	for i, t := range line {
		if t.kind != tokOther {
			continue
		}
		switch t.text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		case op:
			if depth == 0 {
				out = append(out, line[from:i])
				from = i + 1
			}
		}
	}
	return append(out, line[from:])
}

// assign notes "NAME = value" and "A = B = value"; a later one replaces an earlier.
func (c *pythonConstants) assign(statement []token) {
	parts := split(statement, "=")
	value := parts[len(parts)-1]
	for _, target := range parts[:len(parts)-1] {
		if len(target) != 1 || target[0].kind != tokName {
			continue
		}
		name := target[0].text
		delete(c.strings, name)
		delete(c.lists, name)
		if s, ok := joined(value); ok {
			c.strings[name] = s
		} else if l, ok := list(value); ok {
			c.lists[name] = l
		}
	}
}

// joined is the value of an expression that is nothing but strings, one after the
// other, perhaps in parentheses.
func joined(expr []token) (string, bool) {
	expr = unwrapped(expr)
	var b strings.Builder
	for _, t := range expr {
		if t.kind != tokString {
			return "", false
		}
		b.WriteString(t.text)
	}
	return b.String(), len(expr) > 0
}

// unwrapped takes away parentheses around all of an expression.
func unwrapped(expr []token) []token {
	for len(expr) >= 2 && expr[0] == (token{tokOther, "("}) && expr[len(expr)-1] == (token{tokOther, ")"}) {
		expr = expr[1 : len(expr)-1]
	}
	return expr
}

// list is the value of a list, set or tuple of strings.
func list(expr []token) ([]string, bool) {
	if len(expr) >= 2 && len(split(unwrapped(expr), ",")) == 1 {
		expr = unwrapped(expr) // parentheses around a list
	}
	if len(expr) < 2 || expr[0].kind != tokOther || expr[len(expr)-1].kind != tokOther {
		return nil, false
	}
	switch expr[0].text + expr[len(expr)-1].text {
	case "[]", "{}", "()":
	default:
		return nil, false
	}
	out := []string{}
	elements := split(expr[1:len(expr)-1], ",")
	for i, e := range elements {
		if len(e) == 0 && i == len(elements)-1 {
			break // a comma behind the last one
		}
		s, ok := joined(e)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// pythonScanner cuts a source into tokens.
type pythonScanner struct {
	text string
	pos  int
}

// line returns the tokens of the next logical line, and whether it is indented.
func (s *pythonScanner) line() (tokens []token, indented, ok bool) {
	if s.pos >= len(s.text) {
		return nil, false, false
	}
	indented = strings.ContainsRune(" \t\f", rune(s.text[s.pos]))
	depth := 0
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '\n':
			s.pos++
			if depth == 0 {
				return tokens, indented, true
			}
		case c == ' ' || c == '\t' || c == '\f':
			s.pos++
		case c == '#':
			if i := strings.IndexByte(s.text[s.pos:], '\n'); i >= 0 {
				s.pos += i
			} else {
				s.pos = len(s.text)
			}
		case c == '\\' && strings.HasPrefix(s.text[s.pos+1:], "\n"):
			s.pos += 2
		case isNameByte(c):
			start := s.pos
			for s.pos < len(s.text) && isNameByte(s.text[s.pos]) {
				s.pos++
			}
			name := s.text[start:s.pos]
			if s.pos < len(s.text) && (s.text[s.pos] == '"' || s.text[s.pos] == '\'') && isPrefix(name) {
				tokens = append(tokens, s.stringToken(strings.ToLower(name)))
			} else {
				tokens = append(tokens, token{tokName, name})
			}
		case c == '"' || c == '\'':
			tokens = append(tokens, s.stringToken(""))
		default:
			op := string(c)
			s.pos++
			// Operators that end in "=" assign nothing, or not a constant.
			for s.pos < len(s.text) && s.text[s.pos] == '=' && strings.Contains("=!<>+-*/%&|^@:", op[len(op)-1:]) {
				op += "="
				s.pos++
			}
			switch op {
			case "(", "[", "{":
				depth++
			case ")", "]", "}":
				depth = max(depth-1, 0)
			}
			tokens = append(tokens, token{tokOther, op})
		}
	}
	return tokens, indented, true
}

func isNameByte(c byte) bool {
	return c == '_' || c >= utf8.RuneSelf || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// isPrefix tells whether a name right before a quote belongs to the string.
func isPrefix(name string) bool {
	switch strings.ToLower(name) {
	case "r", "u", "b", "f", "t", "rb", "br", "rf", "fr", "rt", "tr":
		return true
	}
	return false
}

// stringToken reads a string, which begins here; a string that does not end takes
// all that is left, and is none.
func (s *pythonScanner) stringToken(prefix string) token {
	quote := s.text[s.pos : s.pos+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s.text[s.pos:], triple) {
		quote = triple
	}
	s.pos += len(quote)
	start := s.pos
	for s.pos < len(s.text) {
		switch {
		case s.text[s.pos] == '\\':
			s.pos = min(s.pos+2, len(s.text)) // also in raw strings
		case strings.HasPrefix(s.text[s.pos:], quote):
			body := s.text[start:s.pos]
			s.pos += len(quote)
			switch {
			case strings.ContainsAny(prefix, "bft"):
				return token{tokOther, "string"} // bytes, or a text with substitutions
			case prefix != "r":
				body = unescape(body)
			}
			return token{tokString, body}
		case len(quote) == 1 && s.text[s.pos] == '\n':
			return token{tokOther, "broken"}
		default:
			s.pos++
		}
	}
	return token{tokOther, "broken"}
}

// simpleEscapes are those of one letter.
var simpleEscapes = map[byte]string{
	'\n': "", '\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
}

// unescape replaces escapes; one that is unknown stays as it is, as in Python.
func unescape(s string) string {
	if !strings.Contains(s, "\\") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if r, ok := simpleEscapes[s[i]]; ok {
			b.WriteString(r)
			continue
		}
		digits, base := 0, 16
		switch c := s[i]; {
		case c >= '0' && c <= '7':
			base = 8
			for digits < 3 && i+digits < len(s) && s[i+digits] >= '0' && s[i+digits] <= '7' {
				digits++
			}
			i--
		case c == 'x':
			digits = 2
		case c == 'u':
			digits = 4
		case c == 'U':
			digits = 8
		}
		if digits > 0 && i+digits < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+1+digits], base, 32); err == nil {
				b.WriteRune(rune(n))
				i += digits
				continue
			}
		}
		b.WriteByte('\\')
		b.WriteByte(s[i])
	}
	return b.String()
}

// cleanDoc takes the indentation out of a documentation string, and empty lines at
// its ends.
func cleanDoc(doc string) string {
	lines := strings.Split(strings.ReplaceAll(doc, "\t", "        "), "\n")
	indent := -1
	for _, l := range lines[1:] {
		if rest := strings.TrimLeft(l, " "); rest != "" {
			if n := len(l) - len(rest); indent < 0 || n < indent {
				indent = n
			}
		}
	}
	lines[0] = strings.TrimLeft(lines[0], " ")
	for i := range lines[1:] {
		lines[i+1] = lines[i+1][min(max(indent, 0), len(lines[i+1])):]
	}
	for len(lines) > 0 && strings.TrimSpace(lines[0]) == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return strings.Join(lines, "\n")
}
