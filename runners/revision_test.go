// Ties the revision of the runners to the code that they are made of.
package runners

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write revision.txt anew")

// A changed runner must not give the trees that the one before it made: the revision
// is in every cache key. Comments are not part of it.
func TestRevision(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		ast, err := parser.ParseFile(fset, f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := printer.Fprint(&b, token.NewFileSet(), ast); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s %d\n%s\n", f, b.Len(), b.String())
	}
	got := fmt.Sprintf("%d %x\n", revision, h.Sum(nil)[:16])
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
	case revision < was:
		t.Errorf("the revision is %d and was %d: it never goes back", revision, was)
	case got != string(want):
		t.Error("the code of the runners changed. If a build root is prepared otherwise now, raise revision in table.go. " +
			"Then run go test ./runners -run Revision -update")
	}
}
