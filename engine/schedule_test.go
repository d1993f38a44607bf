// The schedule by itself, on made graphs and a clock of its own: order, bounds, and
// what a failure takes with it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/store"
)

// madeGraph makes a graph of lines "NAME SECONDS [MiB] [after NAME…] [reads FILE…]", in
// which each line is behind those that it names.
func madeGraph(t *testing.T, lines ...string) (g *graph, name map[*node]string) {
	t.Helper()
	g, name = &graph{}, map[*node]string{}
	byName := map[string]*node{}
	for _, l := range lines {
		var seconds, mib int
		f := strings.Fields(l)
		n := &node{}
		if _, err := fmt.Sscan(f[1], &seconds); err != nil {
			t.Fatal(err)
		}
		what := "MiB"
		for _, w := range f[2:] {
			switch {
			case w == "after" || w == "reads":
				what = w
			case what == "MiB":
				if _, err := fmt.Sscan(w, &mib); err != nil {
					t.Fatal(err)
				}
			case what == "after":
				byName[w].users = append(byName[w].users, n)
				n.waits++
			default:
				n.files = append(n.files, w)
				n.waits++
			}
		}
		n.own, n.memory = time.Duration(seconds)*time.Second, int64(mib)<<20
		byName[f[0]], name[n] = n, f[0]
		g.nodes = append(g.nodes, n)
	}
	for i := len(g.nodes) - 1; i >= 0; i-- {
		n := g.nodes[i]
		n.rest = n.own
		for _, u := range n.users {
			n.rest = max(n.rest, n.own+u.rest)
		}
	}
	return g, name
}

// played is a schedule that takes the time that is expected of it, as "NAME@SECOND"
// for each start.
func played(g *graph, name map[*node]string, jobs int, memory int64, files map[string]time.Duration) (starts []string, took time.Duration) {
	s := newSchedule(g, jobs, memory)
	begin := time.Now()
	var mu sync.Mutex
	s.run = func(n *node) (*store.Object, error) {
		mu.Lock()
		starts = append(starts, fmt.Sprintf("%s@%d", name[n], time.Since(begin)/time.Second))
		mu.Unlock()
		time.Sleep(n.own)
		return &store.Object{}, nil
	}
	for f, d := range files {
		go func() { time.Sleep(d); s.arrived(f, nil) }()
	}
	s.begin(g)
	s.wait(context.Background())
	return starts, time.Since(begin)
}

func TestScheduleOrder(t *testing.T) {
	for _, c := range []struct {
		name   string
		jobs   int
		memory int64 // MiB
		files  map[string]time.Duration
		graph  []string
		want   string
	}{
		{"the longest way first", 1, 1000, nil, []string{
			"short 5", "mid 3", "mid2 3 after mid", "start 1", "long 10 after start",
		}, "start@0 long@1 mid@11 short@14 mid2@19"},
		{"two at once", 2, 1000, nil, []string{
			"a 1", "b 1", "c 1", "d 1", "head 1", "tail 4 after head",
		}, "head@0 a@0 tail@1 b@1 c@2 d@3"},
		{"equal ways in their order", 1, 1000, nil, []string{"a 1", "b 1", "c 1"}, "a@0 b@1 c@2"},
		{"what follows through many counts once", 1, 1000, nil, []string{
			"a 2", "wide 1", "w1 1 after wide", "w2 1 after wide", "w3 1 after wide",
		}, "a@0 wide@2 w1@3 w2@4 w3@5"},
		{"files are waited for by those that read them", 2, 1000, map[string]time.Duration{"big": 10 * time.Second, "small": time.Second}, []string{
			"first 2 reads big", "second 2 after first", "other 1 reads small", "free 5",
		}, "free@0 other@1 first@10 second@12"},
		{"a file that comes late does not keep a place", 1, 1000, map[string]time.Duration{"f": 3 * time.Second}, []string{
			"urgent 100 reads f", "a 2", "b 2", "c 2",
		}, "a@0 b@2 urgent@4 c@104"},
		{"as many as memory has room for", 4, 100, nil, []string{"a 4 60", "b 3 40", "c 2 60", "d 1 40"}, "a@0 b@0 c@4 d@4"},
		{"one that is larger than all runs alone", 4, 100, nil, []string{"huge 4 500", "a 3 10", "b 3 10"}, "huge@0 a@4 b@4"},
		{"and gets its turn", 4, 100, nil, []string{"a 9 10", "huge 5 500", "b 3 10", "c 2 10"}, "a@0 huge@9 b@14 c@14"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, name := madeGraph(t, c.graph...)
				starts, _ := played(g, name, c.jobs, c.memory<<20, c.files)
				if got := sameTimeSorted(starts, c.want); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
			})
		})
	}
}

