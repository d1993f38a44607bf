// Steps that another build on the same store is making: waited for, not made twice.
package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// errElsewhere says that another build is making the tree of a step.
var errElsewhere = errors.New("another build is making it")

// claim makes a step this build's own, or says that it is another's: then the schedule
// gives its place to others, waits for it by await, and runs it again.
//
// Who waits for a claim holds no place, and who holds one needs nothing else to go on,
// so builds that wait for each other's steps cannot stand still.
func (b *build) claim(n *node) error {
	if n.release != nil {
		return nil
	}
	release, ok, err := b.e.cfg.Store.TryClaim(n.st.key)
	switch {
	case err != nil:
		// A store that cannot be locked costs work that is done twice, at worst.
		n.release = func() {}
	case !ok:
		b.span.Emit(monitor.Event{
			Kind: monitor.Note, Target: b.target(n.pl.p.Name),
			Text: fmt.Sprintf("%s waits for another build, which is making it", n.pl.p.Stages[n.st.to-1].Type),
		})
		return errElsewhere
	default:
		n.release = release
	}
	return nil
}

// await waits until no other build has the claim on a step, and takes it.
func (b *build) await(ctx context.Context, n *node) error {
	release, err := b.e.cfg.Store.Claim(ctx, n.st.key)
	if ctx.Err() != nil {
		if release != nil {
			release()
		}
		return context.Cause(ctx)
	}
	if err != nil {
		release = func() {}
	}
	n.release = release
	return nil
}

// unclaim lets others have the step.
func (n *node) unclaim() {
	if n.release != nil {
		n.release()
		n.release = nil
	}
}
