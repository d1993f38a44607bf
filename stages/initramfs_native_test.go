package stages

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// cpio is an archive with those files, in its form "newc".
func cpio(files ...[2]string) []byte {
	var b bytes.Buffer
	for i, f := range append(files, [2]string{"TRAILER!!!", ""}) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			i, 0o100755, 0, 0, 1, 0, len(f[1]), 0, 0, 0, 0, len(f[0])+1, 0, f[0])
		b.Write(make([]byte, -b.Len()&3))
		b.WriteString(f[1])
		b.Write(make([]byte, -b.Len()&3))
	}
	b.Write(make([]byte, -b.Len()&511))
	return b.Bytes()
}

// program is the beginning of one for a machine.
func program(m elf.Machine, order elf.Data) string {
	h := make([]byte, 64)
	copy(h, elf.ELFMAG)
	h[elf.EI_DATA] = byte(order)
	h[18], h[19] = byte(m), byte(m>>8)
	if order == elf.ELFDATA2MSB {
		h[18], h[19] = h[19], h[18]
	}
	return string(h)
}

func TestBorrowed(t *testing.T) {
	own, err := machineOf("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	ours := [2]string{"usr/bin/cat", program(own, elf.ELFDATA2LSB)}
	theirs := [2]string{"usr/bin/sed", program(elf.EM_S390, elf.ELFDATA2MSB)}
	if own == elf.EM_S390 {
		t.Skip("programs of s390x are this machine's")
	}
	text := [2]string{"etc/fstab", "none"}
	short := [2]string{"etc/short", elf.ELFMAG}
	pack := func(data []byte) []byte {
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return z.EncodeAll(data, nil)
	}
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(cpio(text, ours))
	w.Close()
	early := cpio([2]string{"kernel/x86/microcode/GenuineIntel.bin", "odd"})
	for _, tt := range []struct {
		name string
		data []byte
		want string
		bad  bool
	}{
		{name: "plain", data: cpio(text, theirs, short), want: ""},
		{name: "plain, one of ours", data: cpio(text, theirs, ours), want: "usr/bin/cat"},
		{name: "zstd", data: pack(cpio(text, theirs)), want: ""},
		{name: "zstd, one of ours", data: pack(cpio(theirs, text, ours, text)), want: "usr/bin/cat"},
		{name: "gzip, one of ours", data: gz.Bytes(), want: "usr/bin/cat"},
		{name: "behind an early archive", data: append(early, pack(cpio(ours))...), want: "usr/bin/cat"},
		{name: "in an early archive", data: append(cpio(ours), pack(cpio(theirs))...), want: "usr/bin/cat"},
		{name: "empty", data: nil, want: ""},
		{name: "cut off", data: cpio(text)[:130], bad: true},
		{name: "something else", data: bytes.Repeat([]byte("x"), 512), bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "initrd")
			if err := os.WriteFile(file, tt.data, 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := borrowed(file)
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
