// The program: run by a small machine, for every number of every architecture.
package seccomp

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// call is what the kernel shows a filter (struct seccomp_data).
type call struct {
	number, arch uint32
	args         [6]uint32
}

// word is the 32-bit word at an offset of it.
func (c call) word(off uint32) (uint32, error) {
	switch {
	case off == offNumber:
		return c.number, nil
	case off == offArch:
		return c.arch, nil
	}
	for i := range c.args {
		if off == argument(uint32(i)) {
			return c.args[i], nil
		}
	}
	return 0, fmt.Errorf("a load from %d", off)
}

// run is the verdict of a program.
func run(prog []unix.SockFilter, c call) (uint32, error) {
	var a uint32
	for pc := 0; pc < len(prog); pc++ {
		i := prog[pc]
		yes := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			var err error
			if a, err = c.word(i.K); err != nil {
				return 0, err
			}
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K, nil
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = a >= i.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			yes = a&i.K != 0
		default:
			return 0, fmt.Errorf("instruction %#x", i.Code)
		}
		if yes {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	return 0, fmt.Errorf("it runs over the end")
}

// audits are the names of the ABIs in tables.
var audits = map[string]uint32{
	"I386": unix.AUDIT_ARCH_I386, "X86_64": unix.AUDIT_ARCH_X86_64, "ARM": unix.AUDIT_ARCH_ARM, "AARCH64": unix.AUDIT_ARCH_AARCH64,
	"LOONGARCH64": unix.AUDIT_ARCH_LOONGARCH64, "PPC64LE": unix.AUDIT_ARCH_PPC64LE, "RISCV64": unix.AUDIT_ARCH_RISCV64, "S390X": unix.AUDIT_ARCH_S390X,
}

// The program of every architecture has the verdict of calls.txt on every call, and
// nothing for an ABI that is not its own.
func TestProgram(t *testing.T) {
	words := map[string]uint32{"pass": pass, "done": done, "refuse": refuse, "absent": absent, "": absent}
	verdict := verdicts(t)
	for goarch, ks := range kernels {
		var tables []abi
		for _, k := range ks {
			nums := numbers(t, k[1])
			a := abi{audit: audits[k[0]], open: none, openat: none, socket: none}
			of := map[uint32]uint32{}
			highest := uint32(0)
			for name, n := range nums {
				of[n] = words[verdict[name]]
				highest = max(highest, n)
				switch name {
				case "open":
					a.open = n
				case "openat":
					a.openat = n
				case "socket":
					a.socket = n
				}
			}
			for n := uint32(0); n <= highest+1; n++ {
				v, ok := of[n]
				if !ok {
					v = absent
				}
				if len(a.spans) == 0 || a.spans[len(a.spans)-1].verdict != v {
					a.spans = append(a.spans, span{n, v})
				}
			}
			tables = append(tables, a)
		}
		prog, err := program(tables)
		if err != nil {
			t.Fatalf("%s: %v", goarch, err)
		}
		check := func(what string, c call, want uint32) {
			t.Helper()
			got, err := run(prog, c)
			if err != nil || got != want {
				t.Errorf("%s, %s: %#x, want %#x (%v)", goarch, what, got, want, err)
			}
		}
		for i, k := range ks {
			a := tables[i]
			for name, n := range numbers(t, k[1]) {
				check(k[0]+" "+name, call{number: n, arch: a.audit}, words[verdict[name]])
			}
			for _, n := range []uint32{5000, 0x40000000, 0x40000003, 0x7fffffff, 0x80000000, 0xffffffff} {
				check(fmt.Sprintf("%s %#x", k[0], n), call{number: n, arch: a.audit}, absent)
			}
			sync := uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EINVAL)
			check(k[0]+" openat", call{number: a.openat, arch: a.audit, args: [6]uint32{0, 0, unix.O_SYNC}}, sync)
			check(k[0]+" openat", call{number: a.openat, arch: a.audit, args: [6]uint32{0, 0, unix.O_DSYNC}}, sync)
			check(k[0]+" openat", call{number: a.openat, arch: a.audit, args: [6]uint32{0, unix.O_DSYNC, 0, unix.O_DSYNC}}, pass)
			if a.open != none {
				check(k[0]+" open", call{number: a.open, arch: a.audit, args: [6]uint32{0, unix.O_SYNC}}, sync)
				check(k[0]+" open", call{number: a.open, arch: a.audit, args: [6]uint32{unix.O_DSYNC, 0, unix.O_DSYNC}}, pass)
			}
			audit := call{number: a.socket, arch: a.audit, args: [6]uint32{unix.AF_NETLINK, 3, unix.NETLINK_AUDIT}}
			check(k[0]+" socket", audit, uint32(unix.SECCOMP_RET_ERRNO)|uint32(unix.EAFNOSUPPORT))
			audit.args[2] = 0
			check(k[0]+" socket", audit, pass)
		}
		for name, arch := range audits {
			own := false
			for _, k := range ks {
				own = own || k[0] == name
			}
			if !own {
				check("by "+name, call{number: 0, arch: arch}, absent)
				check("by "+name, call{number: 3, arch: arch}, absent)
			}
		}
	}
}
