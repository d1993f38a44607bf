// org.osbuild.zstd: a file, compressed with zstd.
package stages

import "encoding/json"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.zstd",
		Revision: 1,
		Summary:  "compress a file with zstd",
		Doc: `Compresses the one file of the input "file" with "zstd -1", on all processors.

    {"filename": "disk.raw.zst"}`,
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
		Tools: []string{"zstd"},
		Run: func(c *Context) error {
			return compress(c, func(json.Number) (string, []string) {
				return "zstd", []string{"--keep", "--stdout", "-T0", "-1"}
			})
		},
	})
}
