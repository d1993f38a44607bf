// The tables: machines by architecture, and where distributions keep the
// firmware. A new architecture or distribution is one more entry.

package vm

import (
	"cmp"
	"os"
	"runtime"
	"sort"
	"strings"
)

// machine says how QEMU plays one architecture.
type machine struct {
	program string   // QEMU's system emulator
	pkg     string   // the Debian package that has it
	bios    string   // -machine for the firmware "bios" (what the machine has by itself); "" = it has none
	uefi    string   // -machine for the firmware "uefi"; "" = cannot
	console string   // the guest's name of the first serial port
	smbios  []string // firmwares under which the guest sees SMBIOS type 11 strings
	screen  bool     // graphics=off makes the firmware copy its screen to the serial port
	rng     bool     // virtio-rng exists
	goarch  string   // of a host on which KVM can run it
	tcg     string   // further properties of the processor under TCG
	roms    []string // where the firmware that it has by itself may be
}

// machines is keyed by the architecture's name as the kernel has it (uname -m).
var machines = map[string]machine{
	"x86_64": {
		program: "qemu-system-x86_64", pkg: "qemu-system-x86",
		bios: "pc", uefi: "q35", console: "ttyS0",
		smbios: []string{"bios", "uefi"}, screen: true, rng: true, goarch: "amd64",
		roms: []string{"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"},
	},
	"aarch64": {
		program: "qemu-system-aarch64", pkg: "qemu-system-arm",
		uefi: "virt", console: "ttyAMA0",
		smbios: []string{"uefi"}, rng: true, goarch: "arm64",
		// The kernel signs return addresses; to emulate the architecture's own
		// algorithm for that takes half of the time.
		tcg: "pauth-impdef=on",
	},
	"s390x": {
		program: "qemu-system-s390x", pkg: "qemu-system-misc",
		bios: "s390-ccw-virtio", console: "ttysclp0",
		rng: true, goarch: "s390x",
		roms: []string{"/usr/share/qemu/s390-ccw.img"},
	},
	"ppc64le": {
		program: "qemu-system-ppc64", pkg: "qemu-system-ppc",
		bios: "pseries", console: "hvc0",
		rng: true, goarch: "ppc64le",
		roms: []string{"/usr/share/qemu/slof.bin", "/usr/share/slof/slof.bin"},
	},
}

// Architectures returns the names that [Config.Arch] takes, sorted.
func Architectures() []string {
	var names []string
	for n := range machines {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Console returns the name that the first serial port has in a guest of this
// architecture, as console= of the kernel command line wants it: "ttyS0" for
// x86_64. It is empty for an architecture that is not known.
func Console(arch string) string { return machines[arch].console }

// DefaultFirmware is the firmware that a machine gets where none is named: "bios" or
// "uefi", and "" for a machine that has its own and no other.
func DefaultFirmware(arch string) string {
	m := machines[cmp.Or(arch, "x86_64")]
	switch {
	case m.bios == "" && m.uefi != "":
		return "uefi"
	case m.uefi == "":
		return ""
	}
	return "bios"
}

// HostArch is the architecture of this host in the spelling of [Config.Arch].
func HostArch() string {
	for name, m := range machines {
		if m.goarch == runtime.GOARCH {
			return name
		}
	}
	return runtime.GOARCH
}

// firmware is a pair of flash images of UEFI.
type firmware struct {
	code, vars string // paths
	format     string // of both: "raw" or "qcow2"
}

// firmwares lists where UEFI is, by architecture, first found first used.
// The packages are those of Debian; the comments say whose the paths are.
var firmwares = map[string]struct {
	pkg   string
	files []firmware
}{
	"x86_64": {"ovmf", []firmware{
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "raw"},                   // Debian, Ubuntu
		{"/usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2", "/usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2", "qcow2"}, // Fedora
		{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd", "raw"},           // Arch
		{"/usr/share/edk2-ovmf/x64/OVMF_CODE.4m.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.4m.fd", "raw"}, // Arch until 2024
		{"/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin", "raw"},   // openSUSE
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd", "raw"},               // Fedora and RHEL, 2 MB build
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd", "raw"},                         // Debian before 11, 2 MB build
	}},
	"aarch64": {"qemu-efi-aarch64", []firmware{
		{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "raw"},                                      // Debian, Ubuntu
		{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw", "raw"},       // Fedora
		{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.qcow2", "/usr/share/edk2/aarch64/vars-template-pflash.qcow2", "qcow2"}, // Fedora, RHEL 10
		{"/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/edk2/aarch64/QEMU_VARS.fd", "raw"},                          // Arch
		{"/usr/share/qemu/aavmf-aarch64-code.bin", "/usr/share/qemu/aavmf-aarch64-vars.bin", "raw"},                      // openSUSE
	}},
}

// findFirmware returns the first pair of which both files are there.
func findFirmware(arch string) (firmware, bool) {
	for _, f := range firmwares[arch].files {
		if isFile(f.code) && isFile(f.vars) {
			return f, true
		}
	}
	return firmware{}, false
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// hasSMBIOS tells if the guest can read SMBIOS strings under this firmware.
func (m machine) hasSMBIOS(fw string) bool {
	return strings.Contains(" "+strings.Join(m.smbios, " ")+" ", " "+fw+" ")
}
