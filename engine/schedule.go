// The schedule of a build: what may run at the same time, and what comes first.
//
// A step is ready when the steps that it needs are done and the files that it reads
// have come. Of those that are ready, the one with the longest way to an end before it
// starts first; none is overtaken by a shorter one that would find room sooner, so each
// gets its turn.
package engine

import (
	"context"
	"errors"
	"sync"

	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
)

// schedule starts the steps of a graph.
type schedule struct {
	jobs   int
	memory int64                                        // bytes that running steps may be expected to take
	run    func(n *node) (obj *store.Object, err error) // makes the tree of a step
	await  func(n *node) error                          // waits for one that run found to be another build's
	lost   func(f Failure)                              // is told of each failure
	queued func(n *node) *monitor.Span                  // begins the wait of one that finds no room; may be nil

	over chan struct{}  // closed when there is nothing left that could start
	wg   sync.WaitGroup // of running steps

	mu     sync.Mutex
	closed bool
	ready  []*node
	active int
	taken  int64 // memory that running steps are expected to take
	left   int   // steps that are neither done nor given up
	reads  map[string][]*node
	order  map[*node]int
}

// newSchedule makes the schedule of a graph. Nothing starts before begin.
func newSchedule(g *graph, jobs int, memory int64) *schedule {
	s := &schedule{jobs: jobs, memory: memory, over: make(chan struct{}), left: len(g.nodes), reads: map[string][]*node{}, order: map[*node]int{}}
	for i, n := range g.nodes {
		s.order[n] = i
		for _, f := range n.files {
			s.reads[f] = append(s.reads[f], n)
		}
	}
	return s
}

// begin starts what waits for nothing.
func (s *schedule) begin(g *graph) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range g.nodes {
		if n.waits == 0 && n.state == waiting {
			s.admit(n)
		}
	}
	s.start()
}

// admit takes a step among those that are ready.
func (s *schedule) admit(n *node) {
	n.state = ready
	s.ready = append(s.ready, n)
}

// next is the step that should start first.
func (s *schedule) next() int {
	best := 0
	for i, n := range s.ready {
		b := s.ready[best]
		if n.rest > b.rest || n.rest == b.rest && s.order[n] < s.order[b] {
			best = i
		}
	}
	return best
}

// start starts steps as long as there is room. One that is larger than all the room
// there is runs alone.
func (s *schedule) start() {
	for !s.closed && len(s.ready) > 0 && s.active < s.jobs {
		i := s.next()
		n := s.ready[i]
		if s.active > 0 && s.taken+n.memory > s.memory {
			break
		}
		s.ready = append(s.ready[:i], s.ready[i+1:]...)
		n.queued.End(nil)
		n.queued, n.state = nil, running
		s.active++
		s.taken += n.memory
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			obj, err := s.run(n)
			s.finished(n, obj, err)
		}()
	}
	for _, n := range s.ready {
		if n.queued == nil && s.queued != nil && !s.closed {
			n.queued = s.queued(n)
		}
	}
	if s.left == 0 && !s.closed {
		s.closed = true
		close(s.over)
	}
}

// finished takes the result of a step.
func (s *schedule) finished(n *node, obj *store.Object, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.taken -= n.memory
	if errors.Is(err, errElsewhere) {
		n.state = waiting
		s.wg.Go(func() { s.elsewhere(n) })
		s.start()
		return
	}
	if err != nil {
		s.lost(Failure{Err: err, nodes: []*node{n}})
		s.giveUp(n)
	} else {
		n.state, n.obj = done, obj
		s.left--
		for _, u := range n.users {
			s.came(u)
		}
	}
	s.start()
}

// elsewhere waits for a step that another build is making. It does not take part in
// what runs meanwhile.
func (s *schedule) elsewhere(n *node) {
	err := s.await(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.lost(Failure{Err: err, nodes: []*node{n}})
		s.giveUp(n)
	} else {
		s.admit(n)
	}
	s.start()
}

// came takes one thing less that a step waits for.
func (s *schedule) came(n *node) {
	if n.waits--; n.waits == 0 && n.state == waiting {
		s.admit(n)
	}
}

// giveUp ends a step that cannot be made, and all that need it.
func (s *schedule) giveUp(n *node) {
	for b := range behind([]*node{n}) {
		if b.state != failed {
			b.state = failed
			s.left--
		}
	}
}

// arrived takes a file that steps read, or why there is none. It is told of each file
// once.
func (s *schedule) arrived(checksum string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	users, ok := s.reads[checksum]
	if !ok {
		return
	}
	delete(s.reads, checksum)
	if err != nil {
		s.lost(Failure{Err: err, nodes: users})
	}
	for _, n := range users {
		if err != nil {
			s.giveUp(n)
		} else {
			s.came(n)
		}
	}
	s.start()
}

// arrivedAll takes what becomes of all files that nothing was told of.
func (s *schedule) arrivedAll(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var users []*node
	for _, list := range s.reads {
		users = append(users, list...)
	}
	if err != nil && len(users) > 0 {
		s.lost(Failure{Err: err, nodes: users})
	}
	for _, n := range users {
		if err != nil {
			s.giveUp(n)
		} else {
			s.came(n)
		}
	}
	clear(s.reads)
	s.start()
}

// wait waits until all is done or given up, or the context ends, and then for what
// still runs. Nothing starts after that.
func (s *schedule) wait(ctx context.Context) {
	select {
	case <-s.over:
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.closed = true
	for _, n := range s.ready {
		n.queued.End(nil)
	}
	s.mu.Unlock()
	s.wg.Wait()
}
