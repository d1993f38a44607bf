// Preflight: what this host lacks for a machine, all of it at once.

package vm

import (
	"cmp"
	"os/exec"
	"strings"
)

// Missing is something the host lacks.
type Missing struct {
	What    string // a program's name, or a description of a file with the paths that were tried
	Package string // the Debian package that has it
	Why     string // what it is needed for
}

// Preflight says what the host lacks to start a machine of this kind; nothing
// is started. A Config that is wrong in itself has nothing missing: [Start]
// explains it. Whether KVM works is no matter of this: without it there is TCG.
func Preflight(c Config) []Missing {
	if c.Arch == "" {
		c.Arch = "x86_64"
	}
	m, ok := machines[c.Arch]
	if !ok {
		return nil
	}
	var out []Missing
	if _, err := exec.LookPath(m.program); err != nil {
		out = append(out, Missing{m.program, m.pkg, "to start machines of " + c.Arch})
	}
	if c.Firmware == "uefi" || c.Firmware == "" && m.bios == "" {
		if _, ok := findFirmware(c.Arch); !ok && m.uefi != "" {
			t := firmwares[c.Arch]
			var tried []string
			for _, f := range t.files {
				tried = append(tried, f.code)
			}
			out = append(out, Missing{"UEFI firmware (" + strings.Join(tried, ", ") + ")", t.pkg, "to boot by UEFI"})
		}
	}
	if c.SSH {
		if _, err := exec.LookPath("ssh"); err != nil {
			out = append(out, Missing{"ssh", "openssh-client", "to log in to the machine"})
		}
	}
	return out
}

// Files are the files of this host that a machine of this kind is made of, as far as
// another one of them is another machine: QEMU's program and the firmware. One that is not
// installed may be among them by a name.
func Files(c Config) []string {
	m := machines[cmp.Or(c.Arch, "x86_64")]
	program, err := exec.LookPath(m.program)
	if err != nil {
		program = m.program
	}
	out := append([]string{program}, m.roms...)
	if c.Firmware == "uefi" {
		if fw, ok := findFirmware(cmp.Or(c.Arch, "x86_64")); ok {
			out = append(out, fw.code, fw.vars)
		}
	}
	return out
}

// A HostError is returned by [Start] when the host lacks something.
type HostError struct{ Missing []Missing }

func (e *HostError) Error() string {
	var what []string
	for _, m := range e.Missing {
		what = append(what, m.What)
	}
	return "this host lacks " + strings.Join(what, " and ")
}

// Hint is the command that installs it on Debian.
func (e *HostError) Hint() string {
	var pkgs []string
	for _, m := range e.Missing {
		pkgs = append(pkgs, m.Package)
	}
	return "apt-get install " + strings.Join(pkgs, " ")
}
