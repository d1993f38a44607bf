// org.osbuild.systemd.unit: drop-ins for units that are there.
package stages

import "path"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.systemd.unit",
		Revision: 1,
		Summary:  "write a drop-in of a systemd unit",
		Doc: `Writes a drop-in in /usr/lib/systemd, for a service or timer of the system or of
every user.

    {"unit": "ssh.service", "dropin": "10-env.conf",
     "config": {"Service": {"Environment": [{"key": "SSHD_OPTS", "value": "-4"}]}}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["unit", "dropin", "config"],
    "properties": {
      "unit": {
        "type": "string",
        "pattern": "^[\\p{L}\\p{N}_:.\\\\-]+@?[\\p{L}\\p{N}_:.\\\\-]*[.](service|timer)$",
        "description": "name of the unit, with its type at the end"
      },
      "dropin": {
        "type": "string",
        "pattern": "` + confName + `",
        "description": "name of the file, with .conf at its end"
      },
      "config": {
        "type": "object",
        "additionalProperties": false,
        "description": "the sections",
        "properties": {
          "Unit": {
            "type": "object",
            "additionalProperties": false,
            "description": "section [Unit]",
            "properties": {
              "ConditionPathExists": {"type": "string", "description": "path that must exist, or with ! must not"}
            }
          },
          "Service": {
            "type": "object",
            "additionalProperties": false,
            "description": "section [Service]",
            "properties": {
              "Environment": {
                "description": "variables of its environment",
                "oneOf": [
                  {"type": "string"},
                  {"type": "array", "items": ` + environmentSchema + `}
                ]
              }
            }
          }
        }
      },
      "unit-type": {
        "type": "string",
        "enum": ["system", "global"],
        "default": "system",
        "description": "a unit of the system, or of every user"
      }
    }
  }
}`,
		Run: runUnitDropin,
	})
}

type unitDropinOptions struct {
	Unit     string   `json:"unit"`
	Dropin   string   `json:"dropin"`
	Config   unitFile `json:"config"`
	UnitType string   `json:"unit-type"`
}

func runUnitDropin(c *Context) error {
	var o unitDropinOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	dir := o.Unit + ".d"
	if len(dir) > 255 {
		return Errorf("the unit name %.20s… is too long for the directory of its drop-ins", o.Unit)
	}
	text, err := o.Config.text()
	if err != nil {
		return err
	}
	return c.WriteFile(path.Join("/usr/lib/systemd", unitDir(o.UnitType), dir, o.Dropin), text)
}