// sameTimeSorted brings what starts at the same moment into the order of want: the
// goroutines of two steps may run in either.
func sameTimeSorted(starts []string, want string) string {
	at := func(s string) string { return s[strings.IndexByte(s, '@'):] }
	order := strings.Fields(want)
	for i := range starts {
		for j := i + 1; j < len(starts) && at(starts[j]) == at(starts[i]); j++ {
			if a, b := slices.Index(order, starts[i]), slices.Index(order, starts[j]); b >= 0 && b < a {
				starts[i], starts[j] = starts[j], starts[i]
			}
		}
	}
	return strings.Join(starts, " ")
}

// Whatever the graph is, and whatever fails in it: each step runs once and behind what
// it needs, the bounds hold, all that can be made is made, nothing else begins, and the
// schedule ends with no goroutine left (the bubble of synctest waits for them all).
func TestScheduleAnyGraph(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var lines []string
			for i, n := 0, 1+r.IntN(30); i < n; i++ {
				l := fmt.Sprintf("s%d %d %d", i, r.IntN(5), r.IntN(200))
				for j := range i {
					if r.IntN(6) == 0 {
						l += fmt.Sprintf(" after s%d", j)
					}
				}
				if r.IntN(3) == 0 {
					l += fmt.Sprintf(" reads f%d", r.IntN(4))
				}
				lines = append(lines, l)
			}
			g, name := madeGraph(t, lines...)
			jobs, memory := 1+r.IntN(4), int64(50+r.IntN(200))<<20
			s := newSchedule(g, jobs, memory)
			bad := map[*node]bool{}
			for _, n := range g.nodes {
				bad[n] = r.IntN(12) == 0
			}
			badFile := map[string]bool{"f0": r.IntN(4) == 0}
			var roots []*node
			for _, n := range g.nodes {
				if bad[n] || slices.ContainsFunc(n.files, func(f string) bool { return badFile[f] }) {
					roots = append(roots, n)
				}
			}
			lost := behind(roots)

			var mu sync.Mutex
			running, taken := 0, int64(0)
			ran := map[*node]int{}
			failures := 0
			var files sync.WaitGroup
			s.lost = func(Failure) { failures++ }
			s.run = func(n *node) (*store.Object, error) {
				mu.Lock()
				running++
				taken += n.memory
				ran[n]++
				if running > jobs || running > 1 && taken > memory {
					t.Errorf("%d run, with %d MiB of %d", running, taken>>20, memory>>20)
				}
				for _, o := range g.nodes {
					if slices.Contains(o.users, n) && o.obj == nil {
						t.Errorf("%s runs before %s is done", name[n], name[o])
					}
				}
				mu.Unlock()
				time.Sleep(n.own)
				mu.Lock()
				defer mu.Unlock()
				running--
				taken -= n.memory
				if bad[n] {
					return nil, errors.New("bad")
				}
				return &store.Object{}, nil
			}
			for i := range 4 {
				f := fmt.Sprintf("f%d", i)
				wait := time.Duration(r.IntN(8)) * time.Second
				files.Go(func() {
					time.Sleep(wait)
					var err error
					if badFile[f] {
						err = errors.New("no such file")
					}
					s.arrived(f, err)
				})
			}
			s.begin(g)
			s.wait(context.Background())
			files.Wait() // what comes too late does no harm
			wantFailures := 0
			if badFile["f0"] && slices.ContainsFunc(g.nodes, func(n *node) bool { return slices.Contains(n.files, "f0") }) {
				wantFailures++
			}
			for _, n := range g.nodes {
				switch {
				case ran[n] > 1:
					t.Errorf("%s ran %d times", name[n], ran[n])
				case !lost[n] && (n.obj == nil || n.state != done):
					t.Errorf("%s was not made", name[n])
				case lost[n] && n.obj != nil:
					t.Errorf("%s was made", name[n])
				}
				if bad[n] && ran[n] == 1 {
					wantFailures++
				}
			}
			if failures != wantFailures {
				t.Errorf("%d failures, want %d", failures, wantFailures)
			}
			if t.Failed() {
				t.Fatalf("seed %d:\n%s", seed, strings.Join(lines, "\n"))
			}
		})
	}
}

