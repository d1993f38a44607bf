// Planning: which packages there are, in which order and rounds they are installed.
package deb

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// plan sorts jobs into rounds; see the package documentation.
type plan struct {
	db     *database
	byName map[string][]*job // and by what they provide
	seen   map[*job]bool
}

func newPlan(db *database) *plan {
	return &plan{db: db, byName: map[string][]*job{}, seen: map[*job]bool{}}
}

func (p *plan) add(j *job) {
	p.byName[j.name] = append(p.byName[j.name], j)
	for _, g := range j.provides {
		for _, r := range g {
			p.byName[r.name] = append(p.byName[r.name], j)
		}
	}
}

// classify takes the opened archives apart: those that are installed already are left
// out, and those that need the real dpkg are marked.
func classify(all []*job, db *database) (todo, skipped []*job, err error) {
	have := map[pkgID]*job{}
	for _, j := range all {
		if o := have[j.id()]; o != nil {
			return nil, nil, fmt.Errorf("package %s is among the packages twice, in versions %s and %s", j.name, o.version, j.version)
		}
		have[j.id()] = j
	}
	for _, j := range all {
		e := db.entries[j.id()]
		if e != nil && e.version == j.version && (e.configured() || e.state == "unpacked" || e.state == "half-configured") {
			skipped = append(skipped, j)
			continue
		}
		todo = append(todo, j)
		j.byDpkg = e != nil && e.state != "not-installed"
	}
	slices.SortFunc(todo, func(a, b *job) int { return comparePkgIDs(a.id(), b.id()) })
	for _, j := range todo {
		for _, e := range db.entries {
			if e.present() && (e.name == j.name || j.replaces.concern(e.pkg) || e.replaces.concern(j.pkg) || clash(j.pkg, e.pkg)) {
				j.byDpkg = true
			}
		}
	}
	for i, a := range todo {
		for _, b := range todo[i+1:] {
			if a.name != b.name && clash(a.pkg, b.pkg) {
				return nil, nil, fmt.Errorf("packages %s and %s conflict", a, b)
			}
		}
	}
	return todo, skipped, nil
}

// clash reports whether one of two packages conflicts with the other, or breaks it.
func clash(a, b *pkg) bool {
	one := func(a, b *pkg) bool {
		if a.breaks.concern(b) {
			return true
		}
		for _, g := range a.conflicts {
			for _, r := range g {
				if r.matches(b) {
					return true
				}
			}
		}
		return false
	}
	return one(a, b) || one(b, a)
}

// makePlan orders the jobs and returns them by round. Round 0 may be empty, and is so
// unless the tree is fresh: without packages.
func makePlan(todo []*job, db *database, fresh bool) [][]*job {
	p := newPlan(db)
	for _, j := range todo {
		p.add(j)
	}
	for _, j := range todo {
		j.round = 1
	}
	if fresh {
		for _, j := range todo {
			if j.essential {
				p.bootstrap(j)
			}
		}
	}
	if fresh {
		p.hoist(todo)
	}
	levels := map[*job]int{}
	for _, j := range todo {
		if j.round > 0 {
			j.round = p.level(j, levels)
		}
	}
	var order []*job
	p.seen = map[*job]bool{}
	for _, j := range todo {
		p.order(j, &order)
	}
	slices.SortStableFunc(order, func(a, b *job) int { return a.round - b.round })
	rounds := [][]*job{nil, nil}
	for i, j := range order {
		j.rank = i
		for len(rounds) <= j.round {
			rounds = append(rounds, nil)
		}
		rounds[j.round] = append(rounds[j.round], j)
	}
	return rounds
}

// choose returns the package that is to satisfy a group, or nil if an installed one
// does or none can.
func (p *plan) choose(g group) *job {
	for _, r := range g {
		for _, e := range p.db.entries {
			if e.configured() && r.matches(e.pkg) {
				return nil
			}
		}
	}
	for _, r := range g {
		for _, j := range p.byName[r.name] {
			if r.matches(j.pkg) {
				return j
			}
		}
	}
	return nil
}

