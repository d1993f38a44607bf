// org.osbuild.keymap: the keyboard of the console and of X11.
package stages

import "strings"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.keymap",
		Revision: 1,
		Summary:  "set the keyboard layout of the console and of X11",
		Doc: `Writes /etc/vconsole.conf anew, with KEYMAP and, if asked for, FONT; and with
x11-keymap /etc/X11/xorg.conf.d/00-keyboard.conf.

Nothing checks that the keymap or the font exist in the image.

    {"keymap": "de-latin1", "font": "eurlatgr", "x11-keymap": {"layouts": ["de", "us"]}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["keymap"],
    "properties": {
      "keymap": {
        "type": "string",
        "description": "name of the console's keymap: \"us\", \"de-latin1\""
      },
      "x11-keymap": {
        "type": "object",
        "additionalProperties": false,
        "required": ["layouts"],
        "description": "the keyboard of X11",
        "properties": {
          "layouts": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "minLength": 2},
            "description": "names of layouts, the default first: \"us\", \"de\""
          }
        }
      },
      "font": {
        "type": "string",
        "description": "name of the console's font"
      }
    }
  }
}`,
		Run: runKeymap,
	})
}

type keymapOptions struct {
	Keymap    string     `json:"keymap"`
	X11Keymap *x11Keymap `json:"x11-keymap"`
	Font      string     `json:"font"`
}

type x11Keymap struct {
	Layouts []string `json:"layouts"`
}

func runKeymap(c *Context) error {
	var o keymapOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	if !safeName(o.Keymap) {
		return &Error{Msg: "invalid keymap \"" + o.Keymap + "\"", Hint: "write it like \"de-latin1\""}
	}
	text := envLine("KEYMAP", o.Keymap)
	if o.Font != "" {
		text += "FONT=" + o.Font + "\n"
	}
	if err := c.ReplaceFile("/etc/vconsole.conf", text); err != nil {
		return err
	}
	if o.X11Keymap == nil {
		return nil
	}
	lines := []string{
		"# Created by osbuild. Do not edit manually, use localectl(1).",
		`Section "InputClass"`,
		`        Identifier "system-keyboard"`,
		`        MatchIsKeyboard "on"`,
		`        Option "XkbLayout" "` + strings.Join(o.X11Keymap.Layouts, ",") + `"`,
		"EndSection",
	}
	return c.WriteFile("/etc/X11/xorg.conf.d/00-keyboard.conf", strings.Join(lines, "\n")+"\n")
}
