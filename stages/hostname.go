// org.osbuild.hostname: the name of the machine.
package stages

import (
	"os"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.hostname",
		Revision: 1,
		Summary:  "set the system's hostname",
		Doc: `Writes /etc/hostname.

The name has at most 64 characters, as Linux has it.`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["hostname"],
    "properties": {
      "hostname": {
        "type": "string",
        "description": "the name: letters, digits, dots and dashes"
      }
    }
  }
}`,
		Run: runHostname,
	})
}

type hostnameOptions struct {
	Hostname string `json:"hostname"`
}

func runHostname(c *Context) error {
	var o hostnameOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	if len(o.Hostname) > 64 || o.Hostname == "" || strings.ContainsAny(o.Hostname, "/\n\x00 ") {
		return &Error{
			Msg:  "invalid hostname \"" + o.Hostname + "\"",
			Hint: "1 to 64 letters, digits, dots and dashes",
		}
	}
	if err := os.MkdirAll(c.TreePath("/etc"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(c.TreePath("/etc/hostname"), []byte(o.Hostname+"\n"), 0o644)
}
