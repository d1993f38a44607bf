// org.osbuild.chown: owners of files.
package stages

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.chown",
		Revision: 1,
		Summary:  "change the owners of files",
		Doc: `Changes user, group or both, one path after the other. Names are looked up in the
image's own /etc/passwd and /etc/group, then in /usr/lib/passwd and /usr/lib/group;
a number that is no name is the ID itself.

A link is followed inside the image; with "recursive" it is changed itself, and so
are all links below a directory.

    {"items": {"/srv/www": {"user": "www-data", "group": 33, "recursive": true}}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "items": {
        "type": "object",
        "additionalProperties": false,
        "description": "path of the image → its owners",
        "patternProperties": {
          "^/` + plainPath + `$": {
            "type": "object",
            "anyOf": [{"required": ["user"]}, {"required": ["group"]}],
            "properties": {
              "user": {
                "description": "name or ID of the user",
                "oneOf": [
                  {"type": "string", "pattern": "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}$"},
                  {"type": "number", "minimum": 0}
                ]
              },
              "group": {
                "description": "name or ID of the group",
                "oneOf": [
                  {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]{0,31}$"},
                  {"type": "number", "minimum": 0}
                ]
              },
              "recursive": {"type": "boolean", "default": false, "description": "change all that is below it too"}
            }
          }
        }
      }
    }
  }
}`,
		Run: runChown,
	})
}

type chownOptions struct {
	Items orderedMap[chownItem] `json:"items"`
}

type chownItem struct {
	User      json.RawMessage `json:"user"`
	Group     json.RawMessage `json:"group"`
	Recursive bool            `json:"recursive"`
}

func runChown(c *Context) error {
	var o chownOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, e := range o.Items {
		uid, err := ownerID(c, e.Value.User, "user", "/etc/passwd", "/usr/lib/passwd")
		if err != nil {
			return err
		}
		gid, err := ownerID(c, e.Value.Group, "group", "/etc/group", "/usr/lib/group")
		if err != nil {
			return err
		}
		if err := chown(c, e.Name, uid, gid, e.Value.Recursive); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return &Error{Msg: e.Name + " is not in the tree", Hint: "check the path, or make it before this stage"}
			}
			return err
		}
	}
	return nil
}

// ownerID finds the number of a user or group, or -1 where none is given.
func ownerID(c *Context, value json.RawMessage, kind string, files ...string) (int, error) {
	var name string
	switch {
	case len(value) == 0:
		return -1, nil
	case value[0] == '"':
		if err := json.Unmarshal(value, &name); err != nil {
			return 0, err
		}
	default:
		name = string(value)
	}
	if name == "" {
		return -1, nil
	}
	for _, file := range files {
		e, err := findAccount(c, file, name)
		if err != nil {
			return 0, err
		}
		if e != nil {
			return e.id()
		}
	}
	// The last number means "leave it" to the kernel.
	if n, err := strconv.ParseUint(name, 10, 32); err == nil && n != 1<<32-1 {
		return int(n), nil
	}
	return 0, &Error{
		Msg:  fmt.Sprintf("the image has no %s %q", kind, name),
		Hint: fmt.Sprintf("make the %s before this stage, or give its number", kind),
	}
}

func chown(c *Context, p string, uid, gid int, recursive bool) error {
	if !recursive {
		at, err := c.Resolve(p)
		if err != nil {
			return err
		}
		return os.Lchown(at, uid, gid)
	}
	at, err := resolveIn(c.Tree, path.Clean("/"+p), strings.HasSuffix(p, "/"))
	if err != nil {
		return err
	}
	return filepath.WalkDir(at, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, uid, gid)
	})
}
