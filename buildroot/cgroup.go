// Control groups: a container is in groups of its own, which say what devices it
// may use, and which are removed with it.
package buildroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupPrefix = "osbuild-star."

// cgroups are the groups of one container.
type cgroups struct {
	dirs    []string // removed in the end
	join    []string // the one of each hierarchy that the container is in
	devices deviceFilter
}

// newCgroups makes groups below those that this process is in, one in each
// hierarchy that a container needs: the unified one and systemd's (nspawn makes
// groups of its own there) and that of the devices controller. Devices are limited by
// that controller where it is there, or with bpf not asked of it, and else by a
// program on the unified group.
func newCgroups(name string, bpf bool) (_ *cgroups, err error) {
	parents, err := cgroupParents()
	if err != nil {
		return nil, err
	}
	c := &cgroups{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove())
		}
	}()
	var v1, v2 string
	for _, p := range parents {
		sweepCgroups(p.dir)
		dir := filepath.Join(p.dir, cgroupPrefix+strconv.Itoa(os.Getpid())+"."+name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making a cgroup: %w", err)
		}
		c.dirs = append(c.dirs, dir)
		switch p.controllers {
		case "devices":
			v1 = dir
		case "":
			v2 = dir
		}
	}
	c.join = slices.Clone(c.dirs)
	switch {
	case v1 != "" && (!bpf || v2 == ""):
		c.devices, err = newV1Filter(v1)
		c.join[slices.Index(c.join, v1)] = filepath.Join(v1, v1Inner)
	case v2 != "":
		c.devices, err = newBPFFilter(v2)
	default:
		err = errors.New("limiting devices: there is neither cgroup v2 nor the devices controller of v1")
	}
	if err != nil {
		return nil, err
	}
	for d, a := range baseDevices {
		if err := c.devices.allow(d, a); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// cgroupParent is a group that this process is in.
type cgroupParent struct {
	controllers string // as /proc/self/cgroup has them, "" for the unified hierarchy
	dir         string
}

// cgroupParents are those groups in the hierarchies that containers get groups in.
func cgroupParents() ([]cgroupParent, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	var out []cgroupParent
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		root, ok := mounts[f[1]]
		if ok && (f[1] == "" || f[1] == "devices" || f[1] == "name=systemd") {
			out = append(out, cgroupParent{f[1], filepath.Join(root, f[2])})
		}
	}
	return out, nil
}

// allow lets the container read and write one block device, and make nodes of it
// where that is needed; deny takes it back.
func (c *cgroups) allow(major, minor uint32, mknod bool) error {
	a := accRead | accWrite
	if mknod {
		a |= accMknod
	}
	return c.devices.allow(device{block: true, major: major, minor: minor}, a)
}

func (c *cgroups) deny(major, minor uint32) {
	// A container that is gone has nothing to be denied.
	_ = c.devices.deny(device{block: true, major: major, minor: minor})
}

// kill ends every process in the groups.
func (c *cgroups) kill() {
	for _, dir := range c.dirs {
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			b, _ := os.ReadFile(p)
			for _, s := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(s); err == nil && pid > 1 && pid != os.Getpid() {
					unix.Kill(pid, unix.SIGKILL)
				}
			}
			return nil
		})
	}
}

// remove removes the groups and those that nspawn made below them; a group can be
// busy for a moment after its last process is gone.
func (c *cgroups) remove() error {
	var errs []error
	if c.devices != nil {
		errs = append(errs, c.devices.close())
	}
	for _, dir := range c.dirs {
		var err error
		for range 200 {
			if err = removeCgroup(dir); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("removing a cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	ents, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range ents {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	err = os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sweepCgroups removes the groups of processes that are gone.
func sweepCgroups(parent string) {
	ents, _ := os.ReadDir(parent)
	for _, e := range ents {
		rest, ok := strings.CutPrefix(e.Name(), cgroupPrefix)
		if !ok || !e.IsDir() {
			continue
		}
		pid, _, _ := strings.Cut(rest, ".")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			// Its container can be dying still.
			c := &cgroups{dirs: []string{filepath.Join(parent, e.Name())}}
			c.kill()
			_ = c.remove()
		}
	}
}

// cgroupMounts finds where each hierarchy is mounted: by its controllers as
// /proc/self/cgroup names them, "" for the unified one.
func cgroupMounts() (map[string]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		pre, post, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(pre), strings.Fields(post)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		switch g[0] {
		case "cgroup2":
			out[""] = f[4]
		case "cgroup":
			for _, o := range strings.Split(g[2], ",") {
				if o == "devices" || o == "name=systemd" {
					out[o] = f[4]
				}
			}
		}
	}
	return out, nil
}
