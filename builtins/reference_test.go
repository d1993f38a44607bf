package builtins

import (
	"os"
	"testing"
)

// The reference page is generated: it must say what the program says.
func TestReferenceIsCurrent(t *testing.T) {
	page, err := os.ReadFile("../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != Reference() {
		t.Error("docs/reference.md is not what osbuild-star reference prints: run make reference")
	}
}
