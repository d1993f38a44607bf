// dpkg's database in the tree: reading it, and adding unpacked packages to it.
package deb

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	adminDir = "/var/lib/dpkg"
	infoDir  = adminDir + "/info"
)

// A database is what dpkg knows of a tree.
type database struct {
	entries    map[pkgID]*entry
	diversions []diversion
	overrides  map[string]attr     // by path; mtime is not used
	owners     map[string][]*entry // of paths, when loadOwners has been called
	files      []interest          // file triggers, in the order of the file
}

// entry is a paragraph of the status file.
type entry struct {
	*pkg
	want, state string // "install", "installed"
	text        string // as it stands in the file
}

// present reports whether files of the package are in the tree.
func (e *entry) present() bool { return e.state != "not-installed" && e.state != "config-files" }

// configured reports whether nothing is left to do.
func (e *entry) configured() bool {
	return e.state == "installed" || e.state == "triggers-pending" || e.state == "triggers-awaited"
}

// left returns the packages that something is left to do for, with their states.
func (db *database) left() []string {
	var out []string
	for _, e := range db.entries {
		if e.present() && e.state != "installed" {
			out = append(out, e.name+" ("+e.state+")")
		}
	}
	slices.Sort(out)
	return out
}

// diversion is one record of the diversions file.
type diversion struct{ from, to, by string }

// interest is a line of triggers/File: a package that wants to know of changes below
// a path.
type interest struct{ path, line string }

// readDatabase reads the database of a tree; of one without dpkg it is empty.
func readDatabase(t *tree) (*database, error) {
	db := &database{entries: map[pkgID]*entry{}}
	text, err := t.readOptional(adminDir + "/status")
	if err != nil {
		return nil, err
	}
	if db.entries, err = parseStatus(text); err != nil {
		return nil, fmt.Errorf("%s/status: %w", adminDir, err)
	}
	pending, err := t.list(adminDir + "/updates")
	if err != nil {
		return nil, err
	}
	for _, name := range pending {
		if strings.Trim(name, "0123456789") == "" {
			return nil, fmt.Errorf("the package database of the tree was left in the middle of a change (%s/updates/%s)", adminDir, name)
		}
	}
	if err := db.readTables(t); err != nil {
		return nil, err
	}
	return db, nil
}

// readTables reads what a script may have changed: diversions, overrides, interests.
func (db *database) readTables(t *tree) error {
	text, err := t.readOptional(adminDir + "/diversions")
	if err != nil {
		return err
	}
	if db.diversions, err = parseDiversions(text); err != nil {
		return fmt.Errorf("%s/diversions: %w", adminDir, err)
	}
	if text, err = t.readOptional(adminDir + "/triggers/File"); err != nil {
		return err
	}
	db.files = nil
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		path, _, ok := strings.Cut(line, " ")
		if !ok {
			return fmt.Errorf("%s/triggers/File: cannot read the line %q", adminDir, line)
		}
		db.files = append(db.files, interest{path, line})
	}
	if text, err = t.readOptional(adminDir + "/statoverride"); err != nil {
		return err
	}
	ids, err := readIDs(t)
	if err != nil {
		return err
	}
	if db.overrides, err = parseOverrides(text, ids); err != nil {
		return fmt.Errorf("%s/statoverride: %w", adminDir, err)
	}
	return nil
}

