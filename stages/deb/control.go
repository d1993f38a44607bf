// Control data: paragraphs of fields, and what a package says of itself.
package deb

import (
	"errors"
	"fmt"
	"strings"
)

// A field of a paragraph. The value has its continuation lines as they are, without
// the newline at its end.
type field struct{ name, value string }

// paragraph is a block of fields, in their order.
type paragraph []field

// get returns the value of a field, "" when there is none.
func (p paragraph) get(name string) string {
	for _, f := range p {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// parseParagraph reads one paragraph, without an empty line in it.
func parseParagraph(text string) (paragraph, error) {
	var p paragraph
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.TrimSpace(line) == "":
			return nil, errors.New("an empty line inside a paragraph")
		case line[0] == ' ' || line[0] == '\t':
			if len(p) == 0 {
				return nil, errors.New("it begins with a continuation line")
			}
			p[len(p)-1].value += "\n" + line
		case line[0] == '#':
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || name == "" || strings.ContainsAny(name, " \t") {
				return nil, fmt.Errorf("no field in the line %q", line)
			}
			if p.get(name) != "" {
				return nil, fmt.Errorf("field %s twice", name)
			}
			p = append(p, field{name, strings.TrimLeft(value, " \t")})
		}
	}
	for i := range p { // spaces at the end of a first line of several are kept, as by dpkg
		p[i].value = strings.TrimRight(p[i].value, " \t\r\n")
	}
	return p, nil
}

// pkg is what is known of a package, in an archive or in the database.
type pkg struct {
	name, arch, version string
	multiArch           string // "same", "foreign", "allowed", ""
	essential           bool
	predepends, depends relations
	provides            relations
	replaces            relations
	conflicts, breaks   relations
	fields              paragraph
}

// id names an instance of a package: several architectures of it may be installed.
func (p *pkg) id() pkgID { return pkgID{p.name, p.arch} }

type pkgID struct{ name, arch string }

// infoName is how the files of the package in info/ begin, and how triggers call it.
func (p *pkg) infoName() string {
	if p.multiArch == "same" {
		return p.name + ":" + p.arch
	}
	return p.name
}

func (p *pkg) String() string { return p.name + " " + p.version }

