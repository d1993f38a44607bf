// The entry of the tests: the helper that is killed, and the check that nothing
// is left.

package vm

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// cleanups are called at the end of the run.
var cleanups []func()

func TestMain(m *testing.M) {
	if os.Getenv("VM_TEST_HELPER") != "" {
		helper()
		return
	}
	code := m.Run()
	for _, f := range cleanups {
		f()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// helper is the process that TestKilled kills: it starts a machine, says which
// process QEMU is, and waits.
func helper() {
	m, err := Start(context.Background(), Config{
		Kernel: os.Getenv("VM_TEST_KERNEL"), Initrd: os.Getenv("VM_TEST_INITRD"), Append: "console=ttyS0",
		Disk: os.Getenv("VM_TEST_DISK"), Format: "raw", Firmware: "bios", Memory: 256, CPUs: 1, Accel: "tcg", SSH: true,
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("pid", m.cmd.Process.Pid)
	select {}
}
