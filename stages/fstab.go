// org.osbuild.fstab: what is mounted where.
package stages

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.fstab",
		Revision: 1,
		Summary:  "write /etc/fstab",
		Doc: `Writes /etc/fstab; what was in it is gone. Each file system has one of device, uuid,
label and partlabel, and a path.

With ostree, the file of that deployment is written.

    {"filesystems": [
      {"uuid": "76a22bf4-f153-4541-b6c7-0332c0dfaeac", "path": "/", "vfs_type": "ext4",
       "options": "defaults,noatime", "freq": 1, "passno": 1}
    ]}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["filesystems"],
    "properties": {
      "ostree": {
        "type": "object",
        "additionalProperties": false,
        "required": ["deployment"],
        "description": "write the fstab of an OSTree deployment",
        "properties": {
          "deployment": ` + deploymentSchema + `
        }
      },
      "filesystems": {
        "type": "array",
        "description": "the lines of the file, in order",
        "items": {
          "type": "object",
          "oneOf": [
            {"required": ["device", "path"]},
            {"required": ["uuid", "path"]},
            {"required": ["label", "path"]},
            {"required": ["partlabel", "path"]}
          ],
          "properties": {
            "device": {"type": "string", "description": "path of the block device, or what else the first field may be: \"tmpfs\""},
            "uuid": {"type": "string", "description": "UUID of the file system"},
            "label": {"type": "string", "description": "label of the file system"},
            "partlabel": {"type": "string", "description": "label of the partition"},
            "path": {"type": "string", "description": "where it is mounted"},
            "vfs_type": {"type": "string", "default": "none", "description": "type of the file system: \"ext4\""},
            "options": {"type": "string", "default": "defaults", "description": "mount options, with commas between"},
            "freq": {"type": "number", "default": 0, "description": "days between dumps, see dump(8)"},
            "passno": {"type": "number", "default": 0, "description": "when fsck(8) checks it at boot: 1 the root, 2 others, 0 never"}
          }
        }
      }
    }
  }
}`,
		ToolsFor: func(options map[string]any) []string {
			o, _ := options["ostree"].(map[string]any)
			d, _ := o["deployment"].(map[string]any)
			if ref, _ := d["ref"].(string); ref != "" && !isCommit(ref) {
				return []string{"ostree"}
			}
			return nil
		},
		Run: runFstab,
	})
}

type fstabOptions struct {
	Ostree      *fstabOstree          `json:"ostree"`
	Filesystems looseList[fstabEntry] `json:"filesystems"`
}

type fstabOstree struct {
	Deployment deployment `json:"deployment"`
}

type fstabEntry struct {
	Device    string      `json:"device"`
	UUID      string      `json:"uuid"`
	Label     string      `json:"label"`
	Partlabel string      `json:"partlabel"`
	Path      string      `json:"path"`
	VFSType   string      `json:"vfs_type"`
	Options   *string     `json:"options"`
	Freq      json.Number `json:"freq"`
	Passno    json.Number `json:"passno"`
}

func runFstab(c *Context) error {
	var o fstabOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	file := "/etc/fstab"
	if o.Ostree != nil {
		root, err := o.Ostree.Deployment.root(c)
		if err != nil {
			return err
		}
		c.Logf("writing into the deployment %s", root)
		file = root + file
	}
	var text strings.Builder
	for _, fs := range o.Filesystems {
		spec := fs.Device
		switch {
		case fs.UUID != "":
			spec = "UUID=" + fs.UUID
		case fs.Label != "":
			spec = "LABEL=" + fs.Label
		case fs.Partlabel != "":
			spec = "PARTLABEL=" + fs.Partlabel
		case spec == "":
			return &Error{
				Msg:  fmt.Sprintf("the file system at %q has nothing to find it by", fs.Path),
				Hint: "set one of uuid, label, partlabel and device",
			}
		}
		options := "defaults"
		if fs.Options != nil {
			options = *fs.Options
		}
		fields := []string{spec, fs.Path, cmp.Or(fs.VFSType, "none"), options, cmp.Or(fs.Freq.String(), "0"), cmp.Or(fs.Passno.String(), "0")}
		text.WriteString(strings.Join(fields, "\t") + "\n")
	}
	return c.WriteFile(file, text.String())
}
