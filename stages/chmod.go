// org.osbuild.chmod: modes of files.
package stages

import (
	"errors"
	"os"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.chmod",
		Revision: 1,
		Summary:  "change the modes of files",
		Doc: `Changes modes by chmod(1) of the build root, one path after the other. A link is
followed inside the image.

    {"items": {"/usr/bin/tool": {"mode": "u+s"}, "/srv": {"mode": "a+rX", "recursive": true}}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "items": {
        "type": "object",
        "additionalProperties": false,
        "description": "path of the image → what its mode becomes",
        "patternProperties": {
          "^/` + plainPath + `$": {
            "type": "object",
            "required": ["mode"],
            "properties": {
              "mode": {"type": "string", "description": "as for chmod(1): \"0755\", \"u+x\", \"a+rX\""},
              "recursive": {"type": "boolean", "default": false, "description": "change all that is below it too"}
            }
          }
        }
      }
    }
  }
}`,
		Tools: []string{"chmod"},
		Run:   runChmod,
	})
}

type chmodOptions struct {
	Items orderedMap[chmodItem] `json:"items"`
}

type chmodItem struct {
	Mode      string `json:"mode"`
	Recursive bool   `json:"recursive"`
}

func runChmod(c *Context) error {
	var o chmodOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, e := range o.Items {
		at, err := c.Resolve(e.Name)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(at); errors.Is(err, os.ErrNotExist) {
			return &Error{Msg: e.Name + " is not in the tree", Hint: "check the path, or make it before this stage"}
		}
		var args []string
		if e.Value.Recursive {
			args = append(args, "--recursive")
		}
		// A mode may begin with a dash: "-x".
		if err := c.Run("chmod", append(args, "--", e.Value.Mode, at)...); err != nil {
			return err
		}
	}
	return nil
}
