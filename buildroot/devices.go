// Devices: what a container may do with which, held by the kernel and not only asked
// of it. nspawn's own list has no effect without a scope of systemd.
package buildroot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// access is what is done with a device, as the kernel counts it (BPF_DEVCG_ACC_*).
type access uint32

const (
	accMknod access = 1 << iota
	accRead
	accWrite
)

// device names a device, or with anyMinor all of one major number.
type device struct {
	block        bool
	major, minor uint32
}

const anyMinor = ^uint32(0)

// baseDevices are those that every container may use: null zero full random urandom,
// tty console ptmx, and the pseudo terminals.
var baseDevices = map[device]access{
	{major: 1, minor: 3}: accRead | accWrite | accMknod, {major: 1, minor: 5}: accRead | accWrite | accMknod,
	{major: 1, minor: 7}: accRead | accWrite | accMknod, {major: 1, minor: 8}: accRead | accWrite | accMknod,
	{major: 1, minor: 9}: accRead | accWrite | accMknod, {major: 5, minor: 0}: accRead | accWrite | accMknod,
	{major: 5, minor: 1}: accRead | accWrite | accMknod, {major: 5, minor: 2}: accRead | accWrite | accMknod,
	{major: 136, minor: anyMinor}: accRead | accWrite,
}

// deviceFilter refuses every use of a device that was not allowed.
type deviceFilter interface {
	allow(d device, a access) error
	deny(d device) error
	close() error
}

// v1Filter is the devices controller of cgroup v1: its directory. The container is in
// the group v1Inner below it: it can mount what is its own of the hierarchy, and allow
// itself there what the group above allows. So both have the same rules.
type v1Filter string

const v1Inner = "inner"

func (f v1Filter) set(file, value string) error {
	for _, dir := range []string{string(f), filepath.Join(string(f), v1Inner)} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
			return fmt.Errorf("limiting devices: %w", err)
		}
	}
	return nil
}

func newV1Filter(dir string) (deviceFilter, error) {
	// While it has no child, as the kernel wants it; the child then starts with it.
	if err := os.WriteFile(filepath.Join(dir, "devices.deny"), []byte("a"), 0); err != nil {
		return nil, fmt.Errorf("limiting devices: %w", err)
	}
	if err := os.Mkdir(filepath.Join(dir, v1Inner), 0o755); err != nil {
		return nil, fmt.Errorf("making a cgroup: %w", err)
	}
	return v1Filter(dir), nil
}

func (d device) v1(a access) string {
	var b strings.Builder
	kind, minor := 'c', "*"
	if d.block {
		kind = 'b'
	}
	if d.minor != anyMinor {
		minor = fmt.Sprint(d.minor)
	}
	fmt.Fprintf(&b, "%c %d:%s ", kind, d.major, minor)
	for _, x := range []struct {
		bit access
		c   byte
	}{{accRead, 'r'}, {accWrite, 'w'}, {accMknod, 'm'}} {
		if a&x.bit != 0 {
			b.WriteByte(x.c)
		}
	}
	return b.String()
}

func (f v1Filter) allow(d device, a access) error { return f.set("devices.allow", d.v1(a)) }
func (f v1Filter) deny(d device) error {
	return f.set("devices.deny", d.v1(accRead|accWrite|accMknod))
}
func (f v1Filter) close() error { return nil }

// bpfFilter is a program on a group of cgroup v2 that looks devices up in a map.
type bpfFilter struct {
	devices *ebpf.Map
	prog    *ebpf.Program
	link    link.Link
}

// The kernel's numbers of the kinds of devices (BPF_DEVCG_DEV_*).
const (
	bpfBlock = 1
	bpfChar  = 2
)

// maxDevices is more than the loop devices that stages of one container have at once.
const maxDevices = 4096

func newBPFFilter(dir string) (_ deviceFilter, err error) {
	f := &bpfFilter{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("limiting devices by a BPF program on %s: %w", dir, err), f.close())
		}
	}()
	f.devices, err = ebpf.NewMap(&ebpf.MapSpec{Name: "osbs_devices", Type: ebpf.Hash, KeySize: 12, ValueSize: 4, MaxEntries: maxDevices})
	if err != nil {
		return nil, err
	}
	f.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "osbs_devices", Type: ebpf.CGroupDevice, License: "Apache-2.0", Instructions: deviceProgram(f.devices.FD()),
	})
	if err != nil {
		return nil, err
	}
	f.link, err = link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: ebpf.AttachCGroupDevice, Program: f.prog})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// deviceProgram returns 1, yes, when the map has the device, or all devices of its
// major number, with every kind of access that is asked for. What it is asked is
// struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor.
func deviceProgram(devices int) asm.Instructions {
	lookup := func(miss, check string) asm.Instructions {
		return asm.Instructions{
			asm.LoadMapPtr(asm.R1, devices),
			asm.Mov.Reg(asm.R2, asm.R10),
			asm.Add.Imm(asm.R2, -12),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, miss),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.Word).WithSymbol(check),
			asm.Mov.Reg(asm.R2, asm.R8),
			asm.And.Reg(asm.R1, asm.R8),
			asm.JEq.Reg(asm.R1, asm.R2, "yes"),
		}
	}
	prog := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word),
		asm.Mov.Reg(asm.R8, asm.R7),
		asm.RSh.Imm(asm.R8, 16),
		asm.And.Imm(asm.R7, 0xffff),
		asm.StoreMem(asm.R10, -12, asm.R7, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, 4, asm.Word),
		asm.StoreMem(asm.R10, -8, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, 8, asm.Word),
		asm.StoreMem(asm.R10, -4, asm.R1, asm.Word),
	}
	prog = append(prog, lookup("major", "one")...)
	major := append(asm.Instructions{
		asm.Mov.Imm32(asm.R1, -1).WithSymbol("major"),
		asm.StoreMem(asm.R10, -4, asm.R1, asm.Word),
	}, lookup("no", "all")...)
	prog = append(prog, major...)
	return append(prog,
		asm.Mov.Imm(asm.R0, 0).WithSymbol("no"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("yes"),
		asm.Return(),
	)
}

func (d device) key() []byte {
	kind := uint32(bpfChar)
	if d.block {
		kind = bpfBlock
	}
	b := binary.NativeEndian.AppendUint32(nil, kind)
	b = binary.NativeEndian.AppendUint32(b, d.major)
	return binary.NativeEndian.AppendUint32(b, d.minor)
}

func (f *bpfFilter) allow(d device, a access) error {
	if err := f.devices.Put(d.key(), uint32(a)); err != nil {
		return fmt.Errorf("allowing a device: %w", err)
	}
	return nil
}

func (f *bpfFilter) deny(d device) error {
	if err := f.devices.Delete(d.key()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("denying a device: %w", err)
	}
	return nil
}

func (f *bpfFilter) close() error {
	var errs []error
	if f.link != nil {
		errs = append(errs, f.link.Close())
	}
	if f.prog != nil {
		errs = append(errs, f.prog.Close())
	}
	if f.devices != nil {
		errs = append(errs, f.devices.Close())
	}
	return errors.Join(errs...)
}
