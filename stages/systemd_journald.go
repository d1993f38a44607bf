// org.osbuild.systemd-journald: the journal.
package stages

import (
	"errors"
	"os"

	"path"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.systemd-journald",
		Revision: 1,
		Summary:  "write a drop-in of the journal's configuration",
		Doc: `Writes /usr/lib/systemd/journald.conf.d/FILENAME, see journald.conf(5). It is an
error if the file is there.

    {"filename": "10-persistent.conf", "config": {"Journal": {"Storage": "persistent"}}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["filename", "config"],
    "properties": {
      "filename": {
        "type": "string",
        "pattern": "^[a-zA-Z0-9_.-]{1,250}[.]conf$",
        "description": "name of the file, with .conf at its end"
      },
      "config": {
        "type": "object",
        "additionalProperties": false,
        "minProperties": 1,
        "description": "the sections",
        "properties": {
          "Journal": {
            "type": "object",
            "additionalProperties": false,
            "minProperties": 1,
            "description": "section [Journal]",
            "properties": {
              "Storage": {"type": "string", "enum": ["volatile", "persistent", "auto", "none"], "description": "where the journal is kept"},
              "Compress": {"type": "string", "description": "whether large entries are compressed, or from which size"},
              "SplitMode": {"type": "string", "enum": ["uid", "none"], "description": "a journal for each user, or one for all"},
              "MaxFileSec": {"type": "string", "description": "time after which a new file is begun"},
              "MaxRetentionSec": {"type": "string", "description": "time after which entries are removed"},
              "SyncIntervalSec": {"type": "string", "description": "time after which it is written to disk"},
              "Audit": {"type": "string", "enum": ["yes", "no", ""], "description": "turn auditing of the kernel on or off at boot; \"\" leaves it"}
            }
          }
        }
      }
    }
  }
}`,
		Run: runJournald,
	})
}

type journaldOptions struct {
	Filename string   `json:"filename"`
	Config   unitFile `json:"config"`
}

func runJournald(c *Context) error {
	var o journaldOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	text, err := o.Config.text()
	if err != nil {
		return err
	}
	file := path.Join("/usr/lib/systemd/journald.conf.d", o.Filename)
	at, err := c.Resolve(file)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(at); !errors.Is(err, os.ErrNotExist) {
		return &Error{Msg: file + " exists already", Hint: "choose another filename"}
	}
	return c.WriteFile(file, text)
}
