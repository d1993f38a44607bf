// Package xz decompresses .xz files: as fast as the xz program, without starting it.
//
// Inside a build root of a foreign architecture every program is emulated, and the
// packages of Debian are xz: so their decoder has to be here. It knows what dpkg
// makes, one or more streams of blocks with the LZMA2 filter, and verifies the
// checks that the file has. Other filters give [ErrUnsupported].
//
// The format is described in "The .xz File Format", https://tukaani.org/xz/xz-file-format.txt
package xz

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"crypto/sha256"
)

// ErrUnsupported says that a file is well formed, but uses a filter, a check or a
// dictionary that this package does not have.
var ErrUnsupported = errors.New("unsupported kind of xz file")

// ErrCorrupt says that a file is damaged.
var ErrCorrupt = errors.New("damaged xz data")

func corrupt(what string) error { return fmt.Errorf("%w: %s", ErrCorrupt, what) }

const (
	maxDict   = 256 << 20 // larger dictionaries are refused; dpkg's largest is 64 MiB
	firstSize = 256 << 10 // of the output of a block whose size is not told
)

var headerMagic = [6]byte{0xfd, '7', 'z', 'X', 'Z', 0}

// A Decoder reads one .xz file after the other. The zero value is ready for Reset;
// it keeps its buffers from one file to the next.
type Decoder struct {
	lzma
	in  input
	src *bufio.Reader
	err error

	stage   func() ([]byte, error) // what comes next in the file
	flags   byte                   // of the stream: its kind of check
	check   hash.Hash              // of the block, or nil
	blocks  []record               // of the stream
	read    int64                  // bytes taken from src since the block or index began
	outSize int64                  // of the block so far
	wantIn  int64                  // compressed size as the block header has it, or -1
	wantOut int64
	header  int64 // size of the block header
	dict    int   // size of the dictionary
	needDic bool  // the next chunk has to reset the dictionary
	needSta bool  // … the state
	needPro bool  // … to bring properties
}

type record struct{ unpadded, size int64 }

// Reset makes d read another file.
func (d *Decoder) Reset(r io.Reader) {
	if d.src == nil {
		d.src = bufio.NewReaderSize(r, 64<<10)
	} else {
		d.src.Reset(r)
	}
	d.err, d.stage = nil, d.streamHeader
}

// Next returns the next piece of the content, which is valid until the next call,
// and io.EOF after the last. Pieces have 1 byte to 2 MiB.
func (d *Decoder) Next() ([]byte, error) {
	for d.err == nil {
		var p []byte
		if p, d.err = d.stage(); len(p) > 0 {
			return p, nil
		}
	}
	return nil, d.err
}

// full reads into p what must be there.
func (d *Decoder) full(p []byte) error {
	n, err := io.ReadFull(d.src, p)
	d.read += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: the file ends early: %w", ErrCorrupt, io.ErrUnexpectedEOF)
	}
	return err
}

func (d *Decoder) byte() (byte, error) {
	b, err := d.src.ReadByte()
	if err == io.EOF {
		return 0, fmt.Errorf("%w: the file ends early: %w", ErrCorrupt, io.ErrUnexpectedEOF)
	}
	d.read++
	return b, err
}

func (d *Decoder) streamHeader() ([]byte, error) {
	var b [12]byte
	if err := d.full(b[:]); err != nil {
		return nil, err
	}
	if [6]byte(b[:6]) != headerMagic {
		return nil, corrupt("it does not start as an xz file")
	}
	if crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return nil, corrupt("checksum of the stream header")
	}
	if b[6] != 0 || b[7] > 15 {
		return nil, fmt.Errorf("%w: stream flags %#x", ErrUnsupported, b[6:8])
	}
	d.flags = b[7]
	switch d.flags {
	case 0:
		d.check = nil
	case 1:
		d.check = crc32.NewIEEE()
	case 4:
		d.check = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		d.check = sha256.New()
	default:
		return nil, fmt.Errorf("%w: check %d", ErrUnsupported, d.flags)
	}
	d.blocks = d.blocks[:0]
	d.stage = d.blockHeader
	return nil, nil
}

// vli takes a variable length integer from the start of b; ok is false when there
// is none.
func vli(b []byte) (v int64, rest []byte, ok bool) {
	for i := 0; i < len(b) && i < 9; i++ {
		v |= int64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, b[i+1:], i == 0 || b[i] != 0
		}
	}
	return 0, nil, false
}

