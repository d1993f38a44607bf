// org.osbuild.copy: files and trees from one place to another.
package stages

import (
	"fmt"
	"os"
	"path/filepath"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.copy",
		Revision: 1,
		Summary:  "copy files and directories between inputs, mounts and the tree",
		Doc: `Copies with all attributes, by "cp -a" of the build root, one item after the other;
data is shared where the file system can.

A place is a location: "input://NAME/PATH", "mount://NAME/PATH" or "tree:///PATH".
A slash at the end of "from" copies what is in the directory, not the directory. If
"to" is a directory, the copy goes into it.

A link in the place of the copy is written through, unless remove_destination is
set, which replaces files (never directories). Links above the two places are
followed inside the tree, mount or input they are in.

    {"paths": [
      {"from": "input://root-tree/", "to": "mount://root/"},
      {"from": "input://motd/sha256:…", "to": "tree:///etc/motd", "remove_destination": true}
    ]}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["paths"],
    "properties": {
      "paths": {
        "type": "array",
        "minItems": 1,
        "description": "what is copied, in order",
        "items": {
          "type": "object",
          "additionalProperties": false,
          "required": ["from", "to"],
          "properties": {
            "from": {
              "description": "the source: a location in an input, a mount or the tree",
              "oneOf": [
                {"type": "string", "pattern": "^input://[^/]+/"},
                {"type": "string", "pattern": "^mount://[^/]+/"},
                {"type": "string", "pattern": "^tree:///"}
              ]
            },
            "to": {
              "description": "the destination: a location in a mount or the tree",
              "oneOf": [
                {"type": "string", "pattern": "^mount://[^/]+/"},
                {"type": "string", "pattern": "^tree:///"}
              ]
            },
            "remove_destination": {
              "type": "boolean",
              "default": false,
              "description": "remove a file or link that is in the place of the copy first"
            }
          }
        }
      }
    }
  },
  "inputs": {"type": "object", "additionalProperties": true},
  "devices": {"type": "object", "additionalProperties": true}
}`,
		Capabilities: []string{"MAC_ADMIN"},
		Tools:        []string{"cp"},
		Run:          runCopy,
	})
}

type copyOptions struct {
	Paths []copyPath `json:"paths"`
}

type copyPath struct {
	From              string `json:"from"`
	To                string `json:"to"`
	RemoveDestination bool   `json:"remove_destination"`
}

func runCopy(c *Context) error {
	var o copyOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, p := range o.Paths {
		from, err := c.ResolveLocation(p.From, false)
		if err != nil {
			return err
		}
		to, err := c.ResolveLocation(p.To, false)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(from); err != nil {
			return &Error{Msg: fmt.Sprintf("nothing to copy at %s: %v", p.From, err), Hint: "check the path, and the name of the input or mount"}
		}
		if _, err := os.Stat(filepath.Dir(to)); err != nil {
			return &Error{Msg: fmt.Sprintf("cannot copy to %s: the directory is missing", p.To), Hint: "make it by org.osbuild.mkdir before this stage"}
		}
		c.Logf("copying %s to %s", p.From, p.To)
		args := []string{"-a", "--reflink=auto"}
		if p.RemoveDestination {
			args = append(args, "--remove-destination")
		}
		if err := c.Run("cp", append(args, from, to)...); err != nil {
			return err
		}
	}
	return nil
}
