// build: make targets and put their files into out/.
package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/monitor"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/spf13/pflag"
)

var buildCommand = &command{
	name: "build", args: "LABEL...", short: "build images, and put them into out/",
	long: `Builds the images that the labels name, as far as the store does not have
them, and puts their files into out/PACKAGE/NAME/ of the workspace. Only what
changed is run again: every stage is a checkpoint. Stages that do not wait for each
other run at the same time, and downloads beside them. A failure ends the build, and
names what it blocks; with -k all else is built, and each failure told at the end.

With --rebuild-check it builds all of it a second time, from nothing and in other
circumstances, and says whether the files are the same, byte for byte; if not, which
stage was the first that made something else, and in which files.`,
	example: `osbuild-star build //images:debian12
osbuild-star build -k //images/... -//images:experimental
osbuild-star build -D hostname=web1 --profile=trace.json //images:web
osbuild-star build --report=report.html //images:web
osbuild-star build --rebuild-check //images:debian12`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		a.ruleFlags(fs)
		a.workFlags(fs)
		a.memoryFlag(fs)
		fs.BoolVarP(&a.cfg.keepGoing, "keep-going", "k", false, "after a failure go on with all that does not depend on it")
		fs.StringVarP(&a.cfg.output, "out", "o", "", "`directory` to put files into (default: out/ of the workspace)")
		fs.StringVar(&a.report, "report", "", "write a page about the build and its images to this `file`; a browser opens it")
		fs.BoolVar(&a.cfg.rebuildCheck, "rebuild-check", false, "build again from nothing, and compare: which stage, which files differ")
		fs.StringVar(&a.cfg.keep, "keep", "", "`directory` that is the store of the second build of --rebuild-check, and stays")
	},
	run: runBuild,
}

// buildReport is what build --json prints.
type buildReport struct {
	Success bool          `json:"success"`
	Seconds float64       `json:"seconds"`
	Ran     int           `json:"stages_run"`
	Cached  int           `json:"stages_cached"`
	Images  []builtReport `json:"images"`
	Stages  []stageReport `json:"stages"`
	Report  string        `json:"report,omitempty"` // file of --report

	Rebuild *rebuildReport `json:"rebuild,omitempty"`
}

type builtReport struct {
	Label    string     `json:"label"`
	Pipeline string     `json:"pipeline"`
	ID       string     `json:"id"`
	Files    []exported `json:"files"`
}

type stageReport struct {
	Pipeline string  `json:"pipeline"`
	Type     string  `json:"type"`
	ID       string  `json:"id"`
	Seconds  float64 `json:"seconds"`
}

func runBuild(a *app, args []string) error {
	start := time.Now()
	if a.cfg.keep != "" && !a.cfg.rebuildCheck {
		return &usageError{msg: "--keep is about the second build of --rebuild-check", verb: "build", hint: "add --rebuild-check"}
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	targets, err := s.match("build", args)
	if err != nil {
		return err
	}
	if areBuildroots(targets) {
		return &usageError{
			msg:  fmt.Sprintf("%s is a buildroot: of it nothing goes into out/", targets[0].Label()),
			verb: "build", hint: "build an image that is built in it, or use it as --build-env",
		}
	}
	if err := checkPlace(a.report); err != nil {
		return err
	}
	r := &reporting{s: s, args: args, start: start}
	report, images, err := s.buildTargets(targets, r)
	var failed *engine.BuildError
	if !a.cfg.keepGoing || !errors.As(err, &failed) {
		failed = nil
	}
	if a.report != "" {
		if werr := r.write(err); werr != nil && err != nil {
			a.screen.warn("%v", werr)
		} else if err == nil {
			err = werr
		}
		report.Report = a.report
	}
	if err != nil && failed == nil {
		return err
	}
	if failed != nil {
		a.screen.endProgress()
		if !a.json {
			a.printFiles(report.Images)
		}
		return &partlyBuilt{err: failed, images: report.Images, total: len(r.plan.Artifacts)}
	}
	if a.cfg.rebuildCheck {
		if report.Rebuild, err = s.rebuildCheck(r.plan, images, report.Images); err != nil {
			return err
		}
		report.Success = report.Rebuild.Identical
	}
	report.Seconds = time.Since(start).Seconds()
	a.screen.endProgress()
	if report.Rebuild != nil {
		return a.screen.showRebuild(&report)
	}
	if a.json {
		return a.screen.outJSON(report)
	}
	a.printFiles(report.Images)
	how := fmt.Sprintf("%d stages run, %d from the store", report.Ran, report.Cached)
	if report.Ran == 0 {
		how = "nothing to do"
	}
	var size int64
	for _, im := range report.Images {
		for _, f := range im.Files {
			size += f.Size
		}
	}
	a.screen.note("%s %s in %s (%s)%s", a.screen.paint("1;32", "built"), plural(len(report.Images), "image"),
		seconds(time.Since(start)), how, sizeNote(size))
	if a.report != "" {
		a.screen.note("report: %s", relative(a.report))
	}
	if len(images) == 1 && report.Ran > 0 && isDisk(paths(report.Images[0].Files)) {
		a.screen.note("to start it: osbuild-star boot %s", images[0].Label)
	}
	return nil
}

// buildTargets builds and exports what targets name. r learns what there is to tell,
// also of a build that fails. What a build has made that went on after a failure is
// exported, and the failure returned.
func (s *session) buildTargets(targets []rulefile.Target, r *reporting) (report buildReport, images []built, err error) {
	if r.plan, err = s.planToBuild(targets, nothingMore); err != nil {
		return report, nil, err
	}
	images, res, failed := s.build(r.plan)
	var partly *engine.BuildError
	if failed != nil && !(s.a.cfg.keepGoing && errors.As(failed, &partly)) {
		return report, nil, failed
	}
	report = buildReport{Success: true, Ran: len(res.Stages), Cached: res.Cached, Images: []builtReport{}, Stages: []stageReport{}}
	for _, st := range res.Stages {
		report.Stages = append(report.Stages, stageReport{st.Pipeline, st.Type, st.ID, st.Wall.Seconds()})
	}
	for _, im := range images {
		files, err := s.export(im)
		if err != nil {
			return report, nil, err
		}
		report.Images = append(report.Images, builtReport{im.Label.String(), im.Pipeline, im.Tree.ID, files})
		if err := r.built(im, files); err != nil {
			return report, nil, err
		}
	}
	return report, images, failed
}

// printFiles prints where the files of images are.
func (a *app) printFiles(images []builtReport) {
	for _, im := range images {
		for _, f := range im.Files {
			a.screen.out(relative(f.Path) + "\n")
		}
	}
}

func sizeNote(n int64) string {
	if n == 0 {
		return ""
	}
	return ", " + monitor.Bytes(n)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func paths(files []exported) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.Path
	}
	return out
}

// isDisk tells whether the files of an artifact are one disk that can be started.
func isDisk(files []string) bool {
	if len(files) != 1 {
		return false
	}
	for _, suffix := range []string{".qcow2", ".raw", ".vmdk", ".vdi", ".vhdx", ".vpc", ".vhd"} {
		if strings.HasSuffix(files[0], suffix) {
			return true
		}
	}
	return false
}
