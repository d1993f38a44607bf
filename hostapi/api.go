// The API of a build root: what a program finds in /run/osbuild/api.
package hostapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// The files that [Serve] makes.
const (
	argumentsFile   = "arguments"
	exceptionSocket = "osbuild"
	loopSocket      = "remoteloop"
)

// Config says what [Serve] serves.
type Config struct {
	// Dir is the directory that the program sees at /run/osbuild/api. It exists, and
	// has none of the files "arguments", "osbuild" and "remoteloop" yet.
	Dir string
	// Arguments is the content of the file of that name, a JSON document; nil: there
	// is no such file.
	Arguments []byte
	// Exception takes every exception that a program tells, one call at a time; nil:
	// they are taken and forgotten.
	Exception func(Exception)
	// Loop attaches a loop device; calls come at the same time. nil: there are none,
	// which clients are told.
	Loop func(ctx context.Context, r LoopRequest) (Loop, error)
}

// Exception is an error as upstream's programs tell it. It is an error itself.
type Exception struct {
	Type      string `json:"type"`  // name of a Python class
	Value     string `json:"value"` // the message
	Traceback string `json:"traceback"`
}

func (e *Exception) Error() string {
	if e.Value == "" {
		return e.Type
	}
	return e.Type + ": " + e.Value
}

// Serve makes the files of a program's API and serves its sockets until
// [Server.Close], which removes them.
func Serve(cfg Config) (_ *Server, err error) {
	s := newServer(maxLoops)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("making the API: %w", err), s.Close(context.Background()))
		}
	}()
	if cfg.Arguments != nil {
		if err := s.writeFile(filepath.Join(cfg.Dir, argumentsFile), cfg.Arguments); err != nil {
			return nil, err
		}
	}
	if err := s.serve(filepath.Join(cfg.Dir, exceptionSocket), exceptions(cfg.Exception)); err != nil {
		return nil, err
	}
	if err := s.serve(filepath.Join(cfg.Dir, loopSocket), s.loops(cfg.Loop)); err != nil {
		return nil, err
	}
	return s, nil
}

// writeFile makes a file that everybody may read and that the server removes.
func (s *Server) writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.paths = append(s.paths, path)
	s.mu.Unlock()
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(0o444), f.Close()) // whatever the umask is
}

// exceptions takes what programs tell on the socket osbuild. Nothing is answered;
// other messages are none of ours, as upstream has it.
func exceptions(take func(Exception)) handler {
	var mu sync.Mutex
	return func(_ context.Context, r *request) (any, error) {
		var method string
		if err := r.fields.field("method", &method, false); err != nil || method != "exception" {
			return nil, err
		}
		var fields object
		if err := r.fields.field("exception", &fields, true); err != nil {
			return nil, err
		}
		e := Exception{Type: fields.text("type"), Value: fields.text("value"), Traceback: fields.text("traceback")}
		if take != nil {
			mu.Lock()
			defer mu.Unlock()
			take(e)
		}
		return nil, nil
	}
}

// text is a field as text: what is no string as its JSON, "" when it is missing.
func (o object) text(name string) string {
	var v string
	if json.Unmarshal(o[name], &v) != nil {
		return string(o[name])
	}
	return v
}
