// Package builtins is what rule files are written in: the functions they call, the
// values these return, and the plan that the targets come to. Each function is
// declared once, as data, in [Table]; nothing here runs a stage.
//
// A tour: [Open] reads a workspace; [Project.Match] turns labels and patterns into
// targets; [Project.Requests] says which package sets these need; [Project.Plan]
// makes a manifest of pipelines of them.
package builtins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.starlark.net/starlark"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/rules"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// Config says what a project is opened with.
type Config struct {
	Workspace *rulefile.Workspace
	Modules   manifest.Modules  // schemas of stages; nil: those of the program, manifest.Builtin
	Defines   map[string]string // values of parameters, from -D name=value
	Jobs      int               // rule files run at once; 0: as many as there are processors
	MaxSteps  uint64            // steps of one file; 0: the loader's default
	Timeout   time.Duration     // wall clock of one file; 0: the loader's default
	HostArch  string            // "x86_64": what arch.host is
	Version   string            // of this program, held against min_version of MODULE.star; "" is not

	// StageNames are further stages that Modules knows, those of a library folder:
	// they become attributes of stage too.
	StageNames []string

	Print func(pos rulefile.Position, msg string) // print() and warn(); may be nil
}

// Project is a workspace whose rule files are being read. It is safe for use by
// several goroutines.
type Project struct {
	cfg          Config
	loader       *rulefile.Loader
	moduleParams map[string]starlark.Value
	short        func() map[string]string // attribute of stage → full name

	mu      sync.Mutex
	used    map[string]bool // the defines that a parameter has taken
	asked   map[string]bool // parameters that rule files have
	schemas map[string]*stageSchema
}

// Open prepares a project; rule files are read when they are needed.
func Open(cfg Config) (*Project, error) {
	if cfg.Workspace == nil {
		return nil, errors.New("builtins: a project needs a workspace")
	}
	if cfg.Modules == nil {
		cfg.Modules = manifest.Builtin()
	}
	if cfg.Version != "" {
		if err := cfg.Workspace.RequireVersion(cfg.Version); err != nil {
			return nil, err
		}
	}
	p := &Project{cfg: cfg, moduleParams: map[string]starlark.Value{}, used: map[string]bool{}, asked: map[string]bool{}, schemas: map[string]*stageSchema{}}
	p.short = sync.OnceValue(p.makeShortNames)
	for _, prm := range cfg.Workspace.Params {
		v := prm.Value
		if text, ok := p.define(prm.Name); ok {
			var err error
			if v, err = parseParam(text, prm.Value); err != nil {
				return nil, &rulefile.Error{Msg: fmt.Sprintf("-D %s=%s: %v", prm.Name, text, err), Pos: prm.Pos, Width: 1}
			}
		}
		p.moduleParams[prm.Name] = v
	}
	p.loader = rulefile.NewLoader(cfg.Workspace, rulefile.Options{
		Predeclared: p.predeclared,
		Library:     rules.FS,
		MaxSteps:    cfg.MaxSteps,
		Timeout:     cfg.Timeout,
		Print:       cfg.Print,
		Jobs:        cfg.Jobs,
	})
	return p, nil
}

// Close ends what the project has running.
func (p *Project) Close() error { return p.loader.Close() }

// Loader is the loader of the project's rule files: its sources make errors show
// their lines.
func (p *Project) Loader() *rulefile.Loader { return p.loader }

// define is the value that the command line gives a parameter.
func (p *Project) define(name string) (string, bool) {
	text, ok := p.cfg.Defines[name]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[name] = true
	if ok {
		p.used[name] = true
	}
	return text, ok
}

// UnknownParamError is a define that no parameter takes.
type UnknownParamError struct {
	Name  string
	Known []string // the parameters of MODULE.star and of the packages that were read
}

func (e *UnknownParamError) Error() string {
	return fmt.Sprintf("-D %s: no parameter of that name in MODULE.star or in the packages asked for", e.Name)
}

// Hint names the parameter that may have been meant, or all that there are.
func (e *UnknownParamError) Hint() string {
	if near := rulefile.Suggest(e.Name, e.Known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(e.Known) == 0 {
		return "they have none"
	}
	return "there are: " + strings.Join(e.Known, ", ")
}

// Match reads the packages that the patterns speak of and returns the targets
// that match: "//images:debian12", "//images/...", "-//images:x". A pattern
// without "//" is relative to cwdPackage, the package of the current folder.
//
// An error of a rule file is a [*rulefile.Error]; a pattern that nothing matches
// is a [*rulefile.NoMatchError]. A define that none of the packages read has a
// parameter for is an error too.
func (p *Project) Match(ctx context.Context, patterns []string, cwdPackage string) ([]rulefile.Target, error) {
	parsed := make([]rulefile.Pattern, len(patterns))
	for i, s := range patterns {
		var err error
		if parsed[i], err = rulefile.ParsePattern(s, cwdPackage); err != nil {
			return nil, err
		}
	}
	targets, err := p.loader.Expand(ctx, parsed)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(p.cfg.Defines)) {
		if !p.used[name] {
			return nil, &UnknownParamError{Name: name, Known: slices.Sorted(maps.Keys(p.asked))}
		}
	}
	return targets, nil
}

// Describe is a target as data, for people's scripts: kind, label, file, line and
// what belongs to its kind.
func (p *Project) Describe(t rulefile.Target) map[string]any {
	d := map[string]any{
		"kind": t.Kind(), "label": t.Label().String(), "file": t.Pos().File, "line": int(t.Pos().Line),
	}
	switch t := t.(type) {
	case *imageTarget:
		d["pipeline"] = t.pipeline.name
		if t.files != nil {
			d["files"] = t.files
		}
		if t.pipeline.arch != "" {
			d["arch"] = t.pipeline.arch
		}
	case *testTarget:
		d["image"], d["firmware"], d["timeout"] = t.image.String(), append([]string{}, t.firmware...), int(t.timeout.Seconds())
	case *buildrootTarget:
		d["runner"], d["pipeline"] = t.root.runner, t.root.pipeline.name
	case *groupTarget:
		members := make([]string, len(t.members))
		for i, m := range t.members {
			members[i] = m.String()
		}
		d["targets"] = members
	case *matrixTarget:
		names := make([]string, len(t.variants))
		for i, v := range t.variants {
			names[i] = v.Name
		}
		d["axes"], d["variants"] = t.axes, names
		if t.whole != nil {
			names := make([]string, len(t.whole))
			for i, v := range t.whole {
				names[i] = v.Name
			}
			d["default"] = names
		}
	case *paramTarget:
		d["default"], _ = toPlain("default", t.def)
		d["value"], _ = toPlain("value", t.used)
		if t.doc != "" {
			d["doc"] = t.doc
		}
		if len(t.values) > 0 {
			d["values"], _ = toPlain("values", starlark.NewList(t.values))
		}
	}
	return d
}
