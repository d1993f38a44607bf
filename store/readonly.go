// Read-only stores: what they have is used where it is, and nothing is written there.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// AddReadOnly makes the store at dir one that objects and sources are looked for in
// when this one lacks them. Its layers are used in place: a link in the directory of
// layers here leads to each, so that a chain has short names wherever its layers are.
// When that store is not there any more, what stands on it is not found.
func (s *Store) AddReadOnly(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return fmt.Errorf("the read-only store: %w", err)
	}
	ro := &Store{Dir: dir, boot: s.boot}
	if _, err := os.Stat(ro.path("objects")); err != nil {
		return fmt.Errorf("%s is no store: %v", dir, err)
	}
	if own, err := filepath.EvalSymlinks(s.Dir); err == nil && own == dir {
		return fmt.Errorf("%s is the store itself, it cannot be a read-only one beside it", dir)
	}
	if !slices.ContainsFunc(s.readOnly, func(r *Store) bool { return r.Dir == dir }) {
		s.readOnly = append(s.readOnly, ro)
	}
	return nil
}

// lookupReadOnly finds an object in the read-only stores.
func (s *Store) lookupReadOnly(key string) (*Object, bool) {
	for _, ro := range s.readOnly {
		o, err := ro.readObject(key)
		if err != nil || ro.stale(&o) {
			continue
		}
		obj := &Object{Info: o.Info, s: s}
		if s.linkLayers(ro, o.Layers) == nil && obj.linksIntact() {
			obj.use()
			return obj, true
		}
	}
	return nil, false
}

// linkLayers makes links to layers of another store.
func (s *Store) linkLayers(ro *Store, layers []string) error {
	for _, l := range layers {
		to := ro.layerDir(l)
		if real, err := filepath.EvalSymlinks(to); err != nil {
			return err
		} else if st, err := os.Stat(real); err != nil || !st.IsDir() {
			return fmt.Errorf("layer %s is no directory", to)
		} else {
			to = real // that store may have it from another one
		}
		for range 2 {
			have, err := os.Readlink(s.layerDir(l))
			if err == nil && have == to {
				break
			}
			if err == nil && !exists(have) {
				os.Remove(s.layerDir(l)) // to a store that has been moved
			} else if err == nil || exists(s.layerDir(l)) {
				break // the same layer, from elsewhere
			}
			if err := os.Symlink(to, s.layerDir(l)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// ReadOnly tells whether a file, which is in one of the layers, belongs to another
// store: it must get no second name.
func (o *Object) ReadOnly(path string) bool {
	s := o.s
	rel, err := filepath.Rel(s.LayersDir(), path)
	if err != nil {
		return false
	}
	layer := rel
	for filepath.Dir(layer) != "." {
		layer = filepath.Dir(layer)
	}
	return s.homeOf(layer) != s.Dir
}
