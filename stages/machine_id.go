// org.osbuild.machine-id: what the image says about its identity.
package stages

import "os"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.machine-id",
		Revision: 1,
		Summary:  "prepare /etc/machine-id for the first boot",
		Doc: `Sets the content of /etc/machine-id by what the first boot shall do:

- yes: the file says "uninitialized". systemd makes an identity and takes the boot
  for a first one (ConditionFirstBoot).
- no: the file is empty. systemd makes an identity, without a first boot.
- preserve: the file stays; it is an error if it is not there.

    {"first-boot": "yes"}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["first-boot"],
    "properties": {
      "first-boot": {
        "enum": ["yes", "no", "preserve"],
        "description": "whether the next boot is a first boot, or the file stays as it is"
      }
    }
  }
}`,
		Run: runMachineID,
	})
}

type machineIDOptions struct {
	FirstBoot string `json:"first-boot"`
}

func runMachineID(c *Context) error {
	var o machineIDOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	const file = "/etc/machine-id"
	switch o.FirstBoot {
	case "yes":
		return c.WriteFile(file, "uninitialized\n")
	case "no":
		return c.WriteFile(file, "")
	case "preserve":
		at, err := c.Resolve(file)
		if err != nil {
			return err
		}
		if st, err := os.Stat(at); err != nil || !st.Mode().IsRegular() {
			return &Error{
				Msg:  "/etc/machine-id cannot be preserved: it does not exist",
				Hint: "use \"first-boot\": \"yes\" or \"no\", or make the file before",
			}
		}
		return nil
	}
	return Errorf("first-boot is %q, not yes, no or preserve", o.FirstBoot)
}
