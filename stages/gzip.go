// org.osbuild.gzip: a file, compressed with gzip.
package stages

import (
	"encoding/json"
	"fmt"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.gzip",
		Revision: 1,
		Summary:  "compress a file with gzip",
		Doc: `Compresses the one file of the input "file" with gzip, without its name and time
in the header.

    {"filename": "disk.raw.gz", "level": 6}`,
		Schema: `{
  "inputs": ` + fileInputSchema + `,
  "options": {
    "additionalProperties": false,
    "required": ["filename"],
    "properties": {
      ` + compressedFilename + `,
      "level": {
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
        "default": 1,
        "description": "1 is fastest, 9 smallest"
      }
    }
  }
}`,
		Tools: []string{"gzip"},
		Run: func(c *Context) error {
			return compress(c, func(level json.Number) (string, []string) {
				if level == "" {
					level = "1"
				}
				return "gzip", []string{"--no-name", "--stdout", fmt.Sprintf("-%s", level)}
			})
		},
	})
}
