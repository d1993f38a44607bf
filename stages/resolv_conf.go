// org.osbuild.resolv-conf: name servers.
package stages

import "strings"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.resolv-conf",
		Revision: 1,
		Summary:  "write /etc/resolv.conf",
		Doc: `Writes /etc/resolv.conf anew, see resolv.conf(5); a file or link of that name is
replaced. Without options it has only a comment.

    {"nameserver": ["192.0.2.53"], "search": ["example.org"]}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "nameserver": {
        "type": "array",
        "items": {"type": "string"},
        "description": "addresses of name servers, in the order they are asked"
      },
      "search": {
        "type": "array",
        "items": {"type": "string"},
        "description": "domains in which short names are looked up"
      }
    }
  }
}`,
		Run: runResolvConf,
	})
}

type resolvConfOptions struct {
	Nameserver []string `json:"nameserver"`
	Search     []string `json:"search"`
}

func runResolvConf(c *Context) error {
	var o resolvConfOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	text := "# This file was created by osbuild\n"
	if len(o.Search) > 0 {
		text += "search " + strings.Join(o.Search, " ") + "\n"
	}
	for _, ns := range o.Nameserver {
		text += "nameserver " + ns + "\n"
	}
	return c.ReplaceFile("/etc/resolv.conf", text)
}
