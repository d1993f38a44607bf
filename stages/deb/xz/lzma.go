// The LZMA decoder of LZMA2 chunks: range decoder, probability models, matches.
//
// It is written for speed in plain Go. The bits of literals and of bit trees, which
// a branch predictor cannot guess, are decoded without branches, by masks made of
// the borrow of a subtraction. The state of the range decoder travels in registers
// from one helper to the next instead of through memory.
package xz

import (
	"encoding/binary"
	"math/bits"
)

const (
	probInit = 1 << 10 // a probability of one half
	topValue = 1 << 24 // the range is kept at or above this

	litStates = 7  // states below this follow a literal
	numStates = 12 // states of the automaton
	maxLCLP   = 4  // LZMA2 allows lc+lp up to this

	inMax  = 1 << 16 // most compressed bytes of one chunk
	outMax = 1 << 21 // most decompressed bytes of one chunk
	slack  = 16      // bytes behind the output that copying a match may touch
)

// input holds a compressed chunk from its start. It is larger than any chunk, so
// that an index is in range by its mask alone: a symbol that runs over the end of a
// damaged chunk reads stale bytes, and is found out right after.
type input [2 * inMax]byte

type lengthModel struct {
	choice, choice2 uint16
	low, mid        [16][8]uint16
	high            [256]uint16
}

type model struct {
	isMatch    [numStates][16]uint16
	isRep      [numStates]uint16
	isRepG0    [numStates]uint16
	isRepG1    [numStates]uint16
	isRepG2    [numStates]uint16
	isRep0Long [numStates][16]uint16
	posSlot    [4][64]uint16
	posSpecial [128]uint16
	align      [16]uint16
	matchLen   lengthModel
	repLen     lengthModel
	literal    [0x300 << maxLCLP]uint16
}

func (m *model) reset(lclp uint) {
	fill := func(p []uint16) {
		for i := range p {
			p[i] = probInit
		}
	}
	for i := range m.isMatch {
		fill(m.isMatch[i][:])
		fill(m.isRep0Long[i][:])
	}
	fill(m.isRep[:])
	fill(m.isRepG0[:])
	fill(m.isRepG1[:])
	fill(m.isRepG2[:])
	for i := range m.posSlot {
		fill(m.posSlot[i][:])
	}
	fill(m.posSpecial[:])
	fill(m.align[:])
	for _, l := range []*lengthModel{&m.matchLen, &m.repLen} {
		l.choice, l.choice2 = probInit, probInit
		for i := range l.low {
			fill(l.low[i][:])
			fill(l.mid[i][:])
		}
		fill(l.high[:])
	}
	fill(m.literal[:0x300<<lclp])
}

// lzma decodes chunks into buf; what lies before pos there is the dictionary.
type lzma struct {
	model
	buf        []byte
	pos        int
	state      uint64
	rep        [4]uint32
	lc, lp, pb uint
}

// props takes the byte that codes lc, lp and pb.
func (d *lzma) props(b byte) bool {
	if b >= 9*5*5 {
		return false
	}
	d.lc, b = uint(b%9), b/9
	d.lp, d.pb = uint(b%5), uint(b/5)
	return d.lc+d.lp <= maxLCLP
}

func (d *lzma) resetState() {
	d.model.reset(d.lc + d.lp)
	d.state, d.rep = 0, [4]uint32{}
}

// In the functions below r, c and n are the range decoder: its range, its code and
// the index of its next byte in the input.

// bit decodes one bit, by a branch: for those that are well predicted.
func bit(p *uint16, in *input, r, c, n uint64) (b, _, _, _ uint64) {
	if r < topValue {
		r, c, n = r<<8, c<<8|uint64(in[n%uint64(len(in))]), n+1
	}
	q := uint64(*p)
	bound := r >> 11 * q
	if c < bound {
		*p = uint16(q + (2048-q)>>5)
		return 0, bound, c, n
	}
	*p = uint16(q - q>>5)
	return 1, r - bound, c - bound, n
}

