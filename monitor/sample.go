// Counters: what the machine does while a build runs, read from /proc.
package monitor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sampleEvery is the time between two samples. One costs some 0.2 ms of a processor: a
// few files, and two for each process that the build has.
const sampleEvery = 100 * time.Millisecond

// Sampler sends counters to a stream until it is closed.
type Sampler struct {
	stop chan struct{}
	done sync.WaitGroup
}

// Watch starts a sampler. dir is where the store is.
func Watch(s *Stream, dir string) *Sampler {
	w := &Sampler{stop: make(chan struct{})}
	m := newMeter(dir)
	m.read(time.Now())
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case now := <-tick.C:
				sample := m.read(now)
				s.Emit(Event{Kind: Counters, Time: now, Sample: &sample})
			}
		}
	}()
	return w
}

// Close ends the sampler, and waits for that. It may be called once, and on nil.
func (w *Sampler) Close() {
	if w == nil {
		return
	}
	close(w.stop)
	w.done.Wait()
}

// meter makes rates of the counters of the kernel.
type meter struct {
	proc string // where /proc is
	dir  string
	disk string // file with the counters of the store's disk, "" where there is none
	self int
	buf  []byte

	last time.Time
	old  totals
}

// totals are what the kernel counts from the start of something.
type totals struct {
	busy, all     int64 // ticks of all processors
	build         int64 // ticks of this process and its descendants
	read, written int64 // bytes
}

func newMeter(dir string) *meter {
	m := &meter{proc: "/proc", dir: dir, self: os.Getpid(), buf: make([]byte, 64<<10)}
	var st unix.Stat_t
	if unix.Stat(dir, &st) == nil {
		disk := fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev))
		if _, err := os.Stat(disk); err == nil {
			m.disk = disk
		}
	}
	return m
}

// read takes a sample; rates are those since the last one.
func (m *meter) read(now time.Time) (s Sample) {
	var t totals
	t.busy, t.all = m.cpu()
	t.build, s.Memory = m.processes()
	t.read, t.written = m.diskBytes()
	s.Available = m.available()
	var fs unix.Statfs_t
	if unix.Statfs(m.dir, &fs) == nil {
		s.Free = int64(fs.Bavail) * fs.Bsize
	}
	if all := t.all - m.old.all; all > 0 && !m.last.IsZero() {
		s.CPU = percent(t.busy-m.old.busy, all)
		s.BuildCPU = percent(t.build-m.old.build, all)
	}
	if sec := now.Sub(m.last).Seconds(); sec > 0 && !m.last.IsZero() {
		s.Read = max(0, float64(t.read-m.old.read)) / sec
		s.Written = max(0, float64(t.written-m.old.written)) / sec
	}
	m.last, m.old = now, t
	return s
}

func percent(part, of int64) float64 {
	return min(100, max(0, float64(part*1000/of)/10))
}

func (m *meter) file(name string) []byte {
	// An os.File of each would cost several times as much.
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, m.buf)
	if err != nil {
		return nil
	}
	return m.buf[:n]
}

// cpu reads the first line of /proc/stat: user nice system idle iowait irq softirq
// steal. Guests are part of user.
func (m *meter) cpu() (busy, all int64) {
	line, _, _ := bytes.Cut(m.file(filepath.Join(m.proc, "stat")), []byte("\n"))
	fields := bytes.Fields(line)
	for i := 1; i < len(fields) && i <= 8; i++ {
		n := number(fields[i])
		all += n
		if i != 4 && i != 5 {
			busy += n
		}
	}
	return busy, all
}

func (m *meter) available() int64 {
	for line := range bytes.Lines(m.file(filepath.Join(m.proc, "meminfo"))) {
		if v, ok := bytes.CutPrefix(line, []byte("MemAvailable:")); ok {
			return number(bytes.Fields(v)[0]) << 10
		}
	}
	return 0
}

// diskBytes are in sectors of 512 bytes, the third and the seventh number.
func (m *meter) diskBytes() (read, written int64) {
	if m.disk == "" {
		return 0, 0
	}
	f := bytes.Fields(m.file(m.disk))
	if len(f) < 7 {
		return 0, 0
	}
	return number(f[2]) * 512, number(f[6]) * 512
}

// processes adds up this process and all below it: the ticks that they, and those of
// their children that they waited for, have taken, and what they have in memory.
func (m *meter) processes() (ticks, resident int64) {
	page := int64(os.Getpagesize())
	todo := []int{m.self}
	for n := 0; n < len(todo) && n < 4096; n++ {
		dir := filepath.Join(m.proc, strconv.Itoa(todo[n]))
		stat := m.file(dir + "/stat")
		// The name, in brackets, can have anything in it.
		f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(f) < 22 {
			continue // it is gone
		}
		for _, v := range f[11:15] { // utime, stime, cutime, cstime
			ticks += number(v)
		}
		resident += number(f[21]) * page
		threads := []string{strconv.Itoa(todo[n])}
		if number(f[17]) > 1 {
			threads = names(dir + "/task")
		}
		for _, t := range threads {
			for _, c := range bytes.Fields(m.file(dir + "/task/" + t + "/children")) {
				todo = append(todo, int(number(c)))
			}
		}
	}
	return ticks, resident
}

func names(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	out, _ := d.Readdirnames(-1) // what is gone meanwhile has no children
	return out
}

func number(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
