// The trees that services of inputs read, shown to them when they ask.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/hostapi"
)

// storeViews are the trees of one stage's inputs, mounted in the Space.
type storeViews struct {
	v     *environment
	trees map[string]*plan // by ID of the pipeline

	mu sync.Mutex
	at map[string]string // where the tree of an ID is mounted
}

// readTree mounts the tree of that ID, once, and returns where.
func (s *storeViews) readTree(_ context.Context, id string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.at[id]; at != "" {
		return at, nil
	}
	q := s.trees[id]
	if q == nil || s.v.trees[q] == nil {
		return "", hostapi.ErrNoTree
	}
	at := filepath.Join(s.v.dir, fmt.Sprintf("tree-%d", len(s.at)))
	if err := os.Mkdir(at, 0o755); err != nil {
		return "", err
	}
	err := s.v.b.e.space.Do(func() error { return s.v.b.e.mountObject(s.v.trees[q], at) })
	if err != nil {
		return "", err
	}
	s.at[id] = at
	return at, nil
}

// readTreeAt shows a part of a tree at target, which the service made.
func (s *storeViews) readTreeAt(ctx context.Context, id, target, subtree string) (func() error, error) {
	at, err := s.readTree(ctx, id)
	if err != nil {
		return nil, err
	}
	do := s.v.b.e.space.Do
	err = do(func() error {
		from, err := buildroot.InRoot(at, path.Clean("/"+subtree))
		if err != nil {
			return err
		}
		return buildroot.Bind(from, target, true)
	})
	if err != nil {
		return nil, err
	}
	return func() error { return do(func() error { return buildroot.Unmount(target) }) }, nil
}

func (s *storeViews) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, at := range s.at {
		errs = append(errs, s.v.b.e.space.Do(func() error { return buildroot.Unmount(at) }))
	}
	return errors.Join(errs...)
}