// tree decodes a bit tree with len(p) leaves, most significant bit first. The
// result has a leading 1 bit: it is the leaf plus len(p).
func tree(p []uint16, in *input, r, c, n uint64) (sym, _, _, _ uint64) {
	sym = 1
	for sym < uint64(len(p)) {
		if r < topValue {
			r, c, n = r<<8, c<<8|uint64(in[n%uint64(len(in))]), n+1
		}
		q := int64(p[sym])
		bound := r >> 11 * uint64(q)
		diff, zero := bits.Sub64(c, bound, 0) // zero: 1 when the bit is 0
		mask := -zero
		r -= bound
		r += (bound - r) & mask
		c = diff + bound&mask
		p[sym] = uint16(q - (q+int64(mask)&(31-2048))>>5)
		sym = sym<<1 + 1 - zero
	}
	return sym, r, c, n
}

// reverse decodes a bit tree of the given number of bits, least significant first.
func reverse(p []uint16, width uint, in *input, r, c, n uint64) (val, _, _, _ uint64) {
	sym := uint64(1)
	for i := uint(0); i < width; i++ {
		if r < topValue {
			r, c, n = r<<8, c<<8|uint64(in[n%uint64(len(in))]), n+1
		}
		q := int64(p[sym])
		bound := r >> 11 * uint64(q)
		diff, zero := bits.Sub64(c, bound, 0)
		mask := -zero
		r -= bound
		r += (bound - r) & mask
		c = diff + bound&mask
		p[sym] = uint16(q - (q+int64(mask)&(31-2048))>>5)
		sym = sym<<1 + 1 - zero
		val |= (1 - zero) << (i & 63)
	}
	return val, r, c, n
}

// direct decodes bits without a model.
func direct(width uint, in *input, r, c, n uint64) (val, _, _, _ uint64) {
	for ; width > 0; width-- {
		if r < topValue {
			r, c, n = r<<8, c<<8|uint64(in[n%uint64(len(in))]), n+1
		}
		r >>= 1
		diff, zero := bits.Sub64(c, r, 0)
		c = diff + r&-zero
		val = val<<1 + 1 - zero
	}
	return val, r, c, n
}

// matched decodes a literal that follows a match, with the byte at the distance of
// the last match as its context.
func matched(p *[0x300]uint16, match uint64, in *input, r, c, n uint64) (sym, _, _, _ uint64) {
	sym = 1
	offset := uint64(0x100)
	for sym < 0x100 {
		if r < topValue {
			r, c, n = r<<8, c<<8|uint64(in[n%uint64(len(in))]), n+1
		}
		match <<= 1
		i := offset + match&offset + sym
		q := int64(p[i])
		bound := r >> 11 * uint64(q)
		diff, zero := bits.Sub64(c, bound, 0)
		mask := -zero
		r -= bound
		r += (bound - r) & mask
		c = diff + bound&mask
		p[i] = uint16(q - (q+int64(mask)&(31-2048))>>5)
		sym = sym<<1 + 1 - zero
		offset &= match ^ mask
	}
	return sym, r, c, n
}

// length decodes the length of a match, less 2.
func length(l *lengthModel, posState uint64, in *input, r, c, n uint64) (val, _, _, _ uint64) {
	var b uint64
	if b, r, c, n = bit(&l.choice, in, r, c, n); b == 0 {
		val, r, c, n = tree(l.low[posState][:], in, r, c, n)
		return val - 8, r, c, n
	}
	if b, r, c, n = bit(&l.choice2, in, r, c, n); b == 0 {
		val, r, c, n = tree(l.mid[posState][:], in, r, c, n)
		return val, r, c, n // less 8, and 8 more
	}
	val, r, c, n = tree(l.high[:], in, r, c, n)
	return val - 256 + 16, r, c, n
}

