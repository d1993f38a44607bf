// Package lock keeps what package requests resolved to, in a text file beside the
// rule files: osbuild-star.lock. It has no times, no host names and no paths of the
// machine that wrote it, so it can be committed, compared and merged.
//
// The file is a first line "osbuild-star.lock 1" and a group for each request,
// sorted by key. A group is a line
//
//	deb KEY COUNT BASE SUMMARY
//
// and COUNT lines, sorted, each indented by a blank:
//
//	NAME VERSION ARCHITECTURE SUITE/COMPONENT PATH SIZE SHA256
//
// KEY is the key of the request (apt.RequestKey). BASE is "-", or KEY:DIGEST of the
// group of the request's base as it was then: when the base changes, what was
// resolved on top of it no longer counts. SUMMARY is for people. PATH is relative to
// the mirror, which the file does not name.
package lock

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/sources/apt"
)

// Name is what the file is called in a workspace.
const Name = "osbuild-star.lock"

// File is a lock file in memory. It is not for several goroutines at once. Several
// processes may save the same file: what each changed is joined.
type File struct {
	path    string
	groups  map[string]*group
	changed map[string]bool // keys that were set or dropped since Open
}

// group is the answer to one request.
type group struct {
	key     string
	base    string // "-" or KEY:DIGEST
	summary string
	entries []entry
}

// entry is one archive.
type entry struct {
	name, version, arch string
	repo                string // SUITE/COMPONENT, see labels
	path                string
	size                int64
	sha256              string
}

// Open reads a lock file. One that does not exist is an empty one; it is made by
// Save. One that somebody edited into something else is an error that names the
// line.
func Open(path string) (*File, error) {
	f := &File{path: path, groups: map[string]*group{}, changed: map[string]bool{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the lock: %w", err)
	}
	if f.groups, err = parse(path, b); err != nil {
		return nil, err
	}
	return f, nil
}

// Path returns the name of the file.
func (f *File) Path() string { return f.path }

// Lookup returns what a request resolved to, sorted by name and architecture, with
// empty URLs: those depend on the mirror (see Packages). ok is false when the file
// does not have the request, or when its base has changed since.
func (f *File) Lookup(req *manifest.PackageRequest) (pkgs []manifest.Package, ok bool) {
	g := f.find(req)
	if g == nil {
		return nil, false
	}
	pkgs = make([]manifest.Package, len(g.entries))
	for i, e := range g.entries {
		pkgs[i] = manifest.Package{Name: e.name, Version: e.version, Arch: e.arch, Size: e.size, SHA256: e.sha256}
	}
	return pkgs, true
}

// find returns the group that satisfies a request, or nil.
func (f *File) find(req *manifest.PackageRequest) *group {
	g := f.groups[apt.RequestKey(req)]
	if g == nil {
		return nil
	}
	want := "-"
	if req.Base != nil {
		b := f.find(req.Base)
		if b == nil {
			return nil
		}
		want = b.ref()
	}
	if g.base != want {
		return nil
	}
	return g
}

// ref names a group and its content.
func (g *group) ref() string {
	h := sha256.New()
	for _, e := range g.entries {
		fmt.Fprintln(h, e)
	}
	return g.key + ":" + hex.EncodeToString(h.Sum(nil)[:8])
}

// Packages is Lookup with URLs: mirror says where each repository of the request is.
// It is an error if it cannot say it.
func (f *File) Packages(req *manifest.PackageRequest, mirror func(manifest.DebRepo) (string, error)) (pkgs []manifest.Package, ok bool, err error) {
	g := f.find(req)
	if g == nil {
		return nil, false, nil
	}
	pkgs, _ = f.Lookup(req)
	byLabel := map[string]int{}
	for i := range req.Repos {
		for _, l := range labels(req.Repos, i) {
			byLabel[l] = i
		}
	}
	mirrors := make([]string, len(req.Repos))
	for i, e := range g.entries {
		at, known := byLabel[e.repo]
		if !known {
			return nil, false, &sources.Error{
				Msg:  fmt.Sprintf("%s: %s comes from %s, which is none of the request's repositories", f.path, e.name, e.repo),
				Hint: "take back the edit of the file, or make it again with `osbuild-star lock --update`",
			}
		}
		if mirrors[at] == "" {
			if mirrors[at], err = mirror(req.Repos[at]); err != nil {
				return nil, false, err
			}
		}
		pkgs[i].URL = apt.URL(mirrors[at], e.path)
	}
	return pkgs, true, nil
}

// labels are the names of the i-th repository's components in the file: the suite
// and the component, and "#2", "#3", … when an earlier repository has the same.
func labels(repos []manifest.DebRepo, i int) []string {
	var out []string
	for _, c := range componentsOf(repos[i]) {
		n := 1
		for _, earlier := range repos[:i] {
			if earlier.Suite == repos[i].Suite && slices.Contains(componentsOf(earlier), c) {
				n++
			}
		}
		l := repos[i].Suite + "/" + c
		if n > 1 {
			l = fmt.Sprintf("%s#%d", l, n)
		}
		out = append(out, l)
	}
	return out
}

// componentsOf returns "-" for the one component of a flat repository.
func componentsOf(r manifest.DebRepo) []string {
	switch {
	case strings.HasSuffix(r.Suite, "/"):
		return []string{"-"}
	case len(r.Components) == 0:
		return []string{"main"}
	}
	return r.Components
}

// Set remembers what a request resolved to; the base's answer is set before. place
// says where each archive stands in its repository, as (*apt.Resolver).Place does.
func (f *File) Set(req *manifest.PackageRequest, pkgs []manifest.Package, place func(manifest.Package) (apt.Place, bool)) error {
	g := &group{key: apt.RequestKey(req), base: "-", summary: summary(req)}
	if req.Base != nil {
		b := f.find(req.Base)
		if b == nil {
			return fmt.Errorf("the lock does not have the base of the packages at %s:%d", req.Origin.File, req.Origin.Line)
		}
		g.base = b.ref()
	}
	for _, p := range pkgs {
		pl, ok := place(p)
		if !ok {
			return fmt.Errorf("%s is in none of the repositories that were asked", p.URL)
		}
		e := entry{p.Name, p.Version, p.Arch, label(req.Repos, pl), pl.Path, p.Size, p.SHA256}
		if e.repo == "" {
			return fmt.Errorf("%s comes from %s %s, which is not asked for", p.URL, pl.Suite, pl.Component)
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("the repository's index has a package that the lock cannot hold: %w", err)
		}
		g.entries = append(g.entries, e)
	}
	g.sort()
	f.groups[g.key] = g
	f.changed[g.key] = true
	return nil
}

// label finds the label of a place.
func label(repos []manifest.DebRepo, pl apt.Place) string {
	found := ""
	for i, r := range repos {
		if r.Suite != pl.Suite {
			continue
		}
		for j, c := range componentsOf(r) {
			if c != cmp.Or(pl.Component, "-") {
				continue
			}
			l := labels(repos, i)[j]
			if strings.TrimRight(r.Mirror, "/") == pl.Mirror {
				return l
			}
			found = cmp.Or(found, l)
		}
	}
	return found
}

// summary tells a person what a request asks for.
func summary(req *manifest.PackageRequest) string {
	arch, err := apt.DebArch(req.Arch)
	if err != nil {
		arch = req.Arch
	}
	words := []string{arch}
	for _, r := range req.Repos {
		words = append(words, r.Suite)
	}
	words = append(words, cmp.Or(req.Variant, apt.VariantEssential))
	if req.Recommends {
		words = append(words, "recommends")
	}
	words = append(words, slices.Compact(slices.Sorted(slices.Values(req.Names)))...)
	// Whatever a name holds, it must not end the line.
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return ' '
		}
		return r
	}, strings.Join(words, " "))), " ")
}

