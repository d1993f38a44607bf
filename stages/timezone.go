// org.osbuild.timezone: the local time of the system.
package stages

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.timezone",
		Revision: 1,
		Summary:  "set the system's time zone",
		Doc: `Makes /etc/localtime a link into the image's time zone database; a file or link
of that name is replaced.

The zone must be in the database (/usr/share/zoneinfo) of the image or of the build
root. Where neither has one, any name of the right form is taken.

    {"zone": "Europe/Berlin"}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["zone"],
    "properties": {
      "zone": {
        "type": "string",
        "description": "name of the zone in the tz database: \"Europe/Berlin\", \"UTC\""
      }
    }
  }
}`,
		Run: runTimezone,
	})
}

type timezoneOptions struct {
	Zone string `json:"zone"`
}

const zoneinfo = "/usr/share/zoneinfo"

func runTimezone(c *Context) error {
	var o timezoneOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	ok := zoneForm(o.Zone)
	if ok && o.Zone != "UTC" {
		inTree, err := c.Resolve(zoneinfo)
		if err != nil {
			return err
		}
		ok, err = knownZone(o.Zone, inTree, zoneinfo)
		if err != nil {
			return err
		}
	}
	if !ok {
		return &Error{
			Msg:  "unknown time zone \"" + o.Zone + "\"",
			Hint: "a name of the tz database, like \"Europe/Berlin\"; the database is in the package tzdata",
		}
	}
	at, err := c.vacate("/etc/localtime")
	if err != nil {
		return err
	}
	return os.Symlink(".."+zoneinfo+"/"+o.Zone, at)
}

// zoneForm says whether the name has the form of a zone's.
func zoneForm(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" {
			return false
		}
		for _, r := range part {
			if !(strings.ContainsRune("-_+", r) || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
				return false
			}
		}
	}
	return true
}

// knownZone says whether one of the databases has the zone, or none is there.
func knownZone(name string, databases ...string) (bool, error) {
	ok := true
	for _, dir := range databases {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		ok = false
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return false, err
		}
		magic := make([]byte, 4)
		_, err = io.ReadFull(f, magic) // a directory cannot be read
		f.Close()
		if err == nil && string(magic) == "TZif" {
			return true, nil
		}
	}
	return ok, nil
}
