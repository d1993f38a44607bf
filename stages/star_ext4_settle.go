// org.osbuild-star.ext4.settle: an ext4 file system as if nobody had mounted it.
package stages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild-star.ext4.settle",
		Revision: 1,
		Summary:  "take times and journal out of an ext4 file system that was mounted",
		Doc: `Where a stage before has written to a mounted ext4 file system in a disk image, a
boot loader say, the kernel has left there when that was: in the superblock, in the inodes,
and in the journal. This stage sets the times to the source epoch, forgets the mounts, empties the
journal and sets the random numbers of new files to zero, without a mount and without a loop device. Without a
source epoch it does nothing.

    {"filename": "disk.img", "start": 4096, "size": 4190208}

Which blocks new files got is up to the kernel: with one file or a few on an idle file
system two builds make the same bytes, with a whole tree they do not. For that, see
org.osbuild-star.ext4.`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["filename"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the disk image in the tree"
      },
      "start": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "first sector of the file system, in units of 512 bytes"
      },
      "size": {
        "type": "integer",
        "minimum": 1,
        "description": "its length in sectors; default: up to the end of the file"
      }
    }
  }
}`,
		InPlace: true,
		Run:     runExt4Settle,
	})
}

func runExt4Settle(c *Context) error {
	var o imagePart
	if err := c.Decode(&o); err != nil {
		return err
	}
	path, off, _, err := o.resolve(c)
	if err != nil || c.Meta.SourceEpoch == nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fs, err := openExt4(f, off)
	if err == nil {
		err = fs.settle(*c.Meta.SourceEpoch)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.Filename, err)
	}
	return f.Close()
}

const (
	ext4CompatJournal   = 0x4
	ext4IncompatRecover = 0x4
	ext4JournalInode    = 8
	ext4InodeExtents    = 0x80000
)

// settle takes out of a clean file system what mounting it has left.
func (fs *ext4FS) settle(epoch int64) error {
	le := binary.LittleEndian
	s := fs.super
	if le.Uint32(s[0x60:])&ext4IncompatRecover != 0 || le.Uint16(s[0x3a:])&1 == 0 {
		return errors.New("the ext4 file system was not unmounted")
	}
	if le.Uint32(s[0x5c:])&ext4CompatJournal != 0 {
		if err := fs.emptyJournal(); err != nil {
			return err
		}
	}
	if err := fs.apply(ext4Fix{epoch: &epoch, settled: true}); err != nil {
		return err
	}
	for at, hi := range map[int]int{0x2c: 0x275, 0x30: 0x274, 0x40: 0x277, 0x108: 0x276} { // mounted, written, checked, made
		sec := epoch
		if at == 0x2c {
			sec = 0
		}
		le.PutUint32(s[at:], uint32(sec))
		s[hi] = byte(sec >> 32)
	}
	le.PutUint16(s[0x34:], 0)  // mounts
	clear(s[0x88:][:64])       // where it was mounted last
	le.PutUint64(s[0x178:], 0) // kilobytes written
	clear(s[0x194:0x200])      // first and last error
	if fs.metaCsum {
		le.PutUint32(s[0x3fc:], ext4CRC(^uint32(0), s[:0x3fc]))
	}
	if _, err := fs.f.WriteAt(s, fs.off+1024); err != nil {
		return fmt.Errorf("writing the superblock: %w", err)
	}
	return nil
}

// emptyJournal makes the journal one that was never used.
func (fs *ext4FS) emptyJournal() error {
	le, be := binary.LittleEndian, binary.BigEndian
	inode, err := fs.inode(ext4JournalInode)
	if err != nil {
		return err
	}
	root := inode[0x28:]
	if le.Uint32(inode[0x20:])&ext4InodeExtents == 0 || le.Uint16(root) != 0xf30a || le.Uint16(root[6:]) != 0 || le.Uint16(root[2:]) > 4 {
		return errors.New("the journal of the ext4 file system is in many pieces")
	}
	for i := range int(le.Uint16(root[2:])) {
		e := root[12+12*i:]
		first, n := int64(le.Uint32(e)), int64(le.Uint16(e[4:]))
		at := fs.off + (int64(le.Uint16(e[6:]))<<32|int64(le.Uint32(e[8:])))*fs.blockSize
		if first > 0 {
			if err := zeroRange(fs.f, at, n*fs.blockSize); err != nil {
				return err
			}
			continue
		}
		b := make([]byte, 1024)
		if _, err := fs.f.ReadAt(b, at); err != nil {
			return fmt.Errorf("reading the journal: %w", err)
		}
		if be.Uint32(b) != 0xc03b3998 || be.Uint32(b[4:]) != 4 {
			return errors.New("the ext4 file system has no journal of its own")
		}
		be.PutUint32(b[0x18:], 1) // the next transaction
		be.PutUint32(b[0x1c:], 0) // none is in it
		be.PutUint32(b[0x58:], 0) // where it ended
		if be.Uint32(b[0x28:])&0x18 != 0 {
			be.PutUint32(b[0xfc:], 0)
			be.PutUint32(b[0xfc:], ext4CRC(^uint32(0), b))
		}
		if _, err := fs.f.WriteAt(b, at); err != nil {
			return fmt.Errorf("writing the journal: %w", err)
		}
		if err := zeroRange(fs.f, at+fs.blockSize, (n-1)*fs.blockSize); err != nil {
			return err
		}
	}
	return nil
}

// inode reads an inode of the first group.
func (fs *ext4FS) inode(ino uint32) ([]byte, error) {
	le := binary.LittleEndian
	d := make([]byte, fs.descSize)
	if _, err := fs.f.ReadAt(d, fs.off+(int64(le.Uint32(fs.super[0x14:]))+1)*fs.blockSize); err != nil {
		return nil, fmt.Errorf("reading the group descriptors: %w", err)
	}
	at := int64(le.Uint32(d[0x8:]))
	if fs.descSize >= 64 {
		at |= int64(le.Uint32(d[0x28:])) << 32
	}
	b := make([]byte, fs.inodeSize)
	if _, err := fs.f.ReadAt(b, fs.off+at*fs.blockSize+int64(ino-1)*int64(fs.inodeSize)); err != nil {
		return nil, fmt.Errorf("reading inode %d: %w", ino, err)
	}
	return b, nil
}
