// What verbs say about steps that run at the same time, and what is told when some of
// them fail.
package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/spf13/pflag"
)

// memoryFlag is of verbs that build and start no machine: there --memory is that of the
// machine.
func (a *app) memoryFlag(fs *pflag.FlagSet) {
	fs.Var(&a.cfg.bound, "memory", "what stages at the same time may take: a `size`, 4G or 512M (default: what there is)")
}

// partlyBuilt is a build that went on after a failure, with the images that it has.
type partlyBuilt struct {
	err    *engine.BuildError
	images []builtReport
	total  int // images asked for
}

func (e *partlyBuilt) Error() string { return e.err.Error() }
func (e *partlyBuilt) Unwrap() error { return e.err }

// buildStatus is the exit status of a build with these failures: what all of them say,
// else that it failed.
func buildStatus(e *engine.BuildError) int {
	status := exitStatus(e.Failures[0].Err)
	for _, f := range e.Failures[1:] {
		if exitStatus(f.Err) != status {
			return exitFailed
		}
	}
	return status
}

// showBuild tells of each failure of a build, and of what it blocks.
func (s *screen) showBuild(e *engine.BuildError, part *partlyBuilt) {
	for i, f := range e.Failures {
		if i > 0 {
			fmt.Fprintln(s.stderr)
		}
		s.show(f.Err)
		s.blocks(f)
	}
	switch n := len(e.Failures); {
	case part != nil:
		fmt.Fprintf(s.stderr, "%s %s; built %d of %s\n", s.paint("1;31", "FAILED"), plural(n, "failure"), len(part.images), plural(part.total, "image"))
	case n > 1:
		fmt.Fprintf(s.stderr, "%s %s\n", s.paint("1;31", "FAILED"), plural(n, "failure"))
	}
}

// mostBlocked is how many targets are named of those that a failure blocks.
const mostBlocked = 3

// blocks names what a failure blocks, unless that is only the target that it is told
// with.
func (s *screen) blocks(f engine.Failure) {
	names := f.Blocks
	var stage *engine.StageError
	if len(names) == 0 || len(names) == 1 && errors.As(f.Err, &stage) && stage.Target == names[0] {
		return
	}
	more := ""
	if n := len(names) - mostBlocked; n > 0 && !s.verbose {
		names, more = names[:mostBlocked], fmt.Sprintf(" and %d more", n)
	}
	fmt.Fprintf(s.stderr, "   = blocks %s%s\n", strings.Join(names, ", "), more)
}

// failureJSON is one failure as data.
func failureJSON(f engine.Failure) map[string]any {
	e := errorFields(f.Err)
	e["blocks"] = append([]string{}, f.Blocks...)
	return e
}

// buildErrorJSON is a build that failed as data: all failures, the first of them also
// where other verbs have theirs, and the images that were built.
func buildErrorJSON(err error, e *engine.BuildError, status int) any {
	failures := []any{}
	for _, f := range e.Failures {
		failures = append(failures, failureJSON(f))
	}
	out := map[string]any{"success": false, "status": status, "error": failures[0], "failures": failures}
	var part *partlyBuilt
	if errors.As(err, &part) {
		out["images"] = append([]builtReport{}, part.images...)
	}
	return out
}

// errorFields is an error as data.
func errorFields(err error) map[string]any {
	e := map[string]any{"message": err.Error()}
	if h := hintOf(err); h != "" {
		e["hint"] = h
	}
	var stage *engine.StageError
	if errors.As(err, &stage) {
		e["stage"] = map[string]any{
			"type": stage.Type, "id": stage.ID, "pipeline": stage.Pipeline, "target": stage.Target, "output": stage.Output,
			"file": stage.Origin.File, "line": stage.Origin.Line, "status": stage.Status,
		}
	}
	var missing *missingError
	if errors.As(err, &missing) {
		e["missing"] = missing.missing
	}
	return e
}
