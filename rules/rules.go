// Package rules is the library of rule files that ships inside the program, as
// "@osbuild//debian.star" and the others: plain files in the public language, with
// no builtin that a user's own file does not have.
package rules

import "embed"

// FS holds the library, at its root.
//
//go:embed *.star
var FS embed.FS
