// Values as Python's repr prints them: what the messages of its jsonschema hold.

package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pyRepr prints a value, the members of objects sorted.
func pyRepr(v any) string { return string(appendRepr(nil, v, nil, "")) }

// pyString prints a string.
func pyString(s string) string { return string(appendReprString(nil, s)) }

// pyNumber prints a number of which the JSON text is given.
func pyNumber(text string) string { return string(appendRepr(nil, json.Number(text), nil, "")) }

// appendRepr prints v, which is at a place of a document; order gives the members
// of objects the order that they have there.
func appendRepr(b []byte, v any, order keyOrder, at string) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "None"...)
	case bool:
		return append(b, either(v, "True", "False")...)
	case string:
		return appendReprString(b, v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendRepr(b, e, order, pointer(at, i))
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, k := range order.keys(at, v) {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(appendReprString(b, k), ": "...)
			b = appendRepr(b, v[k], order, pointer(at, k))
		}
		return append(b, '}')
	}
	text, ok := numberText(v)
	if !ok {
		return fmt.Append(b, v)
	}
	if isFloat(text) {
		if f, _ := strconv.ParseFloat(text, 64); math.IsInf(f, 0) {
			return append(b, either(f > 0, "inf", "-inf")...)
		}
	}
	return appendNumber(b, text)
}

func appendReprString(b []byte, s string) []byte {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b = append(b, quote)
	for i := 0; i < len(s); {
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
		case r == rune(quote) || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r < 0x100:
			b = fmt.Appendf(b, `\x%02x`, r)
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
	}
	return append(b, quote)
}
