// What a stage costs in a build root that is warm, beside what the kernel takes for
// the same namespaces around nothing.
package buildroot

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkNoop is one org.osbuild.noop stage on a tree of the host, in each
// sandbox; "true" in the same run is /bin/true, started in new namespaces of the same kinds and waited for.
// Compare the two: both depend on the machine and on what else it does. ns/op is what
// passes; CPU-ms/op is what both sides take of all processors, the starting of the
// worker for the next stage too.
func BenchmarkNoop(b *testing.B) {
	for _, sandbox := range []string{SandboxNspawn, SandboxNative} {
		b.Run(sandbox, func(b *testing.B) {
			_, br := openHost(b, sandbox)
			job := Job{
				Native: "org.osbuild.noop", Arguments: json.RawMessage(`{"tree":"/run/osbuild/tree","options":{}}`),
				Mounts: []Mount{{Path: b.TempDir(), Target: "/run/osbuild/tree"}},
			}
			run := func() {
				res, err := br.Run(context.Background(), job)
				if err != nil || res.Err != nil || res.Status != 0 {
					b.Fatal(err, res)
				}
			}
			run() // not the start of the container
			before := cpu(b, br)
			for b.Loop() {
				run()
			}
			b.ReportMetric((cpu(b, br)-before)/float64(b.N), "CPU-ms/op")
		})
	}
	b.Run("true", func(b *testing.B) {
		if os.Geteuid() != 0 {
			b.Skip("needs root")
		}
		before := cpu(b, nil)
		for b.Loop() {
			cmd := exec.Command("/bin/true")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((cpu(b, nil)-before)/float64(b.N), "CPU-ms/op")
	})
}

// cpu is the time, in ms, that this process, its children that ended, and the
// processes of a build root have taken.
func cpu(b *testing.B, br *BuildRoot) float64 {
	b.Helper()
	sum := 0.0
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err != nil {
			b.Fatal(err)
		}
		sum += float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e6
	}
	if br == nil {
		return sum
	}
	for _, dir := range br.cg.dirs { // the unified one has it
		text, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
		if err != nil {
			continue
		}
		var usec float64
		if _, err := fmt.Sscanf(string(text), "usage_usec %g", &usec); err != nil {
			b.Fatal(err)
		}
		return sum + usec/1e3
	}
	b.Skip("no cgroup v2")
	return 0
}
