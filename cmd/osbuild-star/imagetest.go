// test: images in QEMU, watched. A test that has passed is run again only when
// something of the image, of what is asked, or of the machine has changed.
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/engine/vm"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
	"github.com/spf13/pflag"
)

var testCommand = &command{
	name: "test", args: "LABEL...", short: "run the tests of images",
	long: `Builds the images that the image_test targets among the labels are about, starts
each in QEMU without a screen, waits for the login prompt on its serial console,
runs the commands of the test in it, and checks that the system is running with
no failed unit. A machine that does not come up fails with the end of its console.

A test that has passed is not run again as long as its image, what it asks, QEMU and
the firmware are the same; whether KVM is used makes no difference. One that failed is.`,
	example: `osbuild-star test //images/...
osbuild-star test --firmware=bios --json //images:debian12_boot
osbuild-star test --rerun //images:debian12_boot`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		a.ruleFlags(fs)
		a.workFlags(fs)
		a.machineFlags(fs)
		fs.DurationVar(&a.cfg.timeout, "timeout", 0, "`time` that one boot may take (default: what the test says)")
		fs.BoolVar(&a.cfg.rerun, "rerun", false, "run tests that have passed before, too")
	},
	run: runTest,
}

// testReport is what test --json prints of one boot.
type testReport struct {
	Label    string  `json:"label"`
	Image    string  `json:"image"`
	Firmware string  `json:"firmware"`
	Passed   bool    `json:"passed"`
	Cached   bool    `json:"cached"` // it passed before: what is told is of that time
	Accel    string  `json:"accel,omitempty"`
	Boot     float64 `json:"seconds_to_login"`
	Total    float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"`
	Console  string  `json:"console,omitempty"`
}

