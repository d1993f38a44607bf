// Sizes on the command line, and the exit status of builds with several failures.
package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/monitor"
)

func TestByteSize(t *testing.T) {
	for text, want := range map[string]byteSize{
		"4G": 4 << 30, "4g": 4 << 30, "4GiB": 4 << 30, "4 GiB": 4 << 30, "1.5GB": 3 << 29, "512M": 512 << 20, "64k": 64 << 10, "1T": 1 << 40, "1048576": 1 << 20,
	} {
		var got byteSize
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%q: %s, %v", text, monitor.Bytes(int64(got)), err)
		}
	}
	for _, text := range []string{"", "G", "lots", "-4G", "0", "4X", "1e30", "NaN", "Inf", "4GG"} {
		var got byteSize
		if err := got.Set(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

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
