// What mke2fs cannot be told about the inodes of the file system that it fills: their
// times, and the owner of the root directory. The inode tables of a new ext4 file
// system are walked and written where they are, with the checksums that belong to
// them, which takes some milliseconds for 20,000 files.
//
// The layout is that of the kernel's Documentation/filesystems/ext4. Only what mke2fs
// makes is understood: a clean file system without meta_bg.
package stages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// Features of the superblock, flags of groups and inodes.
const (
	ext4IncompatMetaBG   = 0x10
	ext4Incompat64Bit    = 0x80
	ext4IncompatCsumSeed = 0x2000
	ext4ROCompatGDTCsum  = 0x10
	ext4ROCompatMetaCsum = 0x400

	ext4GroupInodeUninit = 0x1
	ext4GroupInodeZeroed = 0x4

	ext4InodeIsEA = 0x200000 // it holds an attribute, and its times mean something else

	ext4RootInode = 2
)

// ext4Root is what the root directory gets.
type ext4Root struct {
	mode     uint32 // permission bits
	uid, gid uint32
	mtime    time.Time
}

// ext4Fix says what is changed.
type ext4Fix struct {
	root   *ext4Root
	epoch  *int64 // times of access, change and creation; no time of modification is later
	zeroed bool   // say that the inode tables are zeroed, which the kernel does else

	// settled: the kernel has made files, which have random generations and versions.
	settled bool
}

// ext4FS is a file system at an offset of a file.
type ext4FS struct {
	f         *os.File
	off       int64
	super     []byte
	blockSize int64
	groups    uint32
	perGroup  uint32 // inodes of a group
	inodeSize int
	descSize  int
	seed      uint32 // of checksums
	metaCsum  bool
	gdtCsum   bool
}

// openExt4 reads the superblock.
func openExt4(f *os.File, off int64) (*ext4FS, error) {
	le := binary.LittleEndian
	s := make([]byte, 1024)
	if _, err := f.ReadAt(s, off+1024); err != nil {
		return nil, fmt.Errorf("reading the superblock: %w", err)
	}
	incompat, ro := le.Uint32(s[0x60:]), le.Uint32(s[0x64:])
	blocksPerGroup, first := le.Uint32(s[0x20:]), le.Uint32(s[0x14:])
	fs := &ext4FS{
		f: f, off: off, super: s,
		perGroup:  le.Uint32(s[0x28:]),
		inodeSize: int(le.Uint16(s[0x58:])),
		descSize:  32,
		metaCsum:  ro&ext4ROCompatMetaCsum != 0,
		gdtCsum:   ro&ext4ROCompatGDTCsum != 0,
	}
	blocks := uint64(le.Uint32(s[0x4:]))
	if incompat&ext4Incompat64Bit != 0 {
		blocks |= uint64(le.Uint32(s[0x150:])) << 32
		fs.descSize = int(le.Uint16(s[0xfe:]))
	}
	log := le.Uint32(s[0x18:])
	switch {
	case le.Uint16(s[0x38:]) != 0xef53:
		return nil, errors.New("no ext4 file system")
	case log > 6, blocksPerGroup == 0, fs.perGroup == 0, blocks <= uint64(first),
		fs.inodeSize < 128, fs.inodeSize > 1024<<log, fs.descSize < 32, fs.descSize > 1024,
		incompat&ext4Incompat64Bit != 0 && fs.descSize < 64:
		return nil, errors.New("the superblock is damaged")
	case incompat&ext4IncompatMetaBG != 0:
		return nil, errors.New("the feature meta_bg is not supported")
	}
	fs.blockSize = 1024 << log
	groups := (blocks - uint64(first) + uint64(blocksPerGroup) - 1) / uint64(blocksPerGroup)
	if groups > 1<<32-1 || groups*uint64(fs.perGroup) > 1<<32 {
		return nil, errors.New("the superblock is damaged")
	}
	fs.groups = uint32(groups)
	fs.seed = ext4CRC(^uint32(0), s[0x68:0x78])
	if incompat&ext4IncompatCsumSeed != 0 {
		fs.seed = le.Uint32(s[0x270:])
	}
	return fs, nil
}

// ext4CRC is crc32c as ext4 chains it: without the inversions.
func ext4CRC(crc uint32, b []byte) uint32 { return ^crc32.Update(^crc, castagnoli, b) }

// ext4CRC16 is the checksum of group descriptors before metadata_csum.
func ext4CRC16(crc uint16, b []byte) uint16 {
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
	}
	return crc
}

