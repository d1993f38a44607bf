// Runners of the user's own: fetched, started, and part of the key by their content.
package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
)

// withRunners gives an engine the contents of files to fetch, and returns their names.
func withRunners(texts ...string) (names []string, change func(*Config)) {
	byName := map[string]string{}
	for _, text := range texts {
		sum := sha256.Sum256([]byte(text))
		name := "sha256:" + hex.EncodeToString(sum[:])
		names = append(names, name)
		byName[name] = text
	}
	return names, func(c *Config) {
		c.Fetch = func(_ context.Context, _ *manifest.Manifest, want []string, _ *monitor.Span, _ func(string, error)) error {
			if err := os.MkdirAll(c.Store.SourcesDir(), 0o755); err != nil {
				return err
			}
			for _, name := range want {
				if err := os.WriteFile(sources.Path(c.Store.SourcesDir(), name), []byte(byName[name]), 0o644); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

func TestOwnRunner(t *testing.T) {
	names, fetch := withRunners("#!/bin/sh\necho first > /etc/mine\nexec \"$@\"\n", "#!/bin/sh\necho second > /etc/mine\nexec \"$@\"\n", "#!/bin/sh\necho no luck\nexit 9\n")
	e := newEngine(t, newStore(t), fetch)
	by := func(name, program string) *manifest.Manifest {
		p := pipe("p", stage(shStage, `{"script":"cp /etc/mine mine"}`))
		p.Build.Runner, p.Build.Program = name, program
		return plan1(p)
	}
	made := func(m *manifest.Manifest) (string, []string) {
		t.Helper()
		res := mustBuild(t, e, m, "p")
		got, err := contents(exported(t, e, res.Trees["p"]))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(got["mine"]), ran(res)
	}
	ids := map[string]bool{}
	for _, c := range []struct {
		name, program, want string
		ran                 []string
	}{
		{"mine", names[0], "first", []string{"p sh"}},
		{"mine", names[0], "first", []string{}},
		{"other-name", names[0], "first", []string{}},
		{"mine", names[1], "second", []string{"p sh"}},
		{"mine", names[0], "first", []string{}},
	} {
		m := by(c.name, c.program)
		got, which := made(m)
		if diff := cmp.Diff(c.ran, which); diff != "" || got != c.want {
			t.Errorf("%s: made by %q (-want +got):\n%s", c.name, got, diff)
		}
		all, err := m.IDs()
		if err != nil {
			t.Fatal(err)
		}
		ids[all.Pipeline("p")] = true
	}
	if len(ids) != 1 {
		t.Errorf("the runner is in the ID: %v", ids)
	}
	// A shell is started by it, also when nothing had to be built before.
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	fresh := newEngine(t, newStore(t), fetch)
	status, err := fresh.Shell(context.Background(), by("mine", names[1]), Shell{Pipeline: "p", Stage: "sh", Argv: []string{"/bin/cat", "/etc/mine"}, Stdin: null, Stdout: out}, nil)
	if b, _ := os.ReadFile(out.Name()); err != nil || status != 0 || string(b) != "second\n" {
		t.Errorf("shell: %q %d %v", b, status, err)
	}
	_, err = e.Build(context.Background(), by("mine", names[2]), []string{"p"}, nil)
	var se *StageError
	if !errors.As(err, &se) || !strings.Contains(se.Error(), "runner mine: exit status 9: no luck") {
		t.Errorf("one that fails: %v", err)
	}
	checkIdle(t, e)
}