// chunk decodes the chunk in the first size bytes of in, until pos is limit. It
// reports whether the chunk was well formed and ended there.
func (d *lzma) chunk(in *input, size, limit int) bool {
	if size < 5 || in[0] != 0 || limit+slack > len(d.buf) {
		return false
	}
	r, c, n := uint64(1<<32-1), uint64(binary.BigEndian.Uint32(in[1:])), uint64(5)
	end := uint64(size)
	buf, pos, state := d.buf, d.pos, d.state
	rep := d.rep
	pbMask, lpMask := uint64(1)<<d.pb-1, uint64(1)<<d.lp-1
	lc := d.lc & 15
	var b, v uint64

	for pos < limit {
		posState := uint64(pos) & pbMask & 15
		if state >= numStates || n > end {
			return false
		}
		if b, r, c, n = bit(&d.isMatch[state][posState], in, r, c, n); b == 0 {
			prev := uint64(0)
			if pos > 0 {
				prev = uint64(buf[pos-1])
			}
			at := (uint64(pos)&lpMask)<<lc + prev>>(8-lc)
			p := (*[0x300]uint16)(d.literal[at*0x300:])
			if state < litStates {
				v, r, c, n = tree(p[:0x100], in, r, c, n)
			} else {
				if int(rep[0]) >= pos {
					return false
				}
				v, r, c, n = matched(p, uint64(buf[pos-int(rep[0])-1]), in, r, c, n)
			}
			buf[pos] = byte(v)
			pos++
			switch {
			case state < 4:
				state = 0
			case state < 10:
				state -= 3
			default:
				state -= 6
			}
			continue
		}

		if b, r, c, n = bit(&d.isRep[state], in, r, c, n); b == 0 { // a new distance
			v, r, c, n = length(&d.matchLen, posState, in, r, c, n)
			var slot, low uint64
			slot, r, c, n = tree(d.posSlot[min(v, 3)][:], in, r, c, n)
			slot -= 64
			dist := slot
			if slot >= 4 {
				width := uint(slot>>1 - 1)
				dist = (2 | slot&1) << width
				if slot < 14 {
					low, r, c, n = reverse(d.posSpecial[dist-slot:], width, in, r, c, n)
					dist += low
				} else {
					low, r, c, n = direct(width-4, in, r, c, n)
					dist += low << 4
					low, r, c, n = reverse(d.align[:], 4, in, r, c, n)
					dist += low
				}
			}
			rep[3], rep[2], rep[1], rep[0] = rep[2], rep[1], rep[0], uint32(dist)
			if state < litStates {
				state = 7
			} else {
				state = 10
			}
		} else {
			long := true
			if b, r, c, n = bit(&d.isRepG0[state], in, r, c, n); b == 0 {
				b, r, c, n = bit(&d.isRep0Long[state][posState], in, r, c, n)
				long = b == 1
			} else if b, r, c, n = bit(&d.isRepG1[state], in, r, c, n); b == 0 {
				rep[0], rep[1] = rep[1], rep[0]
			} else if b, r, c, n = bit(&d.isRepG2[state], in, r, c, n); b == 0 {
				rep[0], rep[1], rep[2] = rep[2], rep[0], rep[1]
			} else {
				rep[0], rep[1], rep[2], rep[3] = rep[3], rep[0], rep[1], rep[2]
			}
			if !long {
				if int(rep[0]) >= pos {
					return false
				}
				buf[pos] = buf[pos-int(rep[0])-1]
				pos++
				if state < litStates {
					state = 9
				} else {
					state = 11
				}
				continue
			}
			v, r, c, n = length(&d.repLen, posState, in, r, c, n)
			if state < litStates {
				state = 8
			} else {
				state = 11
			}
		}

		// Copy the match. Between pos and the end of buf there are slack bytes that
		// eight at a time may touch.
		count, back := int(v)+2, int(rep[0])+1
		if back > pos || count > limit-pos {
			return false
		}
		from, stop := pos-back, pos+count
		if back >= 8 {
			for ; pos < stop; pos, from = pos+8, from+8 {
				binary.LittleEndian.PutUint64(buf[pos:], binary.LittleEndian.Uint64(buf[from:]))
			}
			pos = stop
		} else {
			for ; pos < stop; pos, from = pos+1, from+1 {
				buf[pos] = buf[from]
			}
		}
	}

	if r < topValue {
		c, n = c<<8|uint64(in[n%uint64(len(in))]), n+1
	}
	d.pos, d.state, d.rep = pos, state, rep
	return n == end && c == 0
}
