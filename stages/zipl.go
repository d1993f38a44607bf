// org.osbuild.zipl: the configuration of zipl, the boot loader of s390x.
package stages

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.zipl",
		Revision: 1,
		Summary:  "configure zipl, the boot loader of s390x",
		Doc: `Writes a small /etc/zipl.conf: zipl offers all entries of /boot/loader/entries, the
default one of which starts after the timeout.

    {"timeout": 3}

The stage org.osbuild.zipl.inst makes a disk bootable. Debian writes no such entries:
there org.osbuild-star.zipl.disk is the stage.`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "timeout": {
        "type": "number",
        "default": 0,
        "description": "seconds until the default entry is started"
      }
    }
  }
}`,
		Run: runZipl,
	})
}

func runZipl(c *Context) error {
	var o struct {
		Timeout json.Number `json:"timeout"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	path, err := c.Resolve("/etc/zipl.conf")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text := "[defaultboot]\ndefaultauto\nprompt=1\ntimeout=" + pythonNumber(o.Timeout) + "\ntarget=/boot\n"
	return os.WriteFile(path, []byte(text), 0o644)
}

// pythonNumber writes a JSON number as Python prints it, 0 when absent: 3 is "3", 3.0
// is "3.0" and 1e3 is "1000.0".
func pythonNumber(n json.Number) string {
	s := jsonNumber(n)
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	f, err := n.Float64()
	if err != nil {
		return s
	}
	format := byte('f')
	if a := max(f, -f); a != 0 && (a < 1e-4 || a >= 1e16) {
		format = 'e'
	}
	s = strconv.FormatFloat(f, format, -1, 64)
	if format == 'f' && !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
