// build --rebuild-check: the same targets once more, from nothing and in other
// circumstances, and what differs.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// rebuildReport is what --rebuild-check found.
type rebuildReport struct {
	Identical bool           `json:"identical"` // all files
	Seconds   float64        `json:"seconds"`
	Files     []rebuiltFile  `json:"files"`
	Causes    []rebuildCause `json:"causes"`         // stages that made something else of the same, in their order
	Compared  int            `json:"compared"`       // steps
	Unknown   int            `json:"unknown"`        // stages whose first tree is not in the store any more
	Kept      string         `json:"kept,omitempty"` // the store of the second build
}

// rebuiltFile is one file of an artifact, made twice. A file that a build did not make
// has no checksum.
type rebuiltFile struct {
	Label     string `json:"label"`
	Path      string `json:"path"`
	Identical bool   `json:"identical"`
	SHA256    string `json:"sha256"`
	Second    string `json:"second_sha256"`
}

type rebuildCause struct {
	Pipeline string                  `json:"pipeline"`
	Target   string                  `json:"target,omitempty"`
	Stages   []causeStage            `json:"stages"`
	Unknown  int                     `json:"unknown_before,omitempty"` // stages before it that could not be compared
	NoEpoch  bool                    `json:"no_source_epoch,omitempty"`
	Files    []engine.PathDifference `json:"files"`
	More     int                     `json:"more,omitempty"`
}

