// Config: what a machine is made of, its defaults, and the checks that say what
// is wrong with one before anything is started.

package vm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// AccelEnv is the environment variable that overrides [Config.Accel].
const AccelEnv = "OSBUILD_STAR_ACCEL"

// Config describes a machine. Only Disk (or Kernel) is needed; the zero value
// of everything else is the default.
type Config struct {
	Disk     string // path of the disk image
	Format   string // "raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc"; "" = by the file's suffix, then by its content
	Firmware string // "bios" or "uefi"; "" = what the machine has by itself, UEFI where it has nothing
	Arch     string // "x86_64" (also ""), "aarch64", "s390x", "ppc64le"
	Memory   int    // MiB; 0 = 1024
	CPUs     int    // 0 = 2, or 1 on a host with one
	Accel    string // "auto" (also ""), "kvm", "tcg"; [AccelEnv] wins

	// Direct boot without a boot loader, as -kernel, -initrd and -append of QEMU.
	Kernel, Initrd, Append string

	Persist bool // writes reach the image; otherwise they vanish with the machine
	Network bool // the guest reaches the host's network; otherwise only a DHCP server
	Reboot  bool // a reboot of the guest restarts it; otherwise it ends the machine

	SSH           bool              // forward a free port of 127.0.0.1 to port 22 of the guest: [Machine.SSHAddr]
	AuthorizedKey string            // a line for authorized_keys, handed to the guest as systemd credentials
	SSHUser       string            // whose key it is; "" = root
	Credentials   map[string]string // further systemd credentials, by name; only where there is SMBIOS

	// unattended: nobody sees the console before [Start] returns, so that it may wait
	// until a system is heard.
	unattended bool

	Span *monitor.Span // gets the console's lines and the notes on what is being tried; may be nil
}

// A ConfigError says what is wrong with a Config.
type ConfigError struct {
	Field string // the field of Config
	Msg   string // what is wrong
	Hint  string // what to do; may be empty
}

func (e *ConfigError) Error() string { return e.Msg }

// withDefaults fills in what was left out and refuses what cannot be.
func (c Config) withDefaults() (Config, error) {
	bad := func(field, hint, format string, args ...any) (Config, error) {
		return c, &ConfigError{Field: field, Msg: fmt.Sprintf(format, args...), Hint: hint}
	}
	if c.Arch == "" {
		c.Arch = "x86_64"
	}
	m, ok := machines[c.Arch]
	if !ok {
		return bad("Arch", "known are "+strings.Join(Architectures(), ", "), "cannot start a machine of architecture %q", c.Arch)
	}
	switch c.Firmware {
	case "":
		c.Firmware = cmp.Or(DefaultFirmware(c.Arch), "bios")
	case "bios":
		if m.bios == "" {
			return bad("Firmware", "boot it by uefi", "%s has no BIOS", c.Arch)
		}
	case "uefi":
		if m.uefi == "" {
			return bad("Firmware", "leave the firmware out: the machine has its own", "%s has no UEFI", c.Arch)
		}
	default:
		return bad("Firmware", "it is bios or uefi", "unknown firmware %q", c.Firmware)
	}
	if env := os.Getenv(AccelEnv); env != "" {
		c.Accel = env
	}
	switch c.Accel {
	case "":
		c.Accel = "auto"
	case "auto", "kvm", "tcg":
	default:
		return bad("Accel", "it is auto, kvm or tcg; the environment variable "+AccelEnv+" sets it too", "unknown accelerator %q", c.Accel)
	}
	if c.Accel == "kvm" && m.goarch != runtime.GOARCH {
		return bad("Accel", "use auto or tcg", "KVM cannot run %s on this host", c.Arch)
	}
	if c.Memory == 0 {
		c.Memory = 1024
	}
	if c.Memory < 64 {
		return bad("Memory", "it is in MiB; 1024 is usual", "a machine with %d MiB of memory cannot boot", c.Memory)
	}
	if c.CPUs == 0 {
		c.CPUs = min(2, runtime.NumCPU())
	}
	if c.CPUs < 1 || c.CPUs > 255 {
		return bad("CPUs", "it is 1 to 255", "a machine cannot have %d processors", c.CPUs)
	}
	if c.SSHUser == "" {
		c.SSHUser = "root"
	}
	if strings.ContainsAny(c.SSHUser, " \t\n/:%\\\"'") || strings.HasPrefix(c.SSHUser, "-") {
		return bad("SSHUser", "", "%q is not the name of a user", c.SSHUser)
	}
	if strings.ContainsAny(strings.TrimRight(c.AuthorizedKey, "\n"), "\n\r\x00\\") {
		return bad("AuthorizedKey", "it is one line, as in a .pub file", "the authorized key has more than one line")
	}
	c.AuthorizedKey = strings.TrimRight(c.AuthorizedKey, "\n")
	for name := range c.Credentials {
		if name == "" || strings.ContainsAny(name, ":=/, \n") {
			return bad("Credentials", "", "%q is not the name of a credential", name)
		}
	}
	if c.AuthorizedKey != "" && c.Persist {
		return bad("AuthorizedKey", "log in with a key or password that the image has", "a key handed to a machine that keeps its writes would stay in the image")
	}
	if c.Disk == "" && c.Kernel == "" {
		return bad("Disk", "", "neither a disk image nor a kernel to boot")
	}
	if c.Kernel == "" && (c.Initrd != "" || c.Append != "") {
		return bad("Kernel", "", "an initrd or kernel command line without a kernel")
	}
	for _, f := range []struct{ field, what, path string }{
		{"Disk", "disk image", c.Disk}, {"Kernel", "kernel", c.Kernel}, {"Initrd", "initrd", c.Initrd},
	} {
		if f.path == "" {
			continue
		}
		st, err := os.Stat(f.path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return bad(f.field, "build it first", "there is no %s %s", f.what, f.path)
		case err != nil:
			return c, fmt.Errorf("%s: %w", f.what, err)
		case st.IsDir():
			return bad(f.field, "", "the %s %s is a directory", f.what, f.path)
		}
	}
	var err error
	for _, p := range []*string{&c.Disk, &c.Kernel, &c.Initrd} {
		if *p != "" {
			if *p, err = filepath.Abs(*p); err != nil {
				return c, fmt.Errorf("find %s: %w", *p, err)
			}
		}
	}
	if c.Disk != "" && c.Format == "" {
		if c.Format, err = probeFormat(c.Disk); err != nil {
			return c, err
		}
	}
	if c.Disk != "" && !knownFormat(c.Format) {
		return bad("Format", "it is raw, qcow2, vmdk, vhdx, vdi or vpc (.vhd)", "unknown disk format %q", c.Format)
	}
	return c, nil
}

