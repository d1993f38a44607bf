// org.osbuild.sshd.config: the SSH server.
package stages

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.sshd.config",
		Revision: 1,
		Summary:  "change options of the SSH server",
		Doc: `Changes /etc/ssh/sshd_config, which must be there: the first line of each option is
replaced, and one that has none is added at the end of the file. Comments and all
other lines stay.

    {"config": {"PasswordAuthentication": false, "PermitRootLogin": "prohibit-password"}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["config"],
    "properties": {
      "config": {
        "type": "object",
        "additionalProperties": false,
        "description": "the options, by their names in sshd_config(5)",
        "properties": {
          "PasswordAuthentication": {"type": "boolean", "description": "whether passwords are taken"},
          "ChallengeResponseAuthentication": {"type": "boolean", "description": "whether keyboard-interactive authentication is on"},
          "ClientAliveInterval": {"type": "integer", "description": "seconds after which a silent client is asked for a sign of life; 0 never"},
          "PermitRootLogin": {
            "description": "whether root may log in, or how",
            "oneOf": [
              {"type": "string", "enum": ["prohibit-password", "forced-commands-only"]},
              {"type": "boolean"}
            ]
          }
        }
      }
    }
  }
}`,
		Run: runSSHDConfig,
	})
}

type sshdConfigOptions struct {
	Config sshdConfig `json:"config"`
}

type sshdConfig struct {
	PasswordAuthentication          *bool           `json:"PasswordAuthentication"`
	ChallengeResponseAuthentication *bool           `json:"ChallengeResponseAuthentication"`
	ClientAliveInterval             json.Number     `json:"ClientAliveInterval"`
	PermitRootLogin                 json.RawMessage `json:"PermitRootLogin"`
}

// sshdChange is a value for an option that is not yet in the file.
type sshdChange struct {
	key, value string
	done       bool
}

// changes lists what is set, in the order in which new lines are added.
func (o *sshdConfig) changes() ([]*sshdChange, error) {
	var out []*sshdChange
	yesNo := map[bool]string{true: "yes", false: "no"}
	set := func(key, value string) { out = append(out, &sshdChange{key: key, value: value}) }
	if v := o.PasswordAuthentication; v != nil {
		set("PasswordAuthentication", yesNo[*v])
	}
	if v := o.ChallengeResponseAuthentication; v != nil {
		set("ChallengeResponseAuthentication", yesNo[*v])
	}
	if v := o.ClientAliveInterval; v != "" {
		set("ClientAliveInterval", v.String())
	}
	if v := o.PermitRootLogin; len(v) > 0 {
		var how any
		if err := json.Unmarshal(v, &how); err != nil {
			return nil, err
		}
		switch how := how.(type) {
		case bool:
			set("PermitRootLogin", yesNo[how])
		case string:
			set("PermitRootLogin", how)
		}
	}
	return out, nil
}

func runSSHDConfig(c *Context) error {
	var o sshdConfigOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	const file = "/etc/ssh/sshd_config"
	at, err := c.ResolveLocation("tree://"+file, false)
	if err != nil {
		return err
	}
	text, err := c.ReadText(file)
	if errors.Is(err, os.ErrNotExist) {
		return &Error{Msg: "the tree has no " + file, Hint: "install the SSH server before this stage"}
	}
	if err != nil {
		return err
	}
	changes, err := o.Config.changes()
	if err != nil {
		return err
	}
	st, err := os.Stat(at)
	if err != nil {
		return err
	}
	return rewriteFile(at, editSSHD(text, changes), st.Mode().Perm())
}

// editSSHD puts the changes into the text of a file. Names of options are the same
// in capital and small letters.
func editSSHD(text string, changes []*sshdChange) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) == 2 {
			for _, ch := range changes {
				if ch.done || !strings.EqualFold(ch.key, words[0]) {
					continue
				}
				ch.done = true
				// A line that says the same stays, with the spaces it has; numbers are
				// written again.
				if words[1] != ch.value || ch.key == "ClientAliveInterval" {
					line = words[0] + " " + ch.value + "\n"
				}
				break
			}
		}
		out.WriteString(line)
	}
	if text != "" && !strings.HasSuffix(out.String(), "\n") {
		out.WriteByte('\n')
	}
	for _, ch := range changes {
		if !ch.done {
			out.WriteString(ch.key + " " + ch.value + "\n")
		}
	}
	return out.String()
}
