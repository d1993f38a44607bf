// org.osbuild.squashfs: a squashfs file system from a tree.
package stages

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// sourceSchema is the option "source" of stages that pack a tree.
const sourceSchema = `"source": {
        "description": "what is packed instead of the input tree",
        "oneOf": [
          {
            "type": "string",
            "pattern": "^mount://",
            "description": "a directory of a mount, such as mount://root/"
          },
          {
            "type": "string",
            "pattern": "^input://[^/]+/",
            "description": "a directory of an input, such as input://tree/usr"
          }
        ]
      }`

func init() {
	Register(&Stage{
		Name:     "org.osbuild.squashfs",
		Revision: 1,
		Summary:  "pack a tree into a squashfs file system",
		Doc: `Makes a squashfs image of the input "tree" with mksquashfs(1), on all processors.
A file that is there already and is a squashfs gets the tree added to it, as mksquashfs
does. With a source epoch no time in the image is later than it, and each build makes the
same bytes.

    {"filename": "root.squashfs", "exclude_paths": ["boot/.*"],
     "compression": {"method": "zstd", "level": 3}}

The level is an addition to upstream's options. It matters: a 600 MB tree takes about 2
seconds at zstd 3, and more than a minute at the default of 15.`,
		Schema: `{
  "inputs": ` + treeInputSchema + `,
  "devices": {
    "type": "object",
    "additionalProperties": true
  },
  "options": {
    "additionalProperties": false,
    "required": ["filename"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the image in the tree that the stage makes"
      },
      ` + sourceSchema + `,
      "exclude_paths": {
        "type": "array",
        "description": "what is left out: regular expressions of paths, each part of the path on its own",
        "items": {"type": "string"}
      },
      "compression": {
        "type": "object",
        "additionalProperties": false,
        "required": ["method"],
        "description": "compression; default: that of mksquashfs, gzip",
        "properties": {
          "method": {
            "enum": ["gzip", "lz4", "xz", "zstd"],
            "description": "the method"
          },
          "level": {
            "type": "integer",
            "minimum": 1,
            "maximum": 22,
            "description": "level of gzip (1 to 9) or zstd (1 to 22); default: 9 and 15"
          },
          "options": {
            "type": "object",
            "additionalProperties": false,
            "description": "options of the method",
            "properties": {
              "bcj": {
                "enum": ["x86", "arm", "armthumb", "powerpc", "sparc", "ia64"],
                "description": "filter for programs of an architecture, that makes them smaller (xz)"
              }
            }
          }
        }
      }
    }
  }
}`,
		Tools: []string{"mksquashfs"},
		Run:   runSquashfs,
	})
}

// packSource returns the directory that a stage packs: that of its option, or the
// input "tree".
func packSource(c *Context, location string) (string, error) {
	if location == "" {
		return inputDir(c, "tree")
	}
	p, err := c.ResolveLocation(location, true)
	if err != nil {
		return "", err
	}
	p = filepath.Clean(p)
	if _, err := os.Stat(p); err != nil {
		return "", Errorf("source %s is not there", location)
	}
	return p, nil
}

func runSquashfs(c *Context) error {
	var o struct {
		Filename    string   `json:"filename"`
		Source      string   `json:"source"`
		Exclude     []string `json:"exclude_paths"`
		Compression *struct {
			Method  string      `json:"method"`
			Level   json.Number `json:"level"`
			Options struct {
				BCJ string `json:"bcj"`
			} `json:"options"`
		} `json:"compression"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	source, err := packSource(c, o.Source)
	if err != nil {
		return err
	}
	image, err := target(c, o.Filename)
	if err != nil {
		return err
	}
	args := []string{source, image, "-no-progress"}
	if z := o.Compression; z != nil {
		args = append(args, "-comp", z.Method)
		if z.Options.BCJ != "" {
			args = append(args, "-Xbcj", z.Options.BCJ)
		}
		if z.Level != "" {
			if z.Method != "gzip" && z.Method != "zstd" {
				return &Error{Msg: "compression " + z.Method + " has no level", Hint: "leave out the level, or take zstd"}
			}
			args = append(args, "-Xcompression-level", z.Level.String())
		}
	}
	if len(o.Exclude) > 0 {
		args = append(append(args, "-regex", "-e"), o.Exclude...)
	}
	return runEnv(c, environ(c), "mksquashfs", args...)
}
