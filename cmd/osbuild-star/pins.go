// Pins: what the last builds of a workspace need stays in the store when room is made;
// and making room after a build.
package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/monitor"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/osbuild-star/osbuild-star/store"
)

// The environment's words for --cache-max-size and --store-ro.
const (
	maxSizeEnv = "OSBUILD_STAR_CACHE_MAX_SIZE"
	storeROEnv = "OSBUILD_STAR_STORE_RO"
)

// pin notes what the artifacts of a plan need. That it cannot costs a later build
// time, and this one nothing.
func (s *session) pin(plan *builtins.Plan) {
	pipelines := map[string]string{} // by label
	for _, a := range plan.Artifacts {
		pipelines[a.Label.String()] = a.Pipeline
	}
	for _, t := range plan.Tests {
		pipelines[t.Image.String()] = t.ImagePipeline
	}
	var names []string
	for _, p := range pipelines {
		names = append(names, p)
	}
	needs, err := s.eng.Needs(plan.Manifest, names)
	if err != nil {
		return // it has been built: its plan is good
	}
	for text, pipeline := range pipelines {
		label, err := rulefile.ParseLabel(text, "")
		if err != nil {
			continue
		}
		n := needs[pipeline]
		err = s.st.Pin(store.Pin{
			Workspace: s.ws.Root, Package: filepath.Join(s.ws.Root, filepath.FromSlash(label.Package)), Label: text,
			Built: time.Now().UTC(), Keys: n.Keys, Sources: n.Sources,
		})
		if err != nil {
			s.a.screen.endProgress()
			s.a.screen.warn("%v", err)
			return
		}
	}
}

// lapse takes away the pins of targets that this workspace does not declare any more.
func (s *session) lapse(st *store.Store) error {
	pins, err := st.Pins()
	if err != nil || !slices.ContainsFunc(pins, func(p store.Pin) bool { return p.Workspace == s.ws.Root }) {
		return err
	}
	targets, err := s.project.Match(s.a.ctx, []string{"//..."}, s.pkg)
	if err != nil {
		return nil // a rule file with a mistake says nothing of what is gone
	}
	known := map[string]bool{}
	for _, t := range targets {
		known[t.Label().String()] = true
	}
	for _, p := range pins {
		base, _, _ := strings.Cut(p.Label, "@")
		if p.Workspace == s.ws.Root && !known[p.Label] && !known[base] {
			if err := st.Unpin(p.Workspace, p.Label); err != nil {
				return err
			}
		}
	}
	return nil
}

// bound makes the store as small as --cache-max-size says, when a build is over.
func (s *session) bound() {
	if !s.a.maxSize.given || s.st == nil || s.eng == nil || s.a.ctx.Err() != nil {
		return
	}
	err := s.lapse(s.st)
	var freed *store.Freed
	if err == nil {
		freed, err = s.st.GC(s.a.ctx, store.GCOptions{MaxSize: s.a.maxSize.limit()})
	}
	switch {
	case err != nil:
		s.a.screen.warn("making room in the store: %v", err)
	case freed.Left > s.a.maxSize.limit():
		s.a.screen.warn("the store has %s, more than --cache-max-size %s: the last builds of its workspaces need %s, and builds that run %s",
			monitor.Bytes(freed.Left), s.a.maxSize.String(), monitor.Bytes(freed.Pinned), monitor.Bytes(freed.Used))
	case freed.Bytes > 0:
		s.a.screen.note("made room in the store: %s freed, %s left", monitor.Bytes(freed.Bytes), monitor.Bytes(freed.Left))
	}
}

// checkStore settles what the flags and the environment say of the store.
func (a *app) checkStore(verb string, changed func(flag string) bool) error {
	if text := os.Getenv(maxSizeEnv); text != "" && !changed("cache-max-size") {
		if err := a.maxSize.Set(text); err != nil {
			return usagef(verb, "$%s: %v", maxSizeEnv, err)
		}
	}
	if text := os.Getenv(storeROEnv); text != "" && !changed("store-ro") {
		a.storeRO = filepath.SplitList(text)
	}
	return nil
}
