// Reading the lock file: everything that the command did not write there is an
// error, with its line.
package lock

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/osbuild-star/osbuild-star/sources"
)

// header is the first line; its number is that of the format.
const header = Name + " 1"

// parse reads a file; name is for errors.
func parse(name string, b []byte) (map[string]*group, error) {
	groups := map[string]*group{}
	var g *group
	want, at, line := 0, 0, 0
	fail := func(line int, format string, args ...any) error {
		e := &sources.Error{
			Msg:  fmt.Sprintf("%s:%d: %s", name, line, fmt.Sprintf(format, args...)),
			Hint: "take back the edit, or remove the file and make it again with `osbuild-star lock`",
		}
		if bytes.Contains(b, []byte("\n<<<<<<< ")) {
			e.Hint = "the file has the marks of a merge: take either side, then run `osbuild-star lock`"
		}
		return e
	}
	end := func() error {
		if g != nil && len(g.entries) != want {
			return fail(at, "%d packages are announced and %d follow", want, len(g.entries))
		}
		if g != nil {
			g.sort()
			for i := 1; i < len(g.entries); i++ {
				if g.entries[i-1].name == g.entries[i].name && g.entries[i-1].arch == g.entries[i].arch {
					return fail(at, "the package %s stands there twice", g.entries[i].name)
				}
			}
		}
		return nil
	}
	for text := range strings.Lines(string(b)) {
		line++
		text = strings.TrimRight(text, "\r\n")
		switch {
		case line == 1:
			if text != header {
				if strings.HasPrefix(text, Name+" ") {
					return nil, &sources.Error{Msg: fmt.Sprintf("%s:1: format %q is not known", name, strings.TrimPrefix(text, Name+" ")), Hint: "it was written by a newer osbuild-star: use that one"}
				}
				return nil, fail(1, "the first line is not %q", header)
			}
		case text == "":
		case text[0] == ' ':
			if g == nil {
				return nil, fail(line, "a package without the line of its request")
			}
			e, err := parseEntry(text[1:])
			if err != nil {
				return nil, fail(line, "%v", err)
			}
			g.entries = append(g.entries, e)
		default:
			if err := end(); err != nil {
				return nil, err
			}
			f := strings.SplitN(text, " ", 5)
			if len(f) < 4 || f[0] != "deb" {
				return nil, fail(line, "neither a request (\"deb KEY COUNT BASE …\") nor a package")
			}
			n, err := strconv.ParseUint(f[2], 10, 24)
			if err != nil {
				return nil, fail(line, "%q is not a number of packages", f[2])
			}
			baseKey, digest, hasBase := strings.Cut(f[3], ":")
			if !hexDigits(f[1], 32) || f[3] != "-" && !(hasBase && hexDigits(baseKey, 32) && hexDigits(digest, 16)) {
				return nil, fail(line, "%q and %q are not the keys of a request and its base", f[1], f[3])
			}
			if groups[f[1]] != nil {
				return nil, fail(line, "the request %s stands there twice", f[1])
			}
			g, want, at = &group{key: f[1], base: f[3]}, int(n), line
			if len(f) == 5 {
				g.summary = strings.Join(strings.Fields(f[4]), " ")
			}
			groups[g.key] = g
		}
	}
	if line == 0 {
		return nil, fail(1, "the file is empty")
	}
	return groups, end()
}

// parseEntry reads the line of a package.
func parseEntry(s string) (entry, error) {
	f := strings.Split(s, " ")
	if len(f) != 7 {
		return entry{}, fmt.Errorf("%d words, and a package has 7: name, version, architecture, repository, path, size, sha256", len(f))
	}
	n, err := strconv.ParseInt(f[5], 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != f[5] {
		return entry{}, fmt.Errorf("%q is not a size in bytes", f[5])
	}
	e := entry{f[0], f[1], f[2], f[3], f[4], n, f[6]}
	return e, e.check()
}

// check says what is wrong with an entry. Its texts become parts of URLs and names
// of files.
func (e entry) check() error {
	const lower, digits = "abcdefghijklmnopqrstuvwxyz", "0123456789"
	const letters = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, c := range []struct{ what, text, allowed string }{
		{"name", e.name, lower + digits + "+-."},
		{"version", e.version, letters + digits + "+-.:~"},
		{"architecture", e.arch, lower + digits + "-"},
		{"repository", e.repo, letters + digits + "+-.:~/_#"},
	} {
		if c.text == "" || strings.ContainsFunc(c.text, func(r rune) bool { return !strings.ContainsRune(c.allowed, r) }) {
			return fmt.Errorf("%q is not the %s of a package", c.text, c.what)
		}
	}
	if e.path == "" || path.Clean("/"+e.path) != "/"+e.path {
		return fmt.Errorf("%q is not a path below a mirror", e.path)
	}
	for i := range len(e.path) {
		if c := e.path[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '?' || c == '#' {
			return fmt.Errorf("%q is not a path below a mirror", e.path)
		}
	}
	if e.size <= 0 {
		return fmt.Errorf("%d is not the size of an archive", e.size)
	}
	if !hexDigits(e.sha256, 64) {
		return fmt.Errorf("%q is not a SHA-256 checksum", e.sha256)
	}
	return nil
}

// hexDigits says whether s is n lower-case hexadecimal digits.
func hexDigits(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
