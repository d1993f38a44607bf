// org.osbuild.tmpfilesd: files and directories that are made at boot.
package stages

import "strings"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.tmpfilesd",
		Revision: 1,
		Summary:  "write a file in tmpfiles.d",
		Doc: `Writes /usr/lib/tmpfiles.d/FILENAME, see tmpfiles.d(5): a line for each entry. "-"
stands for a field that is not set before one that is.

    {"filename": "app.conf", "config": [
      {"type": "d", "path": "/run/app", "mode": "0755", "user": "app", "group": "app"}
    ]}`,
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
          "type": "object",
          "additionalProperties": false,
          "required": ["type", "path"],
          "properties": {
            "type": {
              "type": "string",
              "pattern": "^([fwpLcbaA][+]?|[dDevqQCxXrRzZtThH])((!?-?)|(-?!?))?$",
              "description": "letter of what is done, with modifiers: \"d\", \"L+\", \"r!\""
            },
            "path": {"type": "string", "description": "absolute path, or a pattern"},
            "mode": {"type": "string", "pattern": "^~?[0-7]{4}$", "description": "four octal digits, \"~\" before them masks"},
            "user": {"type": "string", "description": "owner"},
            "group": {"type": "string", "description": "group"},
            "age": {"type": "string", "description": "age from which contents are removed: \"10d\""},
            "argument": {"type": "string", "description": "depends on the type: target of a link, content of a file"}
          }
        }
      }
    }
  }
}`,
		Run: runTmpfilesd,
	})
}

type tmpfilesdOptions struct {
	Filename string          `json:"filename"`
	Config   []tmpfilesdLine `json:"config"`
}

type tmpfilesdLine struct {
	Type     string `json:"type"`
	Path     string `json:"path"`
	Mode     string `json:"mode"`
	User     string `json:"user"`
	Group    string `json:"group"`
	Age      string `json:"age"`
	Argument string `json:"argument"`
}

func runTmpfilesd(c *Context) error {
	var o tmpfilesdOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	var text strings.Builder
	for _, l := range o.Config {
		fields := []string{l.Mode, l.User, l.Group, l.Age, l.Argument}
		for len(fields) > 0 && fields[len(fields)-1] == "" {
			fields = fields[:len(fields)-1]
		}
		text.WriteString(l.Type + " " + l.Path)
		for _, f := range fields {
			if f == "" {
				f = "-"
			}
			text.WriteString(" " + f)
		}
		text.WriteByte('\n')
	}
	return c.WriteFile("/usr/lib/tmpfiles.d/"+o.Filename, text.String())
}
