// shell: a shell in the sandbox of a stage.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

var shellCommand = &command{
	name: "shell", args: "LABEL [-- COMMAND...]", short: "open a shell where a stage of an image would run",
	long: `Builds what comes before a stage of the image, and opens a shell in the sandbox
that the stage would run in: its tree is at /run/osbuild/tree. What the shell
changes is thrown away. Without --stage it is opened after the last stage.`,
	example: `osbuild-star shell //images:debian12
osbuild-star shell --stage org.osbuild.users //images:debian12
osbuild-star shell //images:debian12 -- ls -l /run/osbuild/tree`,
	flags: func(a *app, fs *pflag.FlagSet) {
		a.ruleFlags(fs)
		a.workFlags(fs)
		a.memoryFlag(fs)
		fs.StringVar(&a.cfg.stage, "stage", "", "stop before this `stage`: its type, or the beginning of its ID")
	},
	run: runShell,
}

func runShell(a *app, args []string) error {
	if len(args) == 0 {
		return &usageError{msg: "shell needs the label of an image", hint: "osbuild-star query //... lists labels"}
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	targets, err := s.match("shell", args[:1])
	if err != nil {
		return err
	}
	plan, err := s.planToBuild(targets, nothingMore)
	if err != nil {
		return err
	}
	if len(plan.Artifacts) != 1 {
		return usagef("shell", "%s names %d images, and shell takes one", args[0], len(plan.Artifacts))
	}
	pipeline, err := findStage(plan, a.cfg.stage)
	if err != nil {
		return err
	}
	e, err := s.engine()
	if err != nil {
		return err
	}
	missing, err := e.Preflight(plan.Manifest, []string{pipeline})
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return &missingError{missing}
	}
	sh := engine.Shell{Pipeline: pipeline, Stage: a.cfg.stage, Argv: args[1:], Stdin: os.Stdin, Stdout: os.Stdout}
	if len(sh.Argv) == 0 {
		sh.Argv = nil
	}
	restore := func() {}
	if sh.Argv == nil && term.IsTerminal(0) {
		if sh.Stdin, restore, err = terminal(); err != nil {
			return err
		}
		sh.Stdout, sh.Terminal = sh.Stdin, true
	}
	a.screen.quiet = true
	status, err := e.Shell(a.ctx, plan.Manifest, sh, s.span)
	restore()
	if err != nil {
		return err
	}
	if status != 0 {
		return &reported{status}
	}
	return nil
}

// findStage finds the pipeline of an image that has the stage: the one nearest to
// the artifact.
func findStage(plan *builtins.Plan, stage string) (string, error) {
	if stage == "" {
		return plan.Artifacts[0].Pipeline, nil
	}
	ids, err := plan.Manifest.IDs()
	if err != nil {
		return "", err
	}
	for n := len(plan.Manifest.Pipelines) - 1; n >= 0; n-- {
		p := plan.Manifest.Pipelines[n]
		if engine.StageIndex(ids, p, stage) >= 0 {
			return p.Name, nil
		}
	}
	return "", &usageError{msg: fmt.Sprintf("no stage %q in the pipelines of %s", stage, plan.Artifacts[0].Label), hint: "osbuild-star manifest --inspect LABEL shows them"}
}

// terminal makes a pseudo terminal for the shell, connected with this terminal,
// which is in raw mode until restore is called.
func terminal() (inside *os.File, restore func(), err error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	var slave *os.File
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	var saved *term.State
	if err == nil {
		saved, err = term.MakeRaw(0)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("making a terminal: %w", err), master.Close())
		if slave != nil {
			slave.Close()
		}
		return nil, nil, err
	}
	resize := func() {
		if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
			unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, ws)
		}
	}
	resize()
	winch := make(chan os.Signal, 1)
	signal.Notify(winch, unix.SIGWINCH)
	go func() {
		for range winch {
			resize()
		}
	}()
	shown := make(chan struct{})
	go io.Copy(master, os.Stdin)
	go func() { io.Copy(os.Stdout, master); close(shown) }()
	return slave, func() {
		signal.Stop(winch)
		slave.Close()
		<-shown
		term.Restore(0, saved)
		master.Close()
	}, nil
}
