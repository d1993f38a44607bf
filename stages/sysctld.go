// org.osbuild.sysctld: parameters of the kernel that are set at boot.
package stages

import "strings"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.sysctld",
		Revision: 1,
		Summary:  "set kernel parameters by a file in sysctl.d",
		Doc: `Writes /usr/lib/sysctl.d/FILENAME, see sysctl.d(5): a line for each parameter. A key
may be a pattern. One that begins with "-" and has no value is left out of what
patterns set; with a value, a failure to set it does not matter.

    {"filename": "90-net.conf", "config": [{"key": "net.ipv4.ip_forward", "value": "1"}]}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["filename", "config"],
    "properties": {
      "filename": {
        "type": "string",
        "pattern": "` + confName + `",
        "description": "name of the file, with .conf at its end"
      },
      "config": {
        "type": "array",
        "minItems": 1,
        "description": "the lines of the file, in order",
        "items": {
          "anyOf": [
            {
              "type": "object",
              "additionalProperties": false,
              "required": ["key", "value"],
              "properties": {
                "key": {"type": "string", "description": "name of the parameter: \"kernel.sysrq\""},
                "value": {"type": "string", "description": "its value"}
              }
            },
            {
              "type": "object",
              "additionalProperties": false,
              "required": ["key"],
              "properties": {
                "key": {"type": "string", "pattern": "^-.+$", "description": "\"-\" and a parameter that patterns do not set"}
              }
            }
          ]
        }
      }
    }
  }
}`,
		Run: runSysctld,
	})
}

type sysctldOptions struct {
	Filename string        `json:"filename"`
	Config   []sysctldLine `json:"config"`
}

type sysctldLine struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func runSysctld(c *Context) error {
	var o sysctldOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	var text strings.Builder
	for _, l := range o.Config {
		text.WriteString(l.Key)
		if l.Value != "" {
			text.WriteString(" = " + l.Value)
		}
		text.WriteByte('\n')
	}
	return c.WriteFile("/usr/lib/sysctl.d/"+o.Filename, text.String())
}
