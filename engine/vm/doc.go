// The package comment: what a user of `boot` and `test` has to know.

// Package vm starts disk images in QEMU. It is what stands behind
// `osbuild-star boot` (a machine on this terminal, or an ssh session in it) and
// `osbuild-star test` and image_test (a machine without a face, watched over
// its serial console).
//
// # What the machine looks like
//
// One disk, on virtio; one serial port, which is the console; a network card
// with a DHCP server behind it; a source of entropy; 1024 MiB and up to two
// processors. There is no screen: an image shows itself only if its kernel
// command line has the serial port of its architecture as a console
// (console=ttyS0 on x86_64, ttyAMA0 on aarch64, ttysclp0 on s390x, hvc0 on
// ppc64le). On x86_64 with BIOS, what the firmware and a boot loader write to
// the screen is copied to the serial port, so that GRUB is seen even if it was
// not told of it.
//
// The image is not written to: all writes go to a temporary overlay (in $TMPDIR
// or /var/tmp) that is gone with the machine, unless [Config.Persist] is set.
// The network card reaches nothing but the DHCP server, no host and no Internet,
// unless [Config.Network] is set.
//
// # KVM or TCG
//
// With Accel "auto" KVM is used where the architecture is the host's and
// /dev/kvm can be opened. A guest that has not written a byte after
// [KVMPatience], or whose QEMU gives up, is started again under TCG (emulation;
// everything works, some ten times slower), and the verdict is remembered until
// the next boot of the host: in $XDG_RUNTIME_DIR/osbuild-star, for root in
// /run/osbuild-star. The environment variable OSBUILD_STAR_ACCEL=kvm|tcg|auto
// wins over everything else; with "kvm" and "tcg" nothing is tried twice.
//
// # Booting on a terminal
//
// [Interactive] puts the terminal in raw mode: every key goes to the guest,
// except those that follow Ctrl-A: Ctrl-A x ends the machine at once, Ctrl-A p
// presses its power button, Ctrl-A Ctrl-A (or Ctrl-A a) sends a Ctrl-A, Ctrl-A h
// shows this list. It ends too when the guest powers itself off. The terminal
// is put back as it was in every case, a killed (-9) process excepted: then
// `reset` helps.
//
// # Logging in by ssh
//
// [SSH] forwards a free port of 127.0.0.1 to the guest's port 22, waits until an
// ssh server answers and runs the host's ssh client with a key made for this
// session alone; known_hosts, agent and configuration of the user play no part.
// The public key is handed to the guest as systemd credentials in the SMBIOS
// tables (type 11): ssh.authorized_keys.root and tmpfiles.extra (systemd 252
// and later: Debian 12, Fedora 37, RHEL 9.2 and their successors) and
// ssh.ephemeral-authorized_keys-all (256 and later). Debian 12, its cloud kernel
// included, reads them: the kernel has DMI_SYSFS built in. So root, and any user
// whose home is /home/NAME, can log in if the guest's sshd lets them, which
// Debian's does. The guest's own authorized_keys stay valid; the key is appended.
// Where this cannot work (an older systemd, another init, s390x and ppc64le, which
// have no SMBIOS), name a key the image knows with [SSHOptions.Identity]. With
// Persist set no key is handed over, because it would stay in the image: an
// identity is needed then.
//
// # Testing
//
// [Test] waits for a login prompt, logs in, waits for the system to be
// "running", and runs commands. Over the console this needs a user and a
// password and a POSIX /bin/sh; with [TestSpec.OverSSH] it needs what the section
// above says. A kernel panic, an emergency or initramfs shell, a boot loader's
// rescue prompt, a firmware that finds nothing to boot and a machine that
// switches itself off end the test at once: see [Failure].
//
// While a session is open on the console, kernel messages below KERN_EMERG and
// the status lines of systemd are kept off the console (/proc/sys/kernel/printk
// and SIGRTMIN+21 to PID 1) when the user is root; of those that come
// nevertheless the output of commands is cleaned.
//
// # Nothing left behind
//
// There are no socket files, no port that is picked in advance, no temporary
// files: the console and the monitor of QEMU are socket pairs, UEFI variables
// and ssh keys are in anonymous memory, the overlay has no name. QEMU gets
// SIGKILL from the kernel when the process that started it ends, however it
// ends.
package vm
