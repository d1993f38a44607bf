// What is remembered of stages, and what harm cannot be done to it.
package store

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func openTest(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func took(wall time.Duration, rss int64) Cost {
	return Cost{Wall: wall, CPU: wall / 2, MaxRSS: rss << 20}
}

func TestHistory(t *testing.T) {
	s := openTest(t)
	if _, ok := s.Recall().Of("aaaa", "x"); ok {
		t.Error("something is known of nothing")
	}
	remember := func(r ...Ran) {
		t.Helper()
		if err := s.Remember(r); err != nil {
			t.Fatal(err)
		}
	}
	remember()
	if _, err := os.Stat(s.historyPath()); err == nil {
		t.Error("nothing that ran is written")
	}
	remember(Ran{"aaaa", "x", took(4*time.Second, 100)}, Ran{"bbbb", "y", took(time.Minute, 1)})
	remember(Ran{"cccc", "x", took(2*time.Second, 40)}, Ran{"bbbb", "y", took(2*time.Minute, 3)})
	h := s.Recall()
	for _, c := range []struct {
		name, id, typ string
		want          Cost
		ok            bool
	}{
		{"the very stage", "aaaa", "x", took(4*time.Second, 100), true},
		{"it ran again", "bbbb", "y", took(2*time.Minute, 3), true},
		{"the type: time is a mean, memory goes down slowly", "dddd", "x", took(3*time.Second, 100*1/2+40/2), true},
		{"neither", "dddd", "z", Cost{}, false},
	} {
		got, ok := h.Of(c.id, c.typ)
		if diff := cmp.Diff(c.want, got); diff != "" || ok != c.ok {
			t.Errorf("%s: %v (-want +got):\n%s", c.name, ok, diff)
		}
	}
}

func TestHistoryDamaged(t *testing.T) {
	s := openTest(t)
	for _, text := range []string{"", "{", "null", "[]", `{"ids":3}`, `{"ids":{"aaaa":{"w":"x"}}}`, `{"types":{"x":{"w":-5}}}`, strings.Repeat("\x00", 4096)} {
		if err := os.WriteFile(s.historyPath(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if u, ok := s.Recall().Of("aaaa", "x"); ok {
			t.Errorf("%.20q: %+v", text, u)
		}
		if err := s.Remember([]Ran{{"aaaa", "x", took(time.Second, 1)}}); err != nil {
			t.Errorf("%.20q: %v", text, err)
		}
		if u, ok := s.Recall().Of("aaaa", "x"); !ok || u != took(time.Second, 1) {
			t.Errorf("%.20q, and written again: %+v", text, u)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := openTest(t)
	h := &History{IDs: map[string]past{}, Types: map[string]past{}}
	for i := range maxPastIDs + 100 {
		h.IDs[fmt.Sprintf("%016d", i)] = past{Wall: 1, When: int64(i)}
	}
	for i := range maxPastTypes + 100 {
		h.Types[fmt.Sprint(i)] = past{Wall: 1, When: int64(i)}
	}
	if err := s.writeHistory(h); err != nil {
		t.Fatal(err)
	}
	if err := s.Remember([]Ran{{"new", "new", took(time.Second, 1)}}); err != nil {
		t.Fatal(err)
	}
	h = s.Recall()
	if len(h.IDs) != maxPastIDs || len(h.Types) != maxPastTypes {
		t.Errorf("%d IDs, %d types", len(h.IDs), len(h.Types))
	}
	for id, want := range map[string]bool{"new": true, fmt.Sprintf("%016d", 100): false, fmt.Sprintf("%016d", 101): true} {
		if _, ok := h.IDs[id]; ok != want {
			t.Errorf("%s: %v", id, ok)
		}
	}
}

// Nothing is lost when several processes remember at once, and whoever reads then
// finds a whole file.
func TestHistoryOfManyAtOnce(t *testing.T) {
	const name = "OSBUILD_TEST_HISTORY"
	if dir, who, ok := strings.Cut(os.Getenv(name), "\n"); ok {
		s, err := Open(dir)
		for i := range 20 {
			if err == nil {
				err = s.Remember([]Ran{{fmt.Sprintf("%s-%d", who, i), "x", took(time.Second, 1)}})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	s := openTest(t)
	over := make(chan struct{})
	var reader, writers sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			if b, err := os.ReadFile(s.historyPath()); err == nil && !json.Valid(b) {
				t.Errorf("half a file: %q", b)
				return
			}
		}
	})
	for who := range 4 {
		writers.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestHistoryOfManyAtOnce$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%d", name, s.Dir, who))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	writers.Wait()
	close(over)
	reader.Wait()
	if n := len(s.Recall().IDs); n != 80 {
		t.Errorf("%d are known, of 80", n)
	}
	if left, _ := os.ReadDir(s.path("tmp")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
