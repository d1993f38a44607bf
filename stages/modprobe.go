// org.osbuild.modprobe: kernel modules that are not loaded, or otherwise.
package stages

import "strings"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.modprobe",
		Revision: 1,
		Summary:  "write a file in modprobe.d",
		Doc: `Writes /usr/lib/modprobe.d/FILENAME, see modprobe.d(5): a line for each command.
"blacklist" keeps a module from being loaded by its aliases; "install" runs a command
line instead of loading it.

    {"filename": "blacklist-floppy.conf", "commands": [
      {"command": "blacklist", "modulename": "floppy"},
      {"command": "install", "modulename": "usb-storage", "cmdline": "/bin/true"}
    ]}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["commands", "filename"],
    "properties": {
      "filename": {
        "type": "string",
        "pattern": "` + confName + `",
        "description": "name of the file, with .conf at its end"
      },
      "commands": {
        "type": "array",
        "description": "the lines of the file, in order",
        "items": {
          "anyOf": [
            {
              "type": "object",
              "additionalProperties": false,
              "required": ["command", "modulename"],
              "properties": {
                "command": {"type": "string", "enum": ["blacklist"], "description": "do not load the module by its aliases"},
                "modulename": {"type": "string", "minLength": 1, "description": "name of the module"}
              }
            },
            {
              "type": "object",
              "additionalProperties": false,
              "required": ["command", "modulename", "cmdline"],
              "properties": {
                "command": {"type": "string", "enum": ["install"], "description": "run a command line instead"},
                "modulename": {"type": "string", "minLength": 1, "description": "name of the module"},
                "cmdline": {"type": "string", "minLength": 1, "description": "command line for the shell"}
              }
            }
          ]
        }
      }
    }
  }
}`,
		Run: runModprobe,
	})
}

type modprobeOptions struct {
	Filename string            `json:"filename"`
	Commands []modprobeCommand `json:"commands"`
}

type modprobeCommand struct {
	Command    string `json:"command"`
	ModuleName string `json:"modulename"`
	Cmdline    string `json:"cmdline"`
}

func runModprobe(c *Context) error {
	var o modprobeOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	var text strings.Builder
	for _, l := range o.Commands {
		text.WriteString(l.Command + " " + l.ModuleName)
		switch l.Command {
		case "blacklist":
		case "install":
			text.WriteString(" " + l.Cmdline)
		default:
			return Errorf("unknown command %q (blacklist, install)", l.Command)
		}
		text.WriteByte('\n')
	}
	return c.WriteFile("/usr/lib/modprobe.d/"+o.Filename, text.String())
}
