// Command osbuild-star builds operating system images from rule files.
//
// main.go starts it as the command, whose verbs are in files of their own; agent/start
// did so before as the agent of a build root when its name says that. Everything that
// a person sees is written by screen.go.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/osbuild-star/osbuild-star/agent"
	_ "github.com/osbuild-star/osbuild-star/agent/start"
	"github.com/osbuild-star/osbuild-star/engine"
)

// version is set by the linker in releases.
var version = "0.1.0-dev"

func main() { os.Exit(Main()) }

// Main is main, for test scripts that run the command inside the test program.
func Main() int {
	if agent.Is(os.Args) { // what agent/start left
		return agent.Main(os.Args)
	}
	return run(os.Args[1:])
}

// errInterrupted is why the context ends at Ctrl-C.
var errInterrupted = errors.New("interrupted")

func run(args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	sigs := make(chan os.Signal, 2)
	signal.Notify(sigs, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(sigs)
	var times atomic.Int32
	go func() {
		for range sigs {
			if times.Add(1) == 1 {
				cancel(errInterrupted)
				continue
			}
			// The kernel ends the containers and takes their mounts away; the next
			// start removes the directories.
			fmt.Fprintln(os.Stderr, "\ninterrupted again: not waiting for the clean-up")
			os.Exit(exitInterrupted)
		}
	}()
	a := &app{ctx: ctx, screen: newScreen(os.Stdout, os.Stderr)}
	defer a.close()
	err := a.dispatch(args)
	if errors.Is(context.Cause(ctx), errInterrupted) && err != nil {
		err = errInterrupted
	}
	err = a.full(err)
	a.close()
	return a.screen.finish(err)
}

// full adds a hint to an error that is about a full disk and has none. The failures of a
// build are told one by one, and have one each.
func (a *app) full(err error) error {
	var built *engine.BuildError
	if errors.As(err, &built) {
		for i := range built.Failures {
			built.Failures[i].Err = a.full(built.Failures[i].Err)
		}
		return err
	}
	dir, derr := a.storeDir()
	if err == nil || derr != nil || hintOf(err) != "" {
		return err
	}
	places := engine.Places(dir, a.vardir)
	if s := a.session; s != nil && s.ws != nil {
		out := cmp.Or(a.cfg.output, filepath.Join(s.ws.Root, "out"))
		places = append(places, engine.Place{What: "the directory for the result,", Dir: out, Otherwise: "--out DIR"})
	}
	return engine.Full(err, places...)
}
