// Sources that programs of the library directory fetch.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/osbuild-star/osbuild-star/libdir"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
)

// Fetched is what became of an item of a source.
type Fetched struct {
	Checksum string
	Cached   bool // it was there
	Err      string
}

// SourceError is a source whose items could not all be fetched.
type SourceError struct {
	Type string
	Msg  string
}

func (e *SourceError) Error() string { return fmt.Sprintf("source %s: %s", e.Type, e.Msg) }

// SplitSources tells what of a manifest's sources the sources package fetches, as a
// manifest of them alone, and which types programs fetch: those that are not known
// here, and those that programs are preferred for. keep names items that come from
// this machine, whatever their source says.
func (p Programs) SplitSources(m *manifest.Manifest, keep map[string]string) (own *manifest.Manifest, served map[string]*libdir.Module, err error) {
	own, served = &manifest.Manifest{Sources: map[string]*manifest.Source{}}, map[string]*libdir.Module{}
	for t, src := range m.Sources {
		known := t == sources.TypeCurl || t == sources.TypeInline
		for sum := range src.Items {
			if _, local := keep[sum]; local && known {
				own.Sources[t] = src
			}
		}
		if own.Sources[t] != nil {
			continue
		}
		module, err := p.service(libdir.Sources, t, known)
		if err != nil {
			return nil, nil, err
		}
		if module == nil {
			own.Sources[t] = src
		} else {
			served[t] = module
		}
	}
	return own, served, nil
}

// Download has a program fetch items of a source into the store: those that want
// tells, or all. It returns what became of each that the program speaks of.
func (e *Engine) Download(ctx context.Context, m *manifest.Manifest, source string, program *libdir.Module, want func(checksum string) bool, parent *monitor.Span) (_ []Fetched, err error) {
	src := m.Sources[source]
	items := map[string]any{}
	for sum, item := range src.Items {
		if want == nil || want(sum) {
			items[sum] = item
		}
	}
	span := parent.Start(monitor.Event{Category: monitor.CatSource, Name: "fetch " + source})
	defer func() { span.End(err) }()
	s, err := e.startService(program, "source/"+source, span, nil)
	if err != nil {
		return nil, &SourceError{source, err.Error()}
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	reply, err := s.Call(ctx, "download", map[string]any{
		"items": items, "options": orEmpty(src.Options), "cache": filepath.Dir(e.cfg.Store.SourcesDir()),
		"output": nil, "checksums": []any{},
	}, nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &SourceError{source, err.Error()}
	}
	var out struct {
		Success bool   `json:"success"`
		Output  string `json:"output"`
		Results []struct {
			Success  bool `json:"success"`
			Metadata struct {
				Checksum string `json:"checksum"`
				Cached   bool   `json:"cached"`
			} `json:"metadata"`
			Error string `json:"error"`
		} `json:"results"`
	}
	if err := json.Unmarshal(reply, &out); err != nil {
		return nil, &SourceError{source, fmt.Sprintf("its program returned no result: %v", err)}
	}
	var fetched []Fetched
	failure := ""
	for _, r := range out.Results {
		fetched = append(fetched, Fetched{r.Metadata.Checksum, r.Metadata.Cached, r.Error})
		if !r.Success && failure == "" {
			failure = r.Error
		}
	}
	switch {
	case failure != "":
		return fetched, &SourceError{source, failure}
	case !out.Success:
		return fetched, &SourceError{source, out.Output}
	}
	return fetched, nil
}
