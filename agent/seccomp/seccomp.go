// Package seccomp is the filter of system calls of the native sandbox: an allow-list
// with the verdicts of systemd-nspawn.
//
// A tour: calls.txt says by name what passes, what is refused, what is only said to be
// done, and what is absent. The tables in tables_GOARCH.go are made from it and the
// numbers of golang.org/x/sys by a test. [Program] makes a BPF program of the tables
// of this architecture, one part for each ABI that its kernel serves: a call by the
// ABI of 32-bit programs is judged by that one's numbers, and one by an ABI without
// a table is absent. [Install] puts it on every thread of the process.
//
// A program that qemu-user emulates makes the system calls of the host, by qemu.
package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The verdicts of calls.txt, as the kernel takes them.
const (
	pass   = uint32(unix.SECCOMP_RET_ALLOW)
	done   = uint32(unix.SECCOMP_RET_ERRNO)
	refuse = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	absent = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
)

// abi is one way to call the kernel.
type abi struct {
	audit uint32 // the kernel's name of it, AUDIT_ARCH_*
	spans []span // by number

	// Numbers of the calls whose arguments are looked at.
	open, openat, socket uint32
}

// span is the verdict of the calls from one number on, up to the next span.
type span struct{ from, verdict uint32 }

// none is the number of a call that an ABI does not have.
const none = ^uint32(0)

// Supported tells whether there is a filter for this architecture.
func Supported() bool { return len(abis) > 0 }

// ErrUnsupported is an architecture without tables.
var ErrUnsupported = fmt.Errorf("there is no filter of system calls for %s", runtime.GOARCH)

// Install filters the system calls of all threads of this process, and of all that it
// starts, from now on. It needs CAP_SYS_ADMIN or no-new-privileges.
func Install() error {
	prog, err := Program()
	if err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// Where the kernel has what of struct seccomp_data; an argument has 64 bits, of which
// the lower half is looked at.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

func argument(i uint32) uint32 {
	off := offArgs + 8*i
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		off += 4
	}
	return off
}

// Program returns the filter of this architecture.
func Program() ([]unix.SockFilter, error) {
	if !Supported() {
		return nil, ErrUnsupported
	}
	return program(abis)
}

func program(abis []abi) ([]unix.SockFilter, error) {
	prog := []unix.SockFilter{load(offArch)}
	for _, a := range abis {
		part := a.program()
		prog = append(prog,
			jump(unix.BPF_JEQ, a.audit, 1, 0),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(part))})
		prog = append(prog, part...)
	}
	prog = append(prog, ret(absent))
	if len(prog) > unix.BPF_MAXINSNS {
		return nil, errors.New("the filter of system calls is too long")
	}
	return prog, nil
}

// program is the part of one ABI. It never runs over its end.
func (a abi) program() []unix.SockFilter {
	prog := []unix.SockFilter{load(offNumber)}
	// A file that is written through to the disk: EINVAL, so that programs try
	// without. O_SYNC has the bit of O_DSYNC.
	for _, c := range []struct{ number, argument uint32 }{{a.open, 1}, {a.openat, 2}} {
		if c.number != none {
			prog = append(prog,
				jump(unix.BPF_JEQ, c.number, 0, 4),
				load(argument(c.argument)),
				jump(unix.BPF_JSET, unix.O_DSYNC, 0, 1),
				ret(unix.SECCOMP_RET_ERRNO|uint32(unix.EINVAL)),
				ret(pass))
		}
	}
	// The audit system is the host's, whatever the namespace.
	if a.socket != none {
		prog = append(prog,
			jump(unix.BPF_JEQ, a.socket, 0, 6),
			load(argument(0)),
			jump(unix.BPF_JEQ, unix.AF_NETLINK, 0, 3),
			load(argument(2)),
			jump(unix.BPF_JEQ, unix.NETLINK_AUDIT, 0, 1),
			ret(unix.SECCOMP_RET_ERRNO|uint32(unix.EAFNOSUPPORT)),
			ret(pass))
	}
	// Each test answers for all numbers below a bound that the tests before left.
	for i, s := range a.spans[1:] {
		prog = append(prog, jump(unix.BPF_JGE, s.from, 1, 0), ret(a.spans[i].verdict))
	}
	return append(prog, ret(a.spans[len(a.spans)-1].verdict))
}

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func jump(test uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

func ret(verdict uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict}
}
