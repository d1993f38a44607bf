// The folder of bad programs: each line that is wrong says so beside it.

package starlark

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestBad loads each workspace of testdata/bad. A line that ends in
//
//	### message ## hint ## in
//
// must be the position of an error whose message, hint and In have those parts (the
// last two may be left out), and there must be no other errors.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			l := newLoader(t, string(text))
			_, err = expand(l, "", "//...")
			got := map[string]*Error{}
			for _, err := range flatten(err) {
				e, ok := err.(*Error)
				if !ok || e.Pos.Line == 0 {
					t.Errorf("no *Error with a position: %v", err)
					continue
				}
				at := fmt.Sprintf("%s:%d", e.Pos.File, e.Pos.Line)
				if got[at] != nil {
					t.Errorf("two errors: %v; %v", got[at], e)
				}
				got[at] = e
			}
			wants := 0
			for _, f := range parseArchive(string(text)) {
				if rel, ok := cutLibrary(f.name); ok {
					f.name = "@osbuild//" + rel
				}
				for i, line := range strings.Split(string(f.data), "\n") {
					code, want, ok := strings.Cut(line, "###")
					if !ok {
						continue
					}
					wants++
					at := fmt.Sprintf("%s:%d", f.name, i+1)
					e := got[at]
					delete(got, at)
					if e == nil {
						t.Errorf("%s: no error, want %s", at, want)
						continue
					}
					parts := strings.Split(want, "##")
					for i, have := range []string{e.Msg, e.Hint, e.In} {
						if i < len(parts) && !strings.Contains(have, strings.TrimSpace(parts[i])) {
							t.Errorf("%s: %q lacks %q", at, have, strings.TrimSpace(parts[i]))
						}
					}
					if e.Line != line || e.Width < 1 || e.Pos.Col < 1 || int(e.Pos.Col-1+e.Width) > len(strings.TrimRight(line, " ")) && !strings.HasPrefix(code, "x = [[") {
						t.Errorf("%s: bad mark: col %d, width %d, line %q", at, e.Pos.Col, e.Width, e.Line)
					}
				}
			}
			for _, e := range got {
				t.Errorf("not expected: %v (%s)", e, e.Hint)
			}
			if wants == 0 {
				t.Error("the file expects no error")
			}
		})
	}
}

// Several errors, and errors of the same file seen from two packages, come in the
// same order each time.
func TestBadOrder(t *testing.T) {
	const text = `
-- lib.star --
x = 1 // 0
-- a/BUILD.star --
load("//:lib.star", "x")
-- b/BUILD.star --
y = nosuch
-- c/BUILD.star --
load("//:lib.star", "x")
-- d/BUILD.star --
z = 1 + "a"
`
	var want []string
	for range 20 {
		_, err := expand(newLoader(t, text), "", "//...")
		var got []string
		for _, err := range flatten(err) {
			got = append(got, err.Error())
		}
		if want == nil {
			want = got
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	}
	if len(want) != 3 || !slices.IsSortedFunc(want[1:], strings.Compare) {
		t.Errorf("got %q", want)
	}
}
