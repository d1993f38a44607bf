// org.osbuild.untar: unpacks an archive into the tree.
package stages

import "os"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.untar",
		Revision: 1,
		Summary:  "unpack a tar archive into the tree",
		Doc: `Unpacks the one file of the input "file" with the build root's tar, below "prefix",
which must be there. tar finds out the compression by itself.

    {"prefix": "/usr/local"}`,
		Schema: `{
  "inputs": ` + fileInputSchema + `,
  "options": {
    "additionalProperties": false,
    "properties": {
      "prefix": {
        "type": "string",
        "default": "/",
        "description": "directory of the tree that the archive is unpacked in"
      }
    }
  }
}`,
		Capabilities: []string{"MAC_ADMIN"},
		Tools:        []string{"tar"},
		Run:          runUntar,
	})
}

func runUntar(c *Context) error {
	var o struct {
		Prefix string `json:"prefix"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	source, err := inputFile(c, "file")
	if err != nil {
		return err
	}
	target, err := c.Resolve(o.Prefix)
	if err != nil {
		return err
	}
	if st, err := os.Stat(target); err != nil || !st.IsDir() {
		return &Error{
			Msg:  "prefix " + o.Prefix + " is not a directory of the tree",
			Hint: "make it before, with an org.osbuild.mkdir stage",
		}
	}
	return runEnv(c, environ(c), "tar", "--auto-compress", "-x", "-f", source, "-C", target)
}
