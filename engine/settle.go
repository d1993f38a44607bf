// Settling: what has been committed is written out while the build goes on.
package engine

import "time"

// settleEvery is how often what has been committed is written out while a build goes
// on: a stage that commits waits for a sync of another that is under way.
const settleEvery = 2 * time.Second

// settle writes out what has been committed, beside the stages that run meanwhile,
// so that it is safe against a crash of the machine. A failure costs nothing but a
// rebuild after such a crash.
func (e *Engine) settle(wake <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	pending := false
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case _, open := <-wake:
			if pending = pending || open; open {
				continue
			}
			if pending {
				_ = e.cfg.Store.Settle()
			}
			return
		case <-tick.C:
			if pending {
				pending = false
				_ = e.cfg.Store.Settle()
			}
		}
	}
}

// committed tells the settler of something new.
func (e *Engine) committed() {
	select {
	case e.settling <- struct{}{}:
	default: // it knows already
	}
	e.sums.committed()
}
