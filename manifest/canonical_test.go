// Tests of the canonical text and of reading JSON the way Python does.

package manifest

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCanonical(t *testing.T) {
	tests := []struct {
		name string
		v    any
		want string
	}{
		{"nothing", nil, `null`},
		{"sorted by code point", map[string]any{"b": json.Number("1"), "a": []any{true, false}, "\U0001f600": "x", "\uffff": "y"}, `{"a": [true, false], "b": 1, "\uffff": "y", "\ud83d\ude00": "x"}`},
		{"empty", []any{map[string]any{}, []any{}, ""}, `[{}, [], ""]`},
		{"escapes", "\x00\x1f \x7f\"\\/\b\f\n\r\t<>&\u2028", `"\u0000\u001f \u007f\"\\/\b\f\n\r\t<>&\u2028"`},
		{"not ASCII", "hügel 😀", `"h\u00fcgel \ud83d\ude00"`},
		{"lone surrogates", "a\xed\xa0\x80\xed\xb0\x80", `"a\ud800\udc00"`},
		{"not UTF-8", "a\xffb", `"a\ufffdb"`},
		{"any integer", json.Number("123456789012345678901234567890"), `123456789012345678901234567890`},
		{"no negative zero", json.Number("-0"), `0`},
		{"but as a float", json.Number("-0.0"), `-0.0`},
		{"too large", []any{json.Number("1e999"), json.Number("-1E+999")}, `[Infinity, -Infinity]`},
		{"too small", json.Number("1e-999"), `0.0`},
		{"not a number", json.Number("1; rm"), `"1; rm"`},
		{"Go's numbers", []any{1, int64(-2), 3.0, uint8(4), math.Inf(1)}, `[1, -2, 3.0, 4, Infinity]`},
		{"Go's types", map[string]any{"a": []string{"x"}, "m": map[string]int{"k": 1}}, `{"a": ["x"], "m": {"k": 1}}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, string(Canonical(test.v))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The numbers and what Python makes of them are in testdata/floats.txt.
func TestCanonicalFloats(t *testing.T) {
	text, err := os.ReadFile("testdata/floats.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		number, want, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || number == "#" {
			continue
		}
		n++
		if got := string(Canonical(json.Number(number))); got != want {
			t.Errorf("%s: got %s, want %s", number, got, want)
		}
	}
	if n < 300 {
		t.Errorf("only %d numbers were compared", n)
	}
}

// What is canonical stays so, is ASCII, and means the same.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{`{"b":1,"a":[1.50,"\ud800é😀",null,true]}`, `"\udc00\ud800\ufdd0"`, `[1e400,-0,-0.0,1E2]`, `{"\ud800":1,"\ufffd":2}`, `"\ud800\\u1234\ud8"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeJSON(data)
		if err != nil {
			return
		}
		text := Canonical(v)
		if bytes.ContainsFunc(text, func(r rune) bool { return r > 0x7f }) {
			t.Fatalf("%q is not ASCII", text)
		}
		if bytes.Contains(text, []byte("Infinity")) {
			return // which Python reads, and Go does not
		}
		again, err := decodeJSON(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got := Canonical(again); !bytes.Equal(got, text) {
			t.Fatalf("%q became %q", text, got)
		}
		written, err := decodeJSON(appendJSON(nil, v))
		if err != nil {
			t.Fatal(err)
		}
		if got := Canonical(written); !bytes.Equal(got, text) {
			t.Fatalf("%q was written as %q", text, got)
		}
	})
}

func TestDecodeJSONErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":             "the document ends too early",
		`{"a": `:       "the document ends too early",
		"{\n  \"a\" 1": "line 2, column 7: invalid character '1' after object key",
		"{}\n{}":       "line 2, column 1: more text after the end of the document",
		"\"\xff\"":     "not UTF-8 text",
	} {
		_, err := decodeJSON([]byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
