// Many things at once, in real build roots: downloads beside stages, the order that
// the history gives, memory, and builds that go on after a failure.
package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/store"
	"go.uber.org/goleak"
)

// reading is a stage that reads a source item.
func reading(checksum string) *manifest.Stage {
	s := stage(readStage, `{}`)
	s.Inputs = map[string]*manifest.Input{"f": {Type: "org.osbuild.files", Origin: manifest.OriginSource, References: []manifest.Reference{{ID: checksum}}}}
	return s
}

// fileSum is the checksum of a file with that text.
func fileSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// starts collects "pipeline stage" of each stage that starts, and calls f with it.
func starts(f func(what string)) (list func() []string, span *monitor.Span) {
	var mu sync.Mutex
	var out []string
	span = onEvent(func(e monitor.Event) {
		if e.Category == monitor.CatStage && e.Kind == monitor.Start {
			what := e.Text + " " + e.Name[strings.LastIndexByte(e.Name, '.')+1:]
			mu.Lock()
			out = append(out, what)
			mu.Unlock()
			if f != nil {
				f(what)
			}
		}
	})
	return func() []string { mu.Lock(); defer mu.Unlock(); return out }, span
}

// A stage runs as soon as the file that it reads has come, while others are still on
// their way: this download of the big file ends only when the stage that reads the
// small one has begun, and one that reads nothing has.
func TestDownloadsBesideStages(t *testing.T) {
	s := newStore(t)
	big, small := fileSum("big"), fileSum("small")
	text := map[string]string{big: "big", small: "small"}
	met := map[string]chan struct{}{"small read": make(chan struct{}), "none note": make(chan struct{})}
	e := newEngine(t, s, func(c *Config) {
		c.Fetch = func(ctx context.Context, _ *manifest.Manifest, sums []string, _ *monitor.Span, done func(string, error)) error {
			bring := func(sum string) {
				if err := os.WriteFile(sources.Path(s.SourcesDir(), sum), []byte(text[sum]), 0o644); err != nil {
					t.Error(err)
				}
				done(sum, nil)
			}
			if diff := cmp.Diff([]string{big, small}, sums); diff != "" {
				t.Errorf("the order of the downloads (-want +got):\n%s", diff)
			}
			bring(small)
			for what, c := range met {
				select {
				case <-c:
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(30 * time.Second):
					return fmt.Errorf("%s did not begin", what)
				}
			}
			bring(big)
			return nil
		}
	})
	// The big one is first, since more follows on it.
	m := plan1(pipe("none", note("a", "1")), pipe("small", reading(small)), pipe("big", reading(big), note("b", "1"), note("c", "1")))
	_, span := starts(func(what string) {
		if c := met[what]; c != nil {
			close(c)
		}
	})
	res, err := e.Build(context.Background(), m, []string{"none", "small", "big"}, span)
	if err != nil {
		t.Fatal(explain(err))
	}
	if len(res.Trees) != 3 {
		t.Errorf("trees: %v", res.Trees)
	}
	checkIdle(t, e)
}