// suffixes of disk images, and the name QEMU has for what is in them.
var suffixes = map[string]string{
	".raw": "raw", ".img": "raw", ".qcow2": "qcow2", ".vmdk": "vmdk",
	".vhdx": "vhdx", ".vdi": "vdi", ".vhd": "vpc", ".vpc": "vpc",
}

// packed are suffixes of what has to be unpacked first, with the program.
var packed = map[string]string{".gz": "gunzip", ".xz": "unxz", ".zst": "unzstd", ".bz2": "bunzip2", ".lz4": "unlz4"}

func knownFormat(f string) bool {
	for _, k := range suffixes {
		if k == f {
			return true
		}
	}
	return false
}

// probeFormat tells the format of a disk image by its suffix, and where that
// says nothing by the first bytes. The content is never asked of a file that is
// called raw: a guest could write a qcow2 header there that names any file of
// the host as its backing file.
func probeFormat(path string) (string, error) {
	ext := strings.ToLower(filepath.Ext(path))
	if f := suffixes[ext]; f != "" {
		return f, nil
	}
	if prog := packed[ext]; prog != "" {
		return "", &ConfigError{Field: "Disk", Msg: fmt.Sprintf("%s is compressed", path), Hint: prog + " it to a file first, or ask for an uncompressed output"}
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("disk image: %w", err)
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("disk image: %w", err)
	}
	return magicFormat(head[:n]), nil
}

// magicFormat tells the format by the first bytes of a file; raw has no mark.
func magicFormat(head []byte) string {
	for _, m := range []struct {
		at    int
		magic string
		name  string
	}{
		{0, "QFI\xfb", "qcow2"},
		{0, "KDMV", "vmdk"},
		{0, "COWD", "vmdk"},
		{0, "# Disk DescriptorFile", "vmdk"},
		{0, "vhdxfile", "vhdx"},
		{0, "conectix", "vpc"},
		{64, "\x7f\x10\xda\xbe", "vdi"},
	} {
		if len(head) >= m.at && bytes.HasPrefix(head[m.at:], []byte(m.magic)) {
			return m.name
		}
	}
	return "raw"
}
