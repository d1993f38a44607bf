// The account files of the tree: passwd and group.
package stages

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// account is a line of passwd or group, split at its colons. The first field is
// the name, the third the number.
type account []string

func (a account) id() (int, error) {
	if len(a) < 3 {
		return 0, Errorf("the entry of %q has %d fields", a[0], len(a))
	}
	n, err := strconv.ParseUint(a[2], 10, 32)
	if err != nil {
		return 0, Errorf("the entry of %q has the number %q", a[0], a[2])
	}
	return int(n), nil
}

// findAccount returns the first line of a file of the image that has the name, or
// nil. A file that is not there has none.
func findAccount(c *Context, file, name string) (account, error) {
	text, err := c.ReadText(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the accounts: %w", err)
	}
	for line := range strings.SplitSeq(text, "\n") {
		if n, _, ok := strings.Cut(line, ":"); ok && n == name {
			return strings.Split(line, ":"), nil
		}
	}
	return nil, nil
}
