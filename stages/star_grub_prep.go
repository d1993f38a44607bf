// org.osbuild-star.grub.prep: GRUB with all that it needs in the PReP partition of a
// disk image, where the firmware of POWER machines looks.
package stages

import (
	"fmt"
	"os"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild-star.grub.prep",
		Revision: 1,
		Summary:  "install GRUB with its modules into a disk image, for POWER machines",
		Doc: `Makes one program with grub-mkimage for Open Firmware (powerpc-ieee1275) and writes it
to the PReP partition of a disk image, which has the type
9E1A2D38-C612-4316-AA26-8B49521E5A8B in a GPT, and 41 in an MBR. It holds the modules, and
the few lines that find the file system by its UUID and go on with grub.cfg there.
Nothing else of GRUB need be on the disk.

    {"filename": "disk.img", "start": 2048, "size": 16384,
     "root-uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75",
     "directory": "input://modules/usr/lib/grub/powerpc-ieee1275"}

The firmware loads all of the partition: 8 MiB are the usual size.`,
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
        "description": "first sector of the PReP partition, in units of 512 bytes"
      },
      "size": {
        "type": "integer",
        "minimum": 1,
        "description": "how many sectors it has"
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
		Reads:   grubReads(prepPlatform),
		Run:     runStarGrubPReP,
	})
}

// prepPlatform is GRUB's name of them.
const prepPlatform = "powerpc-ieee1275"

func runStarGrubPReP(c *Context) error {
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
	dir, err := grubDirectory(c, prepPlatform, o.Directory)
	if err != nil {
		return err
	}
	program, err := o.program(c, prepPlatform, dir)
	if err != nil {
		return err
	}
	if int64(len(program)) > n {
		return &Error{
			Msg:  fmt.Sprintf("GRUB's program has %d bytes, and the PReP partition %d", len(program), n),
			Hint: "make the partition 8 MiB large, or name fewer modules",
		}
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := zeroRange(f, off, n); err != nil {
		return err
	}
	if _, err := f.WriteAt(program, off); err != nil {
		return err
	}
	return f.Close()
}
