// Checksums of layers: made beside the build, for those who verify the store later.
package engine

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// sumsAtEnd bounds how many bytes are read for checksums when a build is over: what
// all CPUs do in a few tenths of a second. The rest the next build does, or whoever
// verifies the store.
var sumsAtEnd int64 = 1 << 30

// summer lists what is in layers that have been committed. One thread does so while
// the build runs, and gets what the build leaves idle.
type summer struct {
	store  *store.Store
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // closed when the build ends
	done   sync.WaitGroup

	mu    sync.Mutex
	taken map[string]bool
	tid   int // of the thread that runs beside the build

	ended atomic.Bool
	left  atomic.Int64 // bytes that may be read yet, when the build has ended
}

func newSummer(s *store.Store) *summer {
	m := &summer{store: s, wake: make(chan struct{}, 1), taken: map[string]bool{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.done.Go(func() {
		runtime.LockOSThread() // and never unlock it: the thread ends with its priority
		m.mu.Lock()
		m.tid = unix.Gettid()
		m.mu.Unlock()
		_ = setPolicy(m.tid, schedIdle) // without it the build is a little slower
		m.work()                        // what earlier builds have left
		for range m.wake {
			m.work()
		}
	})
	return m
}

const schedIdle = 5 // SCHED_IDLE

func setPolicy(tid int, policy uint32) error {
	return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy}, 0)
}

// committed tells of a new layer.
func (m *summer) committed() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// work lists one layer after the other until there is none left.
func (m *summer) work() {
	for m.ctx.Err() == nil {
		layer := m.next()
		if layer == "" {
			return
		}
		// Other processes do not need to read it too.
		release, ok, err := m.store.TryClaim("sums." + layer)
		if err == nil && ok {
			_, _ = m.store.Sum(m.ctx, layer, 1, m.read) // if it cannot be read, verifying tells
			release()
		}
	}
}

// next chooses a layer that nobody reads yet, "" if there is none.
func (m *summer) next() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	layers, err := m.store.Unsummed()
	if err != nil {
		return ""
	}
	for _, l := range layers {
		if !m.taken[l] {
			m.taken[l] = true
			return l
		}
	}
	return ""
}

// read counts what is read after the end of the build.
func (m *summer) read(n int64) {
	if m.ended.Load() && m.left.Add(-n) < 0 {
		m.cancel()
	}
}

// close finishes what is left, with all CPUs, as far as a build may wait for it.
func (m *summer) close() {
	defer m.cancel()
	m.left.Store(sumsAtEnd)
	m.ended.Store(true)
	m.mu.Lock()
	tid := m.tid
	m.mu.Unlock()
	if tid != 0 {
		_ = setPolicy(tid, 0)
	}
	for range runtime.NumCPU() {
		m.done.Go(m.work)
	}
	close(m.wake)
	m.done.Wait()
}
