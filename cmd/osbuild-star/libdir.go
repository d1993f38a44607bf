// The library directory: executables of upstream osbuild's kind, which run what
// osbuild-star has no part of its own for.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/libdir"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/stages"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/spf13/pflag"
)

type libdirFlags struct {
	path   givenText
	prefer bool
	dir    *libdir.Dir // opened; nil: there is none
}

// givenText is a flag that can be given as "".
type givenText struct {
	text  string
	given bool
}

func (g *givenText) String() string     { return g.text }
func (g *givenText) Type() string       { return "string" }
func (g *givenText) Set(s string) error { g.text, g.given = s, true; return nil }

// libdirFlags adds the flags; short is the letter of --libdir, or "".
func (a *app) libdirFlags(fs *pflag.FlagSet, short string) {
	usage := "`directory` of executables for what is not built in"
	if short != "" {
		usage += " (default " + libdir.Default + ")"
	}
	fs.VarP(&a.lib.path, "libdir", short, usage)
	fs.BoolVar(&a.lib.prefer, "prefer-libdir", false, "take executables of --libdir also for what is built in")
}

// openLibdir opens the directory that the flag names, or else fallback; "" is none.
func (a *app) openLibdir(fallback string) error {
	path := fallback
	if a.lib.path.given {
		path = a.lib.path.text
	}
	if path == "" {
		if a.lib.prefer {
			return usagef("", "--prefer-libdir needs --libdir")
		}
		return nil
	}
	d, err := libdir.Open(path)
	var le *libdir.Error
	if errors.As(err, &le) {
		return &usageError{msg: le.Msg, hint: le.Hint}
	}
	a.lib.dir = d
	return err
}

// programs are those that an engine uses.
func (a *app) programs() engine.Programs {
	return engine.Programs{Dir: a.lib.dir, Prefer: a.lib.prefer}
}

// modules are those that manifests are held against: the schema of a module is that
// of the program that will run.
func (a *app) modules() manifest.Modules {
	switch {
	case a.lib.dir == nil:
		return manifest.Builtin()
	case a.lib.prefer:
		return manifest.Layered(a.lib.dir.Modules(), manifest.Builtin())
	}
	return manifest.Layered(manifest.Builtin(), a.lib.dir.Modules())
}

// stageNames are those of the library directory.
func (a *app) stageNames() []string { return a.lib.dir.Names(libdir.Stages) }

// libdirStages describes the stages of the library directory that run: without those
// that are built in, unless it is preferred.
func (a *app) libdirStages() []builtins.StageDoc {
	var out []builtins.StageDoc
	for _, name := range a.stageNames() {
		if stages.Lookup(name) != nil && !a.lib.prefer {
			continue
		}
		m, err := a.lib.dir.Find(libdir.Stages, name)
		switch {
		case err != nil:
			out = append(out, builtins.StageDoc{Name: name, Summary: "cannot be described: " + err.Error()})
		case m != nil:
			out = append(out, builtins.StageDoc{Name: name, Summary: strings.TrimRight(m.Summary, "."), Doc: m.Description})
		}
	}
	return out
}

// checkRunners finds pipelines whose runner is none, also where no stage needs it.
func (a *app) checkRunners(m *manifest.Manifest) error {
	for _, p := range m.Pipelines {
		if p.Runner == "" {
			continue
		}
		if err := a.programs().CheckRunner(p.Runner); err != nil {
			return fmt.Errorf("pipeline %q: %w", p.Name, err)
		}
	}
	return nil
}

// nearModules says for modules that a manifest names and that are not there which
// ones are near.
func (a *app) nearModules(invalid *manifest.ValidationError) string {
	known := map[string][]string{}
	for _, s := range stages.All() {
		known["stages"] = append(known["stages"], s.Name)
	}
	for _, k := range []libdir.Kind{libdir.Stages, libdir.Assemblers, libdir.Inputs, libdir.Devices, libdir.Mounts, libdir.Sources} {
		known[string(k)] = append(known[string(k)], a.lib.dir.Names(k)...)
	}
	var near []string
	unknown := 0
	for _, e := range invalid.Errors {
		name, ok := e.Unknown()
		if !ok {
			continue
		}
		unknown++
		group := "sources"
		for _, step := range e.Path {
			if s, ok := step.(string); ok && known[s] != nil {
				group = s // the innermost
			}
		}
		if s := rulefile.Suggest(name, known[group]); s != "" && !slices.Contains(near, strconv.Quote(s)) {
			near = append(near, strconv.Quote(s))
		}
	}
	switch {
	case len(near) > 0:
		return "did you mean " + strings.Join(near, " or ") + "?"
	case unknown > 0 && a.lib.dir == nil:
		return "it is not built in: --libdir DIR uses upstream osbuild's executables"
	}
	return ""
}

// fetchServed has programs of the library directory fetch all that they serve, and
// returns a manifest of the sources that are left, and what became of the items.
func (a *app) fetchServed(ctx context.Context, e *engine.Engine, m *manifest.Manifest, local map[string]string, parent *monitor.Span) (*manifest.Manifest, map[string][]engine.Fetched, error) {
	own, served, err := a.programs().SplitSources(m, local)
	if err != nil {
		return nil, nil, err
	}
	report := map[string][]engine.Fetched{}
	for _, t := range slices.Sorted(maps.Keys(served)) {
		if report[t], err = e.Download(ctx, m, t, served[t], nil, parent); err != nil {
			return own, report, err
		}
	}
	return own, report, nil
}
