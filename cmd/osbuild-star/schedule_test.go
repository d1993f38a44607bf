// The exit status of builds with several failures.
package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/osbuild-star/osbuild-star/engine"
)

func TestStatusOfFailures(t *testing.T) {
	stage := &engine.StageError{Type: "x", Pipeline: "p"}
	host := &engine.HostError{Err: errors.New("no kernel"), Hint: "get one"}
	build := func(errs ...error) error {
		b := &engine.BuildError{}
		for _, err := range errs {
			b.Failures = append(b.Failures, engine.Failure{Err: err})
		}
		return b
	}
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"a stage", build(stage), exitFailed},
		{"the host", build(fmt.Errorf("building: %w", host)), exitHost},
		{"twice the host", build(host, host), exitHost},
		{"several kinds", build(host, stage), exitFailed},
		{"several kinds in another order", build(stage, host), exitFailed},
		{"with images", &partlyBuilt{err: build(stage, stage).(*engine.BuildError)}, exitFailed},
		{"interrupted", build(stage, errInterrupted), exitInterrupted},
	} {
		if got := exitStatus(c.err); got != c.want {
			t.Errorf("%s: exit status %d, want %d", c.name, got, c.want)
		}
	}
}
