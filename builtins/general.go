// fail, warn and uuid5: what rules need besides images.

package builtins

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

var generalTable = []Builtin{
	{
		Name:    "fail",
		Doc:     "Stops with an error, which is shown at the line of the user's own file that led here.",
		Varargs: "The message: values, with spaces between them.",
		Result:  "None",
		Params: []Param{
			{Name: "hint", Type: "string", Default: `""`, Doc: "What to do about it.", Keyword: true},
			{Name: "arg", Type: "string", Default: `""`, Doc: "Name of the argument of the user's call that is wrong: the error marks it.", Keyword: true},
		},
		run: func(c *call) (starlark.Value, error) {
			return nil, rulefile.ArgError(c.t, "", c.str("arg"), joinArgs(c.args["*"]), c.str("hint"))
		},
	},
	{
		Name:    "warn",
		Doc:     "Prints a warning, with the line of the user's own file that led here.",
		Varargs: "The message: values, with spaces between them.",
		Result:  "None",
		run: func(c *call) (starlark.Value, error) {
			if c.p.cfg.Print != nil {
				c.p.cfg.Print(rulefile.CallerPos(c.t), "warning: "+joinArgs(c.args["*"]))
			}
			return starlark.None, nil
		},
	},
	{
		Name:   "uuid5",
		Doc:    "The UUID of a name (version 5 of RFC 9562): the same name in the same namespace always has the same one.",
		Result: "string",
		Params: []Param{
			{Name: "namespace", Type: "string", Doc: "A UUID: a namespace, or what uuid5 returned for one."},
			{Name: "name", Type: "string", Doc: "The name."},
		},
		run: func(c *call) (starlark.Value, error) {
			id, ok := uuid5(c.str("namespace"), c.str("name"))
			if !ok {
				return nil, c.fail("namespace", "for example 6ba7b810-9dad-11d1-80b4-00c04fd430c8", "%q is not a UUID", c.str("namespace"))
			}
			return starlark.String(id), nil
		},
	},
}

func joinArgs(v starlark.Value) string {
	var words []string
	for _, e := range elements(v) {
		if s, ok := starlark.AsString(e); ok {
			words = append(words, s)
		} else {
			words = append(words, e.String())
		}
	}
	return strings.Join(words, " ")
}

// uuid5 is a UUID of version 5; false when namespace is not a UUID.
func uuid5(namespace, name string) (string, bool) {
	if len(namespace) != 36 || namespace[8] != '-' || namespace[13] != '-' || namespace[18] != '-' || namespace[23] != '-' {
		return "", false
	}
	ns, err := hex.DecodeString(strings.ReplaceAll(namespace, "-", ""))
	if err != nil || len(ns) != 16 {
		return "", false
	}
	h := sha1.Sum(append(ns, name...))
	u := h[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16]), true
}
