// Taking things out of a store.
//
// Everything goes by a rename into a scratch directory, objects before the layers that
// they stand on: whenever it is interrupted, no object lacks a layer, and what was
// on the way is removed by the next one.
package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/osbuild-star/osbuild-star/internal/scratch"
)

// removal collects what is to go.
type removal struct {
	objects, layers, sources []string
}

// remove takes these things away; its caller is alone. What it returns frees the room,
// and is called when builds may go on again. Nothing that a lease names is taken away,
// but for objects.
func (s *Store) remove(r removal, leased map[string]bool) (free func() error, err error) {
	trash, err := scratch.New(s.path("tmp"), "gc-")
	if err != nil {
		return nil, err
	}
	var errs []error
	move := func(from, kind string) {
		dir := filepath.Join(trash.Path, kind)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
			return
		}
		if err := os.Rename(from, filepath.Join(dir, filepath.Base(from))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, key := range r.objects {
		move(s.path("objects", key), "objects")
	}
	if len(errs) == 0 {
		for _, l := range r.layers {
			if !leased[leaseLayer+l] {
				s.moveLayer(l, move)
			}
		}
		for _, sum := range r.sources {
			if !leased[leaseSource+sum] {
				move(filepath.Join(s.SourcesDir(), sum), "sources")
			}
		}
	}
	return func() error { return trash.Close() }, errors.Join(errs...)
}

// moveLayer takes a layer away with what is known of it.
func (s *Store) moveLayer(layer string, move func(from, kind string)) {
	move(s.path("layers", layer), "layers")
	move(s.sumsFile(layer), "sums")
	move(s.path("links", layer+".json"), "links")
}

// orphans are what nobody needs: layers, and what is known of layers that are gone.
func (s *Store) orphans(c *contents, leased map[string]bool) (layers, files []string, err error) {
	have := map[string]bool{}
	for _, l := range c.layers {
		have[l] = true
		if len(c.names[l]) == 0 && !leased[leaseLayer+l] {
			layers = append(layers, l)
		}
	}
	for dir, suffix := range map[string]string{"sums": sumsSuffix, "links": ".json"} {
		ents, err := os.ReadDir(s.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		for _, e := range ents {
			name := e.Name()
			if filepath.Ext(name) != suffix || !have[name[:len(name)-len(suffix)]] {
				files = append(files, s.path(dir, name))
			}
		}
	}
	// Who holds a claim has its file locked.
	claims, err := namesIn(s.path("locks"))
	if err != nil {
		return nil, nil, err
	}
	for _, key := range claims {
		if release, ok, err := s.TryClaim(key); err == nil && ok {
			release()
		}
	}
	slices.Sort(files)
	return layers, files, nil
}

// clean removes what killed processes left in tmp and how many that were.
func (s *Store) clean() int {
	before, _ := namesIn(s.path("tmp"))
	for _, prefix := range []string{"run-", "gc-"} {
		scratch.Sweep(s.path("tmp"), prefix)
	}
	after, _ := namesIn(s.path("tmp"))
	return max(0, len(before)-len(after))
}
