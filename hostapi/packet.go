// Packets: what the kernel has in a socket, taken out within bounds.
package hostapi

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// viaFile is the content of a packet whose document is in its first file.
const viaFile = "<args-via-fd>"

// maxFiles is the kernel's limit of files in one packet (SCM_MAX_FD).
const maxFiles = 253

// wmemMax is the size of the largest document that goes as a packet: upstream's rule,
// by the kernel's largest send buffer.
var wmemMax = sync.OnceValue(func() int {
	b, err := os.ReadFile("/proc/sys/net/core/wmem_max")
	if n, perr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && perr == nil {
		return n
	}
	return 64000
})

// packet is one that was received: a document and files.
type packet struct {
	data  []byte
	files []*os.File
}

// readPacket takes one packet off a non-blocking socket: unix.EAGAIN when there is
// none, io.EOF when there will be none. No more than limit bytes are ever allocated.
func readPacket(sock, limit int) (*packet, error) {
	size, err := peek(sock)
	if err != nil {
		return nil, err
	}
	if size > limit {
		// Read into nothing, the packet is gone, and its files with it.
		if _, _, _, err := recvmsg(sock, make([]byte, 1), nil, 0); err != nil {
			return nil, err
		}
		return nil, tooLong(size, limit)
	}
	data, oob := make([]byte, size), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, err := recvmsg(sock, data, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p := &packet{data: data[:n]}
	if err := p.takeFiles(oob[:oobn]); err != nil {
		closeAll(p.files)
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		closeAll(p.files)
		return nil, fmt.Errorf("%w: files that came with it are missing; this process may have too many open", ErrMessage)
	}
	if string(p.data) != viaFile {
		return p, nil
	}
	if len(p.files) == 0 {
		return nil, fmt.Errorf("%w: the file of its document is missing", ErrMessage)
	}
	doc := p.files[0]
	p.files = p.files[1:]
	p.data, err = readDocument(doc, limit)
	doc.Close()
	if err != nil {
		closeAll(p.files)
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return p, nil
}

func tooLong[N int | int64](n N, limit int) error {
	return fmt.Errorf("%w: it has %d bytes, and %d are the most", ErrMessage, n, limit)
}

// peek returns the size of the next packet.
func peek(sock int) (int, error) {
	n, _, _, err := recvmsg(sock, make([]byte, 1), nil, unix.MSG_PEEK|unix.MSG_TRUNC)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

func recvmsg(sock int, data, oob []byte, flags int) (n, oobn, got int, err error) {
	for {
		n, oobn, got, _, err = unix.Recvmsg(sock, data, oob, flags|unix.MSG_DONTWAIT)
		// A peer that closes without having read all tells so once; what it sent
		// before is there still.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNRESET) {
			return n, oobn, got, err
		}
	}
}

// takeFiles takes the open files out of the control messages of a packet.
func (p *packet) takeFiles(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return err
		}
		for _, fd := range fds {
			p.files = append(p.files, os.NewFile(uintptr(fd), fmt.Sprintf("received file %d", len(p.files))))
		}
	}
	return nil
}

// readDocument reads a document that was sent as a file. Only a file in memory is
// taken: reading a pipe, or a file system that the peer serves itself, could wait for
// ever.
func readDocument(f *os.File, limit int) ([]byte, error) {
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("its document: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, fmt.Errorf("its document: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int64(fs.Type) != unix.TMPFS_MAGIC {
		return nil, errors.New("its document is not in a file in memory")
	}
	if st.Size > int64(limit) {
		return nil, fmt.Errorf("its document has %d bytes, and %d are the most", st.Size, limit)
	}
	data := make([]byte, st.Size)
	// Bounded by the size that it had: the peer can write to it still.
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, st.Size), data); err != nil {
		return nil, fmt.Errorf("its document: %w", err)
	}
	return data, nil
}
