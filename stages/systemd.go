// org.osbuild.systemd: which services start.
package stages

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.systemd",
		Revision: 1,
		Summary:  "enable, disable and mask systemd units",
		Doc: `Runs systemctl of the build root on the tree: units of any type are enabled, then
others disabled, then others masked; a name without a suffix is a service. Generators
are masked by links to /dev/null in /etc/systemd/system-generators. At last the
default target is set.

A unit that is enabled or disabled must exist in the image.

    {"enabled_services": ["ssh.service", "fstrim.timer"], "default_target": "multi-user.target"}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "enabled_services": {
        "type": "array",
        "items": {"type": "string"},
        "description": "units that start as their [Install] section says"
      },
      "disabled_services": {
        "type": "array",
        "items": {"type": "string"},
        "description": "units that do not start by themselves"
      },
      "masked_services": {
        "type": "array",
        "items": {"type": "string"},
        "description": "units that cannot be started at all"
      },
      "masked_generators": {
        "type": "array",
        "items": {"type": "string"},
        "description": "generators that do not run, by file name"
      },
      "default_target": {
        "type": "string",
        "description": "the target that the system boots into: \"graphical.target\""
      }
    }
  }
}`,
		ToolsFor: func(options map[string]any) []string {
			for name := range options {
				if name != "masked_generators" {
					return []string{"systemctl"}
				}
			}
			return nil
		},
		Run: runSystemd,
	})
}

type systemdOptions struct {
	Enabled       []string `json:"enabled_services"`
	Disabled      []string `json:"disabled_services"`
	Masked        []string `json:"masked_services"`
	Generators    []string `json:"masked_generators"`
	DefaultTarget string   `json:"default_target"`
}

func runSystemd(c *Context) error {
	var o systemdOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, step := range []struct {
		verb  string
		units []string
	}{{"enable", o.Enabled}, {"disable", o.Disabled}, {"mask", o.Masked}} {
		if len(step.units) == 0 {
			continue
		}
		args := append([]string{"--root", c.Tree, step.verb, "--"}, step.units...)
		if err := c.Run("systemctl", args...); err != nil {
			return err
		}
	}
	if err := maskGenerators(c, o.Generators); err != nil {
		return err
	}
	if o.DefaultTarget == "" {
		return nil
	}
	return c.Run("systemctl", "--root", c.Tree, "set-default", "--", o.DefaultTarget)
}

func maskGenerators(c *Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	dir, err := c.Resolve("/etc/systemd/system-generators")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		err := os.Symlink("/dev/null", filepath.Join(dir, filepath.Join("/", name)))
		if errors.Is(err, unix.EEXIST) {
			return &Error{
				Msg:  fmt.Sprintf("cannot mask the generator %s: /etc/systemd/system-generators/%s exists", name, name),
				Hint: "remove it before, or take it out of masked_generators",
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
