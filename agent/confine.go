// Privileges: what a stage keeps.
package agent

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/osbuild-star/osbuild-star/agent/wire"
	"golang.org/x/sys/unix"
)

// capabilities are the kernel's numbers (linux/capability.h).
var capabilities = map[string]uint{
	"CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "FOWNER": 3, "FSETID": 4, "KILL": 5,
	"SETGID": 6, "SETUID": 7, "SETPCAP": 8, "LINUX_IMMUTABLE": 9, "NET_BIND_SERVICE": 10,
	"NET_BROADCAST": 11, "NET_ADMIN": 12, "NET_RAW": 13, "IPC_LOCK": 14, "IPC_OWNER": 15,
	"SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_PACCT": 20,
	"SYS_ADMIN": 21, "SYS_BOOT": 22, "SYS_NICE": 23, "SYS_RESOURCE": 24, "SYS_TIME": 25,
	"SYS_TTY_CONFIG": 26, "MKNOD": 27, "LEASE": 28, "AUDIT_WRITE": 29, "AUDIT_CONTROL": 30,
	"SETFCAP": 31, "MAC_OVERRIDE": 32, "MAC_ADMIN": 33, "SYSLOG": 34, "WAKE_ALARM": 35,
	"BLOCK_SUSPEND": 36, "AUDIT_READ": 37, "PERFMON": 38, "BPF": 39, "CHECKPOINT_RESTORE": 40,
}

// confine takes from every thread what the program is not to have.
func confine(p *wire.Program) error {
	if err := cutCaps(p.Caps); err != nil {
		return err
	}
	if !p.NewPrivs {
		if err := allThreads6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	}
	return nil
}

// cutCaps cuts the capabilities of every thread to those named that the process has at
// all: asking for one that is missing would fail, and a program that ignores the
// failure keeps everything.
func cutCaps(names []string) error {
	var want uint64
	for _, name := range names {
		n, ok := capabilities[name]
		if !ok {
			return fmt.Errorf("unknown capability %q", name)
		}
		want |= 1 << n
	}
	bounding, last, err := boundingSet()
	if err != nil {
		return err
	}
	want &= bounding
	for n := uint(0); n <= last; n++ {
		if want&(1<<n) == 0 && bounding&(1<<n) != 0 {
			if err := allThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(n), 0); err != nil {
				return fmt.Errorf("dropping capability %d: %w", n, err)
			}
		}
	}
	return setCaps(want)
}

func boundingSet() (set uint64, last uint, err error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			set, err = strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return set, 63, err
		}
	}
	return 0, 0, fmt.Errorf("no CapBnd in /proc/self/status")
}

func allThreads(trap, a, b, c uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(trap, a, b, c)
	if errno != 0 {
		return errno
	}
	return nil
}

func allThreads6(trap, a, b, c, d, e, f uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a, b, c, d, e, f)
	if errno != 0 {
		return errno
	}
	return nil
}
