// capset(2) for every thread of the process.
package agent

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

func setCaps(set uint64) error {
	hdr, data := capData(set)
	if err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// capData is what capset(2) takes for a permitted and effective set, and nothing
// that is inherited.
func capData(set uint64) (hdr unix.CapUserHeader, data [2]unix.CapUserData) {
	hdr.Version = unix.LINUX_CAPABILITY_VERSION_3
	for i := range data {
		half := uint32(set >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	return hdr, data
}
