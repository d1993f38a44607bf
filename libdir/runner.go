// Runners of a tree: which one serves a name.
package libdir

import (
	"cmp"
	"slices"
	"strings"
)

// Runner finds the runner for a name: a name is a system and a version without dots
// ("org.osbuild.fedora40"), and the newest runner of exactly that system that is not
// newer than the version serves it. It returns nil when there is none.
func (d *Dir) Runner(name string) (*Module, error) {
	if d == nil {
		return nil, nil
	}
	system, version := splitRunner(name)
	var best, bestVersion string
	for _, n := range d.Names(Runners) {
		s, v := splitRunner(n)
		if s == system && compareNumbers(v, version) <= 0 && (best == "" || compareNumbers(v, bestVersion) >= 0) {
			best, bestVersion = n, v
		}
	}
	if best == "" {
		return nil, nil
	}
	p, err := d.program(Runners, best)
	if err != nil || p == "" {
		return nil, err
	}
	return &Module{Kind: Runners, Name: best, Path: p}, nil
}

// RunnersOf lists the runners of the system that a name names, or all when there is
// none of it: what a message about a name that is not served says.
func (d *Dir) RunnersOf(name string) []string {
	system, _ := splitRunner(name)
	all := d.Names(Runners)
	own := slices.DeleteFunc(slices.Clone(all), func(n string) bool { s, _ := splitRunner(n); return s != system })
	if len(own) > 0 {
		return own
	}
	return all
}

// splitRunner cuts the digits off the end of a name; none count as "0".
func splitRunner(name string) (system, version string) {
	system = strings.TrimRight(name, "0123456789")
	if system == "" && name != "" {
		system = name[:1] // a name has to have something that is no version
	}
	return system, cmp.Or(strings.TrimLeft(name[len(system):], "0"), "0")
}

// compareNumbers compares digits without leading zeros, of any length.
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