type causeStage struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`

	Likely bool `json:"likely,omitempty"` // of several that make one layer
}

// apart is how much later than the first build the second one begins at least: no two
// times of files are the same by chance then.
const apart = 2 * time.Second

// rebuildCheck builds the plan of images that were built once more, and compares.
func (s *session) rebuildCheck(plan *builtins.Plan, images []built, first []builtReport) (_ *rebuildReport, err error) {
	start := time.Now()
	report := &rebuildReport{Identical: true, Files: []rebuiltFile{}, Causes: []rebuildCause{}, Kept: s.a.cfg.keep}
	if len(images) == 0 {
		return report, nil
	}
	names := pipelinesOf(&builtins.Plan{Artifacts: plan.Artifacts})
	second, remove, err := s.secondStore()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	res, err := s.buildAgain(plan, images, names, second)
	if err != nil {
		return nil, err
	}
	for i, im := range images {
		files, err := s.compareImage(im, res.Trees[im.Pipeline], first[i].Files)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			report.Identical = report.Identical && f.Identical
		}
		report.Files = append(report.Files, files...)
	}
	if !report.Identical || s.a.verbose {
		if err := s.compareSteps(report, plan.Manifest, names, second); err != nil {
			return nil, err
		}
	}
	report.Seconds = time.Since(start).Seconds()
	return report, nil
}

// secondStore makes an empty store: below the first, where it is gone with this process,
// or where --keep says.
func (s *session) secondStore() (_ *store.Store, remove func() error, err error) {
	dir, remove := s.a.cfg.keep, func() error { return nil }
	if dir != "" {
		if ents, err := os.ReadDir(dir); err == nil && len(ents) > 0 {
			return nil, nil, &usageError{msg: fmt.Sprintf("--keep %s: there is something in it", dir), verb: "build", hint: "name a directory that does not exist yet"}
		}
	} else {
		tmp, err := s.st.Scratch()
		if err != nil {
			return nil, nil, err
		}
		dir, remove = filepath.Join(tmp.Path, "store"), tmp.Close
	}
	second, err := store.Open(dir)
	if err != nil {
		return nil, nil, errors.Join(&engine.HostError{Err: err, Hint: "name a directory that you may write to: --keep DIR"}, remove())
	}
	return second, remove, nil
}

// buildAgain builds in the second store what the first has, of the same sources.
func (s *session) buildAgain(plan *builtins.Plan, images []built, names []string, second *store.Store) (_ *engine.Result, err error) {
	// The build roots of the first build end here.
	if err := s.eng.Close(); err != nil {
		return nil, err
	}
	var made time.Time
	for _, im := range images {
		if im.Tree.Created.After(made) {
			made = im.Tree.Created
		}
	}
	select {
	case <-s.a.ctx.Done():
		return nil, context.Cause(s.a.ctx)
	case <-time.After(time.Until(made.Add(apart))):
	}
	s.span.Emit(monitor.Event{Kind: monitor.Note, Text: "building again from nothing"})
	back, err := vary()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, back()) }()
	jobs := s.a.jobs
	if jobs <= 0 {
		jobs = runtime.NumCPU()
	}
	e := engine.New(engine.Config{
		Host: host, Store: second, Jobs: jobs + 1, Var: s.a.vardir, Sandbox: s.a.sandbox, Layers: s.a.layers, Memory: s.a.cfg.bound.n, Monitor: s.monitor, Limit: s.a.limit,
		Programs: s.a.programs(), Target: func(p string) string { return s.targets[p] },
		Fetch: func(ctx context.Context, m *manifest.Manifest, checksums []string, span *monitor.Span, done func(string, error)) error {
			return s.fetch(ctx, m, checksums, span, func(sum string, err error) {
				if err == nil {
					err = sources.Share(s.st.SourcesDir(), second.SourcesDir(), sum)
				}
				if errors.Is(err, fs.ErrNotExist) { // a program has put it elsewhere
					err = nil
				}
				done(sum, err)
			})
		},
	})
	defer func() { err = errors.Join(err, e.Close()) }()
	return e.Build(s.a.ctx, plan.Manifest, names, s.span)
}

// compareImage compares the files of an image with those of its second tree.
func (s *session) compareImage(im built, second *store.Object, files []exported) ([]rebuiltFile, error) {
	dir := s.outDir(im.Label)
	var names []string
	for _, f := range files {
		name, err := filepath.Rel(dir, f.Path)
		if err != nil {
			return nil, err
		}
		names = append(names, filepath.ToSlash(name))
	}
	if im.Files == nil { // all that there are
		more, err := s.eng.Files(second)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	var out []rebuiltFile
	for _, name := range names {
		f := rebuiltFile{Label: im.Label.String(), Path: filepath.Join(dir, filepath.FromSlash(name))}
		var err error
		if f.SHA256, err = sumOf(s.a.ctx, im.Tree, name); err != nil {
			return nil, err
		}
		if f.Second, err = sumOf(s.a.ctx, second, name); err != nil {
			return nil, err
		}
		f.Identical = f.SHA256 == f.Second
		out = append(out, f)
	}
	return out, nil
}

// sumOf is the checksum of a file of a tree, "" if it has none of that name.
func sumOf(ctx context.Context, o *store.Object, name string) (string, error) {
	p, err := engine.Find(o, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		_, err := io.CopyN(h, f, 64<<20)
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", name, err)
		}
	}
}

// compareSteps finds the stages that made something else.
func (s *session) compareSteps(report *rebuildReport, m *manifest.Manifest, names []string, second *store.Store) error {
	c, err := s.eng.Compare(s.a.ctx, m, names, second, s.span)
	if err != nil {
		return err
	}
	report.Compared, report.Unknown = c.Compared, c.Unknown
	for _, cause := range c.Causes {
		out := rebuildCause{
			Pipeline: cause.Pipeline, Target: cause.Target, Unknown: cause.Unknown, NoEpoch: cause.NoEpoch,
			Files: cause.Files, More: cause.More,
		}
		for _, st := range cause.Stages {
			out.Stages = append(out.Stages, causeStage{st.Type, st.ID, st.Origin.File, st.Origin.Line, st.Origin.Col, st.Likely})
		}
		report.Causes = append(report.Causes, out)
	}
	return nil
}

// vary changes what of this process no build may depend on: the mask of new files, the
// environment of programs, and on how many processors they run. back undoes it.
func vary() (back func() error, err error) {
	mask := unix.Umask(0o077)
	if mask == 0o077 {
		unix.Umask(0o022)
	}
	type variable struct {
		name, value string
		was         bool
	}
	var env []variable
	for name, values := range map[string][2]string{
		"TZ": {"Pacific/Chatham", "America/St_Johns"}, "LANG": {"de_DE.UTF-8", "tr_TR.UTF-8"}, "LC_ALL": {"C.UTF-8", "C"},
	} {
		v := variable{name: name}
		v.value, v.was = os.LookupEnv(name)
		env = append(env, v)
		to := values[0]
		if v.value == to {
			to = values[1]
		}
		os.Setenv(name, to)
	}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("asking for the processors: %w", err)
	}
	fewer := all
	for cpu := 0; all.Count() > 1; cpu++ {
		if fewer.IsSet(cpu) {
			fewer.Clear(cpu)
			break
		}
	}
	back = func() error {
		unix.Umask(mask)
		for _, v := range env {
			if v.was {
				os.Setenv(v.name, v.value)
			} else {
				os.Unsetenv(v.name)
			}
		}
		return setAffinity(&all)
	}
	if err := setAffinity(&fewer); err != nil {
		return nil, errors.Join(err, back())
	}
	return back, nil
}

// setAffinity says on which processors all threads of this process run, and the threads
// and programs that they start.
func setAffinity(cpus *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(id, cpus); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("choosing processors: %w", err)
		}
	}
	return nil
}
