// org.osbuild.grub2.inst: GRUB's core image in a disk image, for machines that boot
// without UEFI.
package stages

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.grub2.inst",
		Revision: 1,
		Summary:  "install GRUB into a disk image, for BIOS and Open Firmware",
		Doc: `Makes GRUB's core image with grub2-mkimage (grub-mkimage where that is the name) and
writes it to "location": the start of a BIOS boot partition or of a PReP partition, or the
gap before the first partition. For i386-pc it also writes GRUB's boot image to the first
sector, beside the partition table. Without a location the file is the core image itself.

    {"filename": "disk.img", "platform": "i386-pc", "location": 2048,
     "core": {"type": "mkimage", "partlabel": "gpt", "filesystem": "ext4"},
     "prefix": {"type": "partition", "partlabel": "gpt", "number": 1, "path": "/boot/grub2"}}

The core image can read the partition table and the file system, and no more: GRUB's
modules have to be at the prefix (org.osbuild.grub2 with "legacy" puts them there). For
an image that needs no modules see org.osbuild-star.grub.bios.`,
		Schema: `{
  "options": {
    "additionalProperties": false,
    "required": ["filename", "platform", "core", "prefix"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the disk image in the tree"
      },
      "platform": {
        "type": "string",
        "description": "GRUB's platform: i386-pc or powerpc-ieee1275"
      },
      "location": {
        "type": "integer",
        "description": "sector that the core image begins at"
      },
      "core": {
        "description": "how the core image is made",
        "oneOf": [
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["type", "partlabel", "filesystem"],
            "description": "with grub-mkimage",
            "properties": {
              "type": {"enum": ["mkimage"], "description": "mkimage"},
              "partlabel": {
                "type": "string",
                "enum": ["gpt", "dos"],
                "description": "kind of partition table"
              },
              "filesystem": {
                "type": "string",
                "enum": ["ext4", "xfs", "btrfs", "iso9660"],
                "description": "file system that GRUB's directory is on"
              },
              "binary": {
                "type": "string",
                "default": "grub2-mkimage",
                "description": "name of the program; where the build root has no such, grub2-mkimage and grub-mkimage are tried"
              }
            }
          }
        ]
      },
      "prefix": {
        "description": "where GRUB's directory is",
        "oneOf": [
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["type", "partlabel", "number", "path"],
            "description": "on a partition",
            "properties": {
              "type": {"enum": ["partition"], "description": "partition"},
              "partlabel": {
                "type": "string",
                "enum": ["gpt", "dos"],
                "description": "kind of partition table"
              },
              "number": {
                "type": "number",
                "description": "number of the partition, the first being 0"
              },
              "path": {
                "type": "string",
                "pattern": "/.*",
                "description": "path on the partition"
              }
            }
          },
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["path"],
            "description": "on what the core image is loaded from, such as a CD",
            "properties": {
              "path": {
                "type": "string",
                "pattern": "/.*",
                "description": "path on the file system"
              }
            }
          }
        ]
      },
      "sector-size": {
        "type": "number",
        "default": 512,
        "description": "size of a sector in bytes, which location counts"
      }
    }
  }
}`,
		ToolsFor: func(o map[string]any) []string {
			core, _ := o["core"].(map[string]any)
			if name, _ := core["binary"].(string); name != "" {
				return []string{name + "|" + grubMkimageNames}
			}
			return []string{grubMkimageNames}
		},
		InPlace: true,
		Reads:   grubReads(""),
		Run:     runGrub2Inst,
	})
}

type grub2InstOptions struct {
	Filename string      `json:"filename"`
	Platform string      `json:"platform"`
	Location json.Number `json:"location"`
	Core     struct {
		Type       string `json:"type"`
		PartLabel  string `json:"partlabel"`
		Filesystem string `json:"filesystem"`
		Binary     string `json:"binary"`
	} `json:"core"`
	Prefix struct {
		Type      string      `json:"type"`
		PartLabel string      `json:"partlabel"`
		Number    json.Number `json:"number"`
		Path      string      `json:"path"`
	} `json:"prefix"`
	SectorSize json.Number `json:"sector-size"`
}

// grubTables and grubFilesystems are GRUB's names of partition tables (as in a
// device, "gpt1"; the module has "part_" in front) and modules of file systems.
var (
	grubTables      = map[string]string{"gpt": "gpt", "dos": "msdos", "mbr": "msdos"}
	grubFilesystems = map[string]string{"ext4": "ext2", "xfs": "xfs", "btrfs": "btrfs", "iso9660": "iso9660"}
)

// plan returns the prefix, the format and the modules of the core image.
func (o *grub2InstOptions) plan() (prefix, format string, modules []string, err error) {
	prefix, format = o.Prefix.Path, o.Platform
	if o.Prefix.Number != "" {
		n, err := integer("prefix: number", o.Prefix.Number)
		if err != nil {
			return "", "", nil, err
		}
		table := grubTables[o.Prefix.PartLabel]
		if table == "" {
			return "", "", nil, Errorf("prefix: unknown partition table %q", o.Prefix.PartLabel)
		}
		prefix = fmt.Sprintf("(,%s%d)/%s", table, n+1, strings.TrimLeft(o.Prefix.Path, "/"))
	}
	if o.Platform == "i386-pc" {
		modules = append(modules, "biosdisk")
	}
	if table := grubTables[o.Core.PartLabel]; table != "" {
		modules = append(modules, "part_"+table)
	}
	module := grubFilesystems[o.Core.Filesystem]
	if module == "" {
		return "", "", nil, Errorf("core: unknown file system %q", o.Core.Filesystem)
	}
	if o.Core.Filesystem == "iso9660" {
		format = "i386-pc-eltorito"
	}
	return prefix, format, append(modules, module), nil
}

func runGrub2Inst(c *Context) error {
	var o grub2InstOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	prefix, format, modules, err := o.plan()
	if err != nil {
		return err
	}
	sector, location := int64(sectorSize), int64(0)
	if o.SectorSize != "" {
		if sector, err = integer("sector-size", o.SectorSize); err != nil {
			return err
		}
	}
	if o.Location != "" {
		if location, err = integer("location", o.Location); err != nil {
			return err
		}
	}
	if sector < sectorSize || location < 0 || location > 1<<40 {
		return Errorf("location %d or sector-size %d is out of range", location, sector)
	}
	core, err := grubMkimage(c, grubImage{
		binary: o.Core.Binary, platform: o.Platform, format: format, prefix: prefix, modules: modules,
		more: []string{"--compression", "auto"},
	})
	if err != nil {
		return err
	}
	if location == 0 {
		image, err := target(c, o.Filename)
		if err != nil {
			return err
		}
		return os.WriteFile(image, core, 0o666)
	}
	var boot []byte
	if o.Platform == "i386-pc" {
		dir, err := grubModules(o.Platform)
		if err != nil {
			return err
		}
		if boot, err = grubBootImage(dir); err != nil {
			return err
		}
		if location*sector > sectorSize {
			grubPointCore(core, location)
		}
	}
	image, err := c.Resolve(o.Filename)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(core, location*sector); err != nil {
		return err
	}
	if boot != nil {
		grubPointBoot(boot, location)
		if _, err := f.WriteAt(boot, 0); err != nil {
			return err
		}
	}
	c.Logf("GRUB's core image: %d bytes at sector %d, prefix %s", len(core), location, prefix)
	return f.Close()
}
