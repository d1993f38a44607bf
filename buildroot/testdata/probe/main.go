// Probe tells what a sandbox says of system calls, without doing any of them: a
// filter of its own, which is asked after the sandbox's, hands each one that carries
// a mark to a supervisor, which refuses it by an error that the kernel does not have.
//
// "probe FROM TO" prints a line for each number below TO: "NUMBER pass", or the error
// that the sandbox answers, 0 for a call that it only says was done. "probe call NUMBER
// ARGUMENT..." asks about one call.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	mark   = 0x5afe_ca11 // of a call that is only asked about: its sixth argument
	passed = 1234        // the error of a call that came through
)

// The kernel's struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

func main() {
	if err := probe(); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func probe() error {
	var from, to uintptr
	var args [5]uintptr
	words := os.Args[1:]
	one := len(words) > 1 && words[0] == "call"
	if one {
		words = words[1:]
	}
	var n []uintptr
	for _, w := range words {
		x, err := strconv.ParseUint(w, 0, 32)
		if err != nil {
			return err
		}
		n = append(n, uintptr(x))
	}
	switch {
	case one && len(n) > 0 && len(n) <= 6:
		from, to = n[0], n[0]+1
		copy(args[:], n[1:])
	case !one && len(n) == 2:
		from, to = n[0], n[1]
	default:
		return errors.New("probe FROM TO, or probe call NUMBER ARGUMENT...")
	}
	runtime.LockOSThread() // the filter is this thread's alone
	// args[5] of struct seccomp_data, its low half on a little-endian machine.
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16 + 5*8},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: mark},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	go supervise(fd)
	for nr := from; nr < to; nr++ {
		if runtime.GOARCH == "amd64" && (nr == 335 || nr == 336) {
			continue // of uprobes: the kernel asks no filter, and raises SIGILL
		}
		_, _, errno := syscall.Syscall6(nr, args[0], args[1], args[2], args[3], args[4], mark)
		if errno == passed {
			fmt.Println(nr, "pass")
		} else {
			fmt.Println(nr, int(errno))
		}
	}
	return nil
}

func supervise(fd uintptr) {
	for {
		var n notification
		if _, _, errno := syscall.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			if errno == unix.EINTR || errno == unix.ENOENT {
				continue
			}
			fmt.Fprintln(os.Stderr, "probe: receiving:", errno)
			os.Exit(1)
		}
		r := response{id: n.id, error: -passed}
		if _, _, errno := syscall.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r))); errno != 0 && errno != unix.ENOENT {
			fmt.Fprintln(os.Stderr, "probe: sending:", errno)
			os.Exit(1)
		}
	}
}
