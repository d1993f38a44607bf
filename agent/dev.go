// The /dev of a stage: the container's nodes, and nothing that another stage left
// or sees.
package agent

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// arrangeDev lays a view of its own over /dev, with pseudo terminals, shared memory
// and message queues that belong to the stage alone. Without it the places that
// devices are attached at would stay behind, and a stage that removes one would
// take the device away from another.
func arrangeDev() error {
	if err := view("/dev", "/dev", runDir+"/.dev"); err != nil {
		return err
	}
	for _, m := range []struct {
		fstype, target, data string
		flags                uintptr
	}{
		{"devpts", "/dev/pts", "newinstance,mode=620,ptmxmode=666,gid=5", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"mqueue", "/dev/mqueue", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	} {
		if err := unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return nil
}
