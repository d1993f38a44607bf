// What systemd-firstboot does for upstream, done here: which names it takes, how
// it writes them, and where.
package stages

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"unicode/utf8"
)

// safeName says whether systemd takes s as the name of a locale or a keymap: it
// could be the name of a file, and has no quotes, backslashes or control characters.
func safeName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) >= 128 || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || strings.ContainsRune("/\"'\\\x7f", r)
	})
}

// envLine writes a variable in the syntax of systemd's environment files, with a
// line end.
func envLine(name, value string) string {
	if strings.ContainsAny(value, " \"\\`$*?['()<>|&;!") {
		value = `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`, "`", "\\`", "$", `\$`).Replace(value) + `"`
	}
	return name + "=" + value + "\n"
}

// hasBytes says whether a file has the text in it; one that is not there has not.
func hasBytes(at, text string) (found, exists bool, err error) {
	b, err := os.ReadFile(at)
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	return bytes.Contains(b, []byte(text)), err == nil, err
}
