// org.osbuild.groups: groups of users.
package stages

import "encoding/json"

func init() {
	Register(&Stage{
		Name:     "org.osbuild.groups",
		Revision: 1,
		Summary:  "make groups",
		Doc: `Makes groups by groupadd of the build root, one after the other; without a gid it
picks the next that is free. A group that exists is an error, unless force is set.

    {"groups": {"deploy": {"gid": 1500}, "audit": {}}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "groups": {
        "type": "object",
        "additionalProperties": false,
        "description": "name of the group → facts about it",
        "patternProperties": {
          "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}$": {
            "type": "object",
            "properties": {
              "gid": {"type": "number", "description": "its number"}
            }
          }
        }
      },
      "force": {
        "type": "boolean",
        "default": false,
        "description": "a group that exists is no error, and a number that is taken is replaced by a free one"
      }
    }
  },
  "devices": {"type": "object", "additionalProperties": true}
}`,
		Tools: []string{"groupadd"},
		Run:   runGroups,
	})
}

type groupsOptions struct {
	Groups orderedMap[groupEntry] `json:"groups"`
	Force  bool                   `json:"force"`
}

type groupEntry struct {
	GID json.Number `json:"gid"`
}

func runGroups(c *Context) error {
	var o groupsOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, g := range o.Groups {
		args := []string{"--root", c.Tree}
		if n := g.Value.GID.String(); n != "" && n != "0" {
			args = append(args, "--gid", n)
		}
		if o.Force {
			args = append(args, "--force")
		}
		if err := c.Run("groupadd", append(args, "--", g.Name)...); err != nil {
			return err
		}
	}
	return nil
}
