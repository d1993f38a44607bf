// org.osbuild.selinux.config: whether SELinux is on.
package stages

import (
	"errors"
	"os"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.selinux.config",
		Revision: 1,
		Summary:  "set the state and the policy of SELinux",
		Doc: `Changes the lines SELINUX and SELINUXTYPE of /etc/selinux/config, which must be
there; what is not given stays.

    {"state": "permissive", "type": "targeted"}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "state": {
        "type": "string",
        "enum": ["enforcing", "permissive", "disabled"],
        "description": "whether the policy is enforced, only logged, or off"
      },
      "type": {
        "type": "string",
        "enum": ["targeted", "minimum", "mls"],
        "description": "the policy"
      }
    }
  }
}`,
		Run: runSELinuxConfig,
	})
}

type selinuxConfigOptions struct {
	State string `json:"state"`
	Type  string `json:"type"`
}

func runSELinuxConfig(c *Context) error {
	var o selinuxConfigOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	const file = "/etc/selinux/config"
	text, err := c.ReadText(file)
	if errors.Is(err, os.ErrNotExist) {
		return &Error{Msg: "the tree has no " + file, Hint: "install the SELinux policy before this stage"}
	}
	if err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(text) {
		key, _, ok := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case !ok:
		case key == "SELINUX" && o.State != "":
			line = key + "=" + o.State + "\n"
		case key == "SELINUXTYPE" && o.Type != "":
			line = key + "=" + o.Type + "\n"
		}
		out.WriteString(line)
	}
	return c.WriteFile(file, out.String())
}
