// org.osbuild.mkfs.xfs: an empty XFS file system on a device.
package stages

import "encoding/json"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.mkfs.xfs",
		Revision: 1,
		Summary:  "make an empty XFS file system on a device",
		Doc: `Runs mkfs.xfs(8) on the device. Current xfsprogs refuse devices below 300 MB.

    {"uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "label": "root"}`,
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
        "maxLength": 12,
        "description": "volume label"
      },
      "agcount": {
        "type": "integer",
        "description": "number of allocation groups; default: by the size of the device"
      }
    }
  }
}`,
		Tools:   []string{"mkfs.xfs"},
		InPlace: true,
		Run:     runMkfsXFS,
	})
}

func runMkfsXFS(c *Context) error {
	var o struct {
		UUID    string      `json:"uuid"`
		Label   string      `json:"label"`
		AGCount json.Number `json:"agcount"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	dev, err := devicePath(c, "device")
	if err != nil {
		return err
	}
	args := []string{"-m", "uuid=" + o.UUID}
	if o.Label != "" {
		args = append(args, "-L", o.Label)
	}
	if n := jsonNumber(o.AGCount); n != "0" {
		args = append(args, "-d", "agcount="+n)
	}
	env := environ(c)
	if c.Meta.SourceEpoch != nil {
		env = environ(c, "DETERMINISTIC_SEED=1") // xfsprogs since 6.17 draw nothing then
	}
	return runEnv(c, env, "mkfs.xfs", append(args, dev)...)
}
