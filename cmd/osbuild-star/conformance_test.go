// The conformance cases: manifests that upstream osbuild has built, built by this
// command, and the trees and answers compared.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
)

const conformance = "../../testdata/conformance"

// osbuild runs the command as upstream's is called, in a folder of its own, with a
// store of its own.
func osbuild(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("osbuild-star", append([]string{"osbuild"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "OSBUILD_STAR_STORE="+filepath.Join(dir, "store"), "TMPDIR="+dir)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// missingModules are the modules that a manifest needs and this program lacks.
func missingModules(data []byte) []string {
	var invalid *manifest.ValidationError
	_, err := manifest.LoadChecked(data, manifest.Builtin())
	if !errors.As(err, &invalid) {
		return nil
	}
	var out []string
	for _, e := range invalid.Errors {
		if m := noModule.FindStringSubmatch(e.Message); m != nil && !slices.Contains(out, m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

var noModule = regexp.MustCompile(`^could not find schema information for '(.*)'$`)

// TestConformanceTrees builds every case whose modules are all there, and compares
// the tree of its last pipeline with that of upstream.
func TestConformanceTrees(t *testing.T) {
	needBuild(t)
	names, err := filepath.Glob(conformance + "/cases/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	before := snapshot()
	var ran, skipped atomic.Int32
	t.Run("cases", func(t *testing.T) {
		for _, file := range names {
			name := strings.TrimSuffix(filepath.Base(file), ".json")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				data := []byte(read(t, file))
				if missing := missingModules(data); len(missing) > 0 {
					skipped.Add(1)
					t.Skipf("not there: %s", strings.Join(missing, ", "))
				}
				ran.Add(1)
				compareTree(t, file, data)
			})
		}
	})
	t.Logf("%d of %d cases ran, %d need modules that are not there", ran.Load(), len(names), skipped.Load())
	before.check(t, "")
}

func compareTree(t *testing.T, file string, data []byte) {
	m, err := manifest.Load(data)
	if err != nil {
		t.Fatal(err)
	}
	last := m.Pipelines[len(m.Pipelines)-1].Name
	out := filepath.Join(t.TempDir(), "out")
	stdout, stderr, status := osbuild(t, "--output-directory", out, "--json", "--export", last, file)
	if status != 0 {
		t.Fatalf("exit status %d\n%s%s", status, stdout, stderr)
	}
	t.Cleanup(func() { unlock(filepath.Join(out, last)) })
	for _, d := range diffTree(read(t, strings.TrimSuffix(file, ".json")+".tree.txt"), filepath.Join(out, last)) {
		t.Error(d)
	}
	var result struct {
		Log map[string][]struct{ ID, Type string }
	}
	if err := json.Unmarshal([]byte(stdout), &result); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	// The stages that ran have the IDs of upstream.
	ids := read(t, strings.TrimSuffix(file, ".json")+".ids.txt")
	for pipeline, stages := range result.Log {
		for _, s := range stages {
			if line := pipeline + " " + s.Type + " " + s.ID + "\n"; !strings.Contains(ids, line) {
				t.Errorf("upstream has no %s", line)
			}
		}
	}
}

// TestConformanceErrors holds what the command answers to manifests that cannot be
// built against what upstream does: exit status and JSON, but for the output of
// stages. Where upstream dies of a traceback, a clear error is right.
func TestConformanceErrors(t *testing.T) {
	files, err := filepath.Glob(conformance + "/errors/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needBuild(t)
			status, want, last := expected(t, filepath.Join(conformance, "errors/expected", name+".txt"))
			stdout, stderr, got := osbuild(t, "--output-directory", filepath.Join(t.TempDir(), "out"), "--json", "--export", "tree", file)
			if got != status {
				t.Errorf("exit status %d, want %d\n%s%s", got, status, stdout, stderr)
			}
			if want == "" {
				// What is printed as JSON says that it failed.
				if v, ok := parse(t, or(stdout, `{"success": false}`)).(map[string]any); !ok || v["success"] != false || !strings.HasPrefix(stderr, "error: ") || strings.Contains(stderr, "goroutine") {
					t.Errorf("upstream dies with %q; here is\n%s%s", last, stdout, stderr)
				}
				return
			}
			if !strings.HasPrefix(want, "{") {
				if diff := cmp.Diff(want, stdout); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				return
			}
			if diff := cmp.Diff(parse(t, want), parse(t, stdout)); diff != "" {
				t.Errorf("(-upstream +here):\n%s", diff)
			}
		})
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// expected reads what upstream answered.
func expected(t *testing.T, file string) (status int, stdout, lastError string) {
	head, rest, _ := strings.Cut(read(t, file), "\n")
	status, err := strconv.Atoi(strings.TrimPrefix(head, "exit-code: "))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(rest, "\n")
	stdout, lastError, ok2 := strings.Cut(rest, "last stderr line: ")
	if !ok || !ok2 {
		t.Fatalf("%s is not in the form of the others", file)
	}
	return status, stdout, strings.TrimSpace(lastError)
}

// parse reads JSON and takes the output of stages out.
func parse(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	dropOutput(v)
	return v
}

func dropOutput(v any) {
	switch x := v.(type) {
	case map[string]any:
		delete(x, "output")
		for _, e := range x {
			dropOutput(e)
		}
	case []any:
		for _, e := range x {
			dropOutput(e)
		}
	}
}
