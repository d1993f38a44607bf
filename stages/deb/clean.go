// What is left to do in the tree when all packages are installed.
package deb

import (
	"slices"
	"strings"
)

// adminFilters is where filters are kept in the tree.
const adminFilters = "/etc/dpkg/dpkg.cfg.d/osbuild-star"

// readFilters returns the filters that hold: those of dpkg in the tree, in the order
// in which it reads them, and then those of this installation.
func (in *installer) readFilters(t *tree) (filters, error) {
	const dir = "/etc/dpkg/dpkg.cfg.d"
	names, err := t.list(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var paths []string
	for _, name := range names {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == "" {
			paths = append(paths, dir+"/"+name)
		}
	}
	var out filters
	for _, path := range append(paths, "/etc/dpkg/dpkg.cfg") {
		text, err := t.readOptional(path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			if f, ok := parseFilter(line); ok {
				out = append(out, f)
			}
		}
	}
	return append(out, in.Filters...), nil
}

// parseFilter reads a line of dpkg's configuration; ok is false for other lines.
func parseFilter(line string) (f Filter, ok bool) {
	line = strings.TrimSpace(line)
	if rest, found := strings.CutPrefix(line, "path-exclude"); found {
		line = rest
	} else if line, found = strings.CutPrefix(line, "path-include"); found {
		f.Include = true
	} else {
		return f, false
	}
	if line == "" || !strings.ContainsRune("= \t", rune(line[0])) {
		return f, false
	}
	f.Pattern = strings.TrimSpace(strings.TrimLeft(line, "= \t"))
	if n := len(f.Pattern); n >= 2 && f.Pattern[0] == f.Pattern[n-1] && (f.Pattern[0] == '"' || f.Pattern[0] == '\'') {
		f.Pattern = f.Pattern[1 : n-1]
	}
	return f, f.Pattern != ""
}

func (f Filter) line() string {
	if f.Include {
		return "path-include=" + f.Pattern
	}
	return "path-exclude=" + f.Pattern
}

// writeFilters keeps the filters in the tree, so that later upgrades follow them.
func (in *installer) writeFilters(t *tree) error {
	if !in.KeepFilters || len(in.Filters) == 0 {
		return nil
	}
	text, err := t.readOptional(adminFilters)
	if err != nil {
		return err
	}
	have := strings.Split(text, "\n")
	changed := false
	for _, f := range in.Filters {
		if !slices.Contains(have, f.line()) {
			text += f.line() + "\n"
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return t.write(adminFilters, []byte(text), 0o644)
}

// leftovers are files that installing packages leaves behind and that differ from one
// time to the next, or are of no use: logs, backups of databases, caches, locks.
var leftovers = []string{
	"/etc/group-", "/etc/gshadow-", "/etc/passwd-", "/etc/shadow-", "/etc/subgid-", "/etc/subuid-",
	"/etc/.pwd.lock",
	"/var/cache/apt/pkgcache.bin", "/var/cache/apt/srcpkgcache.bin",
	"/var/cache/debconf/config.dat-old", "/var/cache/debconf/passwords.dat-old", "/var/cache/debconf/templates.dat-old",
	"/var/cache/ldconfig/aux-cache",
	"/var/lib/dpkg/available-old", "/var/lib/dpkg/diversions-old", "/var/lib/dpkg/statoverride-old",
	"/var/lib/dpkg/status-old", "/var/lib/dpkg/lock", "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/triggers/Lock",
	"/var/lib/systemd/random-seed",
	"/var/log/alternatives.log", "/var/log/apt/eipp.log.xz", "/var/log/apt/history.log", "/var/log/apt/term.log",
	"/var/log/bootstrap.log", "/var/log/dpkg.log", "/var/log/fontconfig.log",
}

// finish removes leftovers, and the machine's identity, if installing made one: it is
// random, and each machine makes its own when it starts first.
func (in *installer) finish(hadID bool) error {
	t, err := openTree(in.Tree)
	if err != nil {
		return err
	}
	defer t.close()
	for _, path := range leftovers {
		if err := t.remove(path); err != nil {
			return err
		}
	}
	if !hadID && t.exists("/etc/machine-id") {
		if err := t.write("/etc/machine-id", nil, 0o644); err != nil {
			return err
		}
		// D-Bus has a copy; when it starts it makes a link in its place.
		if err := t.remove("/var/lib/dbus/machine-id"); err != nil {
			return err
		}
	}
	if in.db, err = readDatabase(t); err != nil {
		return err
	}
	return in.db.readTables(t)
}