// When the context ends nothing more starts, and the schedule ends with the steps that
// run.
func TestScheduleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, name := madeGraph(t, "a 5", "b 5", "c 5", "d 1 reads never")
		s := newSchedule(g, 2, 1<<40)
		ctx, cancel := context.WithCancel(context.Background())
		var mu sync.Mutex
		var ran []string
		s.lost = func(Failure) {}
		s.run = func(n *node) (*store.Object, error) {
			mu.Lock()
			ran = append(ran, name[n])
			mu.Unlock()
			<-ctx.Done()
			time.Sleep(time.Second) // it cleans up
			return nil, ctx.Err()
		}
		s.begin(g)
		begin := time.Now()
		time.AfterFunc(3*time.Second, cancel)
		s.wait(ctx)
		if took := time.Since(begin); took != 4*time.Second || len(ran) != 2 {
			t.Errorf("%s; %v ran", took, ran)
		}
	})
}

// The schedule makes a matrix of one long and many short variants as short as it can
// be: what no order of arrival does.
func TestScheduleMakespan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		for i := range 6 {
			lines = append(lines, fmt.Sprintf("short%d 2", i))
		}
		lines = append(lines, "base 2", "image 4 after base", "disk 6 after image")
		g, name := madeGraph(t, lines...)
		if _, took := played(g, name, 2, 1<<40, nil); took != 12*time.Second {
			t.Errorf("24 seconds of work, 12 of them one after the other, took %s on 2 places", took)
		}
	})
}

func TestAvailableMemory(t *testing.T) {
	const gib = 1 << 30
	meminfo := map[string]string{"proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n"}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"the machine, less a margin", nil, 7 * gib},
		{"a cgroup", map[string]string{
			"proc/self/cgroup":                "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max":    "max\n",
			"sys/fs/cgroup/a/memory.max":      "4294967296\n",
			"sys/fs/cgroup/a/memory.current":  "2147483648\n",
			"sys/fs/cgroup/a/memory.stat":     "anon 1\ninactive_file 1073741824\n",
			"sys/fs/cgroup/memory.max":        "999999999999\n",
			"sys/fs/cgroup/memory.current":    "1\n",
			"sys/fs/cgroup/other/memory.max":  "1\n",
			"sys/fs/cgroup/a/b/memory.events": "",
		}, 3*gib - 3*gib/4},
		{"a container, whose path is the host's", map[string]string{
			"proc/self/cgroup":             "0::/only/outside\n",
			"sys/fs/cgroup/memory.max":     "2147483648\n",
			"sys/fs/cgroup/memory.current": "0\n",
		}, 2*gib - gib/2},
		{"cgroup v1", map[string]string{
			"proc/self/cgroup": "5:cpu,memory:/x\n0::/\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes":   "5368709120\n",
			"sys/fs/cgroup/memory/x/memory.usage_in_bytes":   "1073741824\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes":     "1073741824\n",
			"sys/fs/cgroup/memory/x/memory.kmem.usage_bytes": "7\n",
		}, 3 * gib},
		{"more is in use than there may be", map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.current": "5000\n",
		}, 1},
		{"damaged", map[string]string{"proc/self/cgroup": "x\n0::\n::\n", "sys/fs/cgroup/memory.max": "-\n"}, 7 * gib},
		{"nothing tells", map[string]string{"proc/meminfo": ""}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for _, files := range []map[string]string{meminfo, c.files} {
				for p, text := range files {
					p = filepath.Join(root, p)
					if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := availableMemory(root); got != c.want {
				t.Errorf("%d MiB, want %d", got>>20, c.want>>20)
			}
		})
	}
	if got := availableMemory("/"); got <= 0 {
		t.Errorf("here: %d", got)
	}
}

// What is expected of a step: what it took, what its type took, what is usual.
func TestExpectations(t *testing.T) {
	s := newStore(t)
	m := plan1(pipe("p", note("a", "1"), stage("org.osbuild.noop", `{}`), stage("org.osbuild.xz", `{"filename":"x"}`)))
	e := New(Config{Host: testHost, Store: s})
	all, err := e.plans(m)
	if err != nil {
		t.Fatal(err)
	}
	id := all["p"].ids.Stage(m.Pipelines[0], 0)
	remember := []store.Ran{
		{ID: id, Type: noteStage, Cost: store.Cost{Wall: 3 * time.Second, MaxRSS: 700 << 20}},
		{ID: "other", Type: "org.osbuild.noop", Cost: store.Cost{Wall: 2 * time.Second, MaxRSS: 100 << 20}},
	}
	if err := s.Remember(remember); err != nil {
		t.Fatal(err)
	}
	g, err := e.newGraph(all, []string{"p"})
	if err != nil {
		t.Fatal(err)
	}
	g.expect(s.Recall())
	var got []string
	for _, n := range g.nodes {
		got = append(got, fmt.Sprintf("%s %s %d MiB", n.own, n.rest, n.memory>>20))
	}
	if diff := cmp.Diff([]string{"3s 25s 700 MiB", "2s 22s 100 MiB", "20s 20s 2048 MiB"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