func (p *plan) needs(j *job) []*job {
	var out []*job
	for _, rs := range []relations{j.predepends, j.depends} {
		for _, g := range rs {
			if d := p.choose(g); d != nil && d != j {
				out = append(out, d)
			}
		}
	}
	return out
}

// bootstrap puts a package, and all that it depends on, into round 0.
func (p *plan) bootstrap(j *job) {
	if p.seen[j] {
		return
	}
	p.seen[j] = true
	j.round = 0
	for _, d := range p.needs(j) {
		p.bootstrap(d)
	}
}

// hoist puts into round 0 what the preinst scripts of round 1 need to be configured,
// as long as it has no such scripts itself: that saves a round.
func (p *plan) hoist(todo []*job) {
	for _, j := range todo {
		if j.round == 0 || !j.needsPreinst() {
			continue
		}
		for _, g := range j.predepends {
			d := p.choose(g)
			if d == nil || d.round == 0 {
				continue
			}
			with, plain := map[*job]bool{}, true
			var walk func(d *job)
			walk = func(d *job) {
				if d.round > 0 && !with[d] {
					with[d] = true
					plain = plain && !d.needsPreinst()
					for _, n := range p.needs(d) {
						walk(n)
					}
				}
			}
			walk(d)
			for d := range with {
				if plain {
					d.round = 0
				}
			}
		}
	}
}

// level is the round of a package that is not in round 0.
func (p *plan) level(j *job, levels map[*job]int) int {
	if n, ok := levels[j]; ok {
		return n
	}
	levels[j] = 1 // also while it is looked for, which ends cycles
	n := 1
	if j.byDpkg || j.needsPreinst() {
		for _, g := range j.predepends {
			if d := p.choose(g); d != nil && d.round > 0 {
				n = max(n, p.level(d, levels)+1)
			}
		}
	}
	levels[j] = n
	return n
}

// order appends a package behind those that it needs.
func (p *plan) order(j *job, out *[]*job) {
	if p.seen[j] {
		return
	}
	p.seen[j] = true
	for _, d := range p.needs(j) {
		p.order(d, out)
	}
	*out = append(*out, j)
}

// before returns the names of the packages that have to be configured before a round:
// the Pre-Depends of its packages, with all that they depend on.
func (in *installer) before(round []*job) ([]string, error) {
	t, err := openTree(in.Tree)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if in.db, err = readDatabase(t); err != nil {
		return nil, err
	}
	p := newPlan(in.db)
	for _, j := range in.jobs {
		if e := in.db.entries[j.id()]; e != nil && !e.configured() {
			p.add(j)
		}
	}
	names := map[string]bool{}
	var add func(j *job)
	add = func(j *job) {
		id := j.name + ":" + j.arch
		if j.arch == "all" {
			id = j.name
		}
		if names[id] {
			return
		}
		names[id] = true
		for _, d := range p.needs(j) {
			add(d)
		}
	}
	for _, j := range round {
		for _, g := range j.predepends {
			if d := p.choose(g); d != nil {
				add(d)
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// nativeArch finds the architecture of the system: what the tree's packages have, or
// most of the new ones.
func nativeArch(want string, db *database, jobs []*job) (string, error) {
	if want != "" {
		if !validArch(want) {
			return "", fmt.Errorf("invalid architecture %q", want)
		}
		return want, nil
	}
	for _, e := range db.entries {
		if e.name == "dpkg" && e.present() {
			return e.arch, nil
		}
	}
	count := map[string]int{}
	for _, j := range jobs {
		if j.name == "dpkg" {
			return j.arch, nil
		}
		if j.arch != "all" {
			count[j.arch]++
		}
	}
	best := ""
	for _, a := range slices.Sorted(maps.Keys(count)) {
		if best == "" || count[a] > count[best] {
			best = a
		}
	}
	if best == "" {
		return "", errors.New("the architecture cannot be told from the packages, which are all for \"all\"")
	}
	return best, nil
}

// Installed is a package that is in the tree after an installation.
type Installed struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
}

func (db *database) installed() []Installed {
	var out []Installed
	for _, id := range slices.SortedFunc(maps.Keys(db.entries), comparePkgIDs) {
		if e := db.entries[id]; e.present() {
			out = append(out, Installed{e.name, e.version, e.arch})
		}
	}
	return out
}
