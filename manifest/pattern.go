// Regular expressions of schemas: written for Python, matched by Go.

package manifest

import (
	"regexp"
	"strings"
	"sync"
)

var patterns sync.Map // expression → *regexp.Regexp

// pattern compiles a regular expression of a schema, once. Schemas are written for
// Python: of an expression that only a backtracking engine can match, the
// assertions about what follows or precedes are left out, and the rest is checked.
// One that is not understood at all matches everything.
func pattern(expr string) *regexp.Regexp {
	if re, ok := patterns.Load(expr); ok {
		return re.(*regexp.Regexp)
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		re, err = regexp.Compile(withoutLookaround(expr))
	}
	if err != nil {
		re = regexp.MustCompile("")
	}
	patterns.Store(expr, re)
	return re
}

// withoutLookaround removes the groups (?=…), (?!…), (?<=…) and (?<!…).
func withoutLookaround(expr string) string {
	var out strings.Builder
	for i := 0; i < len(expr); {
		if strings.HasPrefix(expr[i:], "(?=") || strings.HasPrefix(expr[i:], "(?!") ||
			strings.HasPrefix(expr[i:], "(?<=") || strings.HasPrefix(expr[i:], "(?<!") {
			i = groupEnd(expr, i)
			continue
		}
		n := unit(expr, i)
		out.WriteString(expr[i : i+n])
		i += n
	}
	return out.String()
}

// groupEnd is the offset behind the group that starts at i.
func groupEnd(expr string, i int) int {
	for depth := 0; i < len(expr); {
		switch expr[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i += unit(expr, i)
	}
	return len(expr)
}

// unit is the length of the escape, the class or the byte at i.
func unit(expr string, i int) int {
	switch {
	case expr[i] == '\\':
		return min(2, len(expr)-i)
	case expr[i] == '[':
		for n := 1; i+n < len(expr); n++ {
			switch expr[i+n] {
			case '\\':
				n++
			case ']':
				if n > 1 && !(n == 2 && expr[i+1] == '^') {
					return n + 1
				}
			}
		}
		return len(expr) - i
	}
	return 1
}
