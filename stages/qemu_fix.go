// What disk image formats hold of chance and time, replaced by given values: for
// org.osbuild.qemu, so that two builds make the same bytes.
//
// The layouts are those of the "Virtual Hard Disk Image Format Specification" (vpc),
// MS-VHDX (vhdx), VirtualBox's VDICore.h (vdi) and VMware's "Virtual Disk Format"
// (vmdk).
package stages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// fixImage sets the identifiers of an image of the format to values made of seed,
// and its times to epoch (in Unix seconds). Formats that have none are left alone.
func fixImage(path, format string, seed [32]byte, epoch int64) error {
	fix := map[string]func(*os.File, [32]byte, int64) error{
		"vpc": fixVPC, "vdi": fixVDI, "vhdx": fixVHDX, "vmdk": fixVMDK,
	}[format]
	if fix == nil {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fix(f, seed, epoch); err != nil {
		return fmt.Errorf("fixing the identifiers of %s: %w", format, err)
	}
	return f.Close()
}

// guid makes an identifier of 16 bytes: a random UUID (version 4) in form.
func guid(seed [32]byte, n byte) []byte {
	g := bytes.Clone(seed[:16])
	g[15] ^= n
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}

// vpcEpoch is 2000-01-01 00:00 UTC, from which VHD counts.
const vpcEpoch = 946684800

// fixVPC sets time and UUID of the footer, and of its copy at the start of a
// dynamic disk.
func fixVPC(f *os.File, seed [32]byte, epoch int64) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	found := false
	for _, off := range []int64{0, size - 512} {
		b := make([]byte, 512)
		if _, err := f.ReadAt(b, off); err != nil {
			return err
		}
		if string(b[:8]) != "conectix" {
			continue
		}
		found = true
		binary.BigEndian.PutUint32(b[24:], uint32(max(epoch-vpcEpoch, 0)))
		copy(b[68:84], guid(seed, 0))
		binary.BigEndian.PutUint32(b[64:], 0)
		var sum uint32
		for _, c := range b {
			sum += uint32(c)
		}
		binary.BigEndian.PutUint32(b[64:], ^sum)
		if _, err := f.WriteAt(b, off); err != nil {
			return err
		}
	}
	if !found {
		return errors.New("no footer")
	}
	return nil
}

// fixVDI sets the UUIDs of the image and of its last snapshot.
func fixVDI(f *os.File, seed [32]byte, _ int64) error {
	b := make([]byte, 4)
	if _, err := f.ReadAt(b, 64); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != 0xbeda107f {
		return errors.New("no header")
	}
	_, err := f.WriteAt(append(guid(seed, 0), guid(seed, 1)...), 392)
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fixVHDX sets the GUIDs of the two headers and their sequence numbers, keeping
// which one is in force, and the GUID of the disk in the metadata. It empties the
// log, which the image is consistent without.
func fixVHDX(f *os.File, seed [32]byte, _ int64) error {
	le := binary.LittleEndian
	offsets := [2]int64{64 << 10, 128 << 10}
	var headers [2][]byte
	for i, off := range offsets {
		h := make([]byte, 4096)
		if _, err := f.ReadAt(h, off); err != nil {
			return err
		}
		if string(h[:4]) != "head" {
			return errors.New("no header")
		}
		if !bytes.Equal(h[48:64], make([]byte, 16)) {
			return errors.New("its log is in use")
		}
		headers[i] = h
	}
	later := 0
	if le.Uint64(headers[1][8:]) > le.Uint64(headers[0][8:]) {
		later = 1
	}
	for i, h := range headers {
		le.PutUint64(h[8:], 1)
		if i == later {
			le.PutUint64(h[8:], 2)
		}
		copy(h[16:32], guid(seed, 0))
		copy(h[32:48], guid(seed, 1))
		clear(h[4:8])
		le.PutUint32(h[4:], crc32.Checksum(h, castagnoli))
		if _, err := f.WriteAt(h, offsets[i]); err != nil {
			return err
		}
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	log, n := le.Uint64(headers[later][72:]), uint64(le.Uint32(headers[later][68:]))
	if log > uint64(size) || n > uint64(size)-log {
		return errors.New("its log is outside of the file")
	}
	if err := zeroRange(f, int64(log), int64(n)); err != nil {
		return err
	}

	metadataRegion := []byte{0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e}
	page83 := []byte{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46}
	region, err := vhdxEntry(f, 192<<10, "regi", 8, 16, metadataRegion)
	if err != nil {
		return err
	}
	at := int64(le.Uint64(region[16:]))
	if at < 0 || at > size {
		return errors.New("its metadata are outside of the file")
	}
	item, err := vhdxEntry(f, at, "metadata", 10, 32, page83)
	if err != nil {
		return err
	}
	disk := at + int64(le.Uint32(item[16:]))
	if disk > size-16 {
		return errors.New("its metadata are outside of the file")
	}
	_, err = f.WriteAt(guid(seed, 2), disk)
	return err
}

// vhdxEntry looks for the entry of a GUID in a table of entries of 32 bytes. count
// is where the table has their number, first where the first of them is.
func vhdxEntry(f *os.File, off int64, signature string, count, first int, id []byte) ([]byte, error) {
	b := make([]byte, 64<<10)
	if _, err := f.ReadAt(b, off); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(b, []byte(signature)) {
		return nil, fmt.Errorf("no table %q", signature)
	}
	n := int(binary.LittleEndian.Uint16(b[count:]))
	for e := b[first:]; n > 0 && len(e) >= 32; n, e = n-1, e[32:] {
		if bytes.Equal(e[:16], id) {
			return e[:32], nil
		}
	}
	return nil, fmt.Errorf("table %q lacks an entry", signature)
}

// fixVMDK sets the content ID of the descriptor: a text within the first 64 KiB
// that NULs pad, or a file of its own. The ID has 8 digits; qemu-img drops leading
// zeros, so that the text after it may move.
func fixVMDK(f *os.File, seed [32]byte, _ int64) error {
	b := make([]byte, 64<<10)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	b = b[:n]
	const key = "\nCID="
	at := bytes.Index(b, []byte(key)) + len(key)
	if at < len(key) {
		return errors.New("no descriptor")
	}
	digits := bytes.IndexByte(b[at:], '\n')
	if digits < 1 || digits > 8 {
		return errors.New("no content ID")
	}
	// 0xffffffff and 0xfffffffe have a meaning of their own.
	text := fmt.Appendf(nil, "%08x", binary.BigEndian.Uint32(seed[:])&0x6fffffff|0x10000000)
	rest := b[at+digits:]
	end := bytes.IndexByte(rest, 0)
	if end < 0 && err == io.EOF { // a file of its own
		_, err = f.WriteAt(append(text, rest...), int64(at))
		return err
	}
	// qemu-img writes an ID that is shorter than the one before without clearing the end
	// of the text that moved: up to seven bytes of it can be left.
	if end < 0 || end+16 > len(rest) || len(bytes.Trim(rest[end+8:end+16], "\x00")) > 0 {
		return errors.New("its descriptor has no room")
	}
	text = append(append(text, rest[:end]...), make([]byte, digits)...)
	_, err = f.WriteAt(text, int64(at))
	return err
}
