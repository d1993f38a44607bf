// org.osbuild.mkfs.fat: an empty FAT file system on a device.
package stages

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.mkfs.fat",
		Revision: 2,
		Summary:  "make an empty FAT file system on a device",
		Doc: `Runs mkfs.fat(8) on the whole device, whatever is on it.

    {"volid": "7B7795E7", "label": "EFI", "fat-size": 32}

To make a FAT file system with files in it, without a device and without a mount, see
org.osbuild-star.fat.`,
		Schema: `{
  "devices": ` + deviceSchema + `,
  "options": {
    "additionalProperties": false,
    "required": ["volid"],
    "properties": {
      "volid": {
        "type": "string",
        "description": "volume ID: 8 hexadecimal digits"
      },
      "label": {
        "type": "string",
        "maxLength": 11,
        "description": "volume label"
      },
      "fat-size": {
        "type": "integer",
        "enum": [12, 16, 32],
        "description": "bits of an entry of the allocation table; default: by the size of the device"
      },
      "geometry": {
        "type": "object",
        "additionalProperties": false,
        "required": ["heads", "sectors-per-track"],
        "description": "disk geometry that is written to the boot sector",
        "properties": {
          "heads": {
            "type": "integer",
            "description": "number of heads"
          },
          "sectors-per-track": {
            "type": "integer",
            "description": "number of sectors of a track"
          }
        }
      }
    }
  }
}`,
		Tools:   []string{"mkfs.fat"},
		InPlace: true,
		Run:     runMkfsFAT,
	})
}

func runMkfsFAT(c *Context) error {
	var o struct {
		Volid    string      `json:"volid"`
		Label    string      `json:"label"`
		FATSize  json.Number `json:"fat-size"`
		Geometry *struct {
			Heads   json.Number `json:"heads"`
			Sectors json.Number `json:"sectors-per-track"`
		} `json:"geometry"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	dev, err := devicePath(c, "device")
	if err != nil {
		return err
	}
	args := []string{"-I", "-i", o.Volid}
	if o.Label != "" {
		args = append(args, "-n", o.Label)
	}
	if n := jsonNumber(o.FATSize); n != "0" {
		args = append(args, "-F", n)
	}
	// The label is an entry of the root directory, with a time.
	if c.Meta.SourceEpoch != nil && knowsInvariant(c) {
		args = append(args, "--invariant")
	}
	if g := o.Geometry; g != nil {
		args = append(args, "-g", fmt.Sprintf("%s/%s", g.Heads, g.Sectors))
	}
	return runEnv(c, environ(c), "mkfs.fat", append(args, dev)...)
}

// knowsInvariant tells whether mkfs.fat can do without the time of day, from dosfstools
// 4.2 on.
func knowsInvariant(c *Context) bool {
	cmd := exec.CommandContext(c.context(), "mkfs.fat", "--help")
	cmd.Env = environ(c)
	help, _ := cmd.CombinedOutput() // its exit status says nothing
	return bytes.Contains(help, []byte("--invariant"))
}
