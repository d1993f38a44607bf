// The init of a small system: it says what it runs on, and looks like a login.
package main

import (
	"bytes"
	"os"
	"syscall"
	"time"
)

func main() {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		println(err.Error())
	}
	machine := make([]byte, 0, len(u.Machine))
	for _, c := range u.Machine {
		machine = append(machine, byte(c))
	}
	if err := os.Mkdir("/proc", 0o755); err != nil {
		println(err.Error())
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		println(err.Error())
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		println(err.Error())
	}
	os.Stdout.WriteString("\nmachine " + string(bytes.TrimRight(machine, "\x00")) + "\ncmdline " + string(cmdline) + "\nsmall login: ")
	for {
		time.Sleep(time.Hour)
	}
}
