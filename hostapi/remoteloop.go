// Loop devices for a program in a build root, which may not attach any itself.
package hostapi

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// LoopRequest asks for a loop device.
type LoopRequest struct {
	File       *os.File // what the device shows, open as the program has it; closed when the call returns
	Offset     uint64   // bytes into the file
	SizeLimit  uint64   // bytes; 0: to the end of the file
	SectorSize uint32   // bytes
	Lock       bool     // keep others, such as udev, from looking at the device
	PartScan   bool     // have the kernel look for partitions
	ReadOnly   bool
}

// Loop is a loop device that was attached.
type Loop struct {
	Name         string // "loop3"
	Major, Minor uint32
	Close        func() error // detaches it; called once
}

// loops attaches loop devices and makes their nodes in the directories that clients
// sent. The devices stay until the server closes, whatever becomes of the client.
func (s *Server) loops(attach func(context.Context, LoopRequest) (Loop, error)) handler {
	return func(ctx context.Context, r *request) (any, error) {
		q := LoopRequest{SectorSize: 512}
		var file, dir int
		for _, f := range []struct {
			name string
			v    any
			must bool
		}{
			{"fd", &file, true}, {"dir_fd", &dir, true}, {"offset", &q.Offset, false}, {"sizelimit", &q.SizeLimit, false},
			{"lock", &q.Lock, false}, {"partscan", &q.PartScan, false}, {"read_only", &q.ReadOnly, false}, {"sector_size", &q.SectorSize, false},
		} {
			if err := r.fields.field(f.name, f.v, f.must); err != nil {
				return nil, err
			}
		}
		for _, i := range []int{file, dir} {
			if i < 0 || i >= len(r.files) {
				return nil, &Exception{Type: "IndexError", Value: fmt.Sprintf("there is no file %d; %d came with the request", i, len(r.files))}
			}
		}
		q.File = r.files[file]
		if attach == nil {
			return nil, errors.New("there are no loop devices here")
		}
		name, err := s.loop(ctx, attach, q, r.files[dir])
		if err != nil {
			return nil, err
		}
		return map[string]string{"devname": name}, nil
	}
}

func (s *Server) loop(ctx context.Context, attach func(context.Context, LoopRequest) (Loop, error), q LoopRequest, dir *os.File) (string, error) {
	l, err := attach(ctx, q)
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", errors.Join(errClosing, l.Close())
	}
	// The program cannot make nodes of block devices: the host makes it for it.
	dev := int(unix.Mkdev(l.Major, l.Minor))
	if err := unix.Mknodat(int(dir.Fd()), l.Name, unix.S_IFBLK|0o600, dev); err != nil {
		return "", errors.Join(&os.PathError{Op: "mknod", Path: l.Name, Err: err}, l.Close())
	}
	if !s.hold(l.Close) {
		return "", errors.Join(fmt.Errorf("more than %d loop devices", maxLoops), unix.Unlinkat(int(dir.Fd()), l.Name, 0), l.Close())
	}
	return l.Name, nil
}
