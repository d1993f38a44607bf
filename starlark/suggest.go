// Suggestions: the name that was probably meant.

package starlark

import (
	"cmp"
	"slices"
	"strings"
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
		d := 2 * distance(folded, fold(k), limit/2)
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

// distance is the optimal string alignment distance of a and b in bytes, or more
// than limit if it is greater than that.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			least = min(least, row[j])
		}
		if least > limit {
			return limit + 1
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
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
