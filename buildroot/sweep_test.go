// What build roots of killed processes leave, and who removes it.
package buildroot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/osbuild-star/osbuild-star/internal/scratch"
)

func TestSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	vardir := t.TempDir()
	alive, err := scratch.New(vardir, varPrefix)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	parents, err := cgroupParents()
	if err != nil || len(parents) == 0 {
		t.Fatalf("groups of this process: %v, %v", parents, err)
	}
	group := func(pid int) string {
		return filepath.Join(parents[0].dir, fmt.Sprintf("%s%d.sweep", cgroupPrefix, pid))
	}
	machine := func(pid int) string {
		return filepath.Join(nspawnDir, "propagate", fmt.Sprintf("%s%d-sweep", machinePrefix, pid))
	}
	left := []string{filepath.Join(vardir, varPrefix+"dead"), group(dead.Process.Pid), machine(dead.Process.Pid)}
	kept := []string{alive.Path, group(os.Getpid()), machine(os.Getpid()), filepath.Join(vardir, "other")}
	for _, dir := range append(left, kept[1:]...) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
	}
	Sweep(vardir)
	for _, dir := range left {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
	for _, dir := range kept {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("somebody's directory was removed: %v", err)
		}
	}
}
