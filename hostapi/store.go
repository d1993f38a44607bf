// The socket that services of inputs call back, for trees and files of the store.
package hostapi

import (
	"context"
	"errors"
)

// ErrNoTree is what [StoreConfig.ReadTree] and [StoreConfig.ReadTreeAt] return for an
// object that the store does not have: clients are told that it has no path.
var ErrNoTree = errors.New("the store has no such tree")

// StoreConfig has the methods of the store's socket. They are called from several
// goroutines at once; their errors become exceptions of the client. All are needed.
type StoreConfig struct {
	// Path is where the socket is made; its directory exists.
	Path string
	// ReadTree returns the path of an object's tree.
	ReadTree func(ctx context.Context, id string) (path string, err error)
	// ReadTreeAt shows the part subtree, "/" for all of it, of an object's tree at
	// target, read-only. undo takes it away when the server closes, the last first.
	ReadTreeAt func(ctx context.Context, id, target, subtree string) (undo func() error, err error)
	// Mkdtemp makes an empty directory whose name begins and ends so.
	Mkdtemp func(ctx context.Context, prefix, suffix string) (path string, err error)
	// Source returns the directory of the store's sources of a kind, such as
	// "org.osbuild.files".
	Source func(ctx context.Context, name string) (path string, err error)
}

// ServeStore serves the store's socket until [Server.Close], which removes it.
func ServeStore(cfg StoreConfig) (*Server, error) {
	s := newServer(maxTrees)
	if err := s.serve(cfg.Path, s.store(cfg)); err != nil {
		return nil, errors.Join(err, s.Close(context.Background()))
	}
	return s, nil
}

type pathAnswer struct {
	Path *string `json:"path"`
}

func (s *Server) store(cfg StoreConfig) handler {
	return func(ctx context.Context, r *request) (any, error) {
		var method, name, target, subtree, prefix, suffix string
		if err := r.fields.field("method", &method, true); err != nil {
			return nil, err
		}
		args := map[string][]struct {
			name string
			v    *string
			must bool
		}{
			"read-tree":    {{"object-id", &name, true}},
			"read-tree-at": {{"object-id", &name, true}, {"target", &target, true}, {"subtree", &subtree, true}},
			"mkdtemp":      {{"prefix", &prefix, false}, {"suffix", &suffix, false}},
			"source":       {{"name", &name, true}},
		}
		for _, a := range args[method] {
			if err := r.fields.field(a.name, a.v, a.must); err != nil {
				return nil, err
			}
		}
		var path string
		var err error
		switch method {
		case "read-tree":
			path, err = cfg.ReadTree(ctx, name)
		case "read-tree-at":
			path, err = target, s.readTreeAt(ctx, cfg, name, target, subtree)
			if err != nil && !errors.Is(err, ErrNoTree) {
				// Upstream tells this one failure in the answer.
				return map[string]string{"error": err.Error()}, nil
			}
		case "mkdtemp":
			path, err = cfg.Mkdtemp(ctx, prefix, suffix)
		case "source":
			path, err = cfg.Source(ctx, name)
		default:
			return nil, &Exception{Type: "ValueError", Value: "there is no method " + method}
		}
		if errors.Is(err, ErrNoTree) {
			return pathAnswer{}, nil
		}
		if err != nil {
			return nil, err
		}
		return pathAnswer{&path}, nil
	}
}

func (s *Server) readTreeAt(ctx context.Context, cfg StoreConfig, id, target, subtree string) error {
	undo, err := cfg.ReadTreeAt(ctx, id, target, subtree)
	if err != nil || undo == nil {
		return err
	}
	if !s.hold(undo) {
		return errors.Join(errors.New("too many trees are mounted"), undo())
	}
	return nil
}
