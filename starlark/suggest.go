// Suggestions: the name that was probably meant.

package starlark

import (
	"cmp"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/internal/edit"
)

// Suggest returns the name of known that is nearest to name by edit distance, or ""
// if none is near: about one letter in three may differ, a transposition counts as
// one, and case, "_" and "-" count for little. Of equally near ones the first in
// order of the alphabet wins.
func Suggest(name string, known []string) string {
	if near := nearest(name, known, 1); len(near) > 0 {
		return near[0]
	}
	return ""
}

// nearest returns up to n names that are near, the nearest first.
func nearest(name string, known []string, n int) []string {
	type found struct {
		name string
		dist int
	}
	limit := 2 * min((len(name)+2)/3, len(name)-1) // distances are doubled: see below
	var all []found
	folded := fold(name)
	for _, k := range known {
		if k == name || k == "" {
			continue
		}
		d := 2 * edit.Distance(folded, fold(k), limit/2)
		if d == 0 {
			d = 1 // only case or dashes differ
		}
		if d <= limit {
			all = append(all, found{k, d})
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.dist, b.dist), strings.Compare(a.name, b.name))
	})
	all = slices.Compact(all)
	var names []string
	for _, f := range all[:min(n, len(all))] {
		names = append(names, f.name)
	}
	return names
}

func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		return r
	}, strings.ToLower(s))
}

// didYouMean is the hint for these names; "" if there are none.
func didYouMean(names ...string) string {
	quoted := make([]string, 0, len(names))
	for _, n := range names {
		if n != "" {
			quoted = append(quoted, `"`+n+`"`)
		}
	}
	if len(quoted) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(quoted, " or ") + "?"
}
