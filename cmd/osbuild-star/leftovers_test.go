// What builds could leave on the machine: mounts, loop devices, mount points. Other
// programs work here at the same time, and so do other scripts: only what is new,
// stays, and belongs to nobody who lives is a leftover.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// leftovers is what there was.
type leftovers struct {
	mounts, loops, dirs map[string]bool
}

func snapshot() *leftovers {
	return &leftovers{mounts: mounts(), loops: loops(), dirs: runDirs()}
}

// check tells of what is there since, as errors. Mounts below work are told at
// once; for the rest, somebody else may need a moment.
func (l *leftovers) check(t interface{ Errorf(string, ...any) }, work string) {
	for m := range mounts() {
		if !l.mounts[m] || work != "" && strings.Contains(m, work) {
			t.Errorf("a mount is left: %s", m)
		}
	}
	gone := func(kind string, now func() map[string]bool, before map[string]bool) {
		var left []string
		first := true
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			there := now()
			if first {
				for x := range there {
					if !before[x] {
						left = append(left, x)
					}
				}
				first = false
			}
			left = slices.DeleteFunc(left, func(x string) bool { return !there[x] })
			if len(left) == 0 {
				return
			}
		}
		for _, x := range left {
			t.Errorf("%s is left: %s", kind, x)
		}
	}
	gone("a loop device", loops, l.loops)
	gone("a directory", runDirs, l.dirs)
}

// mounts are those of this process's namespace that could be of a build.
func mounts() map[string]bool {
	out := map[string]bool{}
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "osbuild-star") || strings.Contains(line, "go-test-script") {
			out[strings.TrimSpace(line)] = true
		}
	}
	return out
}

// loops are the loop devices in use, with what they stand for.
func loops() map[string]bool {
	out := map[string]bool{}
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range names {
		dev := "/dev/" + strings.Split(name, "/")[3]
		f, err := os.Open(dev)
		if err != nil {
			continue
		}
		if st, err := unix.IoctlLoopGetStatus64(int(f.Fd())); err == nil {
			out[fmt.Sprintf("%s of file %d on device %d, from %d", dev, st.Inode, st.Device, st.Offset)] = true
		}
		f.Close()
	}
	return out
}

// runDirs are the directories for mount points that no living process holds. Who
// holds a lock is read from the kernel's list: to try would disturb others.
func runDirs() map[string]bool {
	out := map[string]bool{}
	dirs, _ := filepath.Glob("/run/osbuild-star/osbuild-star-run.*")
	locks, _ := os.ReadFile("/proc/locks")
	for _, d := range dirs {
		var st unix.Stat_t
		if unix.Lstat(d, &st) != nil {
			continue
		}
		inode := fmt.Sprintf("%02x:%02x:%d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
		if !strings.Contains(string(locks), inode) {
			out[d] = true
		}
	}
	return out
}

// processesWith finds the processes whose command line has the text.
func processesWith(text string) []string {
	var out []string
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(b), text) {
			out = append(out, strings.Split(name, "/")[2]+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}

// cgroupsWith finds the control groups whose name has the text.
func cgroupsWith(text string) []string {
	var out []string
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), text) {
			out = append(out, p)
		}
		return nil
	})
	return out
}

// cgroupProcesses are the processes in the control groups whose name has the text.
func cgroupProcesses(text string) []string {
	var out []string
	for _, g := range cgroupsWith(text) {
		filepath.WalkDir(g, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				b, _ := os.ReadFile(p)
				out = append(out, strings.Fields(string(b))...)
			}
			return nil
		})
	}
	return out
}
