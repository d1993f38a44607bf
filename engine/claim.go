// Steps that another build on the same store is making: waited for, not made twice.
package engine

import (
	"context"
	"fmt"

	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
)

// claim waits until no other build makes the tree of a step. It returns the tree if
// it is in the store then; else this build makes it, and calls release afterwards.
//
// It is called when all that the step needs is there: who waits for a claim holds no
// other one, so builds that wait for each other's steps cannot stand still. idle calls
// its argument, which waits, while the step takes none of the places of this build.
func (b *build) claim(ctx context.Context, pl *plan, st step, idle func(wait func())) (done *store.Object, release func(), err error) {
	s := b.e.cfg.Store
	release, ok, err := s.TryClaim(st.key)
	if err == nil && !ok {
		b.span.Emit(monitor.Event{
			Kind: monitor.Note, Target: b.target(pl.p.Name),
			Text: fmt.Sprintf("%s waits for another build, which is making it", pl.p.Stages[st.to-1].Type),
		})
		idle(func() { release, err = s.Claim(ctx, st.key) })
	}
	if ctx.Err() != nil {
		if release != nil {
			release()
		}
		return nil, nil, context.Cause(ctx)
	}
	if err != nil {
		// A store that cannot be locked costs work that is done twice, at worst.
		release = func() {}
	}
	if obj, ok := s.Lookup(st.key); ok {
		release()
		b.mu.Lock()
		b.cached += st.to - st.from
		b.mu.Unlock()
		return obj, nil, nil
	}
	return nil, release, nil
}
