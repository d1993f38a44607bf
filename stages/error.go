// org.osbuild.error: fails.
package stages

import (
	"encoding/json"
	"strconv"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.error",
		Revision: 1,
		Summary:  "fail",
		Doc: `Fails, to test what happens then. With the return code 0 it does not.

    {"returncode": 3}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "returncode": {
        "type": "number",
        "default": 255,
        "description": "exit status of the stage"
      }
    }
  }
}`,
		Run: runError,
	})
}

type errorOptions struct {
	ReturnCode *json.Number `json:"returncode"`
}

func runError(c *Context) error {
	var o errorOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	code := json.Number("255")
	if o.ReturnCode != nil {
		code = *o.ReturnCode
	}
	// An exit status has eight bits.
	if n, err := strconv.Atoi(code.String()); err == nil && n&0xff == 0 {
		c.Logf("asked for the return code %s", code)
		return nil
	}
	return Errorf("the stage was asked to fail, with the return code %s", code)
}
