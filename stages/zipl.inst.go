// org.osbuild.zipl.inst: a disk that s390x machines boot, by an entry of the boot loader.
package stages

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const ziplNeeds = `

The build root has to be of s390x, and zipl in it: it makes nodes of the disk for itself,
and only such a build root lets it. The device "disk" is the whole disk, the mounts are
those of the system on it, since zipl writes down which blocks of the disk the kernel
and the initramfs are in: they must not be moved afterwards.`

func init() {
	Register(&Stage{
		Name:     "org.osbuild.zipl.inst",
		Revision: 2,
		Summary:  "make a disk of s390x boot one of its kernels, by an entry of the boot loader",
		Doc: `Runs zipl for the kernel that an entry in /boot/loader/entries of the mounts has as its
version; entries whose file names end in "rescue" are passed over. Paths of the entry are
those below the root of the mounts, its options become the kernel's command line.

    {"kernel": "6.1.0-13-s390x", "location": 2048}` + ziplNeeds,
		Schema: `{
  "options": {
    "additionalProperties": false,
    "required": ["kernel", "location"],
    "properties": {
      "kernel": {
        "type": "string",
        "description": "the version that the entry has"
      },
      "location": {
        "type": "number",
        "description": "first block on the disk of the partition that holds /boot"
      },
      "kernel_opts_append": {
        "type": "array",
        "description": "words for the kernel's command line, after those of the entry",
        "items": {"type": "string", "description": "one word"}
      },
      "blocksize": {
        "type": "number",
        "default": 512,
        "description": "bytes in a block of the disk"
      }
    }
  },
  ` + ziplParts + `
}`,
		Tools:   []string{"zipl"},
		InPlace: true,
		Run:     runZiplInst,
	})
}

// ziplParts are the devices and mounts of both.
const ziplParts = `"devices": {
    "type": "object",
    "additionalProperties": true,
    "required": ["disk"],
    "properties": {
      "disk": {
        "type": "object",
        "additionalProperties": true,
        "description": "the whole disk"
      }
    }
  },
  "mounts": {
    "type": "array",
    "minItems": 1
  }`

// ziplJob is what zipl is called for. Paths are those of the system on the disk.
type ziplJob struct {
	kernel, initrd      string
	cmdline             string
	location, blocksize int64
}

func runZiplInst(c *Context) error {
	var o struct {
		Kernel    string      `json:"kernel"`
		Location  json.Number `json:"location"`
		Append    []string    `json:"kernel_opts_append"`
		BlockSize json.Number `json:"blocksize"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	job := ziplJob{blocksize: 512}
	var err error
	if job.location, err = integer("location", o.Location); err != nil {
		return err
	}
	if o.BlockSize != "" {
		if job.blocksize, err = integer("blocksize", o.BlockSize); err != nil {
			return err
		}
	}
	entry, err := findBLS(c, o.Kernel)
	if err != nil {
		return err
	}
	job.kernel, job.initrd, job.cmdline = entry["linux"], entry["initrd"], entry["options"]
	if len(o.Append) > 0 {
		job.cmdline += " " + strings.Join(o.Append, " ")
	}
	return zipl(c, job)
}

// zipl runs the program.
func zipl(c *Context, job ziplJob) error {
	disk, err := devicePath(c, "disk")
	if err != nil {
		return err
	}
	args := []string{"--verbose", "--target", filepath.Join(c.Paths.Mounts, "boot")}
	for _, f := range []struct{ flag, path string }{{"--image", job.kernel}, {"--ramdisk", job.initrd}} {
		if f.path == "" {
			continue
		}
		at, err := c.ResolveLocation("mount://"+path.Clean("/"+f.path), true)
		if err != nil {
			return err
		}
		if st, err := os.Stat(at); err != nil || !st.Mode().IsRegular() {
			return &Error{
				Msg:  fmt.Sprintf("%s is not a file of the mounted system", f.path),
				Hint: "the mounts have to be those of a system with a kernel and its initramfs, its root at /",
			}
		}
		args = append(args, f.flag, at)
	}
	args = append(args,
		"--parameters", job.cmdline,
		"--targetbase", disk, "--targettype", "SCSI",
		"--targetblocksize", strconv.FormatInt(job.blocksize, 10),
		"--targetoffset", strconv.FormatInt(job.location, 10))
	return onOneCPU(func() error { return c.Run("zipl", args...) })
}

// onOneCPU calls f so that programs which it starts run on one processor. ext4 keeps
// blocks aside for small files on each: which ones a file gets would depend on where its
// writer happens to run.
func onOneCPU(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("asking for the processors: %w", err)
	}
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("choosing a processor: %w", err)
	}
	err := f()
	return errors.Join(err, unix.SchedSetaffinity(0, &all))
}

// findBLS returns the fields of the boot loader's entry with a version.
func findBLS(c *Context, version string) (map[string]string, error) {
	dir, err := c.ResolveLocation("mount:///boot/loader/entries", true)
	if err != nil {
		return nil, err
	}
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var have []string
	for _, n := range names {
		name, ok := strings.CutSuffix(n.Name(), ".conf")
		if !ok || name == "" || strings.HasSuffix(name, "rescue") {
			continue
		}
		entry, err := readBLS(filepath.Join(dir, n.Name()))
		if err != nil {
			return nil, err
		}
		needs := []string{"version"}
		if v, ok := entry["version"]; ok && v != version {
			have = append(have, v)
			continue
		}
		needs = append(needs, "linux", "initrd")
		for _, key := range needs {
			if _, ok := entry[key]; !ok {
				return nil, Errorf("/boot/loader/entries/%s: there is no %q", n.Name(), key)
			}
		}
		return entry, nil
	}
	if len(have) == 0 {
		return nil, &Error{
			Msg:  fmt.Sprintf("there is no entry of the boot loader for kernel %q: /boot/loader/entries has none", version),
			Hint: "where packages of kernels write none, as Debian's, use org.osbuild-star.zipl.disk",
		}
	}
	return nil, &Error{
		Msg:  fmt.Sprintf("there is no entry of the boot loader for kernel %q", version),
		Hint: "there are " + strings.Join(have, ", "),
	}
}

// readBLS reads an entry: on each line a key, one space and a value.
func readBLS(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	entry := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, " ")
		if !ok {
			return nil, Errorf("/boot/loader/entries/%s: %q is not a key and a value", filepath.Base(file), strings.TrimSpace(line))
		}
		entry[key] = strings.TrimSpace(value)
	}
	return entry, nil
}
