// Mounts of jobs while containers start.
package buildroot

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
)

// The directory that took the changes of one job is the layer below the next. The
// kernel refuses that for as long as anybody has the mount that wrote to it, and a
// container that starts has a copy of every mount of its Space for a moment.
func TestJobsDoNotWaitForStarts(t *testing.T) { eachSandbox(t, testJobsDoNotWaitForStarts) }

func testJobsDoNotWaitForStarts(t *testing.T, sandbox string) {
	under, b := openHost(t, sandbox)
	jobs, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer jobs.Close()
	b.cfg.Jobs = jobs
	var stop atomic.Bool
	started := make(chan error, 1)
	go func() {
		var err error
		for !stop.Load() && err == nil {
			var other *BuildRoot
			if other, err = Open(context.Background(), Config{
				Sandbox: sandbox, Space: under, Jobs: jobs, Tree: "/", Runner: "org.osbuild.linux", Work: b.cfg.Work, Var: b.cfg.Var,
			}); err == nil {
				err = other.Close()
			}
		}
		started <- err
	}()
	dir := t.TempDir()
	lower := []string{filepath.Join(dir, "0")}
	if err := os.Mkdir(lower[0], 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		name := strconv.Itoa(i + 1)
		o := Overlay{Lower: lower, Upper: filepath.Join(dir, name), Work: filepath.Join(dir, "work-"+name)}
		target := filepath.Join(dir, "tree-"+name)
		for _, d := range []string{o.Upper, o.Work, target} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := jobs.Do(func() error { return MountTree(dir, o, target) }); err != nil {
			t.Fatalf("mount %d: %v", i, err)
		}
		if _, res := sh(t, b, "touch /run/osbuild/tree/f"+name, Mount{Path: target, Target: "/run/osbuild/tree"}); res.Status != 0 {
			t.Fatal("the job failed")
		}
		if err := jobs.Do(func() error { return Unmount(target) }); err != nil {
			t.Fatal(err)
		}
		lower = append(lower, o.Upper)
	}
	stop.Store(true)
	if err := <-started; err != nil {
		t.Error(err)
	}
}
