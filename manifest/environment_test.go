// Build environments: reading them, writing them, and manifests in them.

package manifest

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	envV2 = `{"runner": "org.osbuild.debian12", "pipeline": {"stages": [{"type": "org.osbuild.hostname", "options": {"hostname": "x"}}]}}`
	envV1 = `{"runner": "org.osbuild.debian12", "pipeline": {"stages": [{"name": "org.osbuild.hostname", "options": {"hostname": "x"}}]}}`
	// The environment is itself built in another one.
	envNested = `{"runner": "org.osbuild.rhel84", "pipeline": {"build": {"runner": "org.osbuild.fedora40", "pipeline": {"stages": [{"name": "org.osbuild.noop"}]}},
		"stages": [{"name": "org.osbuild.hostname", "options": {"hostname": "x"}}]}}`
	envSources = `{"runner": "debian12", "pipelines": [{"name": "base", "stages": [{"type": "org.osbuild.noop"}]}],
		"pipeline": {"name": "os", "source-epoch": 7, "stages": [{"type": "org.osbuild.copy",
			"inputs": {"base": {"type": "org.osbuild.tree", "origin": "org.osbuild.pipeline", "references": ["name:base"]},
				"file": {"type": "org.osbuild.files", "origin": "org.osbuild.source", "references": ["sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"]}},
			"options": {"paths": [{"from": "input://base/", "to": "tree:///"}]}}]},
		"sources": {"org.osbuild.inline": {"items": {"sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03": {"encoding": "base64", "data": "aGVsbG8K"}}}}}`
)

func names(ps []*Pipeline) (out []string) {
	for _, p := range ps {
		b := ""
		if p.Build != nil {
			b = " in " + p.Build.Pipeline + " by " + p.Build.Runner
		}
		out = append(out, p.Name+b)
	}
	return out
}

func TestLoadEnvironment(t *testing.T) {
	for _, c := range []struct {
		text, runner string
		pipelines    []string
	}{
		{envV2, "org.osbuild.debian12", []string{"build-env"}},
		{envV1, "org.osbuild.debian12", []string{"build"}},
		{envNested, "org.osbuild.rhel84", []string{"build-build", "build in build-build by org.osbuild.fedora40"}},
		{envSources, "debian12", []string{"base", "os"}},
	} {
		e, err := LoadEnvironment([]byte(c.text), Builtin())
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if diff := cmp.Diff(c.pipelines, names(e.Pipelines)); diff != "" || e.Runner != c.runner {
			t.Errorf("runner %s (-want +got):\n%s", e.Runner, diff)
		}
		// What is written reads as the same.
		text, err := e.Format()
		if err != nil {
			t.Fatal(err)
		}
		again, err := LoadEnvironment(text, Builtin())
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		second, err := again.Format()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), string(second)); diff != "" {
			t.Errorf("written again (-first +second):\n%s", diff)
		}
		if a, b := treeID(t, e), treeID(t, again); a != b || a == "" {
			t.Errorf("the tree is %s, and was %s", b, a)
		}
	}
}

func treeID(t *testing.T, e *Environment) string {
	t.Helper()
	ids, err := (&Manifest{Pipelines: e.Pipelines}).IDs()
	if err != nil {
		t.Fatal(err)
	}
	return ids.Pipeline(e.Pipelines[len(e.Pipelines)-1].Name)
}

func TestLoadEnvironmentErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"runner": "x",`, "it is not JSON"},
		{"{\n  \"runner\" \"x\"}", "line 2, column 12"},
		{`[]`, "is a JSON object"},
		{`{"runner": "x", "pipelin": {}}`, `no member "pipelin"`},
		{`{"pipeline": {"stages": [{"type": "org.osbuild.noop"}]}}`, "names its runner"},
		{`{"runner": 1, "pipeline": {"stages": [{"type": "org.osbuild.noop"}]}}`, "names its runner"},
		{`{"runner": "x"}`, "has the pipeline of its tree"},
		{`{"runner": "x", "pipeline": null}`, "has the pipeline of its tree"},
		{`{"runner": "x", "pipeline": {}}`, "has stages"},
		{`{"runner": "x", "pipeline": {"stages": []}}`, "has stages"},
		{`{"runner": "x", "pipelines": 1, "pipeline": {"stages": [{"type": "org.osbuild.noop"}]}}`, `"pipelines" is the list`},
		{`{"runner": "x", "pipelines": [], "pipeline": {"stages": [{"name": "org.osbuild.noop"}]}}`, "of version 2"},
		{`{"runner": "x", "pipeline": {"stages": [{"type": "org.osbuild.nothing"}]}}`, "org.osbuild.nothing"},
		{`{"runner": "x", "pipeline": {"stages": [{"type": "org.osbuild.hostname", "options": {"hostname": 1}}]}}`, "not of type"},
		{`{"runner": "x", "pipeline": {"build": "name:gone", "stages": [{"type": "org.osbuild.noop"}]}}`, "gone"},
	} {
		e, err := LoadEnvironment([]byte(c.text), Builtin())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v %v, want %q", c.text, e, err, c.want)
		}
		var me *Error
		if errors.As(err, &me) && me.Hint == "" {
			t.Errorf("%s: no hint", c.text)
		}
	}
}

func TestIn(t *testing.T) {
	m, err := Load([]byte(`{"version": "2", "pipelines": [
		{"name": "empty"},
		{"name": "base", "runner": "org.osbuild.fedora40", "stages": [{"type": "org.osbuild.noop"}]},
		{"name": "inside", "build": "name:base", "stages": [{"type": "org.osbuild.noop"}]},
		{"name": "on-nothing", "build": "name:empty", "stages": [{"type": "org.osbuild.hostname", "options": {"hostname": "y"}}]}],
		"sources": {"org.osbuild.inline": {"items": {"sha256:0000000000000000000000000000000000000000000000000000000000000000": {"encoding": "base64", "data": ""}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	before, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	e, err := LoadEnvironment([]byte(envSources), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.In(e)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"base-2", "os", "empty in os by debian12", "base in os by debian12",
		"inside in base by org.osbuild.fedora40", "on-nothing in os by debian12",
	}
	if diff := cmp.Diff(want, names(got.Pipelines)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(got.Sources["org.osbuild.inline"].Items); n != 2 {
		t.Errorf("%d sources", n)
	}
	// It is a manifest, in which the tree reads what it read; everything that is built
	// has another ID.
	text, err := got.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	idsBefore, idsAfter := mustIDs(t, m), mustIDs(t, again)
	for _, name := range []string{"base", "inside", "on-nothing"} {
		if a, b := idsBefore.Pipeline(name), idsAfter.Pipeline(name); a == b || b == "" {
			t.Errorf("%s has the ID %s, and had %s", name, b, a)
		}
	}
	if idsAfter.Pipeline("os") != treeID(t, e) {
		t.Error("the environment's tree has another ID")
	}
	after, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("the manifest was changed:\n%s", diff)
	}
}
