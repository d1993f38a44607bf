// Decompression of the members of a package, as a stream of pieces.
package deb

import (
	"bufio"
	"compress/bzip2"
	"fmt"
	"io"
	"path"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/osbuild-star/osbuild-star/stages/deb/xz"
)

// A source gives the content of a member piece by piece: a piece is valid until the
// next call; the error after the last is io.EOF.
type source interface {
	Next() ([]byte, error)
}

// decoders keeps xz decoders with their buffers from one member to the next.
var decoders = sync.Pool{New: func() any { return new(xz.Decoder) }}

// openMember decompresses a member by the suffix of its name. The caller calls
// release when it needs no more of the source.
func openMember(a *archive, m member) (src source, release func(), err error) {
	r := a.section(m)
	release = func() {}
	switch suffix := path.Ext(m.name); suffix {
	case ".tar":
		return &readerSource{r: r}, release, nil
	case ".xz":
		d := decoders.Get().(*xz.Decoder)
		d.Reset(r)
		return d, func() { decoders.Put(d) }, nil
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, nil, err
		}
		return &readerSource{r: z}, z.Close, nil
	case ".gz":
		z, err := gzip.NewReader(bufio.NewReaderSize(r, 64<<10))
		if err != nil {
			return nil, nil, err
		}
		return &readerSource{r: z}, release, nil
	case ".bz2":
		return &readerSource{r: bzip2.NewReader(bufio.NewReaderSize(r, 64<<10))}, release, nil
	default:
		return nil, nil, fmt.Errorf("member %s: unknown compression %q (xz, zst, gz, bz2)", m.name, suffix)
	}
}

// readerSource makes a source of a reader.
type readerSource struct {
	r   io.Reader
	buf []byte
}

func (s *readerSource) Next() ([]byte, error) {
	if s.buf == nil {
		s.buf = make([]byte, 256<<10)
	}
	n, err := io.ReadFull(s.r, s.buf)
	if n > 0 {
		return s.buf[:n], nil // an error comes again with the next call
	}
	return nil, err
}

// prefetched is a source whose first pieces have been decompressed before.
type prefetched struct {
	pieces [][]byte
	src    source
}

func (s *prefetched) Next() ([]byte, error) {
	if len(s.pieces) > 0 {
		p := s.pieces[0]
		s.pieces[0], s.pieces = nil, s.pieces[1:]
		return p, nil
	}
	return s.src.Next()
}
