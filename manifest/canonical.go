// The canonical JSON text that identifiers are hashes of: what Python's
// json.dumps(value, sort_keys=True) prints, byte for byte.

package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Canonical returns v the way upstream osbuild hashes it: keys sorted by code
// point, separators ", " and ": ", everything outside ASCII as \uXXXX (pairs of
// surrogates above U+FFFF) as well as DEL, integers with the digits they have, floats as Python's
// repr writes them (1.0, 1000.0, 1e+22, 1e-05).
//
// v is made of the kinds that the package uses for values (nil, bool, string,
// json.Number, []any, map[string]any); Go's own numbers are taken too, and
// anything else as encoding/json sees it. A string may hold a lone surrogate in the
// three bytes that UTF-8 would use for it, which is how [Load] keeps one; other
// bytes that are not UTF-8 become U+FFFD.
func Canonical(v any) []byte { return appendCanonical(nil, v) }

func appendCanonical(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case string:
		return appendASCII(b, v)
	case json.Number:
		return appendNumber(b, string(v))
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		return appendFloat(b, v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendCanonical(b, e)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, k := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(appendASCII(b, k), ": "...)
			b = appendCanonical(b, v[k])
		}
		return append(b, '}')
	}
	return appendCanonical(b, plain(v))
}

// plain turns a value of any other Go type into the kinds of this package, by way
// of encoding/json. What that cannot encode becomes its printed form.
func plain(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var out any
	if d.Decode(&out) != nil {
		return fmt.Sprint(v)
	}
	return out
}

// plainMap is v if it holds nothing but the kinds of this package, else a copy that
// does.
func plainMap(v map[string]any) map[string]any {
	if v == nil || isPlain(v) {
		return v
	}
	m, _ := plain(v).(map[string]any)
	return m
}

func isPlain(v any) bool {
	switch v := v.(type) {
	case nil, bool, string, json.Number:
		return true
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !isPlain(e) })
	case map[string]any:
		for _, e := range v {
			if !isPlain(e) {
				return false
			}
		}
		return true
	}
	return false
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys) // byte order of UTF-8 is code point order
	return keys
}

// isFloat tells whether Python would read the literal as a float.
func isFloat(number string) bool { return strings.ContainsAny(number, ".eE") }

func appendNumber(b []byte, s string) []byte {
	switch {
	case !isNumber(s):
		return appendASCII(b, s) // a json.Number made by hand, and wrongly
	case s == "-0":
		return append(b, '0')
	case isFloat(s):
		f, _ := strconv.ParseFloat(s, 64) // out of range is ±Inf, in Python too
		return appendFloat(b, f)
	}
	return append(b, s...)
}

// isNumber tells whether s is a number as JSON writes them.
func isNumber(s string) bool {
	rest := strings.TrimPrefix(s, "-")
	digits := func() bool {
		n := 0
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		ok := n > 0
		rest = rest[n:]
		return ok
	}
	if len(rest) > 1 && rest[0] == '0' && rest[1] >= '0' && rest[1] <= '9' {
		return false
	}
	if !digits() {
		return false
	}
	if strings.HasPrefix(rest, ".") {
		rest = rest[1:]
		if !digits() {
			return false
		}
	}
	if rest != "" && (rest[0] == 'e' || rest[0] == 'E') {
		rest = rest[1:]
		if rest != "" && (rest[0] == '+' || rest[0] == '-') {
			rest = rest[1:]
		}
		if !digits() {
			return false
		}
	}
	return rest == ""
}

// appendFloat writes f as Python's repr does: the shortest digits that read back as
// f, with an exponent from 1e16 on and below 1e-4.
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	if a := math.Abs(f); a != 0 && (a >= 1e16 || a < 1e-4) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	n := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if !bytes.ContainsRune(b[n:], '.') {
		b = append(b, ".0"...)
	}
	return b
}

const hexDigits = "0123456789abcdef"

func appendEscape(b []byte, unit uint16) []byte {
	return append(b, '\\', 'u', hexDigits[unit>>12], hexDigits[unit>>8&15], hexDigits[unit>>4&15], hexDigits[unit&15])
}

// appendASCII writes a JSON string with nothing but ASCII in it.
func appendASCII(b []byte, s string) []byte { return appendQuoted(b, s, true) }

// appendQuoted writes a JSON string. If ascii is set it escapes everything that is
// not printable ASCII, else only what JSON asks for.
func appendQuoted(b []byte, s string, ascii bool) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c >= 0x20 && (c != 0x7f || !ascii):
				b = append(b, c)
			case c == '\n':
				b = append(b, `\n`...)
			case c == '\r':
				b = append(b, `\r`...)
			case c == '\t':
				b = append(b, `\t`...)
			case c == '\b':
				b = append(b, `\b`...)
			case c == '\f':
				b = append(b, `\f`...)
			default:
				b = appendEscape(b, uint16(c))
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			if u, ok := loneSurrogate(s[i:]); ok {
				b = appendEscape(b, u)
				i += 3
				continue
			}
		}
		i += n
		switch {
		case !ascii:
			b = utf8.AppendRune(b, r)
		case r >= 0x10000:
			b = appendEscape(b, uint16(0xd800+(r-0x10000)>>10))
			b = appendEscape(b, uint16(0xdc00+(r-0x10000)&0x3ff))
		default:
			b = appendEscape(b, uint16(r))
		}
	}
	return append(b, '"')
}