func (t *tree) readOptional(path string) (string, error) {
	b, err := t.read(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

func parseStatus(text string) (map[pkgID]*entry, error) {
	entries := map[pkgID]*entry{}
	for text = strings.TrimLeft(text, "\n"); text != ""; text = strings.TrimLeft(text, "\n") {
		var block string
		block, text, _ = strings.Cut(text, "\n\n")
		block = strings.TrimRight(block, "\n") + "\n"
		fields, err := parseParagraph(block)
		if err != nil {
			return nil, err
		}
		name := fields.get("Package")
		status := strings.Fields(fields.get("Status"))
		if len(status) != 3 {
			return nil, fmt.Errorf("package %s: status %q", name, fields.get("Status"))
		}
		e := &entry{want: status[0], state: status[2], text: block}
		if e.state == "not-installed" { // these have little more than a name
			e.pkg = &pkg{name: name, arch: fields.get("Architecture")}
		} else if e.pkg, err = newPkg(fields); err != nil {
			return nil, err
		}
		if entries[e.id()] != nil {
			return nil, fmt.Errorf("package %s is in it twice", name)
		}
		entries[e.id()] = e
	}
	return entries, nil
}

func parseDiversions(text string) ([]diversion, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if text == "" {
		return nil, nil
	}
	if len(lines)%3 != 0 {
		return nil, errors.New("the last record is not whole")
	}
	var out []diversion
	for rec := range slices.Chunk(lines, 3) {
		out = append(out, diversion{from: rec[0], to: rec[1], by: rec[2]})
	}
	return out, nil
}

// divert returns where a file of a package goes, and an error when the package has a
// file where another one's has been diverted to.
func (db *database) divert(pkgName, path string) (string, error) {
	for _, d := range db.diversions {
		switch path {
		case d.from:
			if d.by != pkgName { // ":" is a diversion of the administrator: of all packages
				return d.to, nil
			}
		case d.to:
			return "", fmt.Errorf("%s is where %s of other packages is diverted to, by %s", path, d.from, d.by)
		}
	}
	return path, nil
}

// diverts reports whether a path is diverted by one of the named packages: then two
// packages may have it.
func (db *database) diverts(path string, names ...string) bool {
	for _, d := range db.diversions {
		if d.from == path && slices.Contains(names, d.by) {
			return true
		}
	}
	return false
}

// ids are the numbers of users and groups of the tree.
type ids struct{ users, groups map[string]uint32 }

func readIDs(t *tree) (ids, error) {
	var out ids
	for _, f := range []struct {
		path string
		to   *map[string]uint32
	}{{"/etc/passwd", &out.users}, {"/etc/group", &out.groups}} {
		text, err := t.readOptional(f.path)
		if err != nil {
			return out, err
		}
		m := map[string]uint32{"root": 0}
		for line := range strings.Lines(text) {
			if p := strings.SplitN(line, ":", 4); len(p) == 4 {
				if id, err := strconv.ParseUint(p[2], 10, 32); err == nil {
					m[p[0]] = uint32(id)
				}
			}
		}
		*f.to = m
	}
	return out, nil
}

func parseOverrides(text string, names ids) (map[string]attr, error) {
	out := map[string]attr{}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) != 4 {
			return nil, fmt.Errorf("cannot read the line %q", line)
		}
		mode, err := strconv.ParseUint(f[2], 8, 12)
		if err != nil {
			return nil, fmt.Errorf("mode in the line %q", line)
		}
		a := attr{mode: uint32(mode)}
		for i, to := range []*uint32{&a.uid, &a.gid} {
			id, ok := []map[string]uint32{names.users, names.groups}[i][f[i]]
			if num, isNum := strings.CutPrefix(f[i], "#"); isNum {
				n, err := strconv.ParseUint(num, 10, 32)
				id, ok = uint32(n), err == nil
			}
			if !ok {
				return nil, fmt.Errorf("unknown user or group %q", f[i])
			}
			*to = id
		}
		out[f[3]] = a
	}
	return out, nil
}

// loadOwners reads which installed package has which file.
func (db *database) loadOwners(t *tree) error {
	db.owners = map[string][]*entry{}
	for _, id := range slices.SortedFunc(maps.Keys(db.entries), comparePkgIDs) {
		e := db.entries[id]
		if e.state == "not-installed" {
			continue
		}
		text, err := t.readOptional(infoDir + "/" + e.infoName() + ".list")
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			path := strings.TrimSuffix(line, "\n")
			db.owners[path] = append(db.owners[path], e)
		}
	}
	return nil
}

func comparePkgIDs(a, b pkgID) int {
	if c := strings.Compare(a.name, b.name); c != 0 {
		return c
	}
	return strings.Compare(a.arch, b.arch)
}

