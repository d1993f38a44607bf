// Privileges: what a stage keeps.
package agent

import (
	"errors"
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

// privileges are those that a program keeps.
type privileges struct {
	caps     uint64 // the set, as the kernel writes it
	newPrivs bool   // a program may get more by the marks of a file
}

func privilegesOf(p *wire.Program) (privileges, error) {
	out := privileges{newPrivs: p.NewPrivs}
	for _, name := range p.Caps {
		n, ok := capabilities[name]
		if !ok {
			return out, fmt.Errorf("unknown capability %q", name)
		}
		out.caps |= 1 << n
	}
	return out, nil
}

// takeOn cuts what the calling thread can hand on to those that it starts.
func (p privileges) takeOn() error {
	now, err := statusOf("/proc/thread-self/status")
	if err != nil {
		return err
	}
	for n := uint(0); n < 64; n++ {
		if now.bounding&^p.caps&(1<<n) != 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
				return fmt.Errorf("dropping capability %d: %w", n, err)
			}
		}
	}
	if now.inheritable != 0 { // and with that, ambient
		hdr, data := capData(now.permitted)
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			return fmt.Errorf("capset: %w", err)
		}
	}
	if !p.newPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	}
	return nil
}

// confine makes sure that the process has the privileges of the program and no
// others, of those that it can have at all: asking for one that is missing would
// fail, and a program that ignores the failure keeps everything. The thread that
// started the process has seen to most of it; changing that of every thread of this
// one is slow.
func confine(p *wire.Program) error {
	want, err := privilegesOf(p)
	if err != nil {
		return err
	}
	now, err := statusOf("/proc/self/status")
	if err != nil {
		return err
	}
	want.caps &= now.bounding
	if now.bounding != want.caps {
		return fmt.Errorf("the process could get more capabilities than it may: %x, not %x", now.bounding, want.caps)
	}
	if now.permitted != want.caps || now.effective != want.caps || now.inheritable|now.ambient != 0 {
		if err := setCaps(want.caps); err != nil {
			return err
		}
	}
	if !now.noNewPrivs && !p.NewPrivs {
		return errors.New("the process could get new privileges")
	}
	return nil
}

// cutCaps cuts the capabilities of every thread to those named that the process has at
// all.
func cutCaps(names []string) error {
	want, err := privilegesOf(&wire.Program{Caps: names})
	if err != nil {
		return err
	}
	now, err := statusOf("/proc/self/status")
	if err != nil {
		return err
	}
	for n := uint(0); n < 64; n++ {
		if now.bounding&^want.caps&(1<<n) != 0 {
			if err := allThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(n), 0); err != nil {
				return fmt.Errorf("dropping capability %d: %w", n, err)
			}
		}
	}
	return setCaps(want.caps & now.bounding)
}

// status is what the kernel says of the privileges of a thread.
type status struct {
	inheritable, permitted, effective, bounding, ambient uint64
	noNewPrivs                                           bool
}

func statusOf(file string) (s status, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	sets := map[string]*uint64{
		"CapInh": &s.inheritable, "CapPrm": &s.permitted, "CapEff": &s.effective, "CapBnd": &s.bounding, "CapAmb": &s.ambient,
	}
	found := 0
	for line := range strings.Lines(string(b)) {
		name, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		v = strings.TrimSpace(v)
		if set := sets[name]; set != nil {
			if *set, err = strconv.ParseUint(v, 16, 64); err != nil {
				return s, fmt.Errorf("%s: %w", file, err)
			}
			found++
		} else if name == "NoNewPrivs" {
			s.noNewPrivs = v == "1"
			found++
		}
	}
	if found != len(sets)+1 {
		return s, fmt.Errorf("%s does not tell all privileges", file)
	}
	return s, nil
}

func allThreads(trap, a, b, c uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(trap, a, b, c)
	if errno != 0 {
		return errno
	}
	return nil
}
