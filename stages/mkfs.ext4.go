// org.osbuild.mkfs.ext4: an empty ext4 file system on a device.
package stages

import (
	"fmt"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.mkfs.ext4",
		Revision: 2,
		Summary:  "make an empty ext4 file system on a device",
		Doc: `Runs mkfs.ext4(8) on the device. What is not set is as mke2fs.conf of the build
root has it. With a source epoch, the times and the directory hash seed of the file
system are fixed, so that each build makes the same bytes.

    {"uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "label": "root"}

To put a tree into a file system without a device and without a mount, see
org.osbuild-star.ext4.`,
		Schema: `{
  "devices": ` + deviceSchema + `,
  "options": {
    "additionalProperties": false,
    "required": ["uuid"],
    "properties": {
      "uuid": {
        "type": "string",
        "description": "UUID of the file system; also clear, random or time"
      },
      "label": {
        "type": "string",
        "maxLength": 16,
        "description": "volume label"
      },
      "lazy_init": {
        "type": "boolean",
        "description": "leave inode tables and journal to be zeroed by the kernel after the first mount (true), or zero them now (false)"
      },
      "metadata_csum_seed": {
        "type": "boolean",
        "description": "keep the seed of checksums in the superblock, so that the UUID can be changed while mounted"
      },
      "orphan_file": {
        "type": "boolean",
        "description": "keep orphaned inodes in a file of their own (Linux 5.15)"
      },
      "verity": {
        "type": "boolean",
        "description": "allow files with fs-verity"
      }
    }
  }
}`,
		Tools:   []string{"mkfs.ext4"},
		Reads:   mkfsExt4Reads,
		InPlace: true,
		Run:     runMkfsExt4,
	})
}

// mkfsExt4Reads is what mkfs.ext4 takes its defaults from.
func mkfsExt4Reads(map[string]any) []string { return []string{"/etc/mke2fs.conf"} }

func runMkfsExt4(c *Context) error {
	var o struct {
		UUID         string `json:"uuid"`
		Label        string `json:"label"`
		LazyInit     *bool  `json:"lazy_init"`
		Verity       *bool  `json:"verity"`
		OrphanFile   *bool  `json:"orphan_file"`
		ChecksumSeed *bool  `json:"metadata_csum_seed"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	dev, err := devicePath(c, "device")
	if err != nil {
		return err
	}
	args := []string{"-U", o.UUID}
	if o.Label != "" {
		args = append(args, "-L", o.Label)
	}
	// mke2fs takes the last -E only: all of them go into one.
	var extended []string
	if o.LazyInit != nil {
		n := 0
		if *o.LazyInit {
			n = 1
		}
		extended = append(extended, fmt.Sprintf("lazy_itable_init=%d,lazy_journal_init=%d", n, n))
	}
	// Else it is drawn at random, and no two builds are alike.
	extended = append(extended, "hash_seed="+o.UUID)
	args = append(args, "-E", strings.Join(extended, ","))
	for _, f := range []struct {
		name string
		on   *bool
	}{{"verity", o.Verity}, {"orphan_file", o.OrphanFile}, {"metadata_csum_seed", o.ChecksumSeed}} {
		switch {
		case f.on == nil:
		case *f.on:
			args = append(args, "-O", f.name)
		default:
			args = append(args, "-O", "^"+f.name)
		}
	}
	return runEnv(c, ext4Environ(c), "mkfs.ext4", append(args, dev)...)
}

// ext4Environ is the environment in which e2fsprogs write the source epoch as the
// time of everything.
func ext4Environ(c *Context) []string {
	if c.Meta.SourceEpoch == nil {
		return environ(c)
	}
	// 0 would mean that there is no fake time.
	return environ(c, fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", max(*c.Meta.SourceEpoch, 1)))
}
