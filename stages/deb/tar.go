// The inner format of a package: a tar archive, of the kinds that dpkg takes.
package deb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	blockSize   = 512
	maxLongName = 64 << 10 // of a GNU long name
)

// The types of tar entries.
const (
	typeFile     = '0'
	typeHardlink = '1'
	typeSymlink  = '2'
	typeChar     = '3'
	typeBlock    = '4'
	typeDir      = '5'
	typeFifo     = '6'
	typeLongLink = 'K'
	typeLongName = 'L'
)

// tarEntry is one header.
type tarEntry struct {
	name, link   string // as they stand in the archive
	kind         byte
	mode         uint32 // permissions, with set-id and sticky bits
	uid, gid     uint32
	uname, gname string
	size, mtime  int64
	major, minor uint32
}

var errTar = errors.New("damaged tar archive")

// tarReader reads a tar archive from a source. The content of a file is given out
// as it comes from the decompressor, without copying it.
type tarReader struct {
	src  source
	cur  []byte // what is left of the current piece
	left int64  // of the content of the current entry
	pad  int64  // behind that content
	err  error
	hdr  [blockSize]byte
}

// need makes cur hold something.
func (t *tarReader) need() error {
	for len(t.cur) == 0 {
		p, err := t.src.Next()
		if err != nil {
			return err
		}
		t.cur = p
	}
	return nil
}

// read fills p. It returns io.EOF if there was nothing, io.ErrUnexpectedEOF if there
// was not enough.
func (t *tarReader) read(p []byte) error {
	for n := 0; n < len(p); {
		if err := t.need(); err != nil {
			if err == io.EOF && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		k := copy(p[n:], t.cur)
		t.cur = t.cur[k:]
		n += k
	}
	return nil
}

func (t *tarReader) skip(n int64) error {
	for n > 0 {
		if err := t.need(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		k := min(n, int64(len(t.cur)))
		t.cur = t.cur[k:]
		n -= k
	}
	return nil
}

// body returns the next piece of the content of the current entry, nil at its end.
func (t *tarReader) body() ([]byte, error) {
	if t.left == 0 {
		return nil, nil
	}
	if err := t.need(); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%w: %w", errTar, err)
	}
	k := min(t.left, int64(len(t.cur)))
	p := t.cur[:k]
	t.cur = t.cur[k:]
	t.left -= k
	return p, nil
}

// next returns the next entry, and io.EOF after the last.
func (t *tarReader) next() (*tarEntry, error) {
	if t.err != nil {
		return nil, t.err
	}
	e, err := t.header()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: %w", errTar, err)
	}
	t.err = err
	return e, err
}

func (t *tarReader) header() (*tarEntry, error) {
	var longName, longLink string
	for {
		if err := t.skip(t.left + t.pad); err != nil {
			return nil, err
		}
		t.left, t.pad = 0, 0
		if err := t.read(t.hdr[:]); err != nil {
			return nil, err
		}
		if t.hdr[0] == 0 && t.hdr == [blockSize]byte{} {
			return nil, t.drain()
		}
		e, err := parseHeader(&t.hdr)
		if err != nil {
			return nil, err
		}
		if e.kind == typeLongName || e.kind == typeLongLink {
			if e.size > maxLongName {
				return nil, fmt.Errorf("a name of %d bytes", e.size)
			}
			b := make([]byte, e.size)
			if err := t.read(b); err != nil {
				return nil, err
			}
			t.pad = -e.size & (blockSize - 1)
			s, _, _ := strings.Cut(string(b), "\x00")
			if e.kind == typeLongName {
				longName = s
			} else {
				longLink = s
			}
			continue
		}
		if longName != "" {
			e.name = longName
		}
		if longLink != "" {
			e.link = longLink
		}
		if e.name == "" {
			return nil, errors.New("an entry without a name")
		}
		switch e.kind {
		case 0, typeFile:
			e.kind = typeFile
			if strings.HasSuffix(e.name, "/") { // as tar had it before there were types
				e.kind = typeDir
			}
		case typeHardlink, typeSymlink, typeChar, typeBlock, typeDir, typeFifo:
		default:
			return nil, fmt.Errorf("%s: type %q, which dpkg does not know either", e.name, e.kind)
		}
		if e.kind == typeFile {
			t.left, t.pad = e.size, -e.size&(blockSize-1)
		}
		return e, nil
	}
}

// drain reads to the end of the source, so that its checksums are verified.
func (t *tarReader) drain() error {
	for {
		if _, err := t.src.Next(); err != nil {
			return err
		}
	}
}

func parseHeader(h *[blockSize]byte) (*tarEntry, error) {
	sum := int64(8 * ' ')
	for _, b := range h[:148] {
		sum += int64(b)
	}
	for _, b := range h[156:] {
		sum += int64(b)
	}
	if want, ok := number(h[148:156]); !ok || want != sum {
		return nil, errors.New("checksum of a header")
	}
	e := &tarEntry{name: cstring(h[:100]), link: cstring(h[157:257]), kind: h[156]}
	ok := true
	field := func(b []byte, limit int64) int64 {
		v, good := number(b)
		ok = ok && good && v >= 0 && v <= limit
		return v
	}
	const id = 1<<32 - 2 // -1 means "leave it" to chown
	e.mode = uint32(field(h[100:108], 1<<31)) & 0o7777
	e.uid, e.gid = uint32(field(h[108:116], id)), uint32(field(h[116:124], id))
	e.size = field(h[124:136], 1<<60)
	var good bool
	e.mtime, good = number(h[136:148])
	ok = ok && good
	if string(h[257:262]) == "ustar" {
		e.uname, e.gname = cstring(h[265:297]), cstring(h[297:329])
		if h[262] == 0 { // POSIX, not GNU, which has other things there
			if prefix := cstring(h[345:500]); prefix != "" {
				e.name = prefix + "/" + e.name
			}
		}
	}
	if e.kind == typeChar || e.kind == typeBlock {
		e.major = uint32(field(h[329:337], 1<<12-1))
		e.minor = uint32(field(h[337:345], 1<<20-1))
	}
	if !ok {
		return nil, fmt.Errorf("%s: a number in the header", e.name)
	}
	return e, nil
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// number reads a number in octal digits, or in GNU's binary form.
func number(b []byte) (v int64, ok bool) {
	if b[0] == 0x80 || b[0] == 0xff {
		v = int64(int8(b[0]<<1)) >> 1 // 0 or -1
		for i, c := range b[1:] {
			if i < len(b)-9 && c != byte(v) { // more than 64 bits
				return 0, false
			}
			v = v<<8 | int64(c)
		}
		return v, v < 0 == (b[0] == 0xff)
	}
	s := strings.TrimLeft(string(b), " ")
	s = strings.TrimRight(s, " \x00")
	for _, c := range []byte(s) {
		if c < '0' || c > '7' || v >= 1<<59 {
			return 0, false
		}
		v = v<<3 | int64(c-'0')
	}
	return v, true
}