// apply changes all inodes and groups.
func (fs *ext4FS) apply(fix ext4Fix) error {
	le := binary.LittleEndian
	first := int64(le.Uint32(fs.super[0x14:]))
	descs := make([]byte, int64(fs.groups)*int64(fs.descSize))
	descsAt := fs.off + (first+1)*fs.blockSize
	if st, err := fs.f.Stat(); err != nil {
		return err
	} else if int64(len(descs)) > st.Size() {
		return io.ErrUnexpectedEOF
	}
	if _, err := fs.f.ReadAt(descs, descsAt); err != nil {
		return fmt.Errorf("reading the group descriptors: %w", err)
	}
	table := []byte(nil)
	for g := range fs.groups {
		d := descs[int(g)*fs.descSize:][:fs.descSize]
		flags := le.Uint16(d[0x12:])
		used := fs.perGroup
		at := int64(le.Uint32(d[0x8:]))
		unused := uint32(le.Uint16(d[0x1c:]))
		if fs.descSize >= 64 {
			at |= int64(le.Uint32(d[0x28:])) << 32
			unused |= uint32(le.Uint16(d[0x32:])) << 16
		}
		if fs.metaCsum || fs.gdtCsum {
			if unused > fs.perGroup {
				return fmt.Errorf("group %d: damaged descriptor", g)
			}
			used -= unused
			if flags&ext4GroupInodeUninit != 0 {
				used = 0
			}
			if fix.zeroed && flags&ext4GroupInodeZeroed == 0 {
				le.PutUint16(d[0x12:], flags|ext4GroupInodeZeroed)
				fs.sumGroup(g, d)
			}
		}
		n := int(used) * fs.inodeSize
		if n == 0 {
			continue
		}
		if cap(table) < n {
			table = make([]byte, int(fs.perGroup)*fs.inodeSize)
		}
		table = table[:n]
		pos := fs.off + at*fs.blockSize
		if _, err := fs.f.ReadAt(table, pos); err != nil {
			return fmt.Errorf("group %d: reading the inodes: %w", g, err)
		}
		for i := range used {
			fs.fixInode(g*fs.perGroup+i+1, table[int(i)*fs.inodeSize:][:fs.inodeSize], fix)
		}
		if _, err := fs.f.WriteAt(table, pos); err != nil {
			return fmt.Errorf("group %d: writing the inodes: %w", g, err)
		}
	}
	if _, err := fs.f.WriteAt(descs, descsAt); err != nil {
		return fmt.Errorf("writing the group descriptors: %w", err)
	}
	return nil
}

// sumGroup sets the checksum of a group descriptor.
func (fs *ext4FS) sumGroup(group uint32, d []byte) {
	le := binary.LittleEndian
	no := le.AppendUint32(nil, group)
	if fs.metaCsum {
		crc := ext4CRC(ext4CRC(fs.seed, no), d[:0x1e])
		crc = ext4CRC(ext4CRC(crc, []byte{0, 0}), d[0x20:])
		le.PutUint16(d[0x1e:], uint16(crc))
		return
	}
	crc := ext4CRC16(ext4CRC16(^uint16(0), fs.super[0x68:0x78]), no)
	crc = ext4CRC16(ext4CRC16(crc, d[:0x1e]), d[0x20:])
	le.PutUint16(d[0x1e:], crc)
}

// fixInode changes one inode in memory, if it is in use.
func (fs *ext4FS) fixInode(ino uint32, b []byte, fix ext4Fix) {
	le := binary.LittleEndian
	if le.Uint16(b) == 0 || le.Uint16(b[0x1a:]) == 0 || le.Uint32(b[0x20:])&ext4InodeIsEA != 0 {
		return
	}
	extra := 0
	if fs.inodeSize > 128 {
		extra = int(le.Uint16(b[0x80:]))
	}
	// Each time has 32 bits, and 2 more with the nanoseconds where there is room.
	set := func(at, more int, sec int64, nsec int) {
		le.PutUint32(b[at:], uint32(sec))
		if more+4 <= 0x80+extra {
			epoch := uint32((sec-int64(int32(uint32(sec))))>>32) & 3
			le.PutUint32(b[more:], uint32(nsec)<<2|epoch)
		}
	}
	if r := fix.root; r != nil && ino == ext4RootInode {
		le.PutUint16(b, le.Uint16(b)&0xf000|uint16(r.mode&0o7777))
		le.PutUint16(b[0x2:], uint16(r.uid))
		le.PutUint16(b[0x78:], uint16(r.uid>>16))
		le.PutUint16(b[0x18:], uint16(r.gid))
		le.PutUint16(b[0x7a:], uint16(r.gid>>16))
		set(0x10, 0x88, r.mtime.Unix(), r.mtime.Nanosecond())
	}
	if e := fix.epoch; e != nil {
		set(0x8, 0x8c, *e, 0)
		set(0xc, 0x84, *e, 0)
		if 0x98 <= 0x80+extra {
			set(0x90, 0x94, *e, 0)
		}
		mtime := int64(int32(le.Uint32(b[0x10:])))
		if 0x8c <= 0x80+extra {
			mtime += int64(le.Uint32(b[0x88:])&3) << 32
		}
		if mtime > *e {
			set(0x10, 0x88, *e, 0)
		}
	}
	// Checksums of directories and of blocks of extents have the generation in them.
	if kind := le.Uint16(b) & 0xf000; fix.settled && kind == 0x8000 && le.Uint16(b[0x28:]) == 0xf30a && le.Uint16(b[0x2e:]) == 0 {
		le.PutUint32(b[0x64:], 0)
	}
	if fix.settled {
		le.PutUint32(b[0x24:], 0)
		if 0x9c <= 0x80+extra {
			le.PutUint32(b[0x98:], 0)
		}
	}
	if !fs.metaCsum {
		return
	}
	hi := 0x84 <= 0x80+extra
	le.PutUint16(b[0x7c:], 0)
	if hi {
		le.PutUint16(b[0x82:], 0)
	}
	crc := ext4CRC(ext4CRC(fs.seed, le.AppendUint32(nil, ino)), b[0x64:0x68])
	crc = ext4CRC(crc, b)
	le.PutUint16(b[0x7c:], uint16(crc))
	if hi {
		le.PutUint16(b[0x82:], uint16(crc>>16))
	}
}
