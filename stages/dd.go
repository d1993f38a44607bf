// org.osbuild.dd: copies a range of bytes of a file to the start of another.
package stages

import (
	"encoding/json"
	"os"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.dd",
		Revision: 1,
		Summary:  "copy a range of bytes from a file into one of the tree",
		Doc: `Copies "count" bytes, from "src_offset" on, of a file to the start of a file of the
tree, which is created if it is not there. What is beyond the copied bytes stays. A
source that ends early is no error: what there is, is copied.

    {"src": "input://image/disk.img", "dst": "part.bin", "src_offset": 1048576, "count": 4096}`,
		Schema: `{
  "inputs": {
    "type": "object",
    "additionalProperties": true
  },
  "options": {
    "additionalProperties": false,
    "required": ["src", "dst", "count"],
    "properties": {
      "src": {
        "type": "string",
        "pattern": "^(input|tree|mount)://.",
        "description": "location of the file that is read"
      },
      "dst": {
        "type": "string",
        "description": "path of the file in the tree that is written"
      },
      "src_offset": {
        "type": "integer",
        "default": 0,
        "minimum": 0,
        "description": "how many bytes of the source are passed over"
      },
      "count": {
        "type": "integer",
        "minimum": 1,
        "description": "how many bytes are copied"
      }
    }
  }
}`,
		InPlace: true,
		Run:     runDD,
	})
}

func runDD(c *Context) error {
	var o struct {
		Src       string      `json:"src"`
		Dst       string      `json:"dst"`
		SrcOffset json.Number `json:"src_offset"`
		Count     json.Number `json:"count"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	off, err := integer("src_offset", json.Number(jsonNumber(o.SrcOffset)))
	if err != nil {
		return err
	}
	n, err := integer("count", o.Count)
	if err != nil {
		return err
	}
	path, err := c.ResolveLocation(o.Src, true)
	if err != nil {
		return err
	}
	to, err := target(c, o.Dst)
	if err != nil {
		return err
	}
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer dst.Close()
	done, err := copyRange(dst, 0, src, off, n)
	if err != nil {
		return err
	}
	if done < n {
		c.Logf("%s ends after %d of the %d bytes", o.Src, done, n)
	}
	return dst.Close()
}
