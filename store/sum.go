// Checksums: of sources, which are named by them, and of files of layers.
package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// NewHash returns the hash of that name ("sha256"), nil if it is none that a source
// may be named by.
func NewHash(algorithm string) hash.Hash {
	switch algorithm {
	case "md5":
		return md5.New()
	case "sha1":
		return sha1.New()
	case "sha256":
		return sha256.New()
	case "sha384":
		return sha512.New384()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// ErrDamaged is what a file is that has not the content which its name says.
var ErrDamaged = errors.New("its content is not what its checksum says")

// CheckSource reads a file and holds it against a checksum, as manifests write them.
func CheckSource(file, checksum string) error {
	algo, digits, _ := strings.Cut(checksum, ":")
	h := NewHash(algo)
	if h == nil {
		return fmt.Errorf("%s is no checksum", checksum)
	}
	f, err := openQuietly(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 1<<18)); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != digits {
		return fmt.Errorf("%s: %w", file, ErrDamaged)
	}
	return nil
}

// openQuietly opens a regular file without changing when it was read last.
func openQuietly(file string) (*os.File, error) {
	flags := os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(file, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // another's file
		f, err = os.OpenFile(file, flags, 0)
	}
	return f, err
}

// sumBlock is the size of what is left out of a sum when it is zeros.
const sumBlock = 4096

var zeros [sumBlock]byte

// sumFile returns the SHA-256 of a file of that size, in hexadecimal. Blocks of zeros
// are left out, holes are not even read: what follows one has its offset put before
// it. So a file with no such block has the sum that sha256sum prints, and a disk image
// costs what its data do, however the file system keeps its zeros. read, which may be nil,
// is told of bytes that were read.
func sumFile(ctx context.Context, f *os.File, size int64, buf []byte, read func(int64)) (string, error) {
	h := sha256.New()
	written := int64(0) // where what was hashed ends
	add := func(at int64, b []byte) {
		if at != written {
			var mark [8]byte
			binary.BigEndian.PutUint64(mark[:], uint64(at))
			h.Write(mark[:])
		}
		h.Write(b)
		written = at + int64(len(b))
	}
	for at := int64(0); at < size; {
		end := size
		if size > sumBlock {
			data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
			if errors.Is(err, unix.ENXIO) {
				break // a hole up to the end
			}
			if err == nil {
				at = max(at, data&^(sumBlock-1))
				if hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err == nil {
					end = min(size, (hole+sumBlock-1)&^(sumBlock-1))
				}
			}
		}
		for at < end {
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			n, err := f.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
			if n == 0 {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return "", err
			}
			addRuns(buf[:n], at, add)
			if read != nil {
				read(int64(n))
			}
			at += int64(n)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// addRuns gives add what lies between blocks of zeros in b, which stands at that
// offset of a file.
func addRuns(b []byte, at int64, add func(int64, []byte)) {
	from := 0
	for i := 0; i < len(b); i += sumBlock {
		block := b[i:min(i+sumBlock, len(b))]
		if !bytes.Equal(block, zeros[:len(block)]) {
			continue
		}
		if i > from {
			add(at+int64(from), b[from:i])
		}
		from = i + len(block)
	}
	if from < len(b) {
		add(at+int64(from), b[from:])
	}
}
