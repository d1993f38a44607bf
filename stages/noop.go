// org.osbuild.noop: does nothing.
package stages

import (
	"encoding/json"
	"maps"
	"slices"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.noop",
		Revision: 1,
		Summary:  "do nothing",
		Doc: `Prints its options and inputs and leaves the tree as it is. Takes any options.

    {"comment": "a checkpoint between two others"}`,
		Schema: `{
  "options": {"type": "object", "additionalProperties": true},
  "inputs": {"type": "object", "additionalProperties": true},
  "devices": {"type": "object", "additionalProperties": true}
}`,
		Run: runNoop,
	})
}

func runNoop(c *Context) error {
	options := c.Options
	if len(options) == 0 {
		options = json.RawMessage("{}")
	}
	c.Logf("doing nothing with the options %s", options)
	for _, name := range slices.Sorted(maps.Keys(c.Inputs)) {
		c.Logf("doing nothing with the input %s", name)
	}
	return nil
}
