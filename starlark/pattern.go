// Patterns: what the command line asks for, and selectors of variants.

package starlark

import (
	"fmt"
	"path"
	"strings"
)

// A Pattern names any number of targets:
//
//	//images:rhel82  :rhel82  rhel82  //images (= //images:images)   one target
//	images:rhel82                             relative to the folder one is in
//	//images:all  //images:*  :all  all       all targets of one package
//	//images/...  //...  images/...  ...      all targets below a folder
//	-//images:x                               take away from what is left of it
//	//images:server@rhel94-aarch64-aws        one variant
//	//images/...@arch=aarch64,cloud=aws       some variants
//	//images:server@all                       all variants, where no suffix is some
type Pattern struct {
	negative  bool
	recursive bool // "…/..."
	all       bool // ":all"
	pkg, name string
	sel       Selector
}

// ParsePattern reads a pattern; pkg is the package of the folder one is in, which
// patterns that do not begin with "//" are relative to. Errors are *Error.
func ParsePattern(s, pkg string) (Pattern, error) {
	var p Pattern
	body := s
	if strings.HasPrefix(body, "-") {
		p.negative, body = true, body[1:]
	}
	if strings.HasPrefix(body, "@") {
		return p, patternError(s, "the rule library has files, not targets", "")
	}
	body, suffix, hasSuffix := strings.Cut(body, "@")
	if hasSuffix {
		var err error
		if p.sel, err = ParseSelector(suffix); err != nil {
			return p, patternError(s, err.Error(), "")
		}
	}
	rest, absolute := strings.CutPrefix(body, "//")
	dir, name, colon := strings.Cut(rest, ":")
	switch {
	case dir == "..." || strings.HasSuffix(dir, "/..."):
		if colon && name != "all" && name != "*" {
			return p, patternError(s, fmt.Sprintf("%q cannot stand after \"...\"", ":"+name), "only :all can")
		}
		p.recursive = true
		dir = strings.TrimSuffix(strings.TrimSuffix(dir, "..."), "/")
	case absolute && !colon:
		if dir == "" {
			return p, patternError(s, "it names no target", `write "//..." for all targets`)
		}
		name = path.Base(dir)
	case !colon:
		if strings.Contains(dir, "/") {
			return p, patternError(s, "it is not clear where the package ends",
				fmt.Sprintf("write %q or %q", "//"+path.Join(pkg, path.Dir(dir))+":"+path.Base(dir), "//"+path.Join(pkg, dir)))
		}
		dir, name = "", dir
	}
	if absolute {
		p.pkg = dir
	} else {
		if err := checkPackage(dir); err != nil {
			return p, patternError(s, err.Error(), "")
		}
		p.pkg = path.Join(pkg, dir)
	}
	if err := checkPackage(p.pkg); err != nil {
		return p, patternError(s, err.Error(), "")
	}
	if p.recursive {
		return p, nil
	}
	if name == "all" || name == "*" {
		p.all = true
		return p, nil
	}
	if err := checkName(name); err != nil {
		return p, patternError(s, err.Error(), "")
	}
	p.name = name
	return p, nil
}

func patternError(s, why, hint string) *Error {
	return &Error{Msg: fmt.Sprintf("bad target pattern %q: %s", s, why), Hint: hint}
}

// Matches reports whether the label is one that the pattern speaks of, whether it
// adds or takes away. A label without a variant stands for all of them and is
// matched whatever the selector; one with a variant must be named by the selector
// as far as a name alone can tell (the values of axes need Selector.Matches).
func (p Pattern) Matches(l Label) bool {
	if l.Repo != "" {
		return false
	}
	if !p.covers(l.Package) || !p.recursive && !p.all && p.name != l.Name {
		return false
	}
	return l.Variant == "" || p.sel.Name == "" || p.sel.Name == l.Variant || p.sel.Name == AllVariants
}

