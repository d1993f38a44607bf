package hostapi

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"
)

// Exception is an error that a program tells on the socket osbuild.
type Exception struct {
	Type      string `json:"type"`
	Value     string `json:"value"`
	Traceback string `json:"traceback"`
}

func (e *Exception) Error() string { return e.Type + ": " + e.Value }

// Config says what Serve serves.
type Config struct {
	Dir       string
	Arguments []byte
	Exception func(Exception)
	Loop      func(context.Context, LoopRequest) (Loop, error)
}

// LoopRequest asks for a loop device.
type LoopRequest struct {
	File       *os.File
	Offset     uint64
	SizeLimit  uint64
	SectorSize uint32
	Lock       bool
	PartScan   bool
	ReadOnly   bool
}

// Loop is an attached one.
type Loop struct {
	Name         string
	Major, Minor uint32
	Close        func() error
}

// Server is running.
type Server struct{}

// Serve starts one.
func Serve(cfg Config) (*Server, error) { return nil, errors.ErrUnsupported }

// Close ends it.
func (s *Server) Close(ctx context.Context) error { return nil }

// ErrNoTree is an object ID that the store does not know.
var ErrNoTree = errors.New("there is no such tree")

// StoreConfig has the methods of the store socket.
type StoreConfig struct {
	Path       string
	ReadTree   func(ctx context.Context, id string) (path string, err error)
	ReadTreeAt func(ctx context.Context, id, target, subtree string) (undo func() error, err error)
	Mkdtemp    func(ctx context.Context, prefix, suffix string) (path string, err error)
	Source     func(ctx context.Context, name string) (path string, err error)
}

// ServeStore starts it.
func ServeStore(cfg StoreConfig) (*Server, error) { return nil, errors.ErrUnsupported }

// ServiceConfig says what to start.
type ServiceConfig struct {
	Program string
	ID      string
	Env     []string
	Line    func(string)
	Do      func(f func() error) error
	Grace   time.Duration
}

// Service is a host service.
type Service struct{}

// StartService starts it.
func StartService(cfg ServiceConfig) (*Service, error) { return nil, errors.ErrUnsupported }

// Call calls a method.
func (s *Service) Call(ctx context.Context, method string, args any, signal func(json.RawMessage)) (json.RawMessage, error) {
	return nil, errors.ErrUnsupported
}

// Close ends it.
func (s *Service) Close() error { return nil }

// ServiceError is an exception.
type ServiceError struct{ Name, Value, Backtrace string }

func (e *ServiceError) Error() string { return e.Name + ": " + e.Value }
