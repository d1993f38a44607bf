// The exit status of builds with several failures.
package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
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

func TestHintOfFullDisks(t *testing.T) {
	a := &app{store: t.TempDir()}
	full := fmt.Errorf("mounting: %w", syscall.ENOSPC)
	other := errors.New("something else")
	build := &engine.BuildError{Failures: []engine.Failure{{Err: other}, {Err: full}}}
	if err := a.full(&partlyBuilt{err: build}); !errors.As(err, new(*partlyBuilt)) {
		t.Errorf("it is another error: %v", err)
	}
	for i, want := range []bool{false, true} {
		if hint := hintOf(build.Failures[i].Err); strings.Contains(hint, a.store) != want {
			t.Errorf("%v: hint %q", build.Failures[i].Err, hint)
		}
	}
	if hint := hintOf(a.full(full)); !strings.Contains(hint, a.store) {
		t.Errorf("not of a build: hint %q", hint)
	}
}
