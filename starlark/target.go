// Targets, packages, and positions in rule files.

package starlark

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// A Position is a place in a rule file.
type Position struct {
	File string `json:"file"`           // with slashes, relative to the workspace, or "@osbuild//debian.star"
	Line int32  `json:"line,omitempty"` // from 1; 0 if only the file is known
	Col  int32  `json:"col,omitempty"`  // in runes, from 1; 0 if unknown
}

// String gives "images/BUILD.star:26:14".
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// IsValid reports whether the position names a file.
func (p Position) IsValid() bool { return p.File != "" }

// inLibrary reports whether the position is in the library inside the binary.
func (p Position) inLibrary() bool { return strings.HasPrefix(p.File, "@") }

func position(p syntax.Position) Position {
	return Position{File: p.Filename(), Line: p.Line, Col: p.Col}
}

// A Target is something that a BUILD.star declares and a person can ask for.
type Target interface {
	Kind() string  // of the function that declared it: "image"
	Label() Label  // with a Variant only if it is one variant of a matrix
	Pos() Position // of the call that declared it, in the user's own files
}

// A VariantTarget is a target that stands for several: a matrix. Expand returns it
// itself when it was asked for as a whole, and else what Variant returns, for the
// variants that were asked for and no others.
type VariantTarget interface {
	Target
	// Variants names all variants, in order, and makes none.
	Variants() []Variant
	// Whole names those that are meant when none is named: all, or the ones that the
	// target says.
	Whole() []Variant
	// Variant makes the one of that name, whose label has it as its Variant.
	Variant(name string) (Target, error)
}

// A Package is what running a BUILD.star gave.
type Package struct {
	Name    string              // "images"; "" for the root's
	Targets []Target            // in the order of declaration
	Globals starlark.StringDict // frozen

	byName map[string]Target
}

// Target returns the target of that name, or nil.
func (p *Package) Target(name string) Target { return p.byName[name] }

// names lists the names of all targets, in the order of declaration.
func (p *Package) names() []string {
	names := make([]string, len(p.Targets))
	for i, t := range p.Targets {
		names[i] = t.Label().Name
	}
	return names
}
