package stages

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChattr(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	c := testContext(t, map[string]any{"items": map[string]any{"tree:///f": map[string]any{"immutable": true}}})
	file := filepath.Join(c.Tree, "f")
	putTree(t, c.Tree, map[string]string{"/f": "x", "/l": "-> f"})
	t.Cleanup(func() { setImmutable(file, false) })
	err := runChattr(c)
	var se *Error
	if errors.As(err, &se) && se.Hint != "" {
		t.Skipf("%v (%s)", err, se.Hint)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("y"), 0o644); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing to an immutable file: %v", err)
	}
	if err := setImmutable(file, false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("y"), 0o644); err != nil {
		t.Error(err)
	}
}

func TestChattrLeaves(t *testing.T) {
	runCases(t, "org.osbuild.chattr", []stageCase{
		{name: "clear", options: `{"items": {"tree:///f": {"immutable": false}}}`, tree: map[string]string{"/f": "x"}, want: map[string]string{"/f": "x"}},
		{name: "a link", options: `{"items": {"tree:///l": {"immutable": true}}}`, tree: map[string]string{"/f": "x", "/l": "-> f"}, wantErr: "only files and directories"},
		{name: "missing", options: `{"items": {"tree:///no": {"immutable": false}}}`, wantErr: "tree:///no"},
	})
}
