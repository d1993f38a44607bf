// The command line of QEMU.

package vm

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// The descriptors that QEMU inherits, in the order of exec.Cmd.ExtraFiles.
const (
	fdConsole = 3 // one end of a socket pair: the serial port
	fdMonitor = 4 // one end of a socket pair: QMP
	fdVars    = 5 // anonymous memory with the UEFI variables; only with UEFI
)

// arguments returns what to call QEMU with for a checked Config; accel is "kvm"
// or "tcg", fw is used with UEFI only.
func arguments(c Config, accel string, fw firmware) []string {
	m := machines[c.Arch]
	typ := m.bios
	if c.Firmware == "uefi" {
		typ = m.uefi
	}
	machineOpt := typ + ",accel=" + accel
	if m.screen {
		// The firmware copies what it would draw on a screen to the serial port:
		// messages of SeaBIOS, and a GRUB that was not told of the port.
		machineOpt += ",graphics=off"
	}
	cpu := "max"
	switch {
	case accel == "kvm":
		cpu = "host"
	case m.tcg != "":
		cpu += "," + m.tcg
	}
	args := []string{
		"-machine", machineOpt, "-cpu", cpu,
		"-m", strconv.Itoa(c.Memory), "-smp", strconv.Itoa(c.CPUs),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-boot", "strict=on", // only what has a bootindex: no attempt to boot from the network
		"-chardev", fmt.Sprintf("socket,id=con,fd=%d", fdConsole), "-serial", "chardev:con",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", fdMonitor), "-mon", "chardev=qmp,mode=control",
	}
	if !c.Reboot {
		args = append(args, "-no-reboot")
	}
	if c.Firmware == "uefi" {
		args = append(args,
			"-drive", "if=pflash,unit=0,readonly=on,format="+fw.format+",file="+escape(fw.code),
			"-drive", fmt.Sprintf("if=pflash,unit=1,format=%s,file=/proc/self/fd/%d", fw.format, fdVars))
	}
	if c.Disk != "" {
		drive := "if=none,id=disk,format=" + c.Format + ",file=" + escape(c.Disk)
		if c.Persist {
			drive += ",cache=writeback"
		} else {
			drive += ",snapshot=on,cache=unsafe"
		}
		args = append(args, "-drive", drive, "-device", "virtio-blk,drive=disk,bootindex=1")
	}
	if c.Kernel != "" {
		args = append(args, "-kernel", c.Kernel)
		if c.Initrd != "" {
			args = append(args, "-initrd", c.Initrd)
		}
		if c.Append != "" {
			args = append(args, "-append", c.Append)
		}
	}
	if m.rng {
		args = append(args, "-device", "virtio-rng")
	}
	net := "user,id=net"
	if !c.Network {
		net += ",restrict=on"
	}
	if c.SSH {
		net += ",hostfwd=tcp:127.0.0.1:0-:22" // the kernel picks a free port; QMP tells which
	}
	args = append(args, "-netdev", net, "-device", netDevice(c.Arch))
	if m.hasSMBIOS(c.Firmware) {
		for _, v := range smbiosStrings(c) {
			args = append(args, "-smbios", "type=11,value="+escape(v))
		}
	}
	return args
}

// netDevice is the network card. On PCI its boot ROM is left out: nothing is
// booted from the network, and the file may be in a package of its own.
func netDevice(arch string) string {
	if arch == "s390x" {
		return "virtio-net,netdev=net"
	}
	return "virtio-net,netdev=net,romfile="
}

// escape doubles the commas of a value in QEMU's lists of options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// smbiosStrings are the strings for SMBIOS type 11 that systemd reads as
// credentials. See systemd.system-credentials(7), systemd-creds(1).
func smbiosStrings(c Config) []string {
	creds := map[string]string{}
	for k, v := range c.Credentials {
		creds[k] = v
	}
	if c.AuthorizedKey != "" {
		if c.SSHUser == "root" {
			creds["ssh.authorized_keys.root"] = c.AuthorizedKey
		}
		creds["ssh.ephemeral-authorized_keys-all"] = c.AuthorizedKey
		creds["tmpfiles.extra"] = strings.TrimLeft(creds["tmpfiles.extra"]+"\n"+keyTmpfiles(c.SSHUser, c.AuthorizedKey), "\n")
	}
	names := make([]string, 0, len(creds))
	for k := range creds {
		names = append(names, k)
	}
	sort.Strings(names)
	var out []string
	for _, k := range names {
		out = append(out, "io.systemd.credential.binary:"+k+"="+base64.StdEncoding.EncodeToString([]byte(creds[k])))
	}
	return out
}

// keyTmpfiles are lines for systemd-tmpfiles that append a key to what a user's
// authorized_keys has. Base64 (the modifier ~) keeps the key from being taken
// for a pattern.
func keyTmpfiles(user, key string) string {
	home := filepath.Join("/home", user)
	if user == "root" {
		home = "/root"
	}
	dir := home + "/.ssh"
	file := dir + "/authorized_keys"
	b64 := base64.StdEncoding.EncodeToString([]byte("\n" + key + "\n"))
	lines := []string{"d " + dir + " 0700 " + user + " " + user + " -"}
	if user != "root" { // root's file is made from ssh.authorized_keys.root
		lines = append(lines, "f "+file+" 0600 "+user+" "+user+" -")
	}
	lines = append(lines, "w+~ "+file+" - - - - "+b64)
	return strings.Join(lines, "\n") + "\n"
}