func TestOrderFromHistory(t *testing.T) {
	s := newStore(t)
	e := newEngine(t, s, func(c *Config) { c.Jobs = 1 })
	build := func(x string) *manifest.Manifest {
		return plan1(
			pipe("short", note("short", x)), pipe("mid", note("mid", x)), pipe("base", note("base", x)),
			pipe("long", copyOf("base"), note("more", "1"), note("long", x)))
	}
	names := []string{"short", "mid", "long"}
	m := build("1")
	ids, err := m.IDs()
	if err != nil {
		t.Fatal(err)
	}
	took := func(m *manifest.Manifest, p, stage int, d time.Duration) store.Ran {
		return store.Ran{ID: ids.Stage(m.Pipelines[p], stage), Type: noteStage, Cost: store.Cost{Wall: d}}
	}
	remember := []store.Ran{took(m, 0, 0, 5*time.Second), took(m, 1, 0, 20*time.Second), took(m, 2, 0, time.Second), took(m, 3, 1, 2*time.Second), took(m, 3, 2, 10*time.Second)}
	if err := s.Remember(remember); err != nil {
		t.Fatal(err)
	}
	list, span := starts(nil)
	if _, err := e.Build(context.Background(), m, names, span); err != nil {
		t.Fatal(explain(err))
	}
	if diff := cmp.Diff([]string{"mid note", "base note", "long copy", "long note", "long note", "short note"}, list()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What they really took is known now.
	if u, ok := s.Recall().Of(ids.Stage(m.Pipelines[1], 0), ""); !ok || u.Wall >= 20*time.Second || u.MaxRSS == 0 {
		t.Errorf("remembered: %+v %v", u, ok)
	}
	// Without one the build is the same.
	if err := os.WriteFile(s.Dir+"/history.json", []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustBuild(t, e, build("2"), names...)
}

// Two stages that wait for each other run where memory has room for both, and not
// where it has not; one that is larger than all of it runs.
func TestMemoryBound(t *testing.T) {
	meet := func(at, who string) *manifest.Stage {
		return stage(meetStage, fmt.Sprintf(`{"at":%q,"who":%q}`, at, who))
	}
	s := newStore(t)
	if err := s.Remember([]store.Ran{
		{ID: "x", Type: meetStage, Cost: store.Cost{Wall: time.Second, MaxRSS: 400 << 20}},
		{ID: "y", Type: noteStage, Cost: store.Cost{Wall: time.Second, MaxRSS: 4 << 30}},
	}); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, s, func(c *Config) { c.Jobs, c.Memory = 4, 1<<30 })
	mustBuild(t, e, plan1(pipe("a", meet("memory", "a")), pipe("b", meet("memory", "b"))), "a", "b")
	var mu sync.Mutex
	running, most := 0, 0
	m := plan1()
	var names []string
	for i := range 4 {
		names = append(names, fmt.Sprint(i))
		m.Pipelines = append(m.Pipelines, pipe(fmt.Sprint(i), note("f", fmt.Sprint(i))))
	}
	_, err := e.Build(context.Background(), m, names, onEvent(func(e monitor.Event) {
		if e.Category == monitor.CatStage {
			mu.Lock()
			defer mu.Unlock()
			switch e.Kind {
			case monitor.Start:
				running++
				most = max(most, running)
			case monitor.End:
				running--
			}
		}
	}))
	if err != nil || most != 1 {
		t.Errorf("%d large stages ran at once, %v", most, err)
	}
}

// labelled gives pipelines targets: one of their name, and "os" a second one.
func labelled(c *Config) {
	c.Target = func(p string) string { return "//:" + p }
	c.Labels = func(p string) []string {
		if p == "os" {
			return []string{"//:os", "//:os@x"}
		}
		return []string{"//:" + p}
	}
}

// told is what a build says of its failures: "error: what it blocks".
func told(t *testing.T, err error) []string {
	t.Helper()
	var be *BuildError
	if !errors.As(err, &be) {
		t.Fatalf("error: %v", err)
	}
	out := []string{}
	for _, f := range be.Failures {
		msg := f.Err.Error()
		var se *StageError
		if errors.As(f.Err, &se) {
			msg = se.Pipeline + " " + se.Msg
		}
		out = append(out, msg+": "+strings.Join(f.Blocks, " "))
	}
	return out
}

func TestKeepGoing(t *testing.T) {
	gone, here := fileSum("gone"), fileSum("here")
	fails := stage(failStage, `{}`)
	other := stage("org.osbuild.error", `{"returncode":3}`)
	broken := func() *manifest.Manifest {
		return plan1(
			pipe("os", note("a", "1"), fails),
			pipe("disk", copyOf("os"), note("d", "1")),
			pipe("twin", note("a", "1"), fails, note("never", "1")), // the same stages
			pipe("whole", note("w", "1")),
			pipe("after", copyOf("whole"), other),
			pipe("file", reading(here), note("f", "1")),
			pipe("nofile", reading(gone)), pipe("nofile too", note("n", "1"), reading(gone)))
	}
	names := []string{"os", "disk", "twin", "whole", "after", "file", "nofile", "nofile too"}
	s := newStore(t)
	fetch := func(_ context.Context, _ *manifest.Manifest, sums []string, _ *monitor.Span, done func(string, error)) error {
		for _, sum := range sums {
			if sum == gone {
				done(sum, errors.New("404 not found"))
			} else {
				done(sum, os.WriteFile(sources.Path(s.SourcesDir(), sum), []byte("here"), 0o644))
			}
		}
		return nil
	}
	e := newEngine(t, s, labelled, func(c *Config) { c.Fetch, c.KeepGoing = fetch, true })
	res, err := e.Build(context.Background(), broken(), names, nil)
	got := told(t, err)
	want := []string{
		"404 not found: //:nofile //:nofile too",
		"after the stage was asked to fail, with the return code 3: //:after",
		"os it cannot be: //:disk //:os //:os@x //:twin",
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	trees := []string{}
	for name := range res.Trees {
		trees = append(trees, name)
	}
	slices.Sort(trees)
	if diff := cmp.Diff([]string{"file", "whole"}, trees); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	checkIdle(t, e)
	// What could be made is in the store.
	m := broken()
	m.Pipelines = append(m.Pipelines[3:4], m.Pipelines[5])
	if got := ran(mustBuild(t, e, m, "whole", "file")); len(got) != 0 {
		t.Errorf("again: %v", got)
	}
}

// Without it the first failure ends the build, and says what it blocks.
func TestFirstFailureBlocks(t *testing.T) {
	s := newStore(t)
	e := newEngine(t, s, labelled, func(c *Config) { c.Jobs = 1 })
	m := plan1(
		pipe("os", note("a", "1"), stage(failStage, `{}`), note("b", "1")),
		pipe("disk", copyOf("os"), note("d", "1")),
		pipe("other", note("o", "1"), note("p", "1"), note("q", "1")))
	// The failure is on the longest way.
	if err := s.Remember([]store.Ran{{ID: "x", Type: failStage, Cost: store.Cost{Wall: time.Minute}}}); err != nil {
		t.Fatal(err)
	}
	list, span := starts(nil)
	res, err := e.Build(context.Background(), m, []string{"other", "disk", "os"}, span)
	if diff := cmp.Diff([]string{"os it cannot be: //:disk //:os //:os@x"}, told(t, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"os note", "os fail"}, list()); diff != "" {
		t.Errorf("ran (-want +got):\n%s", diff)
	}
	if len(res.Trees) != 0 {
		t.Errorf("trees: %v", res.Trees)
	}
	checkIdle(t, e)
}

// A download that fails ends what waits for it, and other downloads.
func TestFailedDownload(t *testing.T) {
	bad := errors.New("the server is on fire")
	ended := make(chan struct{})
	for _, c := range []struct {
		name  string
		fetch func(ctx context.Context, done func(string, error)) error
	}{
		{"one file", func(ctx context.Context, done func(string, error)) error {
			done(fileSum("0"), bad)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		}},
		{"all of them", func(context.Context, func(string, error)) error { return bad }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t, newStore(t), func(cfg *Config) {
				cfg.Fetch = func(ctx context.Context, _ *manifest.Manifest, _ []string, _ *monitor.Span, done func(string, error)) error {
					return c.fetch(ctx, done)
				}
			})
			m := plan1(pipe("a", reading(fileSum("0"))), pipe("b", stage(waitStage, `{}`)), pipe("c", reading(fileSum("1"))))
			_, err := e.Build(context.Background(), m, []string{"a", "b", "c"}, nil)
			got := told(t, err)
			if len(got) != 1 || !strings.HasPrefix(got[0], bad.Error()+": a") || !errors.Is(err, bad) {
				t.Errorf("told: %q", got)
			}
			checkIdle(t, e)
		})
	}
	<-ended
}

// The end of the context is the end of a build that goes on after failures too.
func TestCancelKeepGoing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // after the engine was closed
	e := newEngine(t, newStore(t), func(c *Config) { c.KeepGoing = true })
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	m := plan1(pipe("bad", stage(failStage, `{}`)), pipe("slow", stage(waitStage, `{}`)), pipe("next", note("x", "1"), stage(waitStage, `{}`)))
	_, err := e.Build(ctx, m, []string{"bad", "slow", "next"}, onEvent(func(e monitor.Event) {
		if e.Kind == monitor.Output && e.Text == "waiting" {
			cancel(why)
		}
	}))
	var be *BuildError
	if err != why || errors.As(err, &be) {
		t.Errorf("error: %v", err)
	}
	checkIdle(t, e)
}
