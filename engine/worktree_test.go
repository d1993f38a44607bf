// Stages that change nothing: no layer of their own, and the same mounted tree for
// the next one.
package engine

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/stages"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// labelStage sets an extended attribute of the root of the tree and its old time.
const labelStage = "org.osbuild-star.test.label"

func init() {
	stages.Register(&stages.Stage{Name: labelStage, Schema: `{"additionalProperties": true}`, Run: func(c *stages.Context) error {
		return unix.Setxattr(c.Tree, "user.label", []byte("x"), 0)
	}})
}

func script(text string) *manifest.Stage {
	b, _ := json.Marshal(map[string]string{"script": text})
	return stage(shStage, string(b))
}

func TestUnchanged(t *testing.T) {
	// What is seen of the root of a tree, and what is in it.
	type root struct {
		Mode     uint32
		UID, GID uint32
		MTime    int64 // where it is set
		Label    string
		Files    map[string]string
	}
	start := root{Mode: 0o755, Files: map[string]string{"a": "1"}}
	with := func(change func(*root)) root {
		r := start
		change(&r)
		return r
	}
	for _, c := range []struct {
		name   string
		stage  *manifest.Stage
		layers int // with that of what is below
		want   root
	}{
		{"nothing", stage("org.osbuild.noop", `{}`), 1, start},
		{"reading", script("cat a; ls -laR . > /tmp/all"), 1, start},
		{"a file", note("b", "2"), 2, with(func(r *root) { r.Files = map[string]string{"a": "1", "b": "2"} })},
		{"a file less", script("rm a"), 2, with(func(r *root) { r.Files = map[string]string{} })},
		{"a file for a moment", script("touch b; rm b"), 2, start},
		{"the content of a file", script("printf 2 > a"), 2, with(func(r *root) { r.Files = map[string]string{"a": "2"} })},
		{"the mode of the root", script("chmod 711 ."), 2, with(func(r *root) { r.Mode = 0o711 })},
		{"its owner", script("chown 1:2 ."), 2, with(func(r *root) { r.UID, r.GID = 1, 2 })},
		{"its time", script("touch -d @5 ."), 2, with(func(r *root) { r.MTime = 5 })},
		{"its label", stage(labelStage, `{}`), 2, with(func(r *root) { r.Label = "x" })},
	} {
		t.Run(c.name, func(t *testing.T) {
			inEachMode(t, func(t *testing.T, st *store.Store, mode string) {
				e := newEngine(t, st, func(cfg *Config) { cfg.Layers = mode })
				base := note("a", "1")
				// Stages that change nothing before it and after it.
				m := plan1(pipe("p", base, stage("org.osbuild.noop", `{"n":1}`), c.stage, stage("org.osbuild.noop", `{"n":2}`)))
				res := mustBuild(t, e, m, "p")
				want := c.layers
				if mode == LayersCopy {
					want = 1
				}
				if n := len(res.Trees["p"].Layers); n != want || layerCount(t, st) != c.layers {
					t.Errorf("%d layers of the tree, %d in the store; want %d, %d", n, layerCount(t, st), want, c.layers)
				}
				dir := exported(t, e, res.Trees["p"])
				var s unix.Stat_t
				if err := unix.Lstat(dir, &s); err != nil {
					t.Fatal(err)
				}
				got := root{Mode: s.Mode & 0o7777, UID: s.Uid, GID: s.Gid}
				if c.want.MTime != 0 {
					got.MTime = s.Mtim.Sec
				}
				label := make([]byte, 9)
				if n, err := unix.Lgetxattr(dir, "user.label", label); err == nil {
					got.Label = string(label[:n])
				}
				var err error
				got.Files, err = contents(dir)
				if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
				// The tree before it is what it was, and every stage has a result.
				for i := range m.Pipelines[0].Stages {
					cut := plan1(pipe("p", m.Pipelines[0].Stages[:i+1]...))
					res := mustBuild(t, e, cut, "p")
					if got := ran(res); len(got) != 0 {
						t.Errorf("ran again: %v", got)
					}
					if i < 2 {
						got, err := contents(exported(t, e, res.Trees["p"]))
						if diff := cmp.Diff(start.Files, got); diff != "" || err != nil {
							t.Errorf("after stage %d: %v (-want +got):\n%s", i, err, diff)
						}
					}
				}
			})
		})
	}
}

// The time of the root of a tree that is taken over as a whole is clamped by the first
// stage that runs on it, whatever that does.
func TestUnchangedIsClamped(t *testing.T) {
	e := newEngine(t, newStore(t))
	epoch := int64(1700000000)
	q := pipe("q", script("touch -d @4000000000 ."))
	p := pipe("p", copyOf("q"), stage("org.osbuild.noop", `{}`), stage("org.osbuild.noop", `{"n":1}`))
	p.SourceEpoch = &epoch
	res := mustBuild(t, e, plan1(q, p), "p")
	if n := len(res.Trees["p"].Layers); n != 2 {
		t.Errorf("%d layers", n)
	}
	st, err := os.Lstat(exported(t, e, res.Trees["p"]))
	if err != nil || st.ModTime().Unix() != epoch {
		t.Errorf("%v, %v", st.ModTime(), err)
	}
}

// A stage that fails on a tree that was left mounted leaves nothing for the next one.
func TestUnchangedThenFailed(t *testing.T) {
	st := newStore(t)
	e := newEngine(t, st)
	below := []*manifest.Stage{note("a", "1"), stage("org.osbuild.noop", `{}`)}
	if _, err := e.Build(context.Background(), plan1(pipe("p", append(slices.Clone(below), script("touch bad; exit 1"))...)), []string{"p"}, nil); err == nil {
		t.Fatal("no error")
	}
	checkIdle(t, e)
	res := mustBuild(t, e, plan1(pipe("p", append(slices.Clone(below), stage("org.osbuild.noop", `{"n":1}`), note("c", "3"))...)), "p")
	got, err := contents(exported(t, e, res.Trees["p"]))
	if diff := cmp.Diff(map[string]string{"a": "1", "c": "3"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	checkIdle(t, e)
	// Two pipelines that go on from the same tree at the same time.
	res = mustBuild(t, e, plan1(
		pipe("x", append(slices.Clone(below), stage("org.osbuild.noop", `{"n":2}`), note("x", "1"))...),
		pipe("y", append(slices.Clone(below), stage("org.osbuild.noop", `{"n":2}`), note("y", "1"))...),
	), "x", "y")
	for name, o := range res.Trees {
		got, err := contents(exported(t, e, o))
		if diff := cmp.Diff(map[string]string{"a": "1", name: "1"}, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	if ents, err := os.ReadDir(filepath.Join(st.Dir, "tmp")); err != nil || len(ents) != 1 {
		t.Errorf("left in the store: %v %v", ents, err)
	}
}
