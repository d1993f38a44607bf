// What org.osbuild.xz, org.osbuild.zstd and org.osbuild.gzip share: one compressed
// file from one file.
package stages

import "encoding/json"

// compressedFilename is the schema of their option "filename".
const compressedFilename = `"filename": {
        "type": "string",
        "description": "path of the compressed file in the tree"
      }`

// compress runs the program that command names, for a level of the options, over
// the input file, into the file of the options.
func compress(c *Context, command func(level json.Number) (string, []string)) error {
	var o struct {
		Filename string      `json:"filename"`
		Level    json.Number `json:"level"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	source, err := inputFile(c, "file")
	if err != nil {
		return err
	}
	name, args := command(o.Level)
	return toFile(c, o.Filename, environ(c, xzOpt()), name, append(args, source)...)
}
