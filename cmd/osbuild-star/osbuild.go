// osbuild: upstream osbuild's command, for manifests that are there already.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"github.com/osbuild-star/osbuild-star/libdir"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/store"
	"github.com/spf13/pflag"
)

type osbuildFlags struct {
	inspect bool
	output  string
	exports []string
	cache   string
}

var osbuildCommand = &command{
	name: "osbuild", args: "MANIFEST", short: "build a manifest of upstream osbuild",
	long: `Builds a manifest in upstream osbuild's JSON (version 1 or 2; "-" reads standard
input), with osbuild's flags, output and exit status. Each --export is copied to
OUTPUT-DIRECTORY/NAME. Every stage that runs is kept in the store.`,
	example: `osbuild-star osbuild --store cache --output-directory out --export tree --json manifest.json
osbuild-star osbuild --inspect manifest.json`,
	flags: func(a *app, fs *pflag.FlagSet) {
		fs.BoolVar(&a.osb.inspect, "inspect", false, "print the manifest with all IDs, and build nothing")
		fs.BoolVar(&a.json, "json", false, "print the result as JSON")
		fs.StringVar(&a.osb.output, "output-directory", "", "`directory` that exports are copied to")
		fs.StringArrayVar(&a.osb.exports, "export", nil, "pipeline to export, by `name` or ID; may be repeated")
		fs.StringVar(&a.osb.cache, "cache", "", "`directory` of the store, another name of --store")
		a.libdirFlags(fs, "l")
		a.workFlags(fs)
		a.memoryFlag(fs)
	},
	run: runOSBuild,
}

// sourceReport is what upstream says of one item of a source.
type sourceReport struct {
	Checksum string `json:"checksum"`
	Cached   bool   `json:"cached"`
	Error    string `json:"error,omitempty"`
}

// stageLog is what upstream says of a stage that ran.
type stageLog struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Output  string          `json:"output"`
	Success *bool           `json:"success,omitempty"`
	Error   json.RawMessage `json:"error,omitempty"`
}

func runOSBuild(a *app, args []string) error {
	if len(args) != 1 {
		return usagef("osbuild", "osbuild needs one manifest, and got %d", len(args))
	}
	if a.osb.cache != "" {
		a.store = a.osb.cache
	}
	fallback := libdir.Default
	if _, err := os.Stat(fallback); err != nil {
		fallback = ""
	}
	if err := a.openLibdir(fallback); err != nil {
		return err
	}
	m, err := a.loadManifest(args[0])
	if err != nil {
		return err
	}
	local, err := a.withEnvironment(&m)
	if err != nil {
		return err
	}
	if a.osb.inspect {
		b, err := m.Inspect()
		if err != nil {
			return err
		}
		a.screen.out(strings.TrimRight(string(b), "\n") + "\n")
		return nil
	}
	if len(a.osb.exports) == 0 {
		return usagef("osbuild", "nothing to do: name what to build with --export")
	}
	if a.osb.output == "" {
		a.screen.out("Need --output-directory for --export\n")
		return &reported{exitFailed}
	}
	ids, err := m.IDs()
	if err != nil {
		return err
	}
	var names, unknown []string
	for _, e := range a.osb.exports {
		p := ids.Find(e)
		if p == nil {
			unknown = append(unknown, e)
			continue
		}
		names = append(names, p.Name)
	}
	if len(unknown) > 0 {
		a.screen.out(fmt.Sprintf("Export %s not found in %s\n", strings.Join(unknown, ", "), quotedNames(m)))
		return &reported{exitFailed}
	}
	return a.buildManifest(m, names, local)
}

