// build: make targets and put their files into out/.
package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/spf13/pflag"
)

var buildCommand = &command{
	name: "build", args: "LABEL...", short: "build images, and put them into out/",
	long: `Builds the images that the labels name, as far as the store does not have
them, and puts their files into out/PACKAGE/NAME/ of the workspace. Only what
changed is run again: every stage is a checkpoint.`,
	example: `osbuild-star build //images:debian12
osbuild-star build //images/... -//images:experimental
osbuild-star build -D hostname=web1 --profile=trace.json //images:web
osbuild-star build --report=report.html //images:web`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		a.ruleFlags(fs)
		a.workFlags(fs)
		fs.StringVarP(&a.cfg.output, "out", "o", "", "`directory` to put files into (default: out/ of the workspace)")
		fs.StringVar(&a.report, "report", "", "write a page about the build and its images to this `file`; a browser opens it")
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
	if a.report != "" {
		if werr := r.write(err); werr != nil && err != nil {
			a.screen.warn("%v", werr)
		} else if err == nil {
			err = werr
		}
		report.Report = a.report
	}
	if err != nil {
		return err
	}
	report.Seconds = time.Since(start).Seconds()
	a.screen.endProgress()
	if a.json {
		return a.screen.outJSON(report)
	}
	for _, im := range report.Images {
		for _, f := range im.Files {
			a.screen.out(relative(f.Path) + "\n")
		}
	}
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
// also of a build that fails.
func (s *session) buildTargets(targets []rulefile.Target, r *reporting) (report buildReport, images []built, err error) {
	if r.plan, err = s.planToBuild(targets, nothingMore); err != nil {
		return report, nil, err
	}
	images, res, err := s.build(r.plan)
	if err != nil {
		return report, nil, err
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
	return report, images, nil
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
