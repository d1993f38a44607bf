package stages

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fileInput gives c an input with one file of a content, named as sources name it.
func fileInput(t *testing.T, c *Context, input, content string) string {
	t.Helper()
	name := "sha256:" + strings.Repeat("1", 64)
	dir := filepath.Join(c.Paths.Inputs, input)
	writeTree(t, dir, map[string]string{name: content})
	c.Inputs[input] = InputArg{Path: dir, Data: InputData{Files: map[string]json.RawMessage{name: json.RawMessage("{}")}}}
	return filepath.Join(dir, name)
}

func TestCompress(t *testing.T) {
	content := strings.Repeat("some content\n", 30000)
	tests := []struct {
		stage   string
		options map[string]any
		unpack  []string
	}{
		{"org.osbuild.xz", map[string]any{"filename": "out.xz"}, []string{"xz", "-dc"}},
		{"org.osbuild.zstd", map[string]any{"filename": "/out.zst"}, []string{"zstd", "-dc"}},
		{"org.osbuild.gzip", map[string]any{"filename": "out.gz"}, []string{"gzip", "-dc"}},
		{"org.osbuild.gzip", map[string]any{"filename": "out.gz", "level": 9}, []string{"gzip", "-dc"}},
	}
	for _, tt := range tests {
		t.Run(tt.stage, func(t *testing.T) {
			need(t, tt.unpack[0])
			c := testContext(t, tt.options)
			fileInput(t, c, "file", content)
			mustRun(t, tt.stage, c)
			out := c.TreePath(tt.options["filename"].(string))
			if got := mustOutput(t, tt.unpack[0], append(tt.unpack[1:], out)...); got != content {
				t.Errorf("the content differs: %d bytes, want %d", len(got), len(content))
			}
			// As upstream has it: the level, and a header with neither name nor time.
			if tt.stage == "org.osbuild.gzip" {
				b, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				speed := byte(4)
				if tt.options["level"] != nil {
					speed = 2
				}
				if want := string([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, speed, 3}); string(b[:10]) != want {
					t.Errorf("the header is %x, want %x", b[:10], want)
				}
			}
		})
	}
}

func TestCompressWantsOneFile(t *testing.T) {
	c := testContext(t, map[string]any{"filename": "out.xz"})
	err := Lookup("org.osbuild.xz").Run(c)
	if err == nil || !strings.Contains(err.Error(), `no input "file"`) {
		t.Errorf("without an input: %v", err)
	}
	c.Inputs["file"] = InputArg{Path: c.Paths.Inputs, Data: InputData{Files: map[string]json.RawMessage{"a": nil, "b": nil}}}
	err = Lookup("org.osbuild.xz").Run(c)
	if err == nil || !strings.Contains(err.Error(), "exactly one") {
		t.Errorf("with two files: %v", err)
	}
}
