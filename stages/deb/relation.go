// Relations between packages: Depends and its kin.
package deb

import (
	"fmt"
	"strings"
)

// relations is the value of a field: all of its groups are asked for.
type relations []group

// A group is one or several alternatives.
type group []relation

// relation names a package, and perhaps versions of it.
type relation struct {
	name, arch  string // arch: "", "any", "native" or an architecture
	op, version string // op: "", "<<", "<=", "=", ">=", ">>"
}

func parseRelations(s string) (relations, error) {
	var all relations
	for part := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		var g group
		for alt := range strings.SplitSeq(part, "|") {
			r, err := parseRelation(strings.TrimSpace(alt))
			if err != nil {
				return nil, err
			}
			g = append(g, r)
		}
		all = append(all, g)
	}
	return all, nil
}

func parseRelation(s string) (r relation, err error) {
	bad := func() (relation, error) { return relation{}, fmt.Errorf("cannot read the relation %q", s) }
	r.name = s
	rest := ""
	if i := strings.IndexAny(s, " \t\n("); i >= 0 {
		r.name, rest = s[:i], strings.TrimSpace(s[i:])
	}
	r.name, r.arch, _ = strings.Cut(r.name, ":")
	if !validName(strings.ToLower(r.name)) {
		return bad()
	}
	if rest == "" {
		return r, nil
	}
	body, ok := strings.CutPrefix(rest, "(")
	body, end := strings.CutSuffix(body, ")")
	if !ok || !end {
		return bad()
	}
	body = strings.TrimSpace(body)
	i := 0
	for i < len(body) && strings.IndexByte("<>=", body[i]) >= 0 {
		i++
	}
	switch op := body[:i]; op {
	case "<<", "<=", "=", ">=", ">>":
		r.op = op
	case "<", ">": // old spellings
		r.op = op + "="
	case "": // older still: a bare version is an exact one
		r.op = "="
	default:
		return bad()
	}
	r.version = strings.TrimSpace(body[i:])
	if !validVersion(r.version) {
		return bad()
	}
	return r, nil
}

func (r relation) String() string {
	s := r.name
	if r.arch != "" {
		s += ":" + r.arch
	}
	if r.op != "" {
		s += " (" + r.op + " " + r.version + ")"
	}
	return s
}

// String has the form in which dpkg writes relations.
func (rs relations) String() string {
	var b strings.Builder
	for i, g := range rs {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, r := range g {
			if j > 0 {
				b.WriteString(" | ")
			}
			b.WriteString(r.String())
		}
	}
	return b.String()
}

// holds reports whether version v is one that r asks for.
func (r relation) holds(v string) bool {
	if r.op == "" {
		return true
	}
	c := compareVersions(v, r.version)
	switch r.op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	default:
		return c > 0
	}
}

// names reports whether r is about package p itself.
func (r relation) names(p *pkg) bool {
	if r.name != p.name || !r.holds(p.version) {
		return false
	}
	return r.arch == "" || r.arch == "any" || r.arch == "native" || r.arch == p.arch
}

// matches reports whether p, or something that p provides, is what r asks for.
func (r relation) matches(p *pkg) bool {
	if r.names(p) {
		return true
	}
	for _, g := range p.provides {
		for _, v := range g {
			if v.name == r.name && (r.op == "" || v.op == "=" && r.holds(v.version)) {
				return true
			}
		}
	}
	return false
}

// concern reports whether one of the relations is about p itself.
func (rs relations) concern(p *pkg) bool {
	for _, g := range rs {
		for _, r := range g {
			if r.names(p) {
				return true
			}
		}
	}
	return false
}
