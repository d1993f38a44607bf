// What is different between two builds of a target.
package report

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Made is what is kept of a build of a target, to compare the next one with.
type Made struct {
	Time    time.Time   `json:"time"`
	Seconds float64     `json:"seconds"`
	Key     string      `json:"key"`   // of its tree
	Trees   []MadeTree  `json:"trees"` // with a system in them
	Files   []File      `json:"files"`
	Stages  []MadeStage `json:"stages"`
}

// MadeTree is a tree that an artifact was made from.
type MadeTree struct {
	Pipeline string `json:"pipeline"`
	Key      string `json:"key"`
}

// File is a file of an artifact.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// MadeStage is what a stage was made from, in parts.
type MadeStage struct {
	Pipeline string            `json:"pipeline"`
	Index    int               `json:"index"`
	Type     string            `json:"type"`
	Key      string            `json:"key"`
	Options  string            `json:"options"`
	Program  string            `json:"program"`
	Base     string            `json:"base,omitempty"`
	Build    string            `json:"build,omitempty"`
	Inputs   map[string]string `json:"inputs,omitempty"`
}

// why says why a stage had to run, as far as the last build of its target tells;
// "" when it does not.
func why(s MadeStage, before *Made) string {
	if before == nil {
		return "the first build of this target"
	}
	for _, o := range before.Stages {
		if o.Key == s.Key {
			return "its layer is not in the store any more"
		}
	}
	// The same place first, then the same type: one more stage moves those behind it.
	var old *MadeStage
	for i := range before.Stages {
		o := &before.Stages[i]
		if o.Pipeline != s.Pipeline || o.Type != s.Type {
			continue
		}
		switch {
		case o.Index == s.Index:
			old = o
		case old == nil && o.Options == s.Options:
			old = o
		}
		if old != nil && old.Index == s.Index {
			break
		}
	}
	switch {
	case old == nil:
		return "a new stage"
	case old.Options != s.Options:
		return "its options or files changed"
	case old.Program != s.Program:
		return "its program or runner changed"
	case (old.Base == "") != (s.Base == ""), old.Index != s.Index:
		return "the stages before it changed"
	case old.Build != s.Build:
		return "its build root changed"
	}
	for name, key := range s.Inputs {
		if old.Inputs[name] != key {
			return "its input " + name + " changed"
		}
	}
	if old.Base != s.Base {
		return "a stage before it changed"
	}
	return "what the host or its libraries give to it changed"
}

// Diff is what is different from an earlier build.
type Diff struct {
	Since    time.Time     `json:"since"`
	Same     bool          `json:"same"` // the last build made this very tree; the difference is to one before
	Seconds  [2]float64    `json:"seconds"`
	Size     [2]int64      `json:"size"` // of the trees
	Files    [2]int64      `json:"files"`
	Packages []PackageDiff `json:"packages"`
	Folders  []FolderDiff  `json:"folders"`
	Unknown  string        `json:"unknown,omitempty"` // why sizes cannot be compared
}

// PackageDiff is a package that came, went, or changed.
type PackageDiff struct {
	Name string   `json:"name"`
	What string   `json:"what"` // added, removed, upgraded, downgraded, changed
	Old  string   `json:"old,omitempty"`
	New  string   `json:"new,omitempty"`
	Size [2]int64 `json:"size"`
}

// FolderDiff is a folder that has another size.
type FolderDiff struct {
	Name string   `json:"name"`
	Size [2]int64 `json:"size"`
}

// compare tells what is different between the contents of two trees.
func compare(old, now *Content) (packages []PackageDiff, dirs []FolderDiff) {
	packages, dirs = []PackageDiff{}, []FolderDiff{}
	was := map[string]Package{}
	for _, p := range old.Packages {
		was[p.Name+":"+p.Arch] = p
	}
	for _, p := range now.Packages {
		o, ok := was[p.Name+":"+p.Arch]
		delete(was, p.Name+":"+p.Arch)
		d := PackageDiff{Name: p.Name, What: "added", Old: o.Version, New: p.Version, Size: [2]int64{o.Size, p.Size}}
		switch c := compareVersions(o.Version, p.Version); {
		case !ok:
		case c < 0:
			d.What = "upgraded"
		case c > 0:
			d.What = "downgraded"
		case o.Size != p.Size:
			d.What = "changed"
		default:
			continue
		}
		packages = append(packages, d)
	}
	for _, o := range was {
		packages = append(packages, PackageDiff{Name: o.Name, What: "removed", Old: o.Version, Size: [2]int64{o.Size, 0}})
	}
	slices.SortFunc(packages, func(a, b PackageDiff) int {
		return cmp.Or(strings.Compare(a.What, b.What), strings.Compare(a.Name, b.Name))
	})
	names := map[string]bool{}
	for _, c := range []*Content{old, now} {
		for name := range c.Dirs {
			names[name] = true
		}
	}
	for name := range names {
		if a, b := old.Dirs[name], now.Dirs[name]; a != b {
			dirs = append(dirs, FolderDiff{"/" + name, [2]int64{a, b}})
		}
	}
	by := func(d FolderDiff) int64 { return max(d.Size[1]-d.Size[0], d.Size[0]-d.Size[1]) }
	slices.SortFunc(dirs, func(a, b FolderDiff) int {
		return cmp.Or(cmp.Compare(by(b), by(a)), strings.Compare(a.Name, b.Name))
	})
	return packages, dirs[:min(len(dirs), 100)]
}

// compareVersions orders versions as dpkg does (deb-version(7)): numbers by value, "~"
// before everything, letters before other characters.
func compareVersions(a, b string) int {
	ea, ra := epoch(a)
	eb, rb := epoch(b)
	if c := compareParts(ea, eb); c != 0 {
		return c
	}
	ua, da := revision(ra)
	ub, db := revision(rb)
	return cmp.Or(compareParts(ua, ub), compareParts(da, db))
}

func epoch(v string) (epoch, rest string) {
	if e, r, ok := strings.Cut(v, ":"); ok {
		return e, r
	}
	return "0", v
}

func revision(v string) (upstream, revision string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, ""
}

func compareParts(a, b string) int {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	order := func(s string) int {
		switch {
		case s == "" || digit(s[0]):
			return 0
		case s[0] == '~':
			return -1
		case s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z':
			return int(s[0])
		}
		return int(s[0]) + 256
	}
	for a != "" || b != "" {
		for a != "" && !digit(a[0]) || b != "" && !digit(b[0]) {
			if c := cmp.Compare(order(a), order(b)); c != 0 {
				return c
			}
			a, b = a[min(1, len(a)):], b[min(1, len(b)):]
		}
		number := func(s string) (string, string) {
			s = strings.TrimLeft(s, "0")
			n := 0
			for n < len(s) && digit(s[n]) {
				n++
			}
			return s[:n], s[n:]
		}
		var na, nb string
		na, a = number(a)
		nb, b = number(b)
		if c := cmp.Or(cmp.Compare(len(na), len(nb)), strings.Compare(na, nb)); c != 0 {
			return c
		}
	}
	return 0
}
