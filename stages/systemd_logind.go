// org.osbuild.systemd-logind: logins and terminals.
package stages

import "path"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.systemd-logind",
		Revision: 1,
		Summary:  "write a drop-in of the login manager's configuration",
		Doc: `Writes /usr/lib/systemd/logind.conf.d/FILENAME, see logind.conf(5).

    {"filename": "00-getty.conf", "config": {"Login": {"NAutoVTs": 0}}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["config", "filename"],
    "properties": {
      "filename": {
        "type": "string",
        "pattern": "` + confName + `",
        "description": "name of the file, with .conf at its end"
      },
      "config": {
        "type": "object",
        "additionalProperties": false,
        "minProperties": 1,
        "description": "the sections",
        "properties": {
          "Login": {
            "type": "object",
            "additionalProperties": false,
            "minProperties": 1,
            "description": "section [Login]",
            "properties": {
              "NAutoVTs": {"type": "integer", "minimum": 0, "description": "how many virtual terminals get a login prompt when they are switched to"},
              "ReserveVT": {"type": "integer", "minimum": 0, "description": "the virtual terminal that always gets one"}
            }
          }
        }
      }
    }
  }
}`,
		Run: runLogind,
	})
}

type logindOptions struct {
	Filename string   `json:"filename"`
	Config   unitFile `json:"config"`
}

func runLogind(c *Context) error {
	var o logindOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	text, err := o.Config.text()
	if err != nil {
		return err
	}
	return c.WriteFile(path.Join("/usr/lib/systemd/logind.conf.d", o.Filename), text)
}
