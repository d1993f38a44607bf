// Counters: what they are made from, and that nothing of them is left.
package monitor

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// A made-up /proc: rates are those between two looks, and descendants count.
func TestMeter(t *testing.T) {
	proc := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		p := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	process := func(pid, ticks, pages, children string) {
		t.Helper()
		// Times are of it and of children that it waited for.
		put(pid+"/stat", pid+" (a) b) (c) S 1 1 1 0 -1 0 0 0 0 0 "+ticks+" 1 1 1 20 0 1 0 100 4096 "+pages+" 0")
		put(pid+"/task/"+pid+"/children", children)
	}
	put("stat", "cpu  100 0 100 800 0 0 0 0 50 0\ncpu0 1 1\n")
	put("meminfo", "MemTotal: 9 kB\nMemAvailable:  8 kB\n")
	put("disk", " 1 2 10 3 4 5 20 6\n")
	process("7", "10", "2", "8 9 ")
	process("8", "20", "3", "")
	process("10", "99", "99", "") // nobody's
	m := &meter{proc: proc, dir: proc, disk: filepath.Join(proc, "disk"), self: 7, buf: make([]byte, 4096)}
	t0 := time.Unix(100, 0)
	page := int64(os.Getpagesize())
	first := m.read(t0)
	first.Free = 0
	if diff := cmp.Diff(Sample{Memory: 5 * page, Available: 8 << 10}, first); diff != "" {
		t.Errorf("the first has no rates (-want +got):\n%s", diff)
	}
	put("stat", "cpu  125 0 125 850 0 0 0 0 60 0\n") // 50 of 100
	put("disk", " 1 2 12 3 4 5 26 6\n")
	process("7", "20", "2", "8 ")
	process("8", "35", "4", "")
	got := m.read(t0.Add(500 * time.Millisecond))
	got.Free = 0
	want := Sample{CPU: 50, BuildCPU: 25, Memory: 6 * page, Available: 8 << 10, Read: 2048, Written: 6144}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// This machine: a child's memory counts, and no goroutine outlives the sampler.
func TestSampler(t *testing.T) {
	defer goleak.VerifyNone(t)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var mu sync.Mutex
	var got []Sample
	enough := make(chan struct{})
	w := Watch(New(ReaderFunc(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if got = append(got, *e.Sample); len(got) == 3 {
			close(enough)
		}
	})), t.TempDir())
	<-enough
	w.Close()
	(*Sampler)(nil).Close()
	mu.Lock()
	defer mu.Unlock()
	for _, s := range got {
		if s.Memory <= 0 || s.Available <= 0 || s.Free <= 0 || s.CPU < 0 || s.CPU > 100 || s.BuildCPU > 100 {
			t.Errorf("sample: %+v", s)
		}
	}
}

func BenchmarkMeter(b *testing.B) {
	m := newMeter(b.TempDir())
	for b.Loop() {
		m.read(time.Now())
	}
}
