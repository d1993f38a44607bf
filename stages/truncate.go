// org.osbuild.truncate: makes a file of a given size, or changes the size of one.
package stages

import (
	"fmt"
	"math"
	"os"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.truncate",
		Revision: 1,
		Summary:  "create a file, or cut or extend it to a size",
		Doc: `Gives the file the size; it is created if it is not there. What is beyond a
smaller size is lost; what a larger size adds reads as zeros and takes no space on
disk (the file is sparse).

The size is written as for truncate(1): a number of bytes, with a suffix (K, M, G, T,
P, E for powers of 1024; KB, MB, … for powers of 1000; KiB, MiB, … as K, M, …), and one
of these in front of it: "+" extend by, "-" cut by, "<" at most, ">" at least, "/" round
down to a multiple of, "%" round up to a multiple of.

    {"filename": "disk.img", "size": "4G"}`,
		Schema: `{
  "options": {
    "additionalProperties": false,
    "required": ["filename", "size"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the file in the tree"
      },
      "size": {
        "type": "string",
        "description": "the new size, such as \"4G\" or \"+512\""
      }
    }
  }
}`,
		InPlace: true,
		Run:     runTruncate,
	})
}

func runTruncate(c *Context) error {
	var o struct {
		Filename string `json:"filename"`
		Size     string `json:"size"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	path, err := target(c, o.Filename)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	n, err := newSize(o.Size, st.Size())
	if err != nil {
		return err
	}
	if err := f.Truncate(n); err != nil {
		return err
	}
	return f.Close()
}

// newSize reads a size as truncate(1) does, for a file that has cur bytes.
func newSize(s string, cur int64) (int64, error) {
	bad := func(why string) error {
		return &Error{
			Msg:  fmt.Sprintf("size %q: %s", s, why),
			Hint: `write a number of bytes such as "1048576", "512M" or "4GiB"`,
		}
	}
	rest := strings.TrimLeft(s, " \t\n\v\f\r")
	mode := byte(0)
	if rest != "" && strings.IndexByte("<>/%", rest[0]) >= 0 {
		mode = rest[0]
		rest = strings.TrimLeft(rest[1:], " \t\n\v\f\r")
	}
	if rest != "" && (rest[0] == '+' || rest[0] == '-') {
		if mode != 0 {
			return 0, bad("it has two modifiers")
		}
		mode, rest = rest[0], rest[1:]
	}
	n, err := parseSize(rest)
	if err != "" {
		return 0, bad(err)
	}
	switch mode {
	case '+':
		if n > math.MaxInt64-cur {
			return 0, bad("too large")
		}
		return cur + n, nil
	case '-':
		return max(cur-n, 0), nil
	case '<':
		return min(cur, n), nil
	case '>':
		return max(cur, n), nil
	case '/', '%':
		if n == 0 {
			return 0, bad("cannot round to a multiple of 0")
		}
		r := cur % n
		if mode == '/' || r == 0 {
			return cur - r, nil
		}
		if cur > math.MaxInt64-(n-r) {
			return 0, bad("too large")
		}
		return cur + n - r, nil
	}
	return n, nil
}

// parseSize reads digits and a suffix. A suffix alone counts once, as in coreutils.
// The second result says what is wrong, or is empty.
func parseSize(s string) (int64, string) {
	i := 0
	n := int64(0)
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		d := int64(s[i] - '0')
		if n > (math.MaxInt64-d)/10 {
			return 0, "too large"
		}
		n = n*10 + d
	}
	suffix := s[i:]
	if i == 0 {
		if suffix == "" {
			return 0, "it has no number"
		}
		n = 1
	}
	if suffix == "" {
		return n, ""
	}
	unit := suffix[:1]
	if strings.Contains("kmgt", unit) {
		unit = strings.ToUpper(unit)
	}
	power := strings.Index("KMGTPEZYRQ", unit) + 1
	base := int64(1024)
	switch suffix[1:] {
	case "", "iB":
	case "B":
		base = 1000
	default:
		power = 0
	}
	if power == 0 {
		return 0, fmt.Sprintf("unknown suffix %q", suffix)
	}
	for ; power > 0; power-- {
		if n > math.MaxInt64/base {
			return 0, "too large"
		}
		n *= base
	}
	return n, ""
}
