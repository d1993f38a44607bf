// org.osbuild.crypttab: encrypted volumes.
package stages

import (
	"fmt"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.crypttab",
		Revision: 1,
		Summary:  "write /etc/crypttab",
		Doc: `Writes /etc/crypttab, see crypttab(5); what was in it is gone. Each volume is found
by uuid or path and becomes /dev/mapper/NAME.

    {"volumes": [{"volume": "luks-root", "uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75", "options": "discard"}]}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["volumes"],
    "properties": {
      "volumes": {
        "type": "array",
        "description": "the lines of the file, in order",
        "items": {
          "type": "object",
          "oneOf": [
            {"required": ["uuid", "volume"]},
            {"required": ["path", "volume"]}
          ],
          "properties": {
            "volume": {"type": "string", "description": "name of the opened volume below /dev/mapper"},
            "uuid": {"type": "string", "description": "UUID of the encrypted device"},
            "path": {"type": "string", "description": "path of the encrypted device"},
            "keyfile": {"type": "string", "default": "none", "description": "file that has the key; \"none\" asks for a passphrase"},
            "options": {"type": "string", "default": "", "description": "options, with commas between"}
          }
        }
      }
    }
  }
}`,
		Run: runCrypttab,
	})
}

type crypttabOptions struct {
	Volumes looseList[cryptVolume] `json:"volumes"`
}

type cryptVolume struct {
	Volume  string  `json:"volume"`
	UUID    string  `json:"uuid"`
	Path    string  `json:"path"`
	Keyfile *string `json:"keyfile"`
	Options string  `json:"options"`
}

func runCrypttab(c *Context) error {
	var o crypttabOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	var text strings.Builder
	for _, v := range o.Volumes {
		device := v.Path
		if v.UUID != "" {
			device = "UUID=" + v.UUID
		}
		if device == "" {
			return &Error{Msg: fmt.Sprintf("the volume %q has no device", v.Volume), Hint: "set uuid or path"}
		}
		keyfile := "none"
		if v.Keyfile != nil {
			keyfile = *v.Keyfile
		}
		text.WriteString(strings.Join([]string{v.Volume, device, keyfile, v.Options}, "\t") + "\n")
	}
	return c.WriteFile("/etc/crypttab", text.String())
}
