// Architectures by the first bytes of their programs, and the smallest program of each.
package binfmt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"runtime"
	"slices"
	"strings"
)

// machine is an architecture as the header of an ELF file has it.
type machine struct {
	name    string // as rule files and the kernel have it
	class   byte   // 1: 32 bits, 2: 64 bits
	data    byte   // 1: little-endian, 2: big-endian
	number  uint16 // e_machine
	flags   uint32 // e_flags of the probe
	code    string // of the probe: exit(probeStatus)
	qemu    string // the end of the name of its qemu-user
	goarch  string
	aliases []string // of the kernel, for the same programs
}

// probeStatus is how the probe ends: no shell and no kernel says that by accident.
const probeStatus = 42

var machines = []machine{
	{name: "x86_64", class: 2, data: 1, number: 62, code: "\xbf\x2a\x00\x00\x00\xb8\x3c\x00\x00\x00\x0f\x05", qemu: "x86_64", goarch: "amd64"},
	{name: "i686", class: 1, data: 1, number: 3, code: "\xbb\x2a\x00\x00\x00\xb8\x01\x00\x00\x00\xcd\x80", qemu: "i386", goarch: "386", aliases: []string{"i386", "i486", "i586"}},
	{name: "aarch64", class: 2, data: 1, number: 183, code: "\x40\x05\x80\xd2\xa8\x0b\x80\xd2\x01\x00\x00\xd4", qemu: "aarch64", goarch: "arm64"},
	{name: "armv7hl", class: 1, data: 1, number: 40, flags: 0x05000400, code: "\x2a\x00\xa0\xe3\x01\x70\xa0\xe3\x00\x00\x00\xef", qemu: "arm", goarch: "arm", aliases: []string{"armv7l"}},
	{name: "s390x", class: 2, data: 2, number: 22, code: "\xa7\x29\x00\x2a\x0a\x01", qemu: "s390x", goarch: "s390x"},
	{name: "ppc64le", class: 2, data: 1, number: 21, flags: 2, code: "\x01\x00\x00\x38\x2a\x00\x60\x38\x02\x00\x00\x44", qemu: "ppc64le", goarch: "ppc64le"},
	{name: "ppc64", class: 2, data: 2, number: 21, flags: 2, code: "\x38\x00\x00\x01\x38\x60\x00\x2a\x44\x00\x00\x02", qemu: "ppc64", goarch: "ppc64"},
	{name: "riscv64", class: 2, data: 1, number: 243, code: "\x13\x05\xa0\x02\x93\x08\xd0\x05\x73\x00\x00\x00", qemu: "riscv64", goarch: "riscv64"},
	{name: "loongarch64", class: 2, data: 1, number: 258, code: "\x04\xa8\x80\x03\x0b\x74\x81\x03\x00\x00\x2b\x00", qemu: "loongarch64", goarch: "loong64"},
}

// HeaderSize is how much of a program Identify looks at, in bytes.
const HeaderSize = 20

// Identify tells the architecture of a program from its first HeaderSize bytes; ""
// is one that is not known, or no program.
func Identify(header []byte) string {
	if len(header) < HeaderSize || string(header[:4]) != "\x7fELF" {
		return ""
	}
	for _, m := range machines {
		if header[4] == m.class && header[5] == m.data && m.order().Uint16(header[18:]) == m.number {
			return m.name
		}
	}
	return ""
}

// maxLinker bounds the path of a dynamic linker, as the kernel does.
const maxLinker = 4096

// Linker is the path of the dynamic linker that a program asks for; "" for one that
// needs none. What is no ELF file is an error.
func Linker(file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(p.Open(), maxLinker))
		return strings.TrimRight(string(b), "\x00"), err
	}
	return "", nil
}

// Host is the architecture that this program was built for, by the name that rule
// files have for it: "x86_64".
func Host() string {
	for _, m := range machines {
		if m.goarch == runtime.GOARCH {
			return m.name
		}
	}
	return runtime.GOARCH
}

func lookup(arch string) *machine {
	for i := range machines {
		if m := &machines[i]; m.name == arch || slices.Contains(m.aliases, arch) {
			return m
		}
	}
	return nil
}

func (m *machine) order() binary.ByteOrder {
	if m.data == 2 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// magic returns what the first bytes of a program of m are, and which bits of them
// count: not the ABI and its version, and neither whether it is position-independent.
func (m *machine) magic() (magic, mask []byte) {
	magic = append(magic, "\x7fELF"...)
	magic = append(magic, m.class, m.data, 1)
	magic = append(magic, make([]byte, 9)...)
	number := make([]byte, 4)
	m.order().PutUint16(number, 2) // ET_EXEC; ET_DYN is 3
	m.order().PutUint16(number[2:], m.number)
	mask = bytes.Repeat([]byte{0xff}, 16)
	mask[7], mask[8] = 0, 0
	kind := make([]byte, 4)
	m.order().PutUint16(kind, 0xfffe)
	m.order().PutUint16(kind[2:], 0xffff)
	return append(magic, number...), append(mask, kind...)
}

// probe is a whole program of m, which does nothing but end with probeStatus.
func (m *machine) probe() []byte {
	const base = 0x400000
	o := m.order()
	out, _ := m.magic()
	u16 := func(v uint16) { out = append(out, 0, 0); o.PutUint16(out[len(out)-2:], v) }
	u32 := func(v uint32) { out = append(out, 0, 0, 0, 0); o.PutUint32(out[len(out)-4:], v) }
	u64 := func(v uint64) { out = append(out, 0, 0, 0, 0, 0, 0, 0, 0); o.PutUint64(out[len(out)-8:], v) }
	word, head, entry := u64, uint16(64), uint16(56)
	if m.class == 1 {
		word, head, entry = func(v uint64) { u32(uint32(v)) }, 52, 32
	}
	size := uint64(head) + uint64(entry) + uint64(len(m.code))
	u32(1)                                       // version
	word(base + uint64(head) + uint64(entry))    // where it starts
	word(uint64(head))                           // of the program headers
	word(0)                                      // of the section headers: none
	u32(m.flags)                                 //
	for _, v := range []uint16{head, entry, 1} { // one program header
		u16(v)
	}
	for range 3 {
		u16(0)
	}
	const load, readExec = 1, 5
	u32(load)
	if m.class == 2 {
		u32(readExec)
	}
	word(0)    // offset in the file
	word(base) // address
	word(base)
	word(size)
	word(size)
	if m.class == 1 {
		u32(readExec)
	}
	word(0x10000) // alignment: the largest page
	return append(out, m.code...)
}
