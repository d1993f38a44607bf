// Command guest is the init of the machines that the tests of package vm start:
// it is the whole user space, together with a busybox. What it plays is on the
// kernel command line, as guest=MODE; see the switch in main.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	powerOff = 0x4321fedc // LINUX_REBOOT_CMD_POWER_OFF
	restart  = 0x01234567 // LINUX_REBOOT_CMD_RESTART
	keyPower = 116        // KEY_POWER
)

func main() {
	for _, m := range [][3]string{{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"dev", "/dev", "devtmpfs"}, {"tmp", "/tmp", "tmpfs"}} {
		os.MkdirAll(m[1], 0o755)
		syscall.Mount(m[0], m[1], m[2], 0, "")
	}
	os.Chmod("/tmp", 0o1777)
	os.MkdirAll("/run/systemd/system", 0o755)
	tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return // the kernel panics: init ended
	}
	switch m := mode(); m {
	case "panic":
		fmt.Fprint(tty, "the last words of init\n")
		return
	case "emergency":
		fmt.Fprint(tty, "You are in emergency mode. After logging in, type \"journalctl -xb\" to view\n"+
			"system logs.\nCannot open access to console, the root account is locked.\n")
		select {}
	case "poweroff":
		syscall.Reboot(powerOff)
	case "reboot":
		syscall.Reboot(restart)
	case "silent":
		time.Sleep(time.Hour)
	default:
		go powerButton()
		if m == "noise" { // kernel messages of a level that nobody but root can turn off
			os.WriteFile("/proc/sys/kernel/printk", []byte("8"), 0)
			go func() {
				for i := 0; ; i++ {
					os.WriteFile("/dev/kmsg", []byte(fmt.Sprintf("<4>noise: message %d of the kernel\n", i)), 0)
					time.Sleep(7 * time.Millisecond)
				}
			}()
		}
		getty(tty, m)
	}
}

func mode() string {
	data, _ := os.ReadFile("/proc/cmdline")
	for _, w := range strings.Fields(string(data)) {
		if v, ok := strings.CutPrefix(w, "guest="); ok {
			return v
		}
	}
	return ""
}

// getty prompts, asks for a password and starts a shell, for ever. root and
// user have the password "secret".
func getty(tty *os.File, mode string) {
	in := bufio.NewReader(tty)
	if mode == "auto" {
		fmt.Fprint(tty, "\nguest login: root (automatic login)\n\n")
		shell(tty, "root")
	}
	for n := 0; ; n++ {
		if n == 0 && mode == "split" { // a kernel message in the prompt
			fmt.Fprint(tty, "\nguest lo[    1.234567] random: crng init done\r\ngin: ")
		} else {
			fmt.Fprint(tty, "\nThe test guest\n\nguest login: ")
		}
		name, err := in.ReadString('\n')
		if err != nil {
			return
		}
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		fmt.Fprint(tty, "Password: ")
		echo(tty, false)
		password, err := in.ReadString('\n')
		echo(tty, true)
		if err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond) // login takes its time, too
		if name != "root" && name != "user" || strings.TrimSpace(password) != "secret" {
			fmt.Fprint(tty, "\n\nLogin incorrect\n")
			continue
		}
		fmt.Fprint(tty, "\nLast login: Thu Jan  1 00:00:00 on ttyS0\nWelcome: today's message says:\n")
		shell(tty, name)
	}
}

func shell(tty *os.File, user string) {
	cmd := exec.Command("/bin/sh")
	cmd.Args[0] = "-sh"
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/bin", "HOME=/", "TERM=linux", "PS1=\x1b[1m" + user + "@guest\x1b[0m# "}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if user != "root" {
		os.Chown("/dev/ttyS0", 1000, 1000)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 1000, Gid: 1000}
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(tty, "shell: %v\n", err)
	}
}

func echo(tty *os.File, on bool) {
	var t syscall.Termios
	syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&t)))
	if on {
		t.Lflag |= syscall.ECHO
	} else {
		t.Lflag &^= syscall.ECHO
	}
	syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), syscall.TCSETS, uintptr(unsafe.Pointer(&t)))
}

// powerButton switches the machine off when its button is pressed.
func powerButton() {
	for _, m := range []string{"/modules/button.ko", "/modules/evdev.ko"} {
		if f, err := os.Open(m); err == nil {
			var none [1]byte
			syscall.Syscall(313 /* finit_module */, f.Fd(), uintptr(unsafe.Pointer(&none)), 0)
			f.Close()
		}
	}
	time.Sleep(100 * time.Millisecond)
	events, _ := filepath.Glob("/dev/input/event*")
	for _, e := range events {
		go func() {
			f, err := os.Open(e)
			if err != nil {
				return
			}
			var ev [24]byte // struct input_event on a 64-bit machine
			for {
				if _, err := io.ReadFull(f, ev[:]); err != nil {
					return
				}
				if binary.LittleEndian.Uint16(ev[18:]) == keyPower {
					os.WriteFile("/dev/kmsg", []byte("<0>guest: powering off as told\n"), 0)
					syscall.Reboot(powerOff)
				}
			}
		}()
	}
}
