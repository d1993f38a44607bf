// Reading JSON the way Python does where Go does not: text that is not UTF-8 is an
// error, and half of a surrogate pair is a character of its own.

package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decodeJSON reads one JSON document. Numbers keep their text; of a key that is
// there twice the last value counts.
func decodeJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8 text")
	}
	marked, mark := markSurrogates(data)
	d := json.NewDecoder(bytes.NewReader(marked))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, positioned(data, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		line, col := position(data, d.InputOffset())
		return nil, fmt.Errorf("line %d, column %d: more text after the end of the document", line, col)
	}
	if mark != "" {
		v = unmark(v, mark)
	}
	return v, nil
}

func positioned(data []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line, col := position(data, syntax.Offset)
		return fmt.Errorf("line %d, column %d: %w", line, col, err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the document ends too early")
	}
	return err
}

func position(data []byte, offset int64) (line, col int) {
	head := data[:max(0, min(int(offset), len(data)))]
	line = 1 + bytes.Count(head, []byte("\n"))
	return line, len(head) - (bytes.LastIndexByte(head, '\n') + 1)
}

// loneSurrogate reads the surrogate at the start of s, in the three bytes that
// UTF-8 would use if it allowed them.
func loneSurrogate(s string) (uint16, bool) {
	if len(s) < 3 || s[0] != 0xed || s[1] < 0xa0 || s[1] > 0xbf || s[2] < 0x80 || s[2] > 0xbf {
		return 0, false
	}
	return 0xd000 | uint16(s[1]&0x3f)<<6 | uint16(s[2]&0x3f), true
}

// markSurrogates replaces each escape of half a surrogate pair, which encoding/json
// would lose, with a mark and its digits. The mark is a text that the document does
// not hold; it is empty when there is nothing to do, as good as always.
func markSurrogates(data []byte) (marked []byte, mark string) {
	var lone []int // offsets of the backslashes
	for i := 0; i+1 < len(data); {
		if data[i] != '\\' {
			next := bytes.IndexByte(data[i:], '\\')
			if next < 0 {
				break
			}
			i += next
			continue
		}
		u, ok := escapeAt(data, i)
		switch {
		case !ok || u < 0xd800 || u > 0xdfff:
			i += 2
		case u < 0xdc00:
			if low, ok := escapeAt(data, i+6); ok && low >= 0xdc00 && low <= 0xdfff {
				i += 12
				continue
			}
			fallthrough
		default:
			lone = append(lone, i)
			i += 6
		}
	}
	if lone == nil {
		return data, ""
	}
	for n := 0; mark == "" || bytes.Contains(data, []byte(mark)); n++ {
		mark = "\ufdd0" + strconv.Itoa(n) + "\ufdd1"
	}
	last := 0
	for _, i := range lone {
		marked = append(marked, data[last:i]...)
		marked = append(marked, mark...)
		marked = append(marked, data[i+2:i+6]...)
		last = i + 6
	}
	return append(marked, data[last:]...), mark
}

// escapeAt reads the \uXXXX at offset i.
func escapeAt(data []byte, i int) (uint16, bool) {
	if i+6 > len(data) || data[i] != '\\' || data[i+1] != 'u' {
		return 0, false
	}
	u, err := strconv.ParseUint(string(data[i+2:i+6]), 16, 16)
	return uint16(u), err == nil
}

func unmark(v any, mark string) any {
	switch v := v.(type) {
	case string:
		return unmarkString(v, mark)
	case []any:
		for i := range v {
			v[i] = unmark(v[i], mark)
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[unmarkString(k, mark)] = unmark(e, mark)
		}
		return out
	}
	return v
}

func unmarkString(s, mark string) string {
	parts := strings.Split(s, mark)
	for i, p := range parts[1:] {
		u, err := strconv.ParseUint(p[:min(4, len(p))], 16, 16)
		if err != nil || len(p) < 4 || u < 0xd800 || u > 0xdfff {
			parts[i+1] = mark + p // the document's own, written as escapes
			continue
		}
		parts[i+1] = string([]byte{0xed, 0x80 | byte(u>>6)&0x3f, 0x80 | byte(u)&0x3f}) + p[4:]
	}
	return strings.Join(parts, "")
}

// keyOrder says in which order a document has the members of its objects: JSON
// pointer of the object → keys.
type keyOrder map[string][]string

// orderOf reads the order of the keys of every object of a document; nil when it is
// not valid.
func orderOf(data []byte) keyOrder {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	order := keyOrder{}
	if err := order.value(d, ""); err != nil {
		return nil
	}
	return order
}

func (o keyOrder) value(d *json.Decoder, at string) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		keys, seen := []string{}, map[string]bool{}
		for d.More() {
			t, err := d.Token()
			if err != nil {
				return err
			}
			k, _ := t.(string)
			if !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
			if err := o.value(d, pointer(at, k)); err != nil {
				return err
			}
		}
		o[at] = keys
		_, err = d.Token()
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			if err := o.value(d, pointer(at, i)); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}

// keys returns the keys of the object at a place, in document order as far as it is
// known, else sorted.
func (o keyOrder) keys(at string, m map[string]any) []string {
	known := o[at]
	if len(known) != len(m) {
		return sortedKeys(m)
	}
	for _, k := range known {
		if _, ok := m[k]; !ok {
			return sortedKeys(m)
		}
	}
	return known
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// pointer appends one step, a key or an index, to a JSON pointer.
func pointer(at string, step any) string {
	if s, ok := step.(string); ok {
		return at + "/" + pointerEscape.Replace(s)
	}
	return fmt.Sprint(at, "/", step)
}
