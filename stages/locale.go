// org.osbuild.locale: the language of the system.
package stages

func init() {
	Register(&Stage{
		Name:     "org.osbuild.locale",
		Revision: 1,
		Summary:  "set the system's language",
		Doc: `Writes LANG to the file that the systemd of the image reads: /etc/locale.conf.

Debian before 13 and Ubuntu before 23.04 have a systemd of their own that reads
/etc/default/locale. Whether it is one of those is read from the systemd-firstboot
program of the image or, where the image has none, of the build root. In any case
/etc/locale.conf is removed first.

Nothing checks that the locale exists in the image.

    {"language": "en_US.UTF-8"}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["language"],
    "properties": {
      "language": {
        "type": "string",
        "description": "the locale, as in LANG: \"en_US.UTF-8\", \"C.UTF-8\""
      }
    }
  }
}`,
		Reads: func(map[string]any) []string { return []string{firstbootProgram} },
		Run:   runLocale,
	})
}

type localeOptions struct {
	Language string `json:"language"`
}

func runLocale(c *Context) error {
	var o localeOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	if !safeName(o.Language) {
		return &Error{Msg: "invalid locale \"" + o.Language + "\"", Hint: "write it like \"en_US.UTF-8\""}
	}
	if _, err := c.vacate("/etc/locale.conf"); err != nil {
		return err
	}
	file, err := localeFile(c)
	if err != nil {
		return err
	}
	return c.WriteFile(file, envLine("LANG", o.Language))
}

// firstbootProgram is asked which file it is, in the tree and else in the build root.
const firstbootProgram = "/usr/bin/systemd-firstboot"

// localeFile tells which file systemd reads, by the path that is compiled into it.
func localeFile(c *Context) (string, error) {
	const debian = "/etc/default/locale"
	inTree, err := c.Resolve(firstbootProgram)
	if err != nil {
		return "", err
	}
	for _, at := range []string{inTree, firstbootProgram} {
		found, exists, err := hasBytes(at, debian)
		if err != nil {
			return "", err
		}
		if found {
			return debian, nil
		}
		if exists {
			break
		}
	}
	return "/etc/locale.conf", nil
}
