// How a container starts: in its cgroups, before its first instruction.
package agent

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// launchMain joins the cgroups whose directories are named before "--" and becomes
// the program after it.
func launchMain(args []string) int {
	for len(args) > 0 && args[0] != "--" {
		if err := joinCgroup(args[0]); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			return 125
		}
		args = args[1:]
	}
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "agent: launch: no program")
		return 125
	}
	err := unix.Exec(args[1], args[1:], os.Environ())
	fmt.Fprintf(os.Stderr, "agent: starting %s: %v\n", args[1], err)
	return 127
}

// joinCgroup moves this process, "0" in every pid namespace, into a group.
func joinCgroup(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("joining a cgroup: %w", err)
	}
	return nil
}
