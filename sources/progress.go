// The progress of a fetch in bytes, told a few times a second.
package sources

import (
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// progressEvery is how often the number of bytes is told at most.
const progressEvery = 100 * time.Millisecond

type progress struct {
	span *monitor.Span

	mu          sync.Mutex
	done, total int64
	last        time.Time
}

// grow adds to what there is to do.
func (p *progress) grow(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total += n
}

// add counts bytes as done; a negative number takes them back.
func (p *progress) add(n int64) {
	if p.span == nil {
		return
	}
	p.mu.Lock()
	p.done += n
	now := time.Now()
	tell := now.Sub(p.last) >= progressEvery
	if tell {
		p.last = now
	}
	done, total := p.done, max(p.done, p.total)
	p.mu.Unlock()
	if tell {
		p.span.Progress(done, total, "bytes")
	}
}

// flush tells where it ended.
func (p *progress) flush() {
	p.mu.Lock()
	done, total := p.done, max(p.done, p.total)
	p.mu.Unlock()
	p.span.Progress(done, total, "bytes")
}
