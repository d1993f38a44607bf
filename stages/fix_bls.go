// org.osbuild.fix-bls: paths in boot loader entries.
package stages

import (
	"os"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.fix-bls",
		Revision: 1,
		Summary:  "correct the paths in the boot loader entries",
		Doc: `Tools that make boot loader entries in a build root take the path of the tree for a
part of the path of the kernel. This stage replaces all from the first slash of a
line to its last "/boot" by the prefix, in each file of /boot/loader/entries.

The prefix is empty where /boot is a file system of its own. A line that has nothing
before /boot is left alone, unless require_boot_prefix is false.

    {"prefix": ""}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "prefix": {
        "type": "string",
        "default": "/boot",
        "description": "what the paths begin with afterwards"
      },
      "require_boot_prefix": {
        "type": "boolean",
        "default": true,
        "description": "change only paths that have something before /boot"
      }
    }
  }
}`,
		Run: runFixBLS,
	})
}

type fixBLSOptions struct {
	Prefix            *string `json:"prefix"`
	RequireBootPrefix *bool   `json:"require_boot_prefix"`
}

var (
	bootWithPrefix = lazyRegexp(`(/.*)+/boot`)
	bootAnyhow     = lazyRegexp(`(/.*)*/boot`)
)

func runFixBLS(c *Context) error {
	var o fixBLSOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	prefix, form := "/boot", bootWithPrefix()
	if o.Prefix != nil {
		prefix = *o.Prefix
	}
	if o.RequireBootPrefix != nil && !*o.RequireBootPrefix {
		form = bootAnyhow()
	}
	dir, err := c.Resolve("/boot/loader/entries")
	if err != nil {
		return err
	}
	files, err := confFiles(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := readText(f)
		if err != nil {
			return err
		}
		var out strings.Builder
		for line := range strings.Lines(text) {
			out.WriteString(form.ReplaceAllLiteralString(line, prefix))
		}
		if err := os.WriteFile(f, []byte(out.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
