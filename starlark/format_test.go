// Tests of how errors are written, against testdata/format.

package starlark

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/format anew")

func TestFormat(t *testing.T) {
	const option = `
-- images/BUILD.star --
# one



image(
    name = "rhel82",
    hostnme = "rhel82",
)
`
	const library = `
-- @osbuild/rule.star --
def rule(name, **kwargs):
    image(name = name, **kwargs)
-- lib/own.star --
load("@osbuild//rule.star", "rule")
def own(name):
    rule(name = name, sizze = 3)
-- BUILD.star --
load("//lib:own.star", "own")
own("a")
`
	load := func(text string) error {
		_, err := expand(newLoader(t, text), "", "//...")
		return err
	}
	pattern := func(s string) error {
		_, err := expand(newLoader(t, option), "", s)
		return err
	}
	for _, tt := range []struct {
		name string
		err  error
		o    FormatOptions
	}{
		{"option", load(option), FormatOptions{}},
		{"colour", load(option), FormatOptions{Color: true}},
		{"library", load(library), FormatOptions{}},
		{"traceback", load(library), FormatOptions{Traceback: true}},
		{"several", load("-- BUILD.star --\nx = nosuch\ny = nothing\n-- b/BUILD.star --\nz = 1 // 0\n"), FormatOptions{}},
		{"warning", load(option), FormatOptions{Level: "warning"}},
		{"hint", load("-- BUILD.star --\nX = 1\nX = 2\n"), FormatOptions{}},
		{"tabs", load("-- BUILD.star --\ndef f():\n\t\treturn\t1 // 0\n\nf()\n"), FormatOptions{}},
		{"wide", load("-- BUILD.star --\nx = [\"日本\", \"ü\", nosuch]\n"), FormatOptions{}},
		{"long", load("-- BUILD.star --\nx = [" + strings.Repeat("1, ", 200) + "nosuch" + strings.Repeat(", 2", 200) + "]\n"), FormatOptions{}},
		{"line-10000", load("-- BUILD.star --\n" + strings.Repeat("\n", 9999) + "nosuch\n"), FormatOptions{}},
		{"unknown", pattern("//imags:rhel82"), FormatOptions{}},
		{"nomatch", &NoMatchError{Pattern: "//a/...", Hint: "there is no folder a"}, FormatOptions{}},
		{"plain", errors.New("the disk is full"), FormatOptions{}},
		{"joined", errors.Join(errors.New("one"), fmt.Errorf("building: %w", load(option)), errors.New("three\nmore of three")), FormatOptions{}},
		{"hostile", &Error{Msg: "bad \x1b[31m \u202e", Pos: Position{"a\x07", 1, 3}, Width: 500, Line: "x\x1b]0;title\x07 \u202e"}, FormatOptions{}},
		{"no-line", &Error{Msg: "needs a newer one", Hint: "install it", Pos: Position{File: "MODULE.star"}}, FormatOptions{}},
		{"source", &Error{Msg: "from elsewhere", Pos: Position{"f", 2, 1}, Width: 2}, FormatOptions{
			Source: func(string) ([]byte, error) { return []byte("one\r\ntwo\r\n"), nil }}},
		{"no-source", &Error{Msg: "from elsewhere", Pos: Position{"f", 2, 1}, Width: 2}, FormatOptions{
			Source: func(string) ([]byte, error) { return nil, os.ErrNotExist }}},
	} {
		var b bytes.Buffer
		Format(&b, tt.err, tt.o)
		golden(t, tt.name+".txt", b.Bytes())
	}
	var b bytes.Buffer
	if err := FormatJSON(&b, errors.Join(load(option), errors.New("two"), &NoMatchError{Pattern: "//x"})); err != nil {
		t.Fatal(err)
	}
	golden(t, "option.json", b.Bytes())
	b.Reset()
	Format(&b, nil, FormatOptions{})
	if b.Len() > 0 {
		t.Errorf("no error gives %q", &b)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata/format", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s: %s", name, d)
	}
}

// Formatting never fails, whatever the position says.
func FuzzFormat(f *testing.F) {
	f.Add("line", int32(1), int32(1), int32(1))
	f.Add("日本\t\x1b", int32(3), int32(-1), int32(1000))
	f.Add(strings.Repeat("x", 500), int32(1), int32(400), int32(90))
	f.Fuzz(func(t *testing.T, line string, num, col, width int32) {
		var b bytes.Buffer
		Format(&b, &Error{Msg: line, Hint: line, Line: line, Pos: Position{"f", num, col}, Width: width}, FormatOptions{})
		if bytes.ContainsRune(b.Bytes(), '\x1b') {
			t.Errorf("%q lets an escape through", line)
		}
		locate(nil, Position{"f", num, col})
		tokenWidth(line, col%10000)
		unclosed([]byte(line))
	})
}
