// Reading the files of testdata, and running the tests that they are about.
package mutant

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

const root = "../.."

// mutant is one file of testdata.
type mutant struct {
	rule    string
	test    []string // arguments of go test
	overlay map[string]string
}

// read reads a file of testdata and makes the changed sources in dir.
func read(file, dir string) (*mutant, error) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		return nil, err
	}
	m := &mutant{overlay: map[string]string{}}
	for line := range strings.Lines(string(a.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "rule":
			m.rule = value
		case "test":
			m.test = strings.Fields(value)
		case "":
		default:
			return nil, fmt.Errorf("%q is neither rule nor test", key)
		}
	}
	if m.rule == "" || len(m.test) == 0 || len(a.Files) == 0 {
		return nil, errors.New("it wants a rule, a test and a change")
	}
	for i, f := range a.Files {
		path, err := filepath.Abs(filepath.Join(root, f.Name))
		if err != nil {
			return nil, err
		}
		from := path
		if to, ok := m.overlay[path]; ok {
			from = to // a second change of the same file
		}
		source, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		before, after, ok := bytes.Cut(f.Data, []byte("====\n"))
		if !ok {
			return nil, fmt.Errorf("%s: no line \"====\"", f.Name)
		}
		// Pieces of lines are given as lines: neither needs its end.
		before, after = bytes.TrimSuffix(before, []byte("\n")), bytes.TrimSuffix(after, []byte("\n"))
		if n := bytes.Count(source, before); n != 1 {
			return nil, fmt.Errorf("%s: %q is there %d times, not once: the code has changed, and this has to follow", f.Name, before, n)
		}
		changed := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(changed, bytes.Replace(source, before, after, 1), 0o644); err != nil {
			return nil, err
		}
		m.overlay[path] = changed
	}
	return m, nil
}

// TestRules takes out one rule after the other. It compiles the program for each, so it
// belongs to the slow tests; that the files fit the code is checked always.
func TestRules(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no mutants: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			dir := t.TempDir()
			m, err := read(file, dir)
			if err != nil {
				t.Fatal(err)
			}
			if os.Getenv("OSBUILD_STAR_SLOW") == "" {
				t.Skip("slow: make test-slow runs it (OSBUILD_STAR_SLOW=1)")
			}
			b, err := json.Marshal(map[string]any{"Replace": m.overlay})
			if err != nil {
				t.Fatal(err)
			}
			overlay := filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(overlay, b, 0o644); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1", "-timeout=8m", "-overlay=" + overlay}, m.test...)...)
			cmd.Dir = root
			// A test that hangs is ended, and leaves its directories. Names of sockets are short.
			tmp, err := os.MkdirTemp("", "m")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(tmp)
			if err := os.Chmod(tmp, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("go test %s passes without the rule %q:\n%s", strings.Join(m.test, " "), m.rule, out)
			}
			if !bytes.Contains(out, []byte("--- FAIL: ")) && !bytes.Contains(out, []byte("panic: test timed out")) {
				t.Fatalf("go test %s did not come to its tests: %v\n%s", strings.Join(m.test, " "), err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "_test.go:") {
					t.Logf("without %q: %s", m.rule, strings.TrimSpace(line))
					break
				}
			}
		})
	}
}

// TestRead keeps a file that changes nothing from passing for one that does.
func TestRead(t *testing.T) {
	for name, text := range map[string]string{
		"no change":      "rule: x\ntest: ./a\n",
		"no test":        "rule: x\n-- go.mod --\nmodule\n====\nx\n",
		"no separator":   "rule: x\ntest: ./a\n-- go.mod --\nmodule\n",
		"not there":      "rule: x\ntest: ./a\n-- go.mod --\nno such words here\n====\nx\n",
		"there twice":    "rule: x\ntest: ./a\n-- go.mod --\ngithub.com\n====\nx\n",
		"unknown key":    "rules: x\ntest: ./a\n-- go.mod --\nmodule\n====\nx\n",
		"no such source": "rule: x\ntest: ./a\n-- missing.go --\na\n====\nx\n",
	} {
		file := filepath.Join(t.TempDir(), "m.txt")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := read(file, t.TempDir()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