func runTest(a *app, args []string) error {
	if err := a.checkMachine("test"); err != nil {
		return err
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	targets, err := s.match("test", args)
	if err != nil {
		return err
	}
	var runs []*testRun
	more := func(plan *builtins.Plan) []engine.Missing {
		var missing []engine.Missing
		runs = nil
		for _, t := range plan.Tests {
			for _, fw := range firmwares(t, a.cfg.firmware) {
				runs = append(runs, &testRun{test: t, fw: fw})
				missing = append(missing, vmMissing(vm.Config{Firmware: fw, Arch: t.Arch})...)
			}
		}
		slices.SortFunc(missing, func(x, y engine.Missing) int { return cmp.Compare(x.What, y.What) })
		return slices.Compact(missing)
	}
	plan, err := s.planToBuild(targets, more)
	if err != nil {
		return err
	}
	if len(plan.Tests) == 0 {
		return &noTests{strings.Join(args, " ")}
	}
	missing := more(plan)
	e, err := s.engine()
	if err != nil {
		return err
	}
	// Images that are among the targets are not built for it, only those that tests
	// have to run of.
	todo := &builtins.Plan{}
	for _, r := range runs {
		if err := a.findPassed(s, r, plan); err != nil {
			return err
		}
		if r.report == nil {
			todo.Tests = append(todo.Tests, r.test)
		}
	}
	var res *engine.Result
	if names := pipelinesOf(todo); len(names) > 0 {
		if err := s.preflight(plan, names, missing); err != nil {
			return err
		}
		if res, err = e.Build(a.ctx, plan.Manifest, names, s.span); err != nil {
			return err
		}
	}
	s.pin(plan)
	var reports []testReport
	failed := 0
	for _, r := range runs {
		if r.report != nil {
			reports = append(reports, *r.report)
			continue
		}
		// The disk is read where the store has it; the machine's writes go nowhere.
		disk := r.test.Disk
		tree := res.Trees[r.test.ImagePipeline]
		if disk == "" {
			files, err := e.Files(tree)
			if err != nil {
				return err
			}
			if len(files) != 1 {
				return fmt.Errorf("%s: the image has %d files; say which is the disk", r.test.Label, len(files))
			}
			disk = files[0]
		}
		path, err := engine.Find(tree, disk)
		if err != nil {
			return fmt.Errorf("%s: %w", r.test.Label, err)
		}
		rep := a.bootTest(s, r, path)
		if err := a.ctx.Err(); err != nil {
			return context.Cause(a.ctx)
		}
		if err := a.keepPassed(s, r.key, rep); err != nil {
			a.screen.warn("%v", err)
		}
		if !rep.Passed {
			failed++
		}
		reports = append(reports, rep)
	}
	a.screen.endProgress()
	if a.json {
		if err := a.screen.outJSON(reports); err != nil {
			return err
		}
		if failed > 0 {
			return &reported{exitTests}
		}
		return nil
	}
	for _, r := range reports {
		if r.Passed {
			cached := ""
			if r.Cached {
				cached = "cached; "
			}
			a.screen.out(fmt.Sprintf("PASS %s (%s%s, %s): login prompt after %.1fs, %.1fs in all\n", r.Label, cached, r.Firmware, r.Accel, r.Boot, r.Total))
			continue
		}
		a.screen.out(fmt.Sprintf("FAIL %s (%s): %s\n", r.Label, r.Firmware, r.Error))
		for _, l := range lastLines(r.Console, 25) {
			a.screen.out("     | " + l + "\n")
		}
	}
	if failed > 0 {
		return &testsFailed{failed, len(reports)}
	}
	return nil
}

// noTests is a pattern that has no test among its targets.
type noTests struct{ pattern string }

func (e *noTests) Error() string { return "no image_test among the targets of " + e.pattern }

func firmwares(t builtins.Test, only string) []string {
	if only != "" {
		return []string{only}
	}
	if len(t.Firmware) == 0 {
		return []string{vm.DefaultFirmware(t.Arch)}
	}
	return t.Firmware
}

func (a *app) bootTest(s *session, r *testRun, disk string) testReport {
	t, fw := r.test, r.fw
	name := "boot " + t.Image.String()
	if fw != "" {
		name += " (" + fw + ")"
	}
	span := s.span.Start(monitor.Event{Category: monitor.CatTest, Name: name, Target: t.Label.String()})
	spec := a.testSpec(r)
	spec.Disk, spec.Format, spec.Accel = disk, strings.TrimPrefix(filepath.Ext(disk), "."), a.cfg.accel
	res := vm.Test(a.ctx, spec, span)
	span.End(res.Err)
	rep := r.newReport()
	rep.Passed, rep.Accel, rep.Boot, rep.Total = res.Passed, res.Accel, res.Boot.Seconds(), res.Total.Seconds()
	if res.Err != nil {
		rep.Error, rep.Console = res.Err.Error(), res.Console
		var c *vm.CheckError
		if errors.As(res.Err, &c) && c.Output != "" {
			rep.Error += ": " + strings.TrimSpace(c.Output)
		}
	}
	return rep
}

// testRun is one boot that is asked for.
type testRun struct {
	test   builtins.Test
	fw     string
	key    string
	report *testReport // of the time when it passed; nil: it has to run
}

func (r *testRun) newReport() testReport {
	return testReport{Label: r.test.Label.String(), Image: r.test.Image.String(), Firmware: cmp.Or(r.fw, "default")}
}

// testSpec is what a test asks, without the disk and the accelerator.
func (a *app) testSpec(r *testRun) vm.TestSpec {
	t := r.test
	return vm.TestSpec{
		Config: vm.Config{Firmware: r.fw, Arch: t.Arch, Memory: cmp.Or(a.cfg.memory, t.Memory)},
		Login:  t.Login, Password: t.Password, WaitRunning: t.Login != "", Commands: t.Commands,
		Timeout: cmp.Or(a.cfg.timeout, t.Timeout),
	}
}

// findPassed gives a test its key, and the report of the time when it passed.
func (a *app) findPassed(s *session, r *testRun, plan *builtins.Plan) error {
	image, err := s.eng.Key(plan.Manifest, r.test.ImagePipeline)
	if err != nil {
		return err
	}
	spec := a.testSpec(r)
	b, err := json.Marshal(struct {
		Revision             int
		Image, Disk, Machine string
		Firmware, Arch       string
		Memory, CPUs         int
		Login, Password      string
		Running              bool
		Commands             []string
		Timeout              time.Duration
	}{
		vm.TestRevision, image, r.test.Disk, s.eng.HostFiles(vm.Files(spec.Config)...),
		spec.Firmware, spec.Arch, spec.Memory, spec.CPUs,
		spec.Login, spec.Password, spec.WaitRunning, spec.Commands, spec.Timeout,
	})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	r.key = hex.EncodeToString(sum[:])
	p, ok := s.st.Passed(r.key)
	if !ok || a.cfg.rerun {
		return nil
	}
	rep := r.newReport()
	rep.Passed, rep.Cached, rep.Accel, rep.Boot, rep.Total = true, true, p.Accel, p.Boot.Seconds(), p.Total.Seconds()
	r.report = &rep
	return nil
}

// keepPassed remembers a test that passed, and nothing of one that did not.
func (a *app) keepPassed(s *session, key string, rep testReport) error {
	if !rep.Passed {
		return s.st.ForgetPassed(key)
	}
	return s.st.KeepPassed(store.Passed{
		Key: key, Label: rep.Label, Time: time.Now().UTC(), Accel: rep.Accel,
		Boot: time.Duration(rep.Boot * float64(time.Second)), Total: time.Duration(rep.Total * float64(time.Second)),
	})
}
