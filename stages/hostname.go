// org.osbuild.hostname: the name of the machine.
package stages

import "strings"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.hostname",
		Revision: 1,
		Summary:  "set the system's hostname",
		Doc: `Writes /etc/hostname anew; a file or link of that name is replaced.

The name has 1 to 64 characters: letters, digits, dots and dashes. Neither dots nor
dashes stand at the beginning or the end, or beside a dot. A dot after a name of
several parts is left out.

    {"hostname": "web-1.example.org"}`,
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
	name := o.Hostname
	if strings.Count(name, ".") > 1 {
		name = strings.TrimSuffix(name, ".")
	}
	if len(o.Hostname) > 64 || !validHostname(name) {
		return &Error{
			Msg:  "invalid hostname \"" + o.Hostname + "\"",
			Hint: "1 to 64 letters, digits, dots and dashes; each part begins and ends with a letter or digit",
		}
	}
	return c.ReplaceFile("/etc/hostname", name+"\n")
}

// validHostname says whether systemd takes a name without a dot at its end. Two
// dashes in a row are allowed, "-." and ".-" are not.
func validHostname(name string) bool {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || strings.HasPrefix(part, "-") || strings.HasSuffix(part, "-") {
			return false
		}
		for _, r := range part {
			if !(r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
				return false
			}
		}
	}
	return true
}