// Keep drops the entries of all requests but these and their bases.
func (f *File) Keep(reqs []*manifest.PackageRequest) {
	asked := map[string]bool{}
	for _, req := range reqs {
		for q := req; q != nil; q = q.Base {
			asked[apt.RequestKey(q)] = true
		}
	}
	for k := range f.groups {
		if !asked[k] {
			delete(f.groups, k)
			f.changed[k] = true
		}
	}
}

// Save writes what was changed. The file is replaced at once or not at all, and one
// that would not change is not touched. What another process saved meanwhile stays,
// unless it is about the same requests.
func (f *File) Save() error {
	if len(f.changed) == 0 {
		return nil
	}
	path := f.path
	if p, err := filepath.EvalSymlinks(path); err == nil {
		path = p
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	defer dir.Close()
	for {
		if err = unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", dir.Name(), err)
	}
	now, err := Open(path)
	if err != nil {
		return err
	}
	for k := range f.changed {
		if g := f.groups[k]; g != nil {
			now.groups[k] = g
		} else {
			delete(now.groups, k)
		}
	}
	text := render(now.groups)
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, text) || err != nil && len(now.groups) == 0 {
		f.groups, f.changed = now.groups, map[string]bool{}
		return nil
	}
	// The name is always the same, and the directory is locked: what a crash leaves
	// is overwritten here.
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := writeSynced(tmp, text); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("writing the lock: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("writing the lock: %w", err)
	}
	f.groups, f.changed = now.groups, map[string]bool{}
	return nil
}

func writeSynced(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func (g *group) sort() {
	slices.SortFunc(g.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.arch, b.arch))
	})
}

// render writes the file.
func render(groups map[string]*group) []byte {
	var b bytes.Buffer
	b.WriteString(header + "\n")
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		g := groups[k]
		fmt.Fprintf(&b, "deb %s %d %s %s\n", g.key, len(g.entries), g.base, g.summary)
		for _, e := range g.entries {
			fmt.Fprintf(&b, " %s\n", e)
		}
	}
	return b.Bytes()
}

// String writes an entry as the file has it.
func (e entry) String() string {
	return fmt.Sprintf("%s %s %s %s %s %d %s", e.name, e.version, e.arch, e.repo, e.path, e.size, e.sha256)
}
