// query, manifest, lock, version: the verbs that build nothing.
package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources/lock"
	"github.com/spf13/pflag"
)

var queryCommand = &command{
	name: "query", args: "PATTERN...", short: "list targets",
	long: `Lists the targets that the patterns name, one label on a line. It only reads
rule files: nothing is resolved, fetched or built.`,
	example: `osbuild-star query //...
osbuild-star query --json //images:debian12`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		fs.StringArrayVarP(&a.defines, "define", "D", nil, "give a parameter a value: `name=value`; may be repeated")
		a.libdirFlags(fs, "")
	},
	run: func(a *app, args []string) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		targets, err := s.match("query", args)
		if err != nil {
			return err
		}
		if a.json {
			out := make([]map[string]any, 0, len(targets))
			for _, t := range targets {
				out = append(out, s.project.Describe(t))
			}
			return a.screen.outJSON(out)
		}
		var b strings.Builder
		for _, t := range targets {
			if a.verbose {
				fmt.Fprintf(&b, "%-12s ", t.Kind())
			}
			b.WriteString(t.Label().String() + "\n")
		}
		a.screen.out(b.String())
		return nil
	},
}

var manifestCommand = &command{
	name: "manifest", args: "LABEL...", short: "print the osbuild manifest of images",
	long: `Prints the plan of the images that the labels name as a manifest of upstream
osbuild, version 2. Package sets are resolved first, through the lock. With
--inspect the ID of each stage is in it. Of the label of a buildroot it prints what
--build-env takes: its runner and the pipeline of its tree.`,
	example: `osbuild-star manifest //images:debian12
osbuild-star manifest //images:build_env > env.json
osbuild-star manifest --inspect //images:debian12 | jq -r '.pipelines[].stages[].id'`,
	flags: func(a *app, fs *pflag.FlagSet) {
		a.ruleFlags(fs)
		a.envFlag(fs)
		fs.BoolVar(&a.osb.inspect, "inspect", false, "with the ID of each stage, in the form of osbuild --inspect")
	},
	run: func(a *app, args []string) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		targets, err := s.match("manifest", args)
		if err != nil {
			return err
		}
		if areBuildroots(targets) {
			if len(targets) > 1 || a.osb.inspect || a.buildEnv != "" {
				return usagef("manifest", "of a buildroot, manifest takes one label and nothing else")
			}
			return s.printEnvironment(targets[0].Label().String())
		}
		plan, err := s.plan(targets)
		if err != nil {
			return err
		}
		a.screen.endProgress()
		format := plan.Manifest.Format
		if a.osb.inspect {
			format = func() ([]byte, error) { return plan.Manifest.Inspect() }
		}
		b, err := format()
		if err != nil {
			return err
		}
		a.screen.out(strings.TrimRight(string(b), "\n") + "\n")
		return nil
	},
}

var lockCommand = &command{
	name: "lock", args: "[LABEL...]", short: "resolve package sets into osbuild-star.lock",
	long: `Resolves the package sets of the targets that the labels name (default: all of
the workspace) into exact archives, and writes them to osbuild-star.lock. What
the lock has already stays as it is, unless --update is given. With --update of
all targets, entries that nothing asks for any more are dropped.`,
	example: `osbuild-star lock
osbuild-star lock --update //images:debian12`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		a.ruleFlags(fs)
		fs.BoolVar(&a.cfg.update, "update", false, "resolve again what the lock has")
	},
	run: runLock,
}

func runLock(a *app, args []string) error {
	if a.locked && a.cfg.update {
		return usagef("lock", "--locked and --update contradict each other")
	}
	s, err := a.open()
	if err != nil {
		return err
	}
	all := len(args) == 0
	if all {
		args = []string{"//..."}
	}
	targets, err := s.match("lock", args)
	if err != nil {
		return err
	}
	reqs, err := s.project.Requests(a.ctx, targets)
	if err != nil {
		return err
	}
	sets, err := s.resolveWith(a.ctx, reqs, lock.Options{Locked: a.locked, Update: a.cfg.update, Prune: all && a.cfg.update})
	if err != nil {
		return err
	}
	path := filepath.Join(s.ws.Root, lockName)
	packages := map[string]manifest.Package{}
	for _, set := range sets {
		for _, p := range set {
			packages[p.SHA256] = p
		}
	}
	a.screen.endProgress()
	if a.json {
		return a.screen.outJSON(map[string]any{"lock": path, "requests": len(reqs), "packages": len(packages)})
	}
	a.screen.note("%s: %s, %s", relative(path), plural(len(reqs), "package set"), plural(len(packages), "package"))
	return nil
}

var referenceCommand = &command{
	name: "reference", args: "", short: "print the reference of builtins, stages and rules",
	long: `Prints the reference page of everything that rule files can call, in Markdown.
With --libdir the stages of that directory follow.`,
	example: `osbuild-star reference | less
osbuild-star reference --libdir /usr/lib/osbuild | less`,
	flags: func(a *app, fs *pflag.FlagSet) { a.libdirFlags(fs, "") },
	run: func(a *app, args []string) error {
		if err := a.openLibdir(""); err != nil {
			return err
		}
		a.screen.out(builtins.Reference())
		if a.lib.dir != nil {
			a.screen.out(builtins.LibraryReference(a.modules(), a.libdirStages()))
		}
		return nil
	},
}

var versionCommand = &command{
	name: "version", short: "print the version",
	example: `osbuild-star version --json`,
	json:    true,
	run: func(a *app, args []string) error {
		v := map[string]string{"version": version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
		if bi, ok := debug.ReadBuildInfo(); ok {
			for _, kv := range bi.Settings {
				if kv.Key == "vcs.revision" {
					v["revision"] = kv.Value
				}
			}
		}
		if a.json {
			return a.screen.outJSON(v)
		}
		a.screen.out("osbuild-star " + version + "\n")
		return nil
	},
}
