// Deployments of OSTree in the tree.
package stages

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// deploymentSchema is the schema of a deployment.
const deploymentSchema = `{
  "type": "object",
  "additionalProperties": false,
  "description": "which deployment: osname and ref, or default",
  "oneOf": [
    {
      "properties": {"default": {"enum": [false]}},
      "required": ["osname", "ref"]
    },
    {
      "properties": {"default": {"enum": [true]}},
      "not": {"anyOf": [{"required": ["osname"]}, {"required": ["ref"]}, {"required": ["serial"]}]}
    }
  ],
  "properties": {
    "osname": {"type": "string", "description": "name of the stateroot"},
    "ref": {"type": "string", "description": "OSTree ref or commit that is deployed"},
    "serial": {"type": "number", "default": 0, "description": "serial of the deployment"},
    "default": {"type": "boolean", "default": false, "description": "the only deployment that is there"}
  }
}`

// deployment says which deployment of OSTree is meant.
type deployment struct {
	Osname  string      `json:"osname"`
	Ref     string      `json:"ref"`
	Serial  json.Number `json:"serial"`
	Default bool        `json:"default"`
}

var commitForm = lazyRegexp(`^[0-9a-f]{64}$`)

// isCommit says whether a ref is the checksum of a commit.
func isCommit(ref string) bool { return commitForm().MatchString(ref) }

// root returns the path of the deployment in the image.
func (d deployment) root(c *Context) (string, error) {
	if d.Default {
		return onlyDeployment(c)
	}
	commit := d.Ref
	if !isCommit(commit) {
		out, err := c.Output("ostree", "rev-parse", "--repo="+c.TreePath("/ostree/repo"), "--", d.Ref)
		if err != nil {
			return "", err
		}
		commit = strings.TrimSpace(string(out))
	}
	serial := d.Serial.String()
	if serial == "" {
		serial = "0"
	}
	root := path.Join("/ostree/deploy", d.Osname, "deploy", commit+"."+serial)
	at, err := c.Resolve(root)
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(at); err != nil || !st.IsDir() {
		return "", &Error{
			Msg:  fmt.Sprintf("no deployment %s.%s of %s", commit, serial, d.Osname),
			Hint: "deploy it before this stage, or name another osname, ref or serial",
		}
	}
	return root, nil
}

// onlyDeployment finds the deployment with serial 0, of which there must be one.
func onlyDeployment(c *Context) (string, error) {
	const base = "/ostree/deploy"
	at, err := c.Resolve(base)
	if err != nil {
		return "", err
	}
	names, _ := os.ReadDir(at) // without the directory there is none
	var found []string
	for _, osname := range names {
		dir := path.Join(base, osname.Name(), "deploy")
		at, err := c.Resolve(dir)
		if err != nil {
			return "", err
		}
		all, _ := os.ReadDir(at)
		for _, e := range all {
			if strings.HasSuffix(e.Name(), ".0") && !strings.HasPrefix(e.Name(), ".") {
				found = append(found, path.Join(dir, e.Name()))
			}
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", &Error{Msg: "no OSTree deployment in the tree", Hint: "deploy one before this stage"}
	}
	return "", &Error{
		Msg:  "more than one OSTree deployment: " + strings.Join(found, ", "),
		Hint: "say which by osname and ref",
	}
}
