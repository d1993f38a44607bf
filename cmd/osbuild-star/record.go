// What is kept of builds, to tell what changed: of each target of a workspace the last
// build and the one before that made another tree, and what is in trees.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/monitor/report"
	"github.com/osbuild-star/osbuild-star/store"
)

// record is what is kept of the builds of a target.
type record struct {
	Version int          `json:"version"`
	Last    *report.Made `json:"last"`
	Before  *report.Made `json:"before,omitempty"` // it made another tree
}

const recordVersion = 1

// recordPath is below builds/WORKSPACE of the store.
func (s *session) recordPath(label string) string {
	ws := sha256.Sum256([]byte(s.ws.Root))
	return filepath.Join(s.st.Dir, "builds", hex.EncodeToString(ws[:8]), url.PathEscape(label)+".json")
}

// readKept reads a file that the store keeps. One that is damaged, or of another
// version, is as good as none.
func readKept(path string, v any) bool {
	b, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(b, v) == nil
}

// keep writes such a file. What cannot be kept is not there to compare with, no more.
func keep(path string, v any) {
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return
	}
	_ = monitor.WriteWhole(path, func(w io.Writer) error { return json.NewEncoder(w).Encode(v) })
}

func (s *session) lastBuild(label string) record {
	var r record
	if !readKept(s.recordPath(label), &r) || r.Version != recordVersion {
		return record{Version: recordVersion}
	}
	return r
}

// made is what is kept of an artifact that was built.
func (s *session) made(r *reporting, im built, files []exported) (report.Made, error) {
	m := report.Made{Time: r.start.UTC(), Seconds: r.seconds(), Key: im.Tree.Key}
	for _, f := range files {
		name, err := filepath.Rel(s.outDir(im.Label), f.Path)
		if err != nil {
			return m, err
		}
		m.Files = append(m.Files, report.File{Name: name, Size: f.Size})
	}
	stages, err := s.eng.Describe(r.plan.Manifest, []string{im.Pipeline})
	if err != nil {
		return m, err
	}
	for _, d := range stages {
		m.Stages = append(m.Stages, madeStage(d))
	}
	// Also where the tree itself is not looked into now: a later report does that.
	err = s.eng.Reads(r.plan.Manifest, im.Pipeline, func(t engine.Tree) (bool, error) {
		m.Trees = append(m.Trees, report.MadeTree{Pipeline: t.Pipeline, Key: t.Object.Key})
		return true, nil
	})
	return m, err
}

func madeStage(d engine.Described) report.MadeStage {
	return report.MadeStage{
		Pipeline: d.Pipeline, Index: d.Index, Type: d.Type, Key: d.Key, Options: d.Options, Program: d.Program,
		Base: d.Base, Build: d.Build, Inputs: d.Inputs,
	}
}

// content reads what is in a tree; nil when it is not that of a system.
func (s *session) content(o *store.Object) (*report.Content, error) {
	path := filepath.Join(s.st.Dir, "reports", o.Key+".json")
	c := &report.Content{}
	if readKept(path, c) && c.Current() {
		return c, nil
	}
	c = nil
	err := s.eng.View(o, func(dir *os.File) (err error) {
		if report.IsSystem(dir) {
			c, err = report.ReadContent(dir)
		}
		return err
	})
	if err == nil && c != nil {
		keep(path, c)
	}
	return c, err
}
