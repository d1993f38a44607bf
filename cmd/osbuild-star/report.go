// The report of a build: what is known of it when it is over, however it ended.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/monitor/report"
	"golang.org/x/sys/unix"
)

// reporting collects what a build tells, for its report and for the next one.
type reporting struct {
	s      *session
	args   []string
	start  time.Time
	plan   *builtins.Plan
	images []report.Image
}

func (r *reporting) seconds() float64 { return time.Since(r.start).Seconds() }

// checkPlace tells before the work that a file could not be written after it.
func checkPlace(file string) error {
	if file == "" {
		return nil
	}
	dir := filepath.Dir(file)
	if st, err := os.Stat(dir); err != nil {
		return fmt.Errorf("%s cannot be written: %w", file, err)
	} else if !st.IsDir() {
		return fmt.Errorf("%s cannot be written: %s is no directory", file, dir)
	}
	if st, err := os.Stat(file); err == nil && st.IsDir() {
		return fmt.Errorf("%s cannot be written: it is a directory", file)
	}
	return nil
}

// built takes an artifact that is in its place. What is kept of the build before is
// read, and replaced where this one made another tree.
func (r *reporting) built(im built, files []exported) error {
	s, label := r.s, im.Label.String()
	rec := s.lastBuild(label)
	same := rec.Last != nil && rec.Last.Key == im.Tree.Key
	if same && s.a.report == "" {
		return nil
	}
	made, err := s.made(r, im, files)
	if err != nil {
		return err
	}
	if same {
		made.Seconds = rec.Last.Seconds // of the build that made it
	} else {
		rec.Last, rec.Before = &made, rec.Last
		keep(s.recordPath(label), rec)
	}
	if s.a.report == "" {
		return nil
	}
	image := report.Image{Label: label, Dir: relative(s.outDir(im.Label)), Made: made, Before: rec.Before, Same: same}
	seen := false
	err = s.eng.Reads(r.plan.Manifest, im.Pipeline, func(t engine.Tree) (bool, error) {
		c, err := s.content(t.Object)
		if c != nil {
			image.Trees = append(image.Trees, report.Tree{Pipeline: t.Pipeline, Content: c})
		}
		seen = true
		return c == nil, err
	})
	if err != nil { // the image is there all the same
		image.Note = fmt.Sprintf("What is in it could not be read: %v", err)
	} else if len(image.Trees) == 0 && seen {
		image.Note = "No tree of an operating system was found among those that it is made from, so there are no sizes and no packages."
	}
	if rec.Before != nil {
		image.Old = s.oldTrees(rec.Before)
	}
	r.images = append(r.images, image)
	return nil
}

// oldTrees reads the trees of an earlier build, as far as the store has them.
func (s *session) oldTrees(m *report.Made) []report.Tree {
	for _, t := range m.Trees {
		c := &report.Content{}
		if !readKept(filepath.Join(s.st.Dir, "reports", t.Key+".json"), c) || !c.Current() {
			o, ok := s.st.Lookup(t.Key)
			if !ok {
				continue
			}
			var err error
			if c, err = s.content(o); err != nil || c == nil {
				continue
			}
		}
		return []report.Tree{{Pipeline: t.Pipeline, Content: c}}
	}
	return nil
}

// write writes the report; failed is how the build ended.
func (r *reporting) write(failed error) error {
	s := r.s
	in := report.Input{
		Version: version, Command: "osbuild-star build " + strings.Join(r.args, " "), Targets: r.args,
		Images: r.images, Machine: s.machine(), Past: monitor.Past{Start: r.start},
	}
	if s.past != nil {
		in.Past = s.past.Past()
	}
	if r.plan != nil {
		in.Targets = nil
		for _, a := range r.plan.Artifacts {
			in.Targets = append(in.Targets, a.Label.String())
		}
	}
	if r.plan != nil && s.eng != nil {
		stages, err := s.eng.Describe(r.plan.Manifest, pipelinesOf(&builtins.Plan{Artifacts: r.plan.Artifacts}))
		if err != nil && failed == nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		for _, d := range stages {
			in.Stages = append(in.Stages, report.Stage{
				MadeStage: madeStage(d), ID: d.ID, Target: d.Target, File: d.Origin.File, Line: d.Origin.Line,
				Needs: d.Needs, Stored: d.Stored, Layer: d.Size,
			})
		}
	}
	if failed != nil {
		in.Failure = s.failure(failed)
		in.Before = s.before(in.Stages)
	}
	err := monitor.WriteWhole(s.a.report, func(w io.Writer) error { return report.Write(w, in) })
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// before are the last builds of the targets of stages: of a build that failed.
func (s *session) before(stages []report.Stage) map[string]*report.Made {
	out := map[string]*report.Made{}
	for _, st := range stages {
		if _, seen := out[st.Target]; !seen && st.Target != "" {
			out[st.Target] = s.lastBuild(st.Target).Last
		}
	}
	return out
}

// failure is what the screen shows of an error, as data.
func (s *session) failure(err error) *report.Failure {
	f := &report.Failure{Message: err.Error(), Hint: hintOf(err)}
	if errors.Is(err, errInterrupted) || s.a.ctx.Err() != nil {
		f.Message, f.Interrupted = "The build was interrupted.", true
		return f
	}
	var missing *missingError
	if errors.As(err, &missing) {
		for _, m := range missing.missing {
			f.Lines = append(f.Lines, m.What+", "+m.Why)
		}
	}
	for _, st := range stageErrors(err) {
		o := report.FailedStage{
			Message: st.Error(), Hint: st.Hint, Type: st.Type, ID: st.ID, Pipeline: st.Pipeline, Target: st.Target, Output: lastLines(st.Output, 40),
		}
		if st.Origin.File != "" {
			o.Rule = fmt.Sprintf("%s:%d", st.Origin.File, st.Origin.Line)
		}
		f.Stages = append(f.Stages, o)
	}
	return f
}

// stageErrors finds the stages that failed in an error, also in one of several.
func stageErrors(err error) []*engine.StageError {
	var st *engine.StageError
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*engine.StageError
		for _, e := range several.Unwrap() {
			out = append(out, stageErrors(e)...)
		}
		return out
	}
	if errors.As(err, &st) {
		return []*engine.StageError{st}
	}
	return nil
}

// machine tells where this runs.
func (s *session) machine() report.Machine {
	m := report.Machine{Arch: engine.HostArch(), CPUs: runtime.NumCPU(), Jobs: s.a.jobs}
	if m.Jobs <= 0 {
		m.Jobs = m.CPUs
	}
	if s.st != nil {
		m.Store = s.st.Dir
	}
	m.Model = procField("/proc/cpuinfo", "model name")
	if kib, _, ok := strings.Cut(procField("/proc/meminfo", "MemTotal"), " "); ok {
		n, err := strconv.ParseInt(kib, 10, 64)
		if err == nil {
			m.Memory = n << 10
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// procField is the value of the first line of that name; "" when there is none.
func procField(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(b) {
		key, value, ok := strings.Cut(string(line), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