// loadManifest reads and checks a manifest, and shows what is wrong as upstream does.
func (a *app) loadManifest(file string) (*manifest.Manifest, error) {
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(os.Stdin)
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	m, err := manifest.LoadChecked(data, a.modules())
	if a.osb.inspect {
		m, err = a.loadUnknown(data, m, err)
	}
	var invalid *manifest.ValidationError
	var version *manifest.UnsupportedVersionError
	switch {
	case errors.As(err, &version):
		a.screen.out("Unsupported manifest format\n")
		return nil, &reported{exitUsage}
	case errors.As(err, &invalid):
		if a.json || a.osb.inspect {
			if err := a.screen.outJSON(invalid); err != nil {
				return nil, err
			}
			return nil, &reported{invalid.ExitCode()}
		}
		a.screen.show(err)
		a.screen.hint(a.nearModules(invalid))
		return nil, &reported{invalid.ExitCode()}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if !a.osb.inspect {
		if err := a.checkRunners(m); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return m, nil
}

// loadUnknown lets a manifest be inspected whose stages are not all known here: its
// IDs do not depend on that.
func (a *app) loadUnknown(data []byte, m *manifest.Manifest, err error) (*manifest.Manifest, error) {
	var invalid *manifest.ValidationError
	if !errors.As(err, &invalid) {
		return m, err
	}
	for _, e := range invalid.Errors {
		if _, unknown := e.Unknown(); !unknown {
			return m, err
		}
	}
	a.screen.warn("%s that %s not known here, so options were not checked",
		plural(len(invalid.Errors), "module"), map[bool]string{true: "is", false: "are"}[len(invalid.Errors) == 1])
	return manifest.Load(data)
}

func quotedNames(m *manifest.Manifest) string {
	var names []string
	for _, p := range m.Pipelines {
		names = append(names, "'"+p.Name+"'")
	}
	return "[" + strings.Join(names, ", ") + "]"
}

func (a *app) buildManifest(m *manifest.Manifest, names []string, local map[string]string) error {
	dir, err := a.storeDir()
	if err != nil {
		return err
	}
	st, err := store.Open(dir)
	if err != nil {
		return &engine.HostError{Err: err, Hint: "use a store that you may write to: --store DIR"}
	}
	// A session without a workspace: only what watches and cleans up.
	s := &session{a: a, st: st, targets: map[string]string{}, local: local}
	a.session = s
	quiet := a.screen.quiet
	a.screen.quiet = quiet || a.json
	if err := s.watch("osbuild"); err != nil {
		return err
	}
	if s.eng, err = s.engine(); err != nil {
		return err
	}
	missing, err := s.eng.Preflight(m, names)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return &missingError{missing}
	}
	// Upstream fetches all sources of a manifest first, and says so.
	result := map[string]any{"type": "result", "success": true, "log": map[string]any{}}
	fetched, err := a.fetchAll(s, m)
	result["sources"] = fetched
	if err != nil {
		if a.ctx.Err() != nil {
			return err
		}
		return a.osbuildFailed(result, err, map[string]any{
			"type":    "org.osbuild.error.source",
			"details": map[string]any{"source": map[string]any{"type": failedSource(m, fetched, err), "output": err.Error()}},
		})
	}
	res, err := s.eng.Build(a.ctx, m, names, s.span)
	log := map[string][]stageLog{}
	meta := map[string]map[string]json.RawMessage{}
	if res != nil {
		for _, r := range res.Stages {
			l := stageLog{ID: r.ID, Type: r.Type, Output: r.Output}
			if !r.Success {
				l.Success, l.Error = new(bool), r.Exception
			}
			log[r.Pipeline] = append(log[r.Pipeline], l)
			if r.Metadata != nil {
				if meta[r.Pipeline] == nil {
					meta[r.Pipeline] = map[string]json.RawMessage{}
				}
				meta[r.Pipeline][r.Type] = r.Metadata
			}
		}
	}
	result["log"] = log
	if m.V1 {
		result = resultV1(m, res)
	}
	var stage *engine.StageError
	switch {
	case errors.As(err, &stage) && a.ctx.Err() == nil && m.V1:
		return a.osbuildFailed(result, err, nil)
	case errors.As(err, &stage) && a.ctx.Err() == nil:
		return a.osbuildFailed(result, err, map[string]any{
			"type": "org.osbuild.error.stage",
			"details": map[string]any{"stage": map[string]any{
				"id": stage.ID, "type": stage.Type, "output": stageOutput(stage), "error": stage.Exception,
			}},
		})
	case err != nil:
		return err
	}
	if !m.V1 {
		result["metadata"] = meta
	}
	for i, name := range names {
		dest := filepath.Join(a.osb.output, a.osb.exports[i])
		if err := scratch.RemoveAll(dest); err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
		span := s.span.Start(monitor.Event{Category: monitor.CatExport, Name: "export " + name})
		err := s.eng.ExportTree(a.ctx, res.Trees[name], dest)
		span.End(err)
		if err != nil {
			return err
		}
	}
	a.screen.endProgress()
	if a.json {
		return a.screen.outJSON(result)
	}
	return nil
}

// stageOutput is what a stage printed, and what it said was wrong.
func stageOutput(e *engine.StageError) string {
	if e.Msg == "" || e.Exception != nil {
		return e.Output
	}
	return e.Output + e.Msg + "\n"
}

// osbuildFailed prints the result of a build that failed.
func (a *app) osbuildFailed(result map[string]any, err error, detail map[string]any) error {
	a.screen.endProgress()
	if !a.json {
		return err
	}
	if detail != nil {
		result["type"], result["success"], result["error"] = "error", false, detail
	}
	if err := a.screen.outJSON(result); err != nil {
		return err
	}
	return &reported{exitFailed}
}

// fetchAll brings every source item of a manifest into the store, and returns
// upstream's report of it.
func (a *app) fetchAll(s *session, m *manifest.Manifest) (map[string]any, error) {
	report := map[string]any{"success": true}
	own, served, err := a.fetchServed(a.ctx, s.eng, m, s.local, s.span)
	s.note(served)
	for t, list := range served {
		all := []sourceReport{}
		for _, r := range list {
			all = append(all, sourceReport{r.Checksum, r.Cached, r.Err})
		}
		report[t] = all
	}
	var items []sources.Item
	if err == nil {
		items, err = sources.FromManifest(own, s.local)
	}
	if err != nil {
		report["success"] = false
		return report, err
	}
	f := &sources.Fetcher{Dir: s.st.SourcesDir(), Span: s.span}
	results, err := f.Fetch(a.ctx, items)
	if errors.Is(err, context.Canceled) {
		return report, err
	}
	byType := map[string][]sourceReport{}
	types := map[string]string{}
	for _, it := range items {
		types[it.Checksum] = it.Type
	}
	for _, r := range results {
		sr := sourceReport{Checksum: r.Checksum, Cached: r.Cached}
		if r.Err != nil {
			sr.Error = r.Err.Error()
			var sum *sources.ChecksumError
			if errors.As(r.Err, &sum) {
				sr.Error = "Checksum mismatch for " + r.Checksum
			}
		}
		byType[types[r.Checksum]] = append(byType[types[r.Checksum]], sr)
	}
	for t, list := range byType {
		report[t] = list
	}
	report["success"] = err == nil
	return report, err
}

// failedSource is the type of the first source that a report has an error of.
func failedSource(m *manifest.Manifest, report map[string]any, err error) string {
	var se *engine.SourceError
	if errors.As(err, &se) {
		return se.Type
	}
	for t := range m.Sources {
		list, _ := report[t].([]sourceReport)
		for _, r := range list {
			if r.Error != "" {
				return t
			}
		}
	}
	for t := range m.Sources {
		return t
	}
	return ""
}
