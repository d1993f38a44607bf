// Programs that are wrong, each with the error that it must give beside its line.

package builtins

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// TestBad runs the programs of testdata/bad.star. "---" separates them; the line
// that is to blame ends in "### message" or "### message | hint". A program that
// loads well is planned.
func TestBad(t *testing.T) {
	data, err := os.ReadFile("testdata/bad.star")
	if err != nil {
		t.Fatal(err)
	}
	programs := strings.Split(string(data), "\n---\n")
	if len(programs) < 30 {
		t.Errorf("there are only %d programs", len(programs))
	}
	for i, src := range programs {
		line, msg, hint := 0, "", ""
		for n, text := range strings.Split(src, "\n") {
			if _, want, ok := strings.Cut(text, "### "); ok {
				line = n + 1
				msg, hint, _ = strings.Cut(want, " | ")
			}
		}
		t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
			if line == 0 {
				t.Fatalf("no line with an error:\n%s", src)
			}
			p, _ := openArchive(t, "-- motd --\nhello\n-- BUILD.star --\n"+src, nil)
			err := func() error {
				targets, err := p.Match(context.Background(), []string{"//..."}, "")
				if err != nil {
					return err
				}
				_, err = p.Plan(context.Background(), targets, fakeResolve)
				return err
			}()
			var e *rulefile.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an error at line %d:\n%s", err, line, src)
			}
			if int(e.Pos.Line) != line || e.Pos.File != "BUILD.star" || !strings.Contains(e.Msg, msg) || !strings.Contains(e.Hint, hint) {
				t.Errorf("got\n%swant line %d: %s\n hint: %s", formatted(err), line, msg, hint)
			}
		})
	}
}
