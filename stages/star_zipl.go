// org.osbuild-star.zipl.disk: a disk that s390x machines boot, by paths.
package stages

import (
	"fmt"
	"os"
	"path/filepath"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild-star.zipl.disk",
		Revision: 2,
		Summary:  "make a disk of s390x boot its kernel",
		Doc: `Runs zipl for a kernel and an initramfs that are named by their paths, which may be
links, as Debian has them.

    {"location": 2048, "cmdline": "root=UUID=76a22bf4-f153-4541-b6c7-0332c0dfaeac ro"}` + ziplNeeds,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["location"],
    "properties": {
      "location": {
        "type": "integer",
        "minimum": 1,
        "description": "first block on the disk of the partition that holds /boot"
      },
      "kernel": {
        "type": "string",
        "pattern": "^/",
        "description": "path of the kernel below the root of the mounts; by default /vmlinuz, and where there is no such link the one /boot/vmlinuz-VERSION"
      },
      "initrd": {
        "type": "string",
        "pattern": "^(/.*)?$",
        "default": "/initrd.img",
        "description": "path of its initramfs; empty: none"
      },
      "cmdline": {
        "type": "string",
        "default": "",
        "description": "the kernel's command line"
      },
      "blocksize": {
        "type": "integer",
        "enum": [512, 4096],
        "default": 512,
        "description": "bytes in a block of the disk"
      }
    }
  },
  ` + ziplParts + `
}`,
		Tools:   []string{"zipl"},
		InPlace: true,
		Run:     runStarZipl,
	})
}

func runStarZipl(c *Context) error {
	var o struct {
		Location  int64   `json:"location"`
		Kernel    string  `json:"kernel"`
		Initrd    *string `json:"initrd"`
		Cmdline   string  `json:"cmdline"`
		BlockSize int64   `json:"blocksize"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	job := ziplJob{kernel: o.Kernel, initrd: "/initrd.img", cmdline: o.Cmdline, location: o.Location, blocksize: 512}
	if job.kernel == "" {
		var err error
		if job.kernel, err = usualKernel(c); err != nil {
			return err
		}
	}
	if o.Initrd != nil {
		job.initrd = *o.Initrd
	}
	if o.BlockSize != 0 {
		job.blocksize = o.BlockSize
	}
	return zipl(c, job)
}

// usualKernel returns the path of the mounted system's kernel.
func usualKernel(c *Context) (string, error) {
	const link = "/vmlinuz"
	if _, err := os.Lstat(filepath.Join(c.Paths.Mounts, link)); err == nil {
		return link, nil
	}
	boot, err := c.ResolveLocation("mount:///boot", true)
	if err != nil {
		return "", err
	}
	names, err := filepath.Glob(filepath.Join(boot, "vmlinuz-*"))
	if err != nil {
		return "", err
	}
	if len(names) != 1 {
		return "", &Error{
			Msg:  fmt.Sprintf("the mounted system has no /vmlinuz, and %d files /boot/vmlinuz-VERSION", len(names)),
			Hint: `say which it is: kernel = "/boot/…"`,
		}
	}
	return "/boot/" + filepath.Base(names[0]), nil
}
