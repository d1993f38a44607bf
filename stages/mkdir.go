// org.osbuild.mkdir: directories.
package stages

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.mkdir",
		Revision: 1,
		Summary:  "make directories in the tree or a mount",
		Doc: `Makes directories, one after the other. A path is one of the image ("/srv/www") or
a location ("tree:///srv/www", "mount://root/srv/www").

The mode is that of a new directory, less the bits of the umask, 022; one that is
there keeps its mode. Directories made on the way by "parents" have mode 0755.
Use org.osbuild.chmod for modes that the umask would take bits of.

    {"paths": [{"path": "/srv/www", "parents": true, "exist_ok": true, "mode": 493}]}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "paths": {
        "type": "array",
        "description": "the directories, in order",
        "items": {
          "type": "object",
          "additionalProperties": false,
          "required": ["path"],
          "properties": {
            "path": {
              "description": "the directory: a path of the image, or a location in the tree or a mount",
              "anyOf": [
                {"type": "string", "pattern": "^` + plainPath + `$"},
                {"type": "string", "pattern": "^mount://.+"},
                {"type": "string", "pattern": "^tree://.+"}
              ]
            },
            "mode": {"type": "number", "description": "its permissions, as a decimal number: 448 is 0700; 511 without it"},
            "parents": {"type": "boolean", "default": false, "description": "make missing directories above it too"},
            "exist_ok": {"type": "boolean", "default": false, "description": "it may be there already"}
          }
        }
      }
    }
  },
  "devices": {"type": "object", "additionalProperties": true}
}`,
		Run: runMkdir,
	})
}

type mkdirOptions struct {
	Paths []mkdirPath `json:"paths"`
}

type mkdirPath struct {
	Path    string  `json:"path"`
	Mode    *uint32 `json:"mode"`
	Parents bool    `json:"parents"`
	ExistOK bool    `json:"exist_ok"`
}

func runMkdir(c *Context) error {
	var o mkdirOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, p := range o.Paths {
		if err := mkdir(c, p); err != nil {
			return err
		}
	}
	return nil
}

func mkdir(c *Context, p mkdirPath) error {
	loc, mode := p.Path, uint32(0o777)
	if p.Mode != nil {
		mode = *p.Mode
	}
	if !strings.Contains(loc, "://") && !strings.HasPrefix(loc, "/") {
		c.Logf("warning: %q is a relative path; write /%s", loc, loc)
		loc = "/" + loc
	}
	at, err := c.ResolveLocation(loc, false)
	if err != nil {
		return err
	}
	if p.Parents {
		if strings.HasSuffix(at, "/.") { // upstream makes it as one of the directories on the way
			mode = 0o777
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Clean(at)), 0o755); err != nil {
			return err
		}
	}
	at = filepath.Clean(at)
	err = unix.Mkdir(at, mode)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return &Error{
			Msg:  "cannot make " + p.Path + ": the directory above it is missing",
			Hint: "add \"parents\": true",
		}
	case !errors.Is(err, unix.EEXIST):
		return &os.PathError{Op: "mkdir", Path: at, Err: err}
	case !p.ExistOK:
		return &Error{Msg: p.Path + " exists already", Hint: "add \"exist_ok\": true"}
	case !p.Parents:
		return nil
	}
	// With both options it must be a directory, or a link to one.
	full, err := c.ResolveLocation(loc, true)
	if err != nil {
		return err
	}
	if st, err := os.Stat(full); err != nil || !st.IsDir() {
		return Errorf("%s exists, and is no directory", p.Path)
	}
	return nil
}
