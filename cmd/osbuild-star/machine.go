// boot: images in QEMU, on this terminal or by ssh.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/engine/vm"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/spf13/pflag"
)

// machineFlags are those of the verbs that start machines.
func (a *app) machineFlags(fs *pflag.FlagSet) {
	fs.StringVar(&a.cfg.firmware, "firmware", "", "`firmware` to boot by: bios or uefi")
	fs.IntVar(&a.cfg.memory, "memory", 0, "memory of the machine in `MiB`")
	fs.StringVar(&a.cfg.accel, "accel", "", "`accelerator`: auto, kvm or tcg (default: $"+vm.AccelEnv+", else auto)")
	fs.StringVarP(&a.cfg.output, "out", "o", "", "`directory` to put files into (default: out/ of the workspace)")
}

// checkMachine checks the values of machineFlags, before anything is built.
func (a *app) checkMachine(verb string) error {
	for _, f := range []struct {
		flag, value string
		known       []string
	}{{"firmware", a.cfg.firmware, []string{"bios", "uefi"}}, {"accel", a.cfg.accel, []string{"auto", "kvm", "tcg"}}} {
		if f.value == "" || slices.Contains(f.known, f.value) {
			continue
		}
		e := &usageError{
			msg:  fmt.Sprintf("--%s takes %s, not %q", f.flag, strings.Join(f.known, " or "), f.value),
			verb: verb,
		}
		if near := rulefile.Suggest(f.value, f.known); near != "" {
			e.hint = fmt.Sprintf("did you mean %q?", near)
		}
		return e
	}
	return nil
}

var bootCommand = &command{
	name: "boot", args: "LABEL [-- COMMAND...]", short: "build an image and start it in QEMU, on this terminal",
	long: `Builds the image and starts it in QEMU, with its serial console on this
terminal. The image is not changed: what the machine writes is gone when it ends.
With --ssh the machine is started in the background, and ssh logs in as root by
a key that is made for the occasion and handed to the guest; what stands behind
"--" is run instead of a shell.

Keys on the console:
` + indent(vm.EscapeHelp),
	example: `osbuild-star boot //images:debian12
osbuild-star boot --firmware=uefi //images:debian12
osbuild-star boot --ssh //images:debian12 -- systemctl --failed`,
	flags: func(a *app, fs *pflag.FlagSet) {
		a.ruleFlags(fs)
		a.workFlags(fs)
		a.machineFlags(fs)
		fs.IntVar(&a.cfg.cpus, "cpus", 0, "`number` of processors of the machine")
		fs.BoolVar(&a.cfg.ssh, "ssh", false, "log in by ssh")
		fs.StringVar(&a.cfg.user, "user", "", "`user` to log in as with --ssh (default root)")
	},
	run: runBoot,
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}

func runBoot(a *app, args []string) error {
	if len(args) == 0 {
		return &usageError{msg: "boot needs the label of an image", hint: "osbuild-star query //... lists labels"}
	}
	label, command := args[0], args[1:]
	if len(command) > 0 && !a.cfg.ssh {
		return usagef("boot", "boot starts one image; a command needs --ssh")
	}
	if err := a.checkMachine("boot"); err != nil {
		return err
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	targets, err := s.match("boot", []string{label})
	if err != nil {
		return err
	}
	cfg := vm.Config{
		Firmware: a.cfg.firmware, Memory: a.cfg.memory, CPUs: a.cfg.cpus, Accel: a.cfg.accel, Network: true, SSH: a.cfg.ssh,
	}
	more := func(plan *builtins.Plan) []engine.Missing {
		if len(plan.Artifacts) > 0 {
			cfg.Arch = plan.Artifacts[0].Arch
		}
		return vmMissing(cfg)
	}
	plan, err := s.planToBuild(targets, more)
	if err != nil {
		return err
	}
	if len(plan.Artifacts) != 1 {
		return usagef("boot", "%s names %d images, and boot starts one", label, len(plan.Artifacts))
	}
	if f := plan.Artifacts[0].Files; f != nil && !isDisk(f) {
		return notDisk(plan.Artifacts[0])
	}
	if err := s.preflight(plan, []string{plan.Artifacts[0].Pipeline}, more(plan)); err != nil {
		return err
	}
	images, _, err := s.build(plan)
	if err != nil {
		return err
	}
	files, err := s.export(images[0])
	if err != nil {
		return err
	}
	if !isDisk(paths(files)) {
		return notDisk(images[0].Artifact)
	}
	cfg.Disk = files[0].Path
	a.screen.endProgress()
	if a.cfg.ssh {
		a.screen.note("starting %s; the login takes a while …", relative(cfg.Disk))
		status, err := vm.SSH(a.ctx, cfg, vm.SSHOptions{User: a.cfg.user, Command: command, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
		if err != nil {
			return machineError(err)
		}
		if status != 0 {
			return &reported{status}
		}
		return nil
	}
	a.screen.note("starting %s; Ctrl-A x ends the machine, Ctrl-A h shows more keys", relative(cfg.Disk))
	return machineError(vm.Interactive(a.ctx, cfg, os.Stdin, os.Stdout))
}

func notDisk(a builtins.Artifact) error {
	return &usageError{
		msg:  fmt.Sprintf("%s is not one disk image that can be started", a.Label),
		hint: "boot takes images whose only file is a .qcow2, .raw, .vmdk, .vdi, .vhdx or .vhd",
	}
}

func vmMissing(cfg vm.Config) []engine.Missing {
	var out []engine.Missing
	for _, m := range vm.Preflight(cfg) {
		out = append(out, engine.Missing{What: m.What, Why: m.Why, Package: m.Package})
	}
	return out
}

// machineError gives a machine that failed the end of its console.
func machineError(err error) error {
	var f *vm.Failure
	if errors.As(err, &f) && f.Tail != "" {
		return fmt.Errorf("%w\nthe end of its console:\n%s", err, indent(f.Tail))
	}
	return err
}