func (d *Decoder) blockHeader() ([]byte, error) {
	d.read = 0
	size, err := d.byte()
	if err != nil {
		return nil, err
	}
	if size == 0 {
		d.stage = d.index
		return nil, nil
	}
	var buf [1024]byte
	h := buf[:(int(size)+1)*4]
	h[0] = size
	if err := d.full(h[1:]); err != nil {
		return nil, err
	}
	body, sum := h[:len(h)-4], h[len(h)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return nil, corrupt("checksum of a block header")
	}
	d.header, d.read = int64(len(h)), 0
	flags, rest := body[1], body[2:]
	if flags&0x3c != 0 {
		return nil, fmt.Errorf("%w: block flags %#x", ErrUnsupported, flags)
	}
	d.wantIn, d.wantOut = -1, -1
	ok := true
	if flags&0x40 != 0 {
		d.wantIn, rest, ok = vli(rest)
	}
	if ok && flags&0x80 != 0 {
		d.wantOut, rest, ok = vli(rest)
	}
	if !ok {
		return nil, corrupt("sizes in a block header")
	}
	var id, n int64
	if id, rest, ok = vli(rest); ok {
		n, rest, ok = vli(rest)
	}
	if !ok || int64(len(rest)) < n {
		return nil, corrupt("filters in a block header")
	}
	if flags&3 != 0 || id != 0x21 {
		return nil, fmt.Errorf("%w: a filter other than LZMA2 (%#x)", ErrUnsupported, id)
	}
	if n != 1 || rest[0] > 40 {
		return nil, corrupt("properties of LZMA2")
	}
	for _, b := range rest[n:] {
		if b != 0 {
			return nil, corrupt("padding of a block header")
		}
	}
	dict := int64(2|rest[0]&1) << (rest[0]/2 + 11)
	if dict > maxDict {
		return nil, fmt.Errorf("%w: its dictionary has %d MiB", ErrUnsupported, dict>>20)
	}
	d.dict = int(dict)
	d.pos, d.outSize = 0, 0
	d.needDic, d.needPro, d.needSta = true, true, true
	if d.check != nil {
		d.check.Reset()
	}
	d.stage = d.lzma2Chunk
	return nil, nil
}

// room makes place for n more bytes behind pos, and keeps the dictionary.
func (d *Decoder) room(n int) {
	if d.pos+n+slack <= len(d.buf) {
		return
	}
	// A block whose size is known needs no more than that; one that is larger than
	// its dictionary slides through a buffer of twice the size.
	most := int64(2*d.dict + outMax)
	if d.wantOut >= 0 {
		most = min(most, d.wantOut)
	}
	want := min(max(2*int64(len(d.buf)), firstSize), most)
	want = max(want, int64(d.pos+n))
	if want <= most && int(want)+slack > len(d.buf) {
		grown := make([]byte, int(want)+slack)
		copy(grown, d.buf[:d.pos])
		d.buf = grown
		return
	}
	// Positions keep their value modulo 16, which the models depend on.
	drop := (d.pos - d.dict) &^ 15
	if drop > 0 {
		copy(d.buf, d.buf[drop:d.pos])
		d.pos -= drop
	}
	if d.pos+n+slack > len(d.buf) {
		grown := make([]byte, d.pos+n+slack)
		copy(grown, d.buf[:d.pos])
		d.buf = grown
	}
}

func (d *Decoder) lzma2Chunk() ([]byte, error) {
	control, err := d.byte()
	if err != nil {
		return nil, err
	}
	if control == 0 {
		d.stage = d.blockEnd
		return nil, nil
	}
	if control == 1 || control >= 0xe0 {
		d.pos, d.needDic = 0, false
	}
	if d.needDic {
		return nil, corrupt("a block that does not reset the dictionary")
	}
	var b [4]byte
	var n int
	if control < 0x80 {
		if control > 2 {
			return nil, corrupt("control byte of a chunk")
		}
		if err := d.full(b[:2]); err != nil {
			return nil, err
		}
		n = int(binary.BigEndian.Uint16(b[:])) + 1
		if err := d.fits(n); err != nil {
			return nil, err
		}
		d.room(n)
		if err := d.full(d.buf[d.pos : d.pos+n]); err != nil {
			return nil, err
		}
		d.pos += n
		return d.deliver(n)
	}

	if err := d.full(b[:4]); err != nil {
		return nil, err
	}
	n = int(control&0x1f)<<16 + int(binary.BigEndian.Uint16(b[:])) + 1
	size := int(binary.BigEndian.Uint16(b[2:])) + 1
	if err := d.fits(n); err != nil {
		return nil, err
	}
	if control >= 0xc0 {
		p, err := d.byte()
		if err != nil {
			return nil, err
		}
		if !d.props(p) {
			return nil, corrupt("properties of a chunk")
		}
		d.needPro = false
	}
	if control >= 0xa0 {
		if d.needPro {
			return nil, corrupt("a chunk without properties")
		}
		d.resetState()
		d.needSta = false
	}
	if d.needPro || d.needSta {
		return nil, corrupt("a chunk that does not reset the state")
	}
	if err := d.full(d.in[:size]); err != nil {
		return nil, err
	}
	d.room(n)
	if !d.chunk(&d.in, size, d.pos+n) {
		return nil, corrupt("a chunk does not decode")
	}
	return d.deliver(n)
}