func validName(s string) bool {
	if len(s) < 2 || !isAlnum(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool { return 'a' <= c && c <= 'z' || isDigit(c) }

func validArch(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (c != '-' || i == 0) {
			return false
		}
	}
	return s != ""
}

func validVersion(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isAlnum(c) && (c < 'A' || c > 'Z') && !strings.ContainsRune(".+-:~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// newPkg understands the fields of a package.
func newPkg(fields paragraph) (*pkg, error) {
	p := &pkg{
		name: strings.ToLower(fields.get("Package")), arch: fields.get("Architecture"), version: fields.get("Version"),
		multiArch: fields.get("Multi-Arch"), essential: fields.get("Essential") == "yes", fields: fields,
	}
	// The names become file names, so they are checked before anything else.
	if !validName(p.name) {
		return nil, fmt.Errorf("invalid package name %q", p.name)
	}
	if !validArch(p.arch) {
		return nil, fmt.Errorf("package %s: invalid architecture %q", p.name, p.arch)
	}
	if !validVersion(p.version) {
		return nil, fmt.Errorf("package %s: invalid version %q", p.name, p.version)
	}
	for _, f := range []struct {
		name string
		to   *relations
	}{
		{"Pre-Depends", &p.predepends}, {"Depends", &p.depends}, {"Provides", &p.provides},
		{"Replaces", &p.replaces}, {"Conflicts", &p.conflicts}, {"Breaks", &p.breaks},
	} {
		r, err := parseRelations(fields.get(f.name))
		if err != nil {
			return nil, fmt.Errorf("package %s: %s: %w", p.name, f.name, err)
		}
		*f.to = r
	}
	return p, nil
}

// statusOrder is the order in which dpkg writes the fields that it knows; others
// follow as they came.
var statusOrder = []string{
	"Package", "Essential", "Protected", "Status", "Priority", "Section", "Installed-Size", "Origin", "Maintainer",
	"Bugs", "Architecture", "Multi-Arch", "Source", "Version", "Config-Version", "Replaces", "Provides", "Depends",
	"Pre-Depends", "Recommends", "Suggests", "Breaks", "Conflicts", "Enhances", "Conffiles", "Filename", "Size",
	"MD5sum", "Description", "Triggers-Pending", "Triggers-Awaited",
}

// dropped are fields that dpkg does not keep of an installed package.
var dropped = map[string]bool{
	"status": true, "conffiles": true, "filename": true, "size": true, "md5sum": true, "config-version": true,
	"triggers-pending": true, "triggers-awaited": true,
}

// statusText renders the paragraph of an unpacked package as dpkg does.
func (p *pkg) statusText(conffiles []conffile) string {
	known := map[string]string{"status": "install ok unpacked", "package": p.name}
	var rest []field
	for _, f := range p.fields {
		lower := strings.ToLower(f.name)
		if dropped[lower] || f.value == "" || lower == "package" {
			continue
		}
		known[lower] = f.value
		switch lower {
		case "replaces", "provides", "depends", "pre-depends", "recommends", "suggests", "breaks", "conflicts", "enhances":
			if r, err := parseRelations(f.value); err == nil {
				known[lower] = r.String()
			}
		case "essential", "protected":
			if f.value != "yes" {
				delete(known, lower)
			}
		case "multi-arch":
			if f.value == "no" {
				delete(known, lower)
			}
		}
		rest = append(rest, f)
	}
	if len(conffiles) > 0 {
		var b strings.Builder
		for _, c := range conffiles {
			b.WriteString("\n " + c.path + " newconffile")
			if c.removeOnUpgrade {
				b.WriteString(" remove-on-upgrade")
			}
		}
		known["conffiles"] = b.String()
	}
	var b strings.Builder
	write := func(name, value string) {
		b.WriteString(name)
		b.WriteByte(':')
		if !strings.HasPrefix(value, "\n") {
			b.WriteByte(' ')
		}
		b.WriteString(value)
		b.WriteByte('\n')
	}
	for _, name := range statusOrder {
		lower := strings.ToLower(name)
		if v := known[lower]; v != "" {
			write(name, v)
			delete(known, lower)
		}
	}
	for _, f := range rest {
		lower := strings.ToLower(f.name)
		if v, ok := known[lower]; ok {
			write(f.name, v)
			delete(known, lower)
		}
	}
	return b.String()
}

// conffile is one line of the conffiles of a package.
type conffile struct {
	path            string
	removeOnUpgrade bool
}

func parseConffiles(text string) ([]conffile, error) {
	var out []conffile
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if line == "" {
			continue
		}
		var c conffile
		c.path, c.removeOnUpgrade = strings.CutPrefix(line, "remove-on-upgrade ")
		clean, err := cleanName(c.path)
		if err != nil || !strings.HasPrefix(c.path, "/") || clean == "/." {
			return nil, fmt.Errorf("conffiles: %q is not a path", line)
		}
		c.path = clean
		out = append(out, c)
	}
	return out, nil
}

// cleanName turns the name of a tar entry into the form of dpkg: absolute, without a
// slash at its end, "/." for the root.
func cleanName(name string) (string, error) {
	if strings.ContainsAny(name, "\n\x00") {
		return "", fmt.Errorf("%w: a name with a newline: %q", errTar, name)
	}
	s, ok := strings.CutPrefix(name, "./")
	if !ok {
		s = strings.TrimPrefix(name, "/")
	}
	s = strings.TrimSuffix(s, "/")
	var parts []string // only when there is something to leave out
	for off, rest := 0, s; ; {
		part, tail, more := strings.Cut(rest, "/")
		switch part {
		case "..":
			return "", fmt.Errorf("%w: a name that leads upwards: %q", errTar, name)
		case "", ".":
			if parts == nil {
				parts = append(make([]string, 0, 8), strings.FieldsFunc(s[:off], func(r rune) bool { return r == '/' })...)
			}
		default:
			if parts != nil {
				parts = append(parts, part)
			}
		}
		if !more {
			break
		}
		off, rest = off+len(part)+1, tail
	}
	if parts != nil {
		s = strings.Join(parts, "/")
	}
	if s == "" {
		return "/.", nil
	}
	return "/" + s, nil
}
