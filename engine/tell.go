// What the stream of events is told of stages: those that run, those that wait for a
// slot, and those that the store has.
package engine

import "github.com/osbuild-star/osbuild-star/monitor"

// stageEvent names a stage.
func (b *build) stageEvent(category string, pl *plan, i int) monitor.Event {
	return monitor.Event{
		Category: category, Name: pl.p.Stages[i].Type, ID: pl.ids.Stage(pl.p, i), Text: pl.p.Name, Target: b.target(pl.p.Name),
	}
}

func (b *build) stageSpan(pl *plan, i int) *monitor.Span {
	return b.span.Start(b.stageEvent(monitor.CatStage, pl, i))
}

// stageFacts are what is told of a stage at its end.
func stageFacts(pl *plan, st step, i int, r StageResult) monitor.Stage {
	o := pl.p.Stages[i].Origin
	return monitor.Stage{Key: st.key, CPU: r.CPU, MaxRSS: r.MaxRSS, File: o.File, Line: o.Line}
}

// hits tells of the stages of the first steps of a pipeline, which the store has.
func (b *build) hits(pl *plan, steps []step) {
	for _, st := range steps {
		for i := st.from; i < st.to; i++ {
			facts := stageFacts(pl, st, i, StageResult{})
			e := b.stageEvent(monitor.CatStage, pl, i)
			e.Kind, e.Cached, e.Stage = monitor.Hit, true, &facts
			b.span.Emit(e)
		}
	}
}
