// Labels: the names of targets and files, and how they are read.

package starlark

import (
	"fmt"
	"path"
	"strings"
)

// LibraryRepo is the repository name of the rule library that ships inside the
// binary: its files are written "@osbuild//debian.star".
const LibraryRepo = "osbuild"

// Names of the files that mean something.
const (
	moduleFile = "MODULE.star"
	buildFile  = "BUILD.star"
	starExt    = ".star"
	testSuffix = "_test.star"
)

// A Label names one target, one variant of a target, or one file.
type Label struct {
	Repo    string // "" is this workspace, "osbuild" the library
	Package string // folder, relative to the root, with slashes; "" is the root
	Name    string // target or file; a file's may hold slashes
	Variant string // "rhel94-aarch64-aws" of "//images:server@rhel94-aarch64-aws"
}

// String gives the canonical form: "//images:rhel82",
// "//images:server@rhel94-aarch64-aws", "@osbuild//debian.star".
func (l Label) String() string {
	var b strings.Builder
	if l.Repo != "" {
		b.WriteString("@" + l.Repo)
	}
	b.WriteString("//" + l.Package)
	if l.Repo != "" && l.Variant == "" && strings.HasSuffix(l.Name, starExt) && !strings.Contains(l.Name, "/") {
		if l.Package != "" {
			b.WriteByte('/')
		}
		b.WriteString(l.Name)
		return b.String()
	}
	b.WriteString(":" + l.Name)
	if l.Variant != "" {
		b.WriteString("@" + l.Variant)
	}
	return b.String()
}

// File is the path of the file that the label names, as Position.File has it:
// "images/motd", "@osbuild//debian.star".
func (l Label) File() string {
	p := path.Join(l.Package, l.Name)
	if l.Repo != "" {
		return "@" + l.Repo + "//" + p
	}
	return p
}

// packageLabel is how messages write a package: "//images", "@osbuild//".
func packageLabel(repo, pkg string) string {
	if repo != "" {
		return "@" + repo + "//" + pkg
	}
	return "//" + pkg
}

// ParseLabel reads a label that names one thing:
//
//	//images:rhel82       :rhel82      rhel82
//	//images              = //images:images
//	//lib:harden.star     //lib/harden.star     @osbuild//debian.star
//	//images:server@rhel94-aarch64-aws
//
// pkg is the package that it is written in, which ":x" and "x" are relative to.
// Errors are *Error with a hint and without a position.
func ParseLabel(s, pkg string) (Label, error) {
	l, sel, err := parseLabel(s, pkg)
	if err != nil {
		return Label{}, err
	}
	if len(sel.Axes) > 0 {
		return Label{}, labelError(s, "it names several variants and one is needed",
			`write the name of one variant, as in "//images:server@rhel94-aarch64-aws"`)
	}
	l.Variant = sel.Name
	return l, nil
}

func parseLabel(s, pkg string) (l Label, sel Selector, err error) {
	rest := s
	l.Package = pkg
	if strings.HasPrefix(rest, "@") {
		repo, after, ok := strings.Cut(rest[1:], "//")
		if !ok {
			return l, sel, labelError(s, `"//" is missing after the repository`, `write "@osbuild//debian.star"`)
		}
		if repo != LibraryRepo {
			return l, sel, labelError(s, fmt.Sprintf("there is no repository %q", "@"+repo),
				"@osbuild, the library inside the command, is the only one; copy other rules into the workspace")
		}
		l.Repo, rest = repo, "//"+after
	}
	rest, suffix, hasSuffix := strings.Cut(rest, "@")
	switch {
	case strings.HasPrefix(rest, "//"):
		p, name, colon := strings.Cut(rest[2:], ":")
		if !colon {
			if p == "" {
				return l, sel, labelError(s, "it names no target", `write "//images:rhel82", or "//..." for all targets`)
			}
			name = path.Base(p)
			if strings.HasSuffix(p, starExt) {
				p = strings.TrimSuffix(strings.TrimSuffix(p, name), "/")
			}
		}
		l.Package, l.Name = p, name
	case strings.HasPrefix(rest, ":"):
		l.Name = rest[1:]
	default:
		if p, name, colon := strings.Cut(rest, ":"); colon {
			return l, sel, labelError(s, "a label with a package begins with //", fmt.Sprintf("write %q", "//"+p+":"+name))
		}
		l.Name = rest
	}
	if err := checkPackage(l.Package); err != nil {
		return l, sel, labelError(s, err.Error(), "")
	}
	if err := checkName(l.Name); err != nil {
		hint := ""
		if strings.HasSuffix(l.Name, "...") || l.Name == "all" {
			hint = "patterns for several targets belong on the command line"
		}
		return l, sel, labelError(s, err.Error(), hint)
	}
	if hasSuffix {
		if l.Repo != "" {
			return l, sel, labelError(s, "a file of the library has no variants", "")
		}
		if sel, err = ParseSelector(suffix); err != nil {
			return l, sel, labelError(s, err.Error(), "")
		}
	}
	return l, sel, nil
}

func labelError(s, why, hint string) *Error {
	return &Error{Msg: fmt.Sprintf("bad label %q: %s", s, why), Hint: hint}
}

// checkPackage says what is wrong with a package path; "" is the root's.
func checkPackage(p string) error {
	if p == "" {
		return nil
	}
	if len(p) > 1024 {
		return fmt.Errorf("its package is longer than 1024 bytes")
	}
	return checkPath("package", p)
}

// checkName says what is wrong with the name of a target or library file.
func checkName(n string) error {
	switch {
	case n == "":
		return fmt.Errorf("its name is empty")
	case n == "all" || n == "*":
		return fmt.Errorf("%q stands for all targets of a package", n)
	case len(n) > 255:
		return fmt.Errorf("its name is longer than 255 bytes")
	}
	return checkPath("name", n)
}

func checkPath(what, p string) error {
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "":
			return fmt.Errorf("its %s %q has an empty part", what, p)
		case strings.Trim(part, ".") == "":
			return fmt.Errorf("%q is not allowed in its %s", part, what)
		case part[0] == '-':
			return fmt.Errorf("no part of its %s may begin with %q", what, "-")
		}
		for _, r := range part {
			if !nameRune(r) {
				return fmt.Errorf("%q is not allowed in its %s: letters, digits and any of _ - . + ~ are", r, what)
			}
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_-.+~", r)
}
