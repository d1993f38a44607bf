// org.osbuild.xz: a file, compressed with xz.
package stages

import "encoding/json"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.xz",
		Revision: 1,
		Summary:  "compress a file with xz",
		Doc: `Compresses the one file of the input "file" with "xz -0", on all processors.
zstd is many times faster at nearly the same size.

    {"filename": "disk.raw.xz"}`,
		Schema: `{
  "inputs": ` + fileInputSchema + `,
  "options": {
    "additionalProperties": false,
    "required": ["filename"],
    "properties": {
      ` + compressedFilename + `
    }
  }
}`,
		Tools: []string{"xz"},
		Run: func(c *Context) error {
			return compress(c, func(json.Number) (string, []string) {
				return "xz", []string{"--keep", "--stdout", "-0"}
			})
		},
	})
}