// record adds unpacked packages: their lists, interests in triggers, activated
// triggers, and last the status. Their other files in info/ are there already.
func (db *database) record(t *tree, jobs []*job, native string) error {
	if format, err := t.readOptional(infoDir + "/format"); err != nil {
		return err
	} else if format == "" {
		if err := t.write(infoDir+"/format", []byte("1\n"), 0o644); err != nil {
			return err
		}
	}
	if err := db.recordArchs(t, jobs, native); err != nil {
		return err
	}
	explicit := map[string]string{} // triggers/NAME → content
	var order []string
	fired := map[string]bool{}
	filesChanged := false
	for _, j := range jobs {
		var list strings.Builder
		for _, path := range j.list {
			if _, lost := j.lost[path]; !lost {
				list.WriteString(path + "\n")
			}
		}
		if err := t.write(infoDir+"/"+j.infoName()+".list", []byte(list.String()), 0o644); err != nil {
			return err
		}
		if j.noSums {
			if err := t.write(infoDir+"/"+j.infoName()+".md5sums", []byte(j.sumsText()), 0o644); err != nil {
				return err
			}
		}
		for _, tr := range j.triggers {
			if !tr.interest {
				fired[tr.name] = true
				continue
			}
			line := j.infoName()
			if tr.noawait {
				line += "/noawait"
			}
			if strings.HasPrefix(tr.name, "/") {
				db.files = append(db.files, interest{tr.name, tr.name + " " + line})
				filesChanged = true
				continue
			}
			if _, ok := explicit[tr.name]; !ok {
				text, err := t.readOptional(adminDir + "/triggers/" + tr.name)
				if err != nil {
					return err
				}
				explicit[tr.name] = text
				order = append(order, tr.name)
			}
			explicit[tr.name] += line + "\n"
		}
		for name := range j.fired {
			fired[name] = true
		}
	}
	for _, name := range order {
		if err := t.write(adminDir+"/triggers/"+name, []byte(explicit[name]), 0o644); err != nil {
			return err
		}
	}
	if filesChanged {
		var b strings.Builder
		for _, f := range db.files {
			b.WriteString(f.line + "\n")
		}
		if err := t.write(adminDir+"/triggers/File", []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	if err := db.activate(t, fired); err != nil {
		return err
	}
	for _, j := range jobs {
		db.entries[j.id()] = &entry{pkg: j.pkg, want: "install", state: "unpacked", text: j.statusText(j.conffiles)}
	}
	return t.write(adminDir+"/status", []byte(db.statusText()), 0o644)
}

// sumsText is the md5sums that dpkg makes for a package without. A file that another
// package took later is in it still.
func (j *job) sumsText() string {
	var b strings.Builder
	for _, s := range j.sums {
		if rank, lost := j.lost[s[1]]; !lost || rank > j.rank {
			b.WriteString(s[0] + "  " + s[1][1:] + "\n")
		}
	}
	return b.String()
}

func (db *database) statusText() string {
	var b strings.Builder
	for _, id := range slices.SortedFunc(maps.Keys(db.entries), comparePkgIDs) {
		b.WriteString(db.entries[id].text + "\n")
	}
	return b.String()
}

// activate leaves a note of triggers for the next run of dpkg, which passes it to the
// packages that are interested. Nobody awaits them: all triggers are processed by the
// run that configures the packages that fired them. Without the file, dpkg would take
// the interests of all packages anew, in another order.
func (db *database) activate(t *tree, fired map[string]bool) error {
	const path = adminDir + "/triggers/Unincorp"
	text, err := t.readOptional(path)
	if err != nil {
		return err
	}
	anyone := false
	for _, e := range db.entries {
		anyone = anyone || e.configured()
	}
	if anyone { // else there is none that would process a trigger
		for _, name := range slices.Sorted(maps.Keys(fired)) {
			text += name + " -\n"
		}
	}
	return t.write(path, []byte(text), 0o644)
}

// recordArchs makes dpkg know the foreign architectures of packages.
func (db *database) recordArchs(t *tree, jobs []*job, native string) error {
	text, err := t.readOptional(adminDir + "/arch")
	if err != nil {
		return err
	}
	known := strings.Fields(text)
	if len(known) == 0 {
		known = []string{native}
	}
	n := len(known)
	for _, j := range jobs {
		if j.arch != "all" && !slices.Contains(known, j.arch) {
			known = append(known, j.arch)
		}
	}
	if len(known) == n {
		return nil
	}
	return t.write(adminDir+"/arch", []byte(strings.Join(known, "\n")+"\n"), 0o644)
}

// trigger is one line of the triggers of a package.
type trigger struct {
	name              string
	interest, noawait bool
}

func parseTriggers(text string) ([]trigger, error) {
	var out []trigger
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 2 {
			return nil, fmt.Errorf("triggers: cannot read the line %q", line)
		}
		tr := trigger{name: f[1]}
		switch f[0] {
		case "interest", "interest-await":
			tr.interest = true
		case "interest-noawait":
			tr.interest, tr.noawait = true, true
		case "activate", "activate-await":
		case "activate-noawait":
			tr.noawait = true
		default:
			return nil, fmt.Errorf("triggers: unknown directive %q", f[0])
		}
		name, isPath := strings.CutPrefix(tr.name, "/")
		if name == "" || !isPath && strings.Contains(name, "/") || slices.Contains(strings.Split(name, "/"), "..") ||
			!isPath && slices.Contains([]string{".", "File", "Lock", "Unincorp"}, name) {
			return nil, fmt.Errorf("triggers: invalid name %q", tr.name)
		}
		out = append(out, tr)
	}
	return out, nil
}
