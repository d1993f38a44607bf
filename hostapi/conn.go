// Package hostapi is what programs of upstream osbuild talk to over sockets.
package hostapi

import (
	"errors"
	"os"
)

// Conn is a connection.
type Conn struct{}

// Dial connects to the socket at path.
func Dial(path string) (*Conn, error) { return nil, errors.ErrUnsupported }

// FromFile takes over f.
func FromFile(f *os.File) (*Conn, error) { return nil, errors.ErrUnsupported }

// Send sends v and files.
func (c *Conn) Send(v any, files ...*os.File) error { return errors.ErrUnsupported }

// Receive receives into v. io.EOF: the peer closed.
func (c *Conn) Receive(v any) ([]*os.File, error) { return nil, errors.ErrUnsupported }

// Close closes it.
func (c *Conn) Close() error { return nil }
