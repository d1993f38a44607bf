// The screen's part about --rebuild-check.
package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/engine"
)

// maxShown is how many paths of one stage, and how many stages, a person is shown.
const maxShown = 20

// showRebuild shows what building again found. That files differ is an error.
func (s *screen) showRebuild(report *buildReport) error {
	r := report.Rebuild
	if s.json {
		if err := s.outJSON(report); err != nil {
			return err
		}
	} else {
		for _, f := range r.Files {
			if f.Identical {
				s.out(fmt.Sprintf("identical  sha256:%s  %s\n", f.SHA256, relative(f.Path)))
			} else {
				s.out(fmt.Sprintf("differs    %s, then %s  %s\n", sumText(f.SHA256), sumText(f.Second), relative(f.Path)))
			}
		}
	}
	if r.Identical {
		if s.json {
			return nil
		}
		for i := range r.Causes { // with -v
			if i == 0 {
				s.note("what differs on the way there, and is in no file:")
			}
			s.showCause(&r.Causes[i], i == 0)
		}
		s.note("%s %s again from nothing: the same bytes, in %s", s.paint("1;32", "built"), plural(len(report.Images), "image"),
			seconds(time.Duration(r.Seconds*float64(time.Second))))
		return nil
	}
	differ := 0
	for _, f := range r.Files {
		if !f.Identical {
			differ++
		}
	}
	s.headline(fmt.Sprintf("not reproducible: files that differ: %d of %d", differ, len(r.Files)), "")
	if !s.quiet {
		for i := range r.Causes[:min(len(r.Causes), maxShown)] {
			s.showCause(&r.Causes[i], i == 0)
		}
	}
	s.hint(rebuildHint(r))
	if r.Kept != "" {
		s.note("the store of the second build: %s", relative(r.Kept))
	}
	return &reported{exitFailed}
}

func sumText(sum string) string {
	if sum == "" {
		return "missing"
	}
	return "sha256:" + sum[:16] + "…"
}

func rebuildHint(r *rebuildReport) string {
	switch {
	case len(r.Causes) == 0 && r.Unknown > 0:
		return "the trees between are not in the store any more: with a store of its own (--store DIR) the stage is found"
	case len(r.Causes) == 0:
		return "no stage made another tree; look at what the files say of themselves"
	case r.Causes[0].NoEpoch:
		return "without a source epoch files have the time of their build: module(source_epoch = …) in MODULE.star"
	case r.Kept == "":
		return "--keep DIR keeps the second build: osbuild-star shell --store DIR shows its trees"
	}
	return ""
}

// showCause tells of a stage that made something else.
func (s *screen) showCause(c *rebuildCause, first bool) {
	w := s.stderr
	what := "a stage that made something else of the same"
	switch {
	case len(c.Stages) > 1:
		what = "one of these stages on one file made something else of the same"
	case first:
		what = "the first stage that made something else of the same"
	}
	fmt.Fprintf(w, "   = %s, in pipeline %q", what, c.Pipeline)
	if c.Target != "" {
		fmt.Fprintf(w, " of %s", c.Target)
	}
	fmt.Fprintln(w, ":")
	for _, st := range c.Stages {
		mark := ""
		if st.Likely {
			mark = ", whose part of the file differs"
		}
		fmt.Fprintf(w, "     stage %s (%s)%s\n", s.paint("1", st.Type), st.ID[:min(12, len(st.ID))], mark)
		if st.File != "" {
			fmt.Fprintf(w, "  --> %s:%d:%d\n", st.File, st.Line, st.Col)
		}
	}
	if c.Unknown > 0 {
		fmt.Fprintf(w, "     or one of the %s before it, whose trees are not in the store any more\n", plural(c.Unknown, "stage"))
	}
	for _, f := range c.Files[:min(len(c.Files), maxShown)] {
		var how []string
		for _, ch := range f.Changes {
			how = append(how, changeText(ch))
		}
		fmt.Fprintf(w, "     | %s: %s\n", f.Path, strings.Join(how, "; "))
	}
	if more := len(c.Files) - maxShown + c.More; more > 0 {
		fmt.Fprintf(w, "     | and %s more; --json lists them\n", plural(more, "path"))
	}
}

func changeText(ch engine.Change) string {
	switch {
	case ch.Line > 0:
		return fmt.Sprintf("line %d is %s, then %s", ch.Line, ch.First, ch.Second)
	case ch.What == "content":
		return fmt.Sprintf("from byte %d on it is %s, then %s", ch.Offset, ch.First, ch.Second)
	}
	return fmt.Sprintf("%s is %s, then %s", ch.What, ch.First, ch.Second)
}
