// Package runners knows what each operating system needs set up in a build root
// before any other program runs in it: the linker's cache, the users and
// directories that packages declare, the certificate authorities that TLS needs
// (trust.go), a name service switch that does not reach for services that are not
// there. A runner is Go in the static agent: nothing of the
// tree has to work before it has run.
//
// Names are those of upstream osbuild ("org.osbuild.rhel82"), or their last part
// ("rhel82"). A name is a family and a version without dots; one that is not in
// the table is served by the newest older one of its family, as upstream does it.
package runners

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Prefix is what full names start with.
const Prefix = "org.osbuild."

// Runner is one entry of the table.
type Runner struct {
	Name     string // full name, e.g. "org.osbuild.rhel82"
	Family   string // "rhel"
	Version  int    // 82; 0 when the name has none
	Revision int    // part of the cache key of what is built with it
	Doc      string // one line
	kind
}

// Env is the environment that programs have in a build root of that architecture
// besides what all have, as "NAME=value".
func (r *Runner) Env(arch string) []string {
	if r.env == nil {
		return nil
	}
	return r.env(arch)
}

// Root is the build root that a runner prepares.
type Root struct {
	Dir  string    // "/" in the agent; another directory in tests
	Arch string    // architecture of its programs, "s390x"
	Log  io.Writer // output of what it starts
}

func (r Root) path(p string) string { return filepath.Join(r.Dir, p) }

// UnknownError is a runner that the table has not.
type UnknownError struct {
	Name  string
	Known []string // names of its family, or of all
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no runner %q (there are: %s)", e.Name, strings.Join(e.Known, ", "))
}

// Lookup finds the runner of that name: the newest of its family that is not newer
// than the version asked for.
func Lookup(name string) (*Runner, error) {
	family, version := split(strings.TrimPrefix(name, Prefix))
	var best *Runner
	var known, all []string
	for i := range table {
		r := &table[i]
		all = append(all, r.short())
		if r.Family != family {
			continue
		}
		known = append(known, r.short())
		if r.Version <= version && (best == nil || r.Version > best.Version) {
			best = r
		}
	}
	if best != nil {
		return best, nil
	}
	if known == nil {
		known = all
	}
	slices.Sort(known)
	return nil, &UnknownError{Name: name, Known: known}
}

// All returns the table, sorted by name.
func All() []*Runner {
	out := make([]*Runner, 0, len(table))
	for i := range table {
		out = append(out, &table[i])
	}
	slices.SortFunc(out, func(a, b *Runner) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (r *Runner) short() string { return strings.TrimPrefix(r.Name, Prefix) }

// split cuts the digits off the end of a name; a name without any is version 0.
func split(name string) (family string, version int) {
	family = strings.TrimRight(name, "0123456789")
	version, err := strconv.Atoi(name[len(family):])
	if err != nil {
		return family, 0
	}
	return family, version
}

// Host returns the name of the runner for the system that root is the tree of
// (normally "/"), from its os-release: ID and VERSION_ID without dots.
func Host(root string) string {
	for _, f := range []string{"etc/os-release", "usr/lib/os-release"} {
		b, err := os.ReadFile(filepath.Join(root, f))
		if err == nil {
			return Prefix + fromOSRelease(b)
		}
	}
	return Prefix + "linux"
}

func fromOSRelease(b []byte) string {
	id, version := "linux", ""
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		k, v, ok := strings.Cut(strings.TrimSpace(sc.Text()), "=")
		if !ok {
			continue
		}
		v = strings.Trim(v, `"'`)
		switch k {
		case "ID":
			if v != "" {
				id = v
			}
		case "VERSION_ID":
			version = strings.ReplaceAll(v, ".", "")
		}
	}
	return id + version
}

// FullName adds the prefix that manifests have, when it is missing.
func FullName(name string) string {
	if strings.Contains(name, ".") {
		return name
	}
	return Prefix + name
}
