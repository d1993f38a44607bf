// A file system that was mounted, and is as it was before.
package stages

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// What the kernel leaves of a mount is put in here by hand; that nothing else is left,
// the command's test rebuild.txt proves by a real one.
func TestExt4Settle(t *testing.T) {
	need(t, "mkfs.ext4", "e2fsck", "debugfs", "dumpe2fs")
	const start, size = 2048, 96 << 10
	epoch := int64(1700000000)
	le := binary.LittleEndian
	setup := func(t *testing.T) (*Context, string) {
		c := testContext(t, map[string]any{"filename": "disk.img", "start": start, "size": size, "root": "input://tree/"})
		c.Meta.SourceEpoch = &epoch
		imageTree(t, c)
		img := blankImage(t, c, "disk.img", (start+size+64)*512)
		mustRun(t, "org.osbuild-star.ext4", c)
		c.Options = []byte(`{"filename": "disk.img", "start": 2048, "size": 98304}`)
		return c, img
	}
	change := func(t *testing.T, img string, f func(super []byte)) {
		t.Helper()
		file, err := os.OpenFile(img, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		s := make([]byte, 1024)
		if _, err := file.ReadAt(s, start*512+1024); err != nil {
			t.Fatal(err)
		}
		f(s)
		le.PutUint32(s[0x3fc:], ext4CRC(^uint32(0), s[:0x3fc]))
		if _, err := file.WriteAt(s, start*512+1024); err != nil {
			t.Fatal(err)
		}
	}
	settle := func(t *testing.T, c *Context) error { return Lookup("org.osbuild-star.ext4.settle").Run(c) }
	mounted := func(s []byte) {
		le.PutUint32(s[0x2c:], 1800000000)
		le.PutUint32(s[0x30:], 1800000001)
		s[0x274], s[0x275] = 1, 1
		le.PutUint16(s[0x34:], 3)
		copy(s[0x88:], "/run/osbuild/mounts")
		le.PutUint64(s[0x178:], 4711)
	}

	t.Run("as before", func(t *testing.T) {
		c, img := setup(t)
		if err := settle(t, c); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		change(t, img, mounted)
		fs := extract(t, img, start, size)
		mustOutput(t, "debugfs", "-w", "-R", "sif /etc/hosts generation 0x1234", fs)
		mustOutput(t, "debugfs", "-w", "-R", "sif /etc/hosts version 77", fs)
		mustOutput(t, "debugfs", "-w", "-R", "sif /empty ctime 1800000000", fs)
		b, err := os.ReadFile(fs)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(img, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, start*512); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if got, _ := os.ReadFile(img); bytes.Equal(got, want) {
			t.Fatal("nothing was changed")
		}
		if err := settle(t, c); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			at := 0
			for got[at] == want[at] {
				at++
			}
			t.Errorf("byte %#x of the file system is %#x, was %#x", at-start*512, got[at], want[at])
		}
		fs = extract(t, img, start, size)
		mustOutput(t, "e2fsck", "-fn", fs)
		if out := mustOutput(t, "dumpe2fs", "-h", fs); !strings.Contains(out, "Journal sequence:         0x00000001") {
			t.Errorf("the journal:\n%s", out)
		}
	})
	t.Run("without an epoch", func(t *testing.T) {
		c, img := setup(t)
		change(t, img, mounted)
		want, _ := os.ReadFile(img)
		c.Meta.SourceEpoch = nil
		if err := settle(t, c); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(img); !bytes.Equal(got, want) {
			t.Error("something was changed")
		}
	})
	t.Run("not unmounted", func(t *testing.T) {
		c, img := setup(t)
		change(t, img, func(s []byte) { le.PutUint32(s[0x60:], le.Uint32(s[0x60:])|ext4IncompatRecover) })
		if err := settle(t, c); err == nil || !strings.Contains(err.Error(), "was not unmounted") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no file system", func(t *testing.T) {
		c, img := setup(t)
		change(t, img, func(s []byte) { clear(s) })
		if err := settle(t, c); err == nil || !strings.Contains(err.Error(), "disk.img: no ext4 file system") {
			t.Errorf("error %v", err)
		}
	})
}
