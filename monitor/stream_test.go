// The stream itself, and its reader for programs that read lines of JSON.
package monitor

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What a span tells, and what its events inherit from it.
func TestSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t0 := time.Now()
		var got []Event
		s := New(ReaderFunc(func(e Event) { got = append(got, e) }))
		build := s.Start(nil, Event{Category: CatBuild, Name: "build", Target: "//:x"})
		stage := build.Start(Event{Category: CatStage, Name: "org.osbuild.noop", ID: "abc", Text: "os"})
		time.Sleep(3 * time.Second)
		stage.Emit(Event{Kind: Output, Text: "hello"})
		stage.Progress(1, 2, "bytes")
		stage.End(errors.New("broken"))
		build.EndCached()
		sec := func(n int) time.Time { return t0.Add(time.Duration(n) * time.Second) }
		want := []Event{
			{Time: t0, Kind: Start, Span: 1, Category: CatBuild, Name: "build", Target: "//:x"},
			{Time: t0, Kind: Start, Span: 2, Parent: 1, Category: CatStage, Name: "org.osbuild.noop", ID: "abc", Text: "os", Target: "//:x"},
			{Time: sec(3), Kind: Output, Span: 2, Category: CatStage, Name: "org.osbuild.noop", ID: "abc", Target: "//:x", Text: "hello"},
			{Time: sec(3), Kind: Progress, Span: 2, Category: CatStage, Name: "org.osbuild.noop", ID: "abc", Target: "//:x", Done: 1, Total: 2, Unit: "bytes"},
			{Time: sec(3), Kind: End, Span: 2, Category: CatStage, Name: "org.osbuild.noop", ID: "abc", Target: "//:x", Err: "broken", Duration: 3 * time.Second},
			{Time: sec(3), Kind: End, Span: 1, Category: CatBuild, Name: "build", Target: "//:x", Cached: true, Duration: 3 * time.Second},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// A library may be called without a stream.
func TestNil(t *testing.T) {
	var s *Stream
	s.Emit(Event{})
	sp := s.Start(nil, Event{})
	sp.Emit(Event{})
	sp.Progress(1, 2, "")
	sp.Start(Event{}).End(nil)
	sp.EndCached()
	New().Start(nil, Event{}).End(nil)
}

// Each line is one event, whole, however many write at once.
func TestJSONLines(t *testing.T) {
	var buf bytes.Buffer
	s := New(&JSONLines{W: &buf})
	var wg sync.WaitGroup
	for range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 20 {
				sp := s.Start(nil, Event{Category: CatSource, Name: "a\nb\x1b[31m<&>"})
				sp.Emit(Event{Kind: Output, Text: strings.Repeat("x", 5000)})
				sp.End(nil)
			}
		}()
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSuffix(buf.String(), "\n"), "\n")
	if len(lines) != 600 {
		t.Fatalf("%d lines", len(lines))
	}
	open := map[uint64]int{}
	for _, l := range lines {
		var e Event
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if e.Time.IsZero() || e.Span == 0 || e.Name != "a\nb\x1b[31m<&>" {
			t.Fatalf("event: %+v", e)
		}
		open[e.Span]++
	}
	for id, n := range open {
		if n != 3 {
			t.Errorf("span %d has %d events", id, n)
		}
	}
	// What is not said is left out, so that the lines stay short.
	buf.Reset()
	(&JSONLines{W: &buf}).Event(Event{Kind: Note, Text: "x", Time: time.Unix(0, 0).UTC()})
	if got, want := buf.String(), `{"time":"1970-01-01T00:00:00Z","kind":"note","text":"x"}`+"\n"; got != want {
		t.Errorf("line: %s", got)
	}
}
