// org.osbuild.mkswap: a swap area on a device.
package stages

func init() {
	Register(&Stage{
		Name:     "org.osbuild.mkswap",
		Revision: 1,
		Summary:  "make a swap area on a device",
		Doc: `Runs mkswap(8) on the device.

    {"uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "label": "swap0"}`,
		Schema: `{
  "devices": ` + deviceSchema + `,
  "options": {
    "additionalProperties": false,
    "required": ["uuid"],
    "properties": {
      "uuid": {
        "type": "string",
        "description": "UUID of the swap area"
      },
      "label": {
        "type": "string",
        "maxLength": 12,
        "description": "label of the swap area"
      }
    }
  }
}`,
		Tools:   []string{"mkswap"},
		InPlace: true,
		Run:     runMkswap,
	})
}

func runMkswap(c *Context) error {
	var o struct {
		UUID  string `json:"uuid"`
		Label string `json:"label"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	dev, err := devicePath(c, "device")
	if err != nil {
		return err
	}
	args := []string{"--uuid", o.UUID}
	if o.Label != "" {
		args = append(args, "--label", o.Label)
	}
	return runEnv(c, environ(c), "mkswap", append(args, dev)...)
}
