// The table of runners. Families and versions are upstream osbuild's, and the
// systems that are set up like one of them. Where a system writes its minor version
// into its name ("rhel810" is 8.10), a table of major versions alone would take 8.10
// for newer than 10.0: there are entries for those.
package runners

import "strconv"

// revision is raised when any runner prepares a build root in another way.
const revision = 2

// kind is what systems that are set up alike have in common.
type kind struct {
	steps []step
	env   func(arch string) []string // environment of every program; may be nil
}

var (
	plain  = kind{steps: []step{accounts}}
	arch   = kind{steps: []step{accounts, archTrust}}
	debian = kind{steps: []step{accounts, ldconfig, sysusers, tmpfiles, nsswitch, debianTrust}}
	fedora = kind{steps: []step{accounts, ldconfig, sysusers, identified(tmpfiles), nsswitch, fedoraTrust}}
	// From these on the crypto policies in /etc are needed by what OpenSSL signs, and by
	// what rpm takes for signed.
	crypto = kind{steps: []step{accounts, ldconfig, sysusers, identified(tmpfiles), nsswitch, cryptoPolicies, fedoraTrust}}
	rhel7  = kind{steps: []step{accounts, iscsiLdconfig, nsswitch, fedoraTrust}}
	rhel81 = kind{steps: []step{accounts, ldconfig, sysusers, identified(tmpfiles), nsswitch, osRelease, platformPython, fedoraTrust}}
	rhel8  = kind{
		steps: []step{accounts, ldconfig, sysusers, identified(tmpfiles), nsswitch, cryptoPolicies, platformPython, fedoraTrust},
		env:   oneCoroutine,
	}
)

// oneCoroutine keeps the qemu-img of RHEL 8 from hanging on aarch64, which it can with
// more than one.
func oneCoroutine(arch string) []string {
	if arch == "aarch64" {
		return []string{"OSBUILD_QEMU_IMG_COROUTINES=1"}
	}
	return nil
}

func entry(family string, version int, doc string, k kind) Runner {
	name := Prefix + family
	if version > 0 {
		name += strconv.Itoa(version)
	}
	return Runner{Name: name, Family: family, Version: version, Revision: revision, Doc: doc, kind: k}
}

var table = []Runner{
	entry("linux", 0, "any Linux: accounts only", plain),
	entry("arch", 0, "Arch Linux: accounts and CA certificates", arch),
	entry("archlinux", 0, "Arch Linux, by its ID", arch),
	entry("debian", 0, "Debian", debian),
	entry("ubuntu", 1804, "Ubuntu 18.04 and later", debian),
	entry("fedora", 30, "Fedora 30 and later", fedora),
	entry("fedora", 38, "Fedora 38 and later", crypto),
	entry("fedora-asahi-remix", 0, "Fedora Asahi Remix", crypto),
	entry("asahi-fedora-remix", 0, "Fedora Asahi Remix, its old name", fedora),
	entry("eln", 11, "Fedora ELN", crypto),
	entry("rhel", 7, "Red Hat Enterprise Linux 7", rhel7),
	entry("rhel", 81, "Red Hat Enterprise Linux 8.1", rhel81),
	entry("rhel", 82, "Red Hat Enterprise Linux 8.2 and later", rhel8),
	entry("rhel", 90, "Red Hat Enterprise Linux 9", crypto),
	entry("rhel", 100, "Red Hat Enterprise Linux 10 and later", crypto),
	entry("rhel", 810, "Red Hat Enterprise Linux 8.10", rhel8),
	entry("rhel", 910, "Red Hat Enterprise Linux 9.10, 10.10", crypto),
	entry("centos", 8, "CentOS Stream 8", rhel8),
	entry("centos", 9, "CentOS Stream 9 and later", crypto),
	entry("almalinux", 8, "AlmaLinux 8", rhel8),
	entry("almalinux", 9, "AlmaLinux 9", crypto),
	entry("almalinux", 80, "AlmaLinux 8, by its version", rhel8),
	entry("almalinux", 90, "AlmaLinux 9, by its version", crypto),
	entry("almalinux", 100, "AlmaLinux 10 and later", crypto),
	entry("almalinux", 810, "AlmaLinux 8.10", rhel8),
	entry("almalinux", 910, "AlmaLinux 9.10, 10.10", crypto),
	entry("rocky", 8, "Rocky Linux 8", rhel8),
	entry("rocky", 9, "Rocky Linux 9", crypto),
	entry("rocky", 80, "Rocky Linux 8, by its version", rhel8),
	entry("rocky", 90, "Rocky Linux 9, by its version", crypto),
	entry("rocky", 100, "Rocky Linux 10 and later", crypto),
	entry("rocky", 810, "Rocky Linux 8.10", rhel8),
	entry("rocky", 910, "Rocky Linux 9.10, 10.10", crypto),
	entry("ol", 9, "Oracle Linux 9", crypto),
	entry("ol", 80, "Oracle Linux 8, by its version", rhel8),
	entry("ol", 90, "Oracle Linux 9, by its version", crypto),
	entry("ol", 100, "Oracle Linux 10 and later", crypto),
	entry("ol", 810, "Oracle Linux 8.10", rhel8),
	entry("ol", 910, "Oracle Linux 9.10, 10.10", crypto),
	entry("AutoSD", 9, "Automotive Stream Distribution 9", crypto),
	entry("autosd", 0, "Automotive Stream Distribution", crypto),
	entry("rhivos", 0, "Red Hat In-Vehicle Operating System", rhel8),
}
