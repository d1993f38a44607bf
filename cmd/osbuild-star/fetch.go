// Fetching: how the engine gets the source items that stages read.
package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
)

// fetch brings source items into the store, the first ones first, and tells of each as
// soon as it is there. Programs that serve sources work beside all the others.
func (s *session) fetch(ctx context.Context, m *manifest.Manifest, checksums []string, parent *monitor.Span, done func(string, error)) error {
	own, served, err := s.a.programs().SplitSources(m, s.local)
	if err != nil {
		return err
	}
	place := map[string]int{}
	for i, sum := range checksums {
		if s.wasFetched(sum) {
			done(sum, nil)
		} else {
			place[sum] = i
		}
	}
	wanted := func(sum string) bool { _, ok := place[sum]; return ok }
	var wg sync.WaitGroup
	for t, program := range served {
		sums := slices.DeleteFunc(slices.Collect(maps.Keys(m.Sources[t].Items)), func(sum string) bool { return !wanted(sum) })
		if len(sums) == 0 {
			continue
		}
		wg.Go(func() {
			list, err := s.eng.Download(ctx, m, t, program, wanted, parent)
			s.note(map[string][]engine.Fetched{t: list})
			for _, sum := range sums {
				brought := slices.ContainsFunc(list, func(f engine.Fetched) bool { return f.Checksum == sum && f.Err == "" })
				if brought {
					done(sum, nil)
				} else {
					done(sum, err)
				}
			}
		})
	}
	err = s.fetchOwn(ctx, own, place, parent, done)
	wg.Wait()
	return err
}

// fetchOwn fetches what needs no program: the items that place has, in that order.
func (s *session) fetchOwn(ctx context.Context, own *manifest.Manifest, place map[string]int, parent *monitor.Span, done func(string, error)) error {
	items, err := sources.FromManifest(own, s.local)
	if err != nil {
		return err
	}
	var need []sources.Item
	for _, it := range items {
		if _, ok := place[it.Checksum]; !ok {
			continue
		}
		if sources.Have(s.st.SourcesDir(), it.Checksum, it.Size) {
			done(it.Checksum, nil)
		} else {
			need = append(need, it)
		}
	}
	if len(need) == 0 {
		return nil
	}
	slices.SortStableFunc(need, func(a, b sources.Item) int { return cmp.Compare(place[a.Checksum], place[b.Checksum]) })
	span := parent.Start(monitor.Event{Category: monitor.CatSource, Name: "fetch sources"})
	f := &sources.Fetcher{
		Dir: s.st.SourcesDir(), Span: span, KeepGoing: s.a.cfg.keepGoing,
		Done: func(r sources.Result) { done(r.Checksum, r.Err) },
	}
	_, err = f.Fetch(ctx, need)
	span.End(err)
	return err
}

// note remembers what programs have fetched, so that they are not asked again.
func (s *session) note(served map[string][]engine.Fetched) {
	s.fetching.Lock()
	defer s.fetching.Unlock()
	if s.fetched == nil {
		s.fetched = map[string]bool{}
	}
	for _, list := range served {
		for _, f := range list {
			s.fetched[f.Checksum] = s.st != nil && sources.Have(s.st.SourcesDir(), f.Checksum, 0)
		}
	}
}

func (s *session) wasFetched(checksum string) bool {
	s.fetching.Lock()
	defer s.fetching.Unlock()
	file, fetched := s.fetched[checksum]
	// What was a file and is gone was damaged.
	return fetched && (!file || sources.Have(s.st.SourcesDir(), checksum, 0))
}