// covers reports whether targets of the package can match.
func (p Pattern) covers(pkg string) bool {
	if p.recursive {
		return p.pkg == "" || pkg == p.pkg || strings.HasPrefix(pkg, p.pkg+"/")
	}
	return pkg == p.pkg
}

// exact reports whether the pattern is a label rather than a wildcard.
func (p Pattern) exact() bool { return !p.recursive && !p.all }

// label is the label of an exact pattern, without variant.
func (p Pattern) label() Label { return Label{Package: p.pkg, Name: p.name} }

// Negative reports whether the pattern takes targets away.
func (p Pattern) Negative() bool { return p.negative }

// Selector is what stands behind its "@"; zero if nothing does.
func (p Pattern) Selector() Selector { return p.sel }

// String gives the canonical form, which begins with "//" or "-//".
func (p Pattern) String() string {
	var b strings.Builder
	if p.negative {
		b.WriteByte('-')
	}
	b.WriteString("//" + p.pkg)
	switch {
	case p.recursive && p.pkg == "":
		b.WriteString("...")
	case p.recursive:
		b.WriteString("/...")
	case p.all:
		b.WriteString(":all")
	default:
		b.WriteString(":" + p.name)
	}
	if !p.sel.IsZero() {
		b.WriteString("@" + p.sel.String())
	}
	return b.String()
}

// An Axis is one dimension of a matrix and a value on it.
type Axis struct{ Name, Value string }

// A Variant is one cell of a matrix: what stands behind its "@", and its values in
// the order of the axes.
type Variant struct {
	Name string
	Axes []Axis
}

// AllVariants stands for the name of a variant and picks all of them.
const AllVariants = "all"

// A Selector picks variants: by name, or by values of axes. The values of one axis
// are alternatives, those of several must all hold. The zero Selector picks all.
type Selector struct {
	Name string // "rhel94-aarch64-aws"; or
	Axes []Axis // "arch=aarch64,cloud=aws", in the order written
}

// ParseSelector reads what stands behind the "@" of a label or pattern.
func ParseSelector(s string) (Selector, error) {
	var sel Selector
	if len(s) > 4096 {
		return sel, fmt.Errorf("its variant is longer than 4096 bytes")
	}
	if !strings.Contains(s, "=") {
		if s == "" {
			return sel, fmt.Errorf("no variant stands behind its \"@\"")
		}
		sel.Name = s
		return sel, checkVariant("variant", s)
	}
	for part := range strings.SplitSeq(s, ",") {
		axis, value, ok := strings.Cut(part, "=")
		if !ok || axis == "" || value == "" {
			return sel, fmt.Errorf("%q is not of the form axis=value", part)
		}
		if err := checkVariant("axis", axis); err != nil {
			return sel, err
		}
		if err := checkVariant("value", value); err != nil {
			return sel, err
		}
		sel.Axes = append(sel.Axes, Axis{axis, value})
	}
	return sel, nil
}

func checkVariant(what, s string) error {
	for _, r := range s {
		if !nameRune(r) {
			return fmt.Errorf("%q is not allowed in its %s", r, what)
		}
	}
	return nil
}

// IsZero reports whether the selector picks everything.
func (s Selector) IsZero() bool { return s.Name == "" && len(s.Axes) == 0 }

// Matches reports whether the selector picks v.
func (s Selector) Matches(v Variant) bool {
	if s.Name != "" {
		return s.Name == v.Name || s.Name == AllVariants
	}
	for _, want := range s.Axes {
		ok := false
		for _, alt := range s.Axes {
			if alt.Name != want.Name {
				continue
			}
			for _, have := range v.Axes {
				ok = ok || have == alt
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// String gives the form that ParseSelector reads.
func (s Selector) String() string {
	if s.Name != "" {
		return s.Name
	}
	parts := make([]string, len(s.Axes))
	for i, a := range s.Axes {
		parts[i] = a.Name + "=" + a.Value
	}
	return strings.Join(parts, ",")
}
