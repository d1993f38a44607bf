// org.osbuild.dracut.conf: how dracut makes the initramfs.
package stages

import (
	"encoding/json"
	"path"
	"strings"
)

func init() {
	modules := `{"type": "array", "items": {"type": "string"}, "description": "`
	Register(&Stage{
		Name:     "org.osbuild.dracut.conf",
		Revision: 1,
		Summary:  "write a file in dracut.conf.d",
		Doc: `Writes /usr/lib/dracut/dracut.conf.d/FILENAME, see dracut.conf(5): a line for each
option, in the order they are given. Lists are added to what other files say.

    {"filename": "40-net.conf", "config": {"add_dracutmodules": ["livenet"], "compress": "xz"}}`,
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
        "description": "the options, by their names in dracut.conf(5)",
        "properties": {
          "compress": {"type": "string", "description": "program that compresses the initramfs"},
          "dracutmodules": ` + modules + `the dracut modules, and no others"},
          "add_dracutmodules": ` + modules + `dracut modules beside the default ones"},
          "omit_dracutmodules": ` + modules + `dracut modules to leave out"},
          "drivers": ` + modules + `the kernel modules, and no others"},
          "add_drivers": ` + modules + `kernel modules beside the default ones"},
          "omit_drivers": ` + modules + `kernel modules to leave out"},
          "force_drivers": ` + modules + `kernel modules to add, and load early"},
          "filesystems": ` + modules + `kernel modules of file systems, and no others"},
          "install_items": ` + modules + `files to put into it"},
          "remove_items": ` + modules + `files to take out of it, from dracut 108 on"},
          "early_microcode": {"type": "boolean", "description": "whether it begins with the processor's microcode"},
          "reproducible": {"type": "boolean", "description": "whether it is the same each time it is made"}
        }
      }
    }
  }
}`,
		Run: runDracutConf,
	})
}

type dracutConfOptions struct {
	Filename string                      `json:"filename"`
	Config   orderedMap[json.RawMessage] `json:"config"`
}

func runDracutConf(c *Context) error {
	var o dracutConfOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	var text strings.Builder
	for _, e := range o.Config {
		line, err := dracutLine(e.Name, e.Value)
		if err != nil {
			return err
		}
		text.WriteString(line)
	}
	return c.WriteFile(path.Join("/usr/lib/dracut/dracut.conf.d", o.Filename), text.String())
}

// dracutLine writes an option as its kind of value asks for.
func dracutLine(name string, value json.RawMessage) (string, error) {
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case bool:
		if v {
			return name + "=\"yes\"\n", nil
		}
		return name + "=\"no\"\n", nil
	case string:
		return name + "=\"" + v + "\"\n", nil
	}
	var items []string
	if err := json.Unmarshal(value, &items); err != nil {
		return "", Errorf("%s: %v", name, err)
	}
	return name + "+=\" " + strings.Join(items, " ") + " \"\n", nil
}
