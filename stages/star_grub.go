// org.osbuild-star.grub.efi and org.osbuild-star.grub.bios: GRUB with all that it
// needs in one program, which finds the root file system by its UUID.
package stages

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild-star.grub.efi",
		Revision: 1,
		Summary:  "write a GRUB program for UEFI into the tree",
		Doc: `Makes one EFI program with grub-mkimage: GRUB, its modules, and the few lines that
find the file system by its UUID and go on with grub.cfg there. Nothing else of GRUB need
be on the disk.

    {"platform": "x86_64-efi", "path": "/EFI/BOOT/BOOTX64.EFI",
     "root-uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}

Where the modules are not in a package for the build root's architecture, they are taken
from a tree: "directory": "input://modules/usr/lib/grub/arm64-efi".

The program is not signed: Secure Boot refuses it. It belongs on the EFI system partition
(org.osbuild-star.fat), as /EFI/BOOT/BOOTX64.EFI, BOOTAA64.EFI or BOOTRISCV64.EFI by the
machine.`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["platform", "path", "root-uuid"],
    "properties": {
      "platform": {
        "type": "string",
        "enum": ["x86_64-efi", "i386-efi", "arm64-efi", "arm-efi", "riscv64-efi", "loongarch64-efi"],
        "description": "GRUB's platform"
      },
      "path": {
        "type": "string",
        "description": "path of the program in the tree; its directory is made if it is missing"
      },
      ` + grubUUIDOption + `,
      ` + grubPrefixOption + `,
      ` + grubModulesOption + `,
      ` + grubDirectoryOption + `
    }
  },
  ` + grubInputs + `
}`,
		Tools: []string{grubMkimageNames},
		Reads: grubReads(""),
		Run:   runStarGrubEFI,
	})
	Register(&Stage{
		Name:     "org.osbuild-star.grub.bios",
		Revision: 1,
		Summary:  "install GRUB with its modules into a disk image, for BIOS",
		Doc: `Writes GRUB's boot code to the first sector of a disk image, beside the partition
table, and a core image to its BIOS boot partition (1 MiB is enough), or into the gap
before the first partition. The core image holds the modules, and the few lines that find
the file system by its UUID and go on with grub.cfg there. Nothing else of GRUB need be on
the disk.

    {"filename": "disk.img", "start": 2048, "size": 2048,
     "root-uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}

org.osbuild.grub2.inst is the stage for images whose file system holds the modules.`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["filename", "start", "size", "root-uuid"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the disk image in the tree"
      },
      "start": {
        "type": "integer",
        "minimum": 1,
        "description": "first sector of the place for the core image, in units of 512 bytes"
      },
      "size": {
        "type": "integer",
        "minimum": 1,
        "description": "how many sectors the place has"
      },
      ` + grubUUIDOption + `,
      ` + grubPrefixOption + `,
      ` + grubModulesOption + `,
      ` + grubDirectoryOption + `
    }
  },
  ` + grubInputs + `
}`,
		Tools:   []string{grubMkimageNames},
		InPlace: true,
		Reads:   grubReads("i386-pc"),
		Run:     runStarGrubBIOS,
	})
}

// grubOptions are those that the stages for all firmwares have.
type grubOptions struct {
	RootUUID  string   `json:"root-uuid"`
	Prefix    string   `json:"prefix"`
	Modules   []string `json:"modules"`
	Directory string   `json:"directory"`
}

// program makes GRUB for a platform, of the modules in dir: those of the options, or the
// usual ones, and what the platform cannot do without.
func (o *grubOptions) program(c *Context, platform, dir string, needed ...string) ([]byte, error) {
	modules := grubModuleList(dir, o.Modules)
	for _, m := range needed {
		if !slices.Contains(modules, m) {
			modules = append(slices.Clone(modules), m)
		}
	}
	prefix := cmp.Or(o.Prefix, "/boot/grub")
	return grubMkimage(c, grubImage{
		dir: dir, platform: platform, format: platform, prefix: grubPrefix(prefix),
		config: grubSearch(strings.ToLower(o.RootUUID), prefix), modules: modules,
	})
}

func runStarGrubEFI(c *Context) error {
	var o struct {
		grubOptions
		Platform string `json:"platform"`
		Path     string `json:"path"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	dir, err := grubDirectory(c, o.Platform, o.Directory)
	if err != nil {
		return err
	}
	program, err := o.program(c, o.Platform, dir)
	if err != nil {
		return err
	}
	path, err := c.Resolve(o.Path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, program, 0o644)
}

func runStarGrubBIOS(c *Context) error {
	var o struct {
		imagePart
		grubOptions
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	image, off, n, err := o.resolve(c)
	if err != nil {
		return err
	}
	dir, err := grubDirectory(c, "i386-pc", o.Directory)
	if err != nil {
		return err
	}
	boot, err := grubBootImage(dir)
	if err != nil {
		return err
	}
	core, err := o.program(c, "i386-pc", dir, "biosdisk") // or it finds no disk at all
	if err != nil {
		return err
	}
	if int64(len(core)) > n {
		return &Error{
			Msg:  fmt.Sprintf("GRUB's core image has %d bytes, and its place %d", len(core), n),
			Hint: "make the BIOS boot partition 1 MiB large, or name fewer modules",
		}
	}
	grubPointCore(core, o.Start)
	grubPointBoot(boot, o.Start)
	// Take the first disk where the BIOS does not say from which it booted: the jump
	// over that check becomes two NOPs, as grub-bios-setup has it for hard disks.
	boot[0x66], boot[0x67] = 0x90, 0x90

	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := clearRange(f, off, n); err != nil {
		return err
	}
	if _, err := f.WriteAt(core, off); err != nil {
		return err
	}
	if _, err := f.WriteAt(boot, 0); err != nil {
		return err
	}
	return f.Close()
}
