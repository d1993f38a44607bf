// Ties the revision of what is around all stages to the code that makes it.
package engine

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write revision.txt anew")

// surroundingFiles make what a stage sees, or decide what becomes of what it leaves.
var surroundingFiles = []string{
	"../agent/stage.go", "../agent/views.go", "../agent/dev.go", "../agent/confine.go", "../agent/caps_linux.go",
	"../agent/runner.go", "../buildroot/root.go", "../buildroot/run.go", "devices.go", "../store/finish.go",
}

// A stage that is run in other surroundings can make another tree, with the same program.
func TestRevision(t *testing.T) {
	h := sha256.New()
	for _, f := range surroundingFiles {
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		// Without comments, and with the printer's own layout.
		var b bytes.Buffer
		if err := printer.Fprint(&b, token.NewFileSet(), file); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s %d\n%s\n", f, b.Len(), b.String())
	}
	got := fmt.Sprintf("%d %x\n", surroundings, h.Sum(nil)[:16])
	if *update {
		if err := os.WriteFile("revision.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("revision.txt")
	if err != nil {
		t.Fatal(err)
	}
	var was int
	if _, err := fmt.Sscanf(string(want), "%d", &was); err != nil {
		t.Fatal(err)
	}
	switch {
	case surroundings < was:
		t.Errorf("the revision is %d and was %d: it never goes back", surroundings, was)
	case got != string(want):
		t.Errorf("one of %v changed. If a stage can make another tree by that, raise surroundings in keys.go. "+
			"Then run go test ./engine -run Revision -update", surroundingFiles)
	}
}
