// Failures that the console shows: a machine that will not come up any more,
// seen at once and not at a timeout.

package vm

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// FailureKind says what became of a machine.
type FailureKind string

// The kinds of failures.
const (
	Panic       FailureKind = "kernel panic"
	Emergency   FailureKind = "emergency mode"
	Initramfs   FailureKind = "initramfs shell"
	BootLoader  FailureKind = "boot loader rescue prompt"
	NothingBoot FailureKind = "nothing to boot"
	InitDied    FailureKind = "init stopped"
	Passphrase  FailureKind = "passphrase asked"
	PoweredOff  FailureKind = "powered off"
	Rebooted    FailureKind = "rebooted"
	Crashed     FailureKind = "QEMU ended"
	Silent      FailureKind = "nothing on the console"
	TimedOut    FailureKind = "not in time"
)

// A Failure is a machine that did not do what was waited for. It is returned by
// the waiting methods of [Machine].
type Failure struct {
	Kind FailureKind
	Line string // the line of the console that shows it; may be empty
	Want string // what was being waited for; may be empty
	Tail string // the last lines of the console
	Err  error  // a cause: of a context, of QEMU; may be nil
}

func (f *Failure) Error() string {
	s := "the machine failed: " + string(f.Kind)
	switch f.Kind {
	case Panic:
		s = "the kernel panicked"
	case Emergency:
		s = "the system went into emergency mode"
	case Initramfs:
		s = "the initramfs gave up and opened a shell"
	case BootLoader:
		s = "the boot loader stopped at its prompt"
	case NothingBoot:
		s = "the firmware found nothing to boot"
	case InitDied:
		s = "the init process stopped"
	case Passphrase:
		s = "the system waits for a passphrase"
	case PoweredOff:
		s = "the machine switched itself off"
	case Rebooted:
		s = "the machine rebooted"
	case Crashed:
		s = "QEMU ended"
	case Silent:
		s = "no kernel or system was heard on the serial console"
	case TimedOut:
		s = "the machine took too long"
	}
	if f.Want != "" {
		s += " (waiting for " + f.Want + ")"
	}
	if f.Line != "" {
		s += ": " + f.Line
	}
	if f.Err != nil {
		s += fmt.Sprintf(": %v", f.Err)
	}
	return s
}

func (f *Failure) Unwrap() error { return f.Err }

// Hint says what to look at.
func (f *Failure) Hint() string {
	switch f.Kind {
	case Panic, Initramfs:
		if strings.Contains(f.Tail, "VFS: Unable to mount root") || f.Kind == Initramfs {
			return "look at root= of the kernel command line, at the file system's UUID and at the initramfs's modules"
		}
	case Emergency:
		return "look at /etc/fstab and at the failed units above"
	case BootLoader:
		return "look at the boot loader's configuration and at where it was installed"
	case NothingBoot:
		return "look at the partition table, and at the firmware: an image may boot by BIOS only or by UEFI only"
	case Silent:
		return "is the serial port on the kernel command line (console=ttyS0 on x86_64)?"
	case TimedOut:
		return "without KVM a machine is some ten times slower: raise the timeout if the console shows progress"
	}
	return ""
}

// Kernel messages begin with a time, and with a processor or task where the
// kernel was so built: "[    1.234567][    T1] ".
const stamp = `(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? )`

// systemRE matches lines of a kernel or an init.
var systemRE = regexp.MustCompile(`^` + stamp + `|^Linux version |^Welcome to |^\[ *(?:OK|FAILED|DEPEND) *\] |login: ?$`)

// signs of failure. Those marked sure are looked for while commands run too:
// they are anchored so that a command does not print them by accident. A line
// without one of the words is not looked at further.
var signs = []struct {
	kind  FailureKind
	sure  bool
	words []string
	re    *regexp.Regexp
}{
	{Panic, true, []string{"Kernel panic"}, regexp.MustCompile(`^` + stamp + `?(?:end )?Kernel panic - not syncing`)},
	{InitDied, true, []string{"Freezing execution"}, regexp.MustCompile(`^` + stamp + `?systemd\[1\]: Freezing execution`)},
	{InitDied, false, []string{"[!!!!!!]"}, regexp.MustCompile(`^\[!!!!!!\] .*(?:freezing|Freezing|shutting down)`)},
	{Emergency, false, []string{"maintenance", "emergency mode", "rescue mode", "the root account is locked"},
		regexp.MustCompile(`^You are in (?:emergency|rescue) mode\.|^Give root password for maintenance|^Cannot open access to console, the root account is locked|^Press Enter for maintenance`)},
	{Initramfs, false, []string{"(initramfs)", "Dropping to a shell", "dracut:/#", "emergency mode", "initramfs emergency shell", "[rootfs "},
		regexp.MustCompile(`^\(initramfs\) ?|Dropping to a shell!|^dracut:/# |^Entering emergency mode\. Exit the shell to continue\.|^initramfs emergency shell|^\[rootfs [^\]]*\]# `)},
	{BootLoader, false, []string{"rescue", "grub> "}, regexp.MustCompile(`^grub rescue> |^grub> |^Entering rescue mode\.\.\.`)},
	// SeaBIOS and UEFI, then the firmware of s390x, then that of ppc64le.
	{NothingBoot, false, []string{"No bootable", "Shell", "No virtio device", "Failed to", "E34"},
		regexp.MustCompile(`^No bootable device\.|No bootable option or device was found|^No bootable medium|^Shell> |^UEFI Interactive Shell|` +
			`^! No virtio device found|^Failed to (?:load OS from |IPL)|^E340[457]: `)},
	{Passphrase, false, []string{"Please ", "Enter passphrase"},
		regexp.MustCompile(`Please enter passphrase for disk |^Enter passphrase for |^Please unlock disk `)},
}

// signWidth is how much of a line is looked at: signs are near its beginning.
const signWidth = 512

// detect tells if a line is a sign of failure.
func detect(line string, session bool) *Failure {
	if len(line) > signWidth {
		line = line[:signWidth]
	}
	has := func(word string) bool { return strings.Contains(line, word) }
	for _, s := range signs {
		if session && !s.sure || !slices.ContainsFunc(s.words, has) {
			continue
		}
		if s.re.MatchString(line) {
			return &Failure{Kind: s.kind, Line: strings.TrimSpace(line)}
		}
	}
	return nil
}
