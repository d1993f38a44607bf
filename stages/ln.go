// org.osbuild.ln: links.
package stages

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.ln",
		Revision: 1,
		Summary:  "make symbolic and hard links",
		Doc: `Makes links, one after the other; nothing may be in their place.

The target of a symbolic link is written into it as it is. That of a hard link is
the file itself: a location ("tree:///usr/bin/tool") or, as upstream osbuild has it,
a path of the build root ("/run/osbuild/tree/usr/bin/tool").

    {"paths": [{"target": "../usr/bin/tool", "link_name": "tree:///sbin/tool", "symbolic": true}]}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["paths"],
    "properties": {
      "paths": {
        "type": "array",
        "minItems": 1,
        "description": "the links, in order",
        "items": {
          "type": "object",
          "additionalProperties": false,
          "required": ["target", "link_name"],
          "properties": {
            "target": {
              "type": "string",
              "description": "where it leads: a text for a symbolic link, a file for a hard link"
            },
            "link_name": {
              "description": "the link: a location in a mount or the tree",
              "oneOf": [
                {"type": "string", "pattern": "^mount://[^/]+/"},
                {"type": "string", "pattern": "^tree://"}
              ]
            },
            "symbolic": {
              "type": "boolean",
              "default": false,
              "description": "make a symbolic link, not a hard one"
            }
          }
        }
      }
    }
  },
  "inputs": {"type": "object", "additionalProperties": true},
  "devices": {"type": "object", "additionalProperties": true}
}`,
		Run: runLn,
	})
}

type lnOptions struct {
	Paths []lnPath `json:"paths"`
}

type lnPath struct {
	Target   string `json:"target"`
	LinkName string `json:"link_name"`
	Symbolic bool   `json:"symbolic"`
}

func runLn(c *Context) error {
	var o lnOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, p := range o.Paths {
		link, err := c.ResolveLocation(p.LinkName, false)
		if err != nil {
			return err
		}
		c.Logf("linking %s to %s", p.LinkName, p.Target)
		if p.Symbolic {
			err = os.Symlink(p.Target, link)
		} else {
			err = hardLink(c, p.Target, link)
		}
		if errors.Is(err, unix.EEXIST) {
			return &Error{Msg: p.LinkName + " exists already", Hint: "a link never replaces a file"}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func hardLink(c *Context, target, link string) error {
	file := filepath.Join("/", target)
	if strings.Contains(target, "://") {
		var err error
		if file, err = c.ResolveLocation(target, false); err != nil {
			return err
		}
	}
	err := os.Link(file, link)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) {
		return &Error{
			Msg:  fmt.Sprintf("cannot make a hard link to %q: %v", target, err),
			Hint: "a path is one of the build root; name a file of the tree as \"tree:///PATH\", or set \"symbolic\": true",
		}
	}
	return err
}
