// Which paths of packages are left out: dpkg's path-exclude and path-include.
package deb

import "strings"

// A Filter is one pattern, in the syntax of dpkg: shell wildcards, of which "*" and
// "?" match slashes too. The last that matches a path decides.
type Filter struct {
	Include bool
	Pattern string
}

type filters []Filter

// skip reports whether an entry is left out. A directory, or a link that may lead to
// one, stays when a pattern includes something below it.
func (fs filters) skip(path string, mayHold bool) bool {
	out := false
	for _, f := range fs {
		if out == f.Include && match(f.Pattern, path) { // else it would change nothing
			out = !f.Include
		}
	}
	if !out || !mayHold {
		return out
	}
	for _, f := range fs {
		if !f.Include {
			continue
		}
		prefix := f.Pattern
		if i := strings.IndexAny(prefix, "*?[\\"); i >= 0 {
			prefix = prefix[:i]
		}
		if strings.HasPrefix(path, strings.TrimRight(prefix, "/")) {
			return false
		}
	}
	return true
}

// match is fnmatch(3) without flags.
func match(pattern, s string) bool {
	// On a mismatch it goes back to the last star, and lets it take one more byte.
	var star, from = -1, 0
	p, i := 0, 0
	for i < len(s) || p < len(pattern) {
		if p < len(pattern) && pattern[p] == '*' {
			star, from = p, i
			p++
			continue
		}
		if i < len(s) {
			if n, ok := matchByte(pattern[p:], s[i]); ok {
				p, i = p+n, i+1
				continue
			}
		}
		if star < 0 || from >= len(s) {
			return false
		}
		from++
		p, i = star+1, from
	}
	return true
}

// matchByte matches the first element of a pattern, which is no star, and returns its
// length.
func matchByte(pattern string, c byte) (n int, ok bool) {
	if pattern == "" {
		return 0, false
	}
	switch pattern[0] {
	case '?':
		return 1, true
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == c
		}
		return 1, c == '\\'
	case '[':
		if n, ok := matchSet(pattern, c); n > 0 {
			return n, ok
		}
	}
	return 1, pattern[0] == c
}

// matchSet matches a set in brackets; n is 0 when it has no end, and then "[" stands
// for itself.
func matchSet(pattern string, c byte) (n int, ok bool) {
	i := 1
	negate := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negate {
		i++
	}
	for first := true; i < len(pattern); first = false {
		if pattern[i] == ']' && !first {
			return i + 1, ok != negate
		}
		lo, next := setByte(pattern, i)
		hi := lo
		if next+1 < len(pattern) && pattern[next] == '-' && pattern[next+1] != ']' {
			hi, next = setByte(pattern, next+1)
		}
		ok = ok || lo <= c && c <= hi
		i = next
	}
	return 0, false
}

func setByte(pattern string, i int) (c byte, next int) {
	if pattern[i] == '\\' && i+1 < len(pattern) {
		i++
	}
	return pattern[i], i + 1
}