// fits refuses a chunk that makes the block larger than its header says.
func (d *Decoder) fits(n int) error {
	if d.wantOut >= 0 && d.outSize+int64(n) > d.wantOut {
		return corrupt("a block is larger than its header says")
	}
	return nil
}

func (d *Decoder) deliver(n int) ([]byte, error) {
	p := d.buf[d.pos-n : d.pos]
	if d.check != nil {
		d.check.Write(p)
	}
	d.outSize += int64(n)
	return p, nil
}

func (d *Decoder) blockEnd() ([]byte, error) {
	if d.wantIn >= 0 && d.read != d.wantIn || d.wantOut >= 0 && d.outSize != d.wantOut {
		return nil, corrupt("size of a block")
	}
	size := d.read
	if err := d.zeros(int(-d.read & 3)); err != nil {
		return nil, err
	}
	var sum []byte
	if d.check != nil {
		want := d.check.Sum(nil)
		sum = make([]byte, len(want))
		if err := d.full(sum); err != nil {
			return nil, err
		}
		switch d.check.(type) { // these two are stored with the low byte first
		case hash.Hash32, hash.Hash64:
			for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
				want[i], want[j] = want[j], want[i]
			}
		}
		if string(sum) != string(want) {
			return nil, corrupt("checksum of the content")
		}
	}
	d.blocks = append(d.blocks, record{d.header + size + int64(len(sum)), d.outSize})
	d.stage = d.blockHeader
	return nil, nil
}

// zeros reads n bytes that have to be zero.
func (d *Decoder) zeros(n int) error {
	var b [4]byte
	if err := d.full(b[:n]); err != nil {
		return err
	}
	if b != [4]byte{} {
		return corrupt("padding")
	}
	return nil
}

// index reads the index, which has to tell of the blocks that were there, and the
// footer behind it.
func (d *Decoder) index() ([]byte, error) {
	sum := crc32.NewIEEE()
	sum.Write([]byte{0})
	number := func() (v int64, err error) {
		for i := 0; i < 9; i++ {
			b, err := d.byte()
			if err != nil {
				return 0, err
			}
			sum.Write([]byte{b})
			v |= int64(b&0x7f) << (7 * i)
			if b < 0x80 {
				return v, nil
			}
		}
		return 0, corrupt("a number in the index")
	}
	count, err := number()
	if err != nil {
		return nil, err
	}
	if count != int64(len(d.blocks)) {
		return nil, corrupt("number of blocks in the index")
	}
	for _, r := range d.blocks {
		unpadded, err := number()
		if err != nil {
			return nil, err
		}
		size, err := number()
		if err != nil {
			return nil, err
		}
		if r != (record{unpadded, size}) {
			return nil, corrupt("sizes in the index")
		}
	}
	pad := int(-d.read & 3)
	if err := d.zeros(pad); err != nil {
		return nil, err
	}
	sum.Write(make([]byte, pad))
	indexSize := d.read + 4
	var b [16]byte // the checksum of the index, and the footer
	if err := d.full(b[:]); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(b[:]) != sum.Sum32() {
		return nil, corrupt("checksum of the index")
	}
	foot := b[4:]
	if crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot) ||
		(int64(binary.LittleEndian.Uint32(foot[4:]))+1)*4 != indexSize ||
		foot[8] != 0 || foot[9] != d.flags || string(foot[10:12]) != "YZ" {
		return nil, corrupt("stream footer")
	}
	d.stage = d.streamEnd
	return nil, nil
}

// streamEnd skips padding, and finds another stream or the end.
func (d *Decoder) streamEnd() ([]byte, error) {
	for {
		b, err := d.src.Peek(4)
		if len(b) == 0 && err == io.EOF {
			return nil, io.EOF
		}
		if len(b) < 4 {
			if err == io.EOF {
				return nil, corrupt("bytes behind the end")
			}
			return nil, err
		}
		if binary.LittleEndian.Uint32(b) != 0 {
			d.stage = d.streamHeader
			return nil, nil
		}
		if _, err := d.src.Discard(4); err != nil {
			return nil, err
		}
	}
}
