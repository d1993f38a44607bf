// org.osbuild.systemd-sysusers.d: accounts that systemd makes at boot.
package stages

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.systemd-sysusers.d",
		Revision: 1,
		Summary:  "write a file in sysusers.d",
		Doc: `Writes a file that systemd-sysusers(8) makes accounts from, see sysusers.d(5): a
line for each entry. Types are u and u! (a user and its group), g (a group), m (adds
the user "name" to the group "id") and r (a range of numbers, with the name "-").

    {"config": {"filename": "app.conf", "entries": [
      {"type": "u", "name": "app", "id": "556", "gecos": "An app", "home": "/var/lib/app"}
    ]}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["config"],
    "properties": {
      "config": {
        "type": "object",
        "additionalProperties": false,
        "required": ["filename", "entries"],
        "description": "the file",
        "properties": {
          "path-prefix": {
            "type": "string",
            "enum": ["usr", "etc"],
            "default": "usr",
            "description": "write it in /usr/lib/sysusers.d or /etc/sysusers.d"
          },
          "filename": {
            "type": "string",
            "pattern": "[.]conf$",
            "description": "name of the file, with .conf at its end"
          },
          "entries": {
            "type": "array",
            "description": "the lines of the file, in order",
            "items": {
              "type": "object",
              "required": ["type", "name"],
              "properties": {
                "type": {"type": "string", "enum": ["u", "u!", "g", "m", "r"], "description": "what the line is about"},
                "name": {"type": "string", "pattern": "^([a-z]+([-_][a-zA-Z0-9_-]{0,30})?|-)$", "description": "name of the user or group"},
                "id": {"type": "string", "default": "-", "description": "number, USER:GROUP, a range, or a group for m; \"-\" picks one"},
                "gecos": {"type": "string", "description": "full name, of type u only"},
                "home": {"type": "string", "description": "home directory, of type u only"},
                "shell": {"type": "string", "description": "login shell, of type u only"}
              }
            }
          }
        }
      }
    }
  }
}`,
		Run: runSysusersD,
	})
}

type sysusersDOptions struct {
	Config sysusersFile `json:"config"`
}

type sysusersFile struct {
	Prefix   string                   `json:"path-prefix"`
	Filename string                   `json:"filename"`
	Entries  looseList[sysusersEntry] `json:"entries"`
}

type sysusersEntry struct {
	Type  string  `json:"type"`
	Name  string  `json:"name"`
	ID    *string `json:"id"`
	GECOS *string `json:"gecos"`
	Home  *string `json:"home"`
	Shell *string `json:"shell"`
}

func runSysusersD(c *Context) error {
	var o sysusersDOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	f := o.Config
	if !strings.HasSuffix(f.Filename, ".conf") {
		return &Error{Msg: fmt.Sprintf("the file name %q does not end with .conf", f.Filename), Hint: "systemd reads no others"}
	}
	if len(f.Entries) == 0 {
		return &Error{Msg: "no entries", Hint: "give at least one"}
	}
	var text strings.Builder
	for _, e := range f.Entries {
		line, err := e.line()
		if err != nil {
			return err
		}
		text.WriteString(line + "\n")
	}
	dir := "/usr/lib/sysusers.d"
	if f.Prefix == "etc" {
		dir = "/etc/sysusers.d"
	}
	return c.WriteFile(path.Join(dir, path.Join("/", f.Filename)), text.String())
}

var sysusersName = lazyRegexp(`^([a-z]+([-_][a-zA-Z0-9_-]{0,30})?|-)$`)

// line checks an entry and writes it.
func (e sysusersEntry) line() (string, error) {
	field := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	id, gecos, home, shell := field(e.ID), field(e.GECOS), field(e.Home), field(e.Shell)
	bad := func(what, value, hint string) (string, error) {
		return "", &Error{Msg: fmt.Sprintf("entry %s %s: the %s %q is invalid", e.Type, e.Name, what, value), Hint: hint}
	}
	if !slices.Contains([]string{"u", "u!", "g", "m", "r"}, e.Type) {
		return bad("type", e.Type, "one of u, u!, g, m and r")
	}
	if !sysusersName().MatchString(e.Name) || e.Type == "r" && e.Name != "-" {
		return bad("name", e.Name, "a name of small letters; \"-\" for the type r")
	}
	switch {
	case e.Type == "m":
		if !sysusersName().MatchString(id) {
			return bad("id", id, "the name of a group")
		}
	case e.Type == "r":
		if !sysusersIDs(id, "-") {
			return bad("id", id, "a number, or two with a dash between")
		}
	case id != "-" && !sysusersIDs(id, ":"):
		return bad("id", id, "a number, or two with a colon between, but not 65535 nor 4294967295")
	}
	if e.Type != "u" {
		for _, f := range []struct{ what, value string }{{"gecos", gecos}, {"home", home}, {"shell", shell}} {
			if f.value != "" && f.value != "-" {
				return bad(f.what, f.value, "only entries of the type u have it")
			}
		}
	}
	if gecos != "-" {
		gecos = `"` + gecos + `"`
	}
	return strings.TrimSpace(strings.Join([]string{e.Type, e.Name, id, gecos, home, shell}, " ")), nil
}

// sysusersIDs says whether s is one number, or two with sep between.
func sysusersIDs(s, sep string) bool {
	parts := strings.Split(s, sep)
	for _, p := range parts {
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil || n == 1<<16-1 || n == 1<<32-1 {
			return false
		}
	}
	return len(parts) <= 2
}
