// org.osbuild.erofs: an EROFS file system from a tree.
package stages

import (
	"encoding/json"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.erofs",
		Revision: 1,
		Summary:  "pack a tree into an EROFS file system",
		Doc: `Makes an EROFS image, a read-only file system for fast random access, of the input
"tree" with mkfs.erofs(1). With a source epoch no time in the image is later than it, its
UUID is derived from the ID of the stage, and each build makes the same bytes.

    {"filename": "root.erofs", "compression": {"method": "lz4hc", "level": 9},
     "exclude_paths": ["boot/efi/.*"]}`,
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
        "description": "what is left out: regular expressions of paths",
        "items": {"type": "string"}
      },
      "compression": {
        "type": "object",
        "additionalProperties": false,
        "required": ["method"],
        "description": "compression; default: none",
        "properties": {
          "method": {
            "enum": ["lz4", "lz4hc", "lzma", "zstd"],
            "description": "the method, as far as mkfs.erofs of the build root has it"
          },
          "level": {
            "type": "number",
            "description": "level of the method; see mkfs.erofs(1)"
          }
        }
      },
      "cluster-size": {
        "type": "number",
        "description": "largest size of a compressed cluster, in bytes"
      },
      "options": {
        "type": "array",
        "minItems": 1,
        "description": "extended options: all-fragments, dedupe, force-inode-compact, force-inode-extended, force-inode-blockmap, force-chunk-indexes, fragments, noinline_data, ztailpacking",
        "items": {"type": "string"}
      }
    }
  }
}`,
		Tools: []string{"mkfs.erofs"},
		Run:   runErofs,
	})
}

func runErofs(c *Context) error {
	var o struct {
		Filename    string   `json:"filename"`
		Source      string   `json:"source"`
		Exclude     []string `json:"exclude_paths"`
		Compression *struct {
			Method string      `json:"method"`
			Level  json.Number `json:"level"`
		} `json:"compression"`
		ClusterSize json.Number `json:"cluster-size"`
		Options     []string    `json:"options"`
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
	args := []string{image, source, "--quiet"}
	if z := o.Compression; z != nil {
		method := z.Method
		if n := jsonNumber(z.Level); n != "0" {
			method += "," + n
		}
		args = append(args, "-z", method)
	}
	if len(o.Options) > 0 {
		args = append(args, "-E", strings.Join(o.Options, ","))
	}
	if n := jsonNumber(o.ClusterSize); n != "0" {
		args = append(args, "-C", n)
	}
	for _, e := range o.Exclude {
		args = append(args, "--exclude-regex", e)
	}
	if c.Meta.SourceEpoch != nil {
		args = append(args, "-U", derivedUUID(c, "uuid"))
	}
	return runEnv(c, environ(c), "mkfs.erofs", args...)
}
