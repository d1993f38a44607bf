// --build-env: a build environment in place of the host.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/runners"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/spf13/pflag"
)

// buildEnv is what --build-env names, read once.
type buildEnv struct {
	*manifest.Environment
	local    map[string]string // files of the workspace that it reads, by checksum
	packages map[string]manifest.Package
}

// envFlag is the flag of the verbs that plan.
func (a *app) envFlag(fs *pflag.FlagSet) {
	fs.StringVar(&a.buildEnv, "build-env", "", "`what` to build in, and not on the host: a file, JSON, or a buildroot's label")
}

// envError is a build environment that cannot be used.
type envError struct {
	what string // as it was given; of JSON only that it is
	err  error
	hint string
}

func (e *envError) Error() string { return fmt.Sprintf("--build-env %s: %v", e.what, e.err) }
func (e *envError) Unwrap() error { return e.err }

// Hint says what can be done.
func (e *envError) Hint() string { return e.hint }

// isLabel tells a label from a file: "//images:tools", ":tools".
func isLabel(s string) bool { return strings.HasPrefix(s, "//") || strings.HasPrefix(s, ":") }

// environment reads what --build-env names; nil without it.
func (a *app) environment(resolve builtins.Resolve) (*buildEnv, error) {
	if a.buildEnv == "" {
		return nil, nil
	}
	if isLabel(a.buildEnv) {
		s, err := a.open()
		if err != nil {
			return nil, err
		}
		return s.environmentOf(a.buildEnv, resolve)
	}
	env, err := readEnvironment(a.buildEnv)
	if err != nil {
		return nil, err
	}
	return &buildEnv{Environment: env}, nil
}

// readEnvironment reads a build environment from JSON, or from the file of that name.
func readEnvironment(text string) (*manifest.Environment, error) {
	what, data := "{…}", []byte(text)
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		var err error
		what = text
		if data, err = os.ReadFile(text); err != nil {
			hint := "it takes a file, JSON that begins with {, or the label of a buildroot: //images:tools"
			var pe *os.PathError
			if errors.As(err, &pe) {
				err = pe.Err
			}
			return nil, &envError{what, fmt.Errorf("cannot be read: %w", err), hint}
		}
	}
	env, err := manifest.LoadEnvironment(data, manifest.Builtin())
	if err == nil {
		_, err = runners.Lookup(env.Runner)
	}
	if err == nil {
		return env, nil
	}
	e := &envError{what: what, err: err, hint: `it is {"runner": "org.osbuild.debian12", "pipeline": {"stages": […]}}`}
	var me *manifest.Error
	var invalid *manifest.ValidationError
	var unknown *runners.UnknownError
	switch {
	case errors.As(err, &unknown):
		e.hint = "its runner is one of these; a newer version of a system is served by the one before it"
		if near := rulefile.Suggest(env.Runner, unknown.Known); near != "" {
			e.hint = fmt.Sprintf("did you mean %q?", near)
		}
	case errors.As(err, &me) && me.Hint != "":
		e.hint = me.Hint
	case errors.As(err, &invalid) && len(invalid.Errors) > 0:
		first := invalid.Errors[0]
		// What is wrong and where stay; the rest of the sentence is about a manifest.
		e.err = fmt.Errorf("%s: %s", pathText(first.Path), first.Message)
		e.hint = "osbuild-star reference lists the stages and their options"
	}
	return nil, e
}

// environmentOf makes the build environment of a label.
func (s *session) environmentOf(label string, resolve builtins.Resolve) (*buildEnv, error) {
	targets, err := s.project.Match(s.a.ctx, []string{label}, s.pkg)
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) error {
		return &envError{label, fmt.Errorf(format, args...), "name a buildroot() at the top of a BUILD.star: osbuild-star query -v //... lists them"}
	}
	if len(targets) != 1 {
		return nil, fail("names %d targets, and one build environment is wanted", len(targets))
	}
	env, plan, ok, err := s.project.Environment(s.a.ctx, targets[0], resolve)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fail("is an %s, not a buildroot", targets[0].Kind())
	}
	if env.Program == "" {
		if _, err := runners.Lookup(env.Runner); err != nil {
			return nil, fail("%w", err)
		}
	}
	return &buildEnv{env, plan.LocalFiles, plan.Packages}, nil
}

// within puts a plan into the build environment.
func (e *buildEnv) within(plan *builtins.Plan) error {
	if e == nil {
		return nil
	}
	m, err := plan.Manifest.In(e.Environment)
	if err != nil {
		return err
	}
	plan.Manifest = m
	maps.Copy(plan.LocalFiles, e.local)
	maps.Copy(plan.Packages, e.packages)
	return nil
}

// makePlan makes the plan of targets, in the build environment if there is one.
func (s *session) makePlan(targets []rulefile.Target, resolve builtins.Resolve) (*builtins.Plan, error) {
	env, err := s.a.environment(resolve)
	if err != nil {
		return nil, err
	}
	plan, err := s.project.Plan(s.a.ctx, targets, resolve)
	if err != nil {
		return nil, err
	}
	return plan, env.within(plan)
}

// withEnvironment puts a manifest into the build environment, and returns the files of
// the workspace that this one reads.
func (a *app) withEnvironment(m **manifest.Manifest) (local map[string]string, err error) {
	env, err := a.environment(func(ctx context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error) {
		return a.session.resolve(ctx, reqs)
	})
	a.close() // the workspace of a label; the manifest has none
	if err != nil || env == nil {
		return nil, err
	}
	*m, err = (*m).In(env.Environment)
	return env.local, err
}

// printEnvironment prints the build environment that is a target, for --build-env.
func (s *session) printEnvironment(label string) error {
	env, err := s.environmentOf(label, s.resolve)
	if err != nil {
		return err
	}
	b, err := env.Format()
	if err != nil {
		return err
	}
	s.a.screen.endProgress()
	s.a.screen.out(string(b))
	return nil
}

// areBuildroots tells whether all of the targets are build roots, of which a manifest
// by itself has nothing.
func areBuildroots(targets []rulefile.Target) bool {
	return len(targets) > 0 && !slices.ContainsFunc(targets, func(t rulefile.Target) bool { return t.Kind() != "buildroot" })
}
