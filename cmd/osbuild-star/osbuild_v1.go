// The result of manifests of version 1, as upstream osbuild prints it: a pipeline
// has that of its build root inside.
package main

import (
	"encoding/json"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/manifest"
)

type resultOfStage struct {
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	Success  bool            `json:"success"`
	Error    json.RawMessage `json:"error"`
	Output   string          `json:"output"`
	Metadata json.RawMessage `json:"metadata"`
}

// resultV1 makes the result of what ran; res may be nil.
func resultV1(m *manifest.Manifest, res *engine.Result) map[string]any {
	ran := map[string][]resultOfStage{}
	if res != nil {
		for _, r := range res.Stages {
			ran[r.Pipeline] = append(ran[r.Pipeline], resultOfStage{
				ID: r.ID, Type: r.Type, Success: r.Success, Output: r.Output, Metadata: r.Metadata, Error: r.Exception,
			})
		}
	}
	var of func(p *manifest.Pipeline) map[string]any
	of = func(p *manifest.Pipeline) map[string]any {
		success := true
		for _, s := range ran[p.Name] {
			success = success && s.Success
		}
		out := map[string]any{"success": success}
		if p.Build != nil {
			if q := m.Pipeline(p.Build.Pipeline); q != nil {
				build := of(q)
				// Upstream's quirk: with a build root, its success is told, and not that
				// of the pipeline. The exit status is right.
				out["build"], out["success"] = build, build["success"]
			}
		}
		if stages := ran[p.Name]; len(stages) > 0 {
			out["stages"] = stages
		}
		return out
	}
	result := map[string]any{"success": true}
	if p := m.Pipeline("tree"); p != nil {
		result = of(p)
	}
	if stages := ran["assembler"]; len(stages) > 0 {
		result["assembler"] = stages[0]
		if !stages[0].Success {
			result["success"] = false
		}
	}
	return result
}
