// org.osbuild.mkfs.btrfs: an empty btrfs file system on a device.
package stages

func init() {
	Register(&Stage{
		Name:     "org.osbuild.mkfs.btrfs",
		Revision: 1,
		Summary:  "make an empty btrfs file system on a device",
		Doc: `Runs mkfs.btrfs(8) on the device, which must have 109 MB at least.

    {"uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "label": "root", "metadata": "dup"}`,
		Schema: `{
  "devices": ` + deviceSchema + `,
  "options": {
    "additionalProperties": false,
    "required": ["uuid"],
    "properties": {
      "uuid": {
        "type": "string",
        "description": "UUID of the file system"
      },
      "label": {
        "type": "string",
        "maxLength": 256,
        "description": "volume label"
      },
      "metadata": {
        "type": "string",
        "enum": ["single", "dup"],
        "description": "keep metadata once (single) or twice (dup); default: what mkfs.btrfs chooses for the device"
      }
    }
  }
}`,
		Tools:   []string{"mkfs.btrfs"},
		InPlace: true,
		Run:     runMkfsBtrfs,
	})
}

func runMkfsBtrfs(c *Context) error {
	var o struct {
		UUID     string `json:"uuid"`
		Label    string `json:"label"`
		Metadata string `json:"metadata"`
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
	if o.Metadata != "" {
		args = append(args, "-m", o.Metadata)
	}
	return runEnv(c, environ(c), "mkfs.btrfs", append(args, dev)...)
}
