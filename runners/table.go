// The table of runners. Families and versions are upstream osbuild's, and the
// systems that are set up like one of them. Where a system writes its minor version
// into its name ("rhel810" is 8.10), a table of major versions alone would take 8.10
// for newer than 10.0: there are entries for those.
package runners

import "strconv"

var (
	debianSteps = []step{accounts, ldconfig, sysusers, tmpfiles, nsswitch}
	fedoraSteps = []step{accounts, machineID, ldconfig, sysusers, tmpfiles, nsswitch, dropMachineID}
	// From these on the crypto policies in /etc are needed by what OpenSSL signs.
	cryptoSteps = []step{accounts, machineID, ldconfig, sysusers, tmpfiles, nsswitch, cryptoPolicies, dropMachineID}
	rhel8Steps  = []step{accounts, machineID, ldconfig, sysusers, tmpfiles, nsswitch, platformPython, dropMachineID}
)

func entry(family string, version int, doc string, steps []step) Runner {
	name := Prefix + family
	if version > 0 {
		name += strconv.Itoa(version)
	}
	return Runner{Name: name, Family: family, Version: version, Revision: 1, Doc: doc, steps: steps}
}

var table = []Runner{
	entry("linux", 0, "any Linux: accounts only", []step{accounts}),
	entry("arch", 0, "Arch Linux: accounts only", []step{accounts}),
	entry("archlinux", 0, "Arch Linux, by its ID", []step{accounts}),
	entry("debian", 0, "Debian", debianSteps),
	entry("ubuntu", 1804, "Ubuntu 18.04 and later", debianSteps),
	entry("fedora", 30, "Fedora 30 and later", fedoraSteps),
	entry("fedora", 38, "Fedora 38 and later", cryptoSteps),
	entry("fedora-asahi-remix", 0, "Fedora Asahi Remix", cryptoSteps),
	entry("asahi-fedora-remix", 0, "Fedora Asahi Remix, its old name", fedoraSteps),
	entry("eln", 11, "Fedora ELN", cryptoSteps),
	entry("rhel", 7, "Red Hat Enterprise Linux 7", []step{accounts, ldconfig, nsswitch}),
	entry("rhel", 81, "Red Hat Enterprise Linux 8.1", rhel8Steps),
	entry("rhel", 82, "Red Hat Enterprise Linux 8.2 and later", rhel8Steps),
	entry("rhel", 90, "Red Hat Enterprise Linux 9", cryptoSteps),
	entry("rhel", 100, "Red Hat Enterprise Linux 10 and later", cryptoSteps),
	entry("rhel", 810, "Red Hat Enterprise Linux 8.10", rhel8Steps),
	entry("rhel", 910, "Red Hat Enterprise Linux 9.10, 10.10", cryptoSteps),
	entry("centos", 8, "CentOS Stream 8", rhel8Steps),
	entry("centos", 9, "CentOS Stream 9 and later", cryptoSteps),
	entry("almalinux", 8, "AlmaLinux 8", rhel8Steps),
	entry("almalinux", 9, "AlmaLinux 9", cryptoSteps),
	entry("almalinux", 80, "AlmaLinux 8, by its version", rhel8Steps),
	entry("almalinux", 90, "AlmaLinux 9, by its version", cryptoSteps),
	entry("almalinux", 100, "AlmaLinux 10 and later", cryptoSteps),
	entry("almalinux", 810, "AlmaLinux 8.10", rhel8Steps),
	entry("almalinux", 910, "AlmaLinux 9.10, 10.10", cryptoSteps),
	entry("rocky", 8, "Rocky Linux 8", rhel8Steps),
	entry("rocky", 9, "Rocky Linux 9", cryptoSteps),
	entry("rocky", 80, "Rocky Linux 8, by its version", rhel8Steps),
	entry("rocky", 90, "Rocky Linux 9, by its version", cryptoSteps),
	entry("rocky", 100, "Rocky Linux 10 and later", cryptoSteps),
	entry("rocky", 810, "Rocky Linux 8.10", rhel8Steps),
	entry("rocky", 910, "Rocky Linux 9.10, 10.10", cryptoSteps),
	entry("ol", 9, "Oracle Linux 9", cryptoSteps),
	entry("ol", 80, "Oracle Linux 8, by its version", rhel8Steps),
	entry("ol", 90, "Oracle Linux 9, by its version", cryptoSteps),
	entry("ol", 100, "Oracle Linux 10 and later", cryptoSteps),
	entry("ol", 810, "Oracle Linux 8.10", rhel8Steps),
	entry("ol", 910, "Oracle Linux 9.10, 10.10", cryptoSteps),
	entry("autosd", 0, "Automotive Stream Distribution", cryptoSteps),
	entry("rhivos", 0, "Red Hat In-Vehicle Operating System", rhel8Steps),
}
