// One request: what is handed to apt, and what is made of its answer.
package apt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources"
)

// solve asks apt for a request on top of what is installed.
func (rt *root) solve(ctx context.Context, req *manifest.PackageRequest, base []installed) (*answer, []Place, error) {
	if err := rt.readNames(ctx); err != nil {
		return nil, nil, err
	}
	present := map[string]bool{} // name, and name:arch
	var status bytes.Buffer
	for _, p := range base {
		if p.arch == rt.arch || p.arch == "all" {
			present[p.name] = true
		}
		present[p.name+":"+p.arch] = true
		status.Write(p.stanza)
		status.WriteByte('\n')
	}
	if err := replaceFile(filepath.Join(rt.dir, "status"), status.Bytes()); err != nil {
		return nil, nil, err
	}
	names, err := rt.wanted(req)
	if err != nil {
		return nil, nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return present[n] })
	a := &answer{installed: slices.Clone(base)}
	if len(names) == 0 {
		return a, nil, nil
	}
	argv := []string{"apt-get", "-q", "-y", "--print-uris", "--no-remove", "--no-upgrade",
		"-o", fmt.Sprintf("APT::Install-Recommends=%t", req.Recommends), "install", "--"}
	out, stderr, err := rt.run(ctx, nil, append(argv, names...)...)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, err
		}
		return nil, nil, rt.solveError(ctx, req, out, stderr, err)
	}
	found, places, err := rt.lookUp(ctx, out, a)
	if err != nil {
		return nil, nil, err
	}
	var upgraded []string
	for _, p := range found {
		if present[p.Name+":"+p.Arch] || p.Arch == "all" && present[p.Name] {
			upgraded = append(upgraded, p.Name)
		}
	}
	if len(upgraded) > 0 {
		slices.Sort(upgraded)
		return nil, nil, &sources.Error{
			Msg:  fmt.Sprintf("the packages need other versions of packages that their base has: %s", strings.Join(upgraded[:min(len(upgraded), 5)], ", ")),
			Hint: "give the base the same repositories, and the versions that are wanted; then `osbuild-star lock --update`",
		}
	}
	a.packages = found
	return a, places, nil
}

// readNames reads the names of all packages, once.
func (rt *root) readNames(ctx context.Context) error {
	if rt.names != nil {
		return nil
	}
	n := newNames()
	for _, t := range rt.targets {
		if err := rt.cat(ctx, t, func(r io.Reader) error { return n.read(r, t.arch == rt.arch || t.arch == "all") }); err != nil {
			return err
		}
	}
	rt.names = n
	return nil
}

// wanted lists what apt is to install, and says which names are unknown.
func (rt *root) wanted(req *manifest.PackageRequest) ([]string, error) {
	set := map[string]bool{}
	switch variant(req) {
	case VariantMinbase:
		maps.Copy(set, rt.names.required)
		set["apt"] = true
		fallthrough
	case VariantEssential:
		maps.Copy(set, rt.names.essential)
	}
	if set["apt"] && !rt.names.real["apt"] {
		delete(set, "apt") // not Debian's archive
	}
	for _, n := range requestNames(req) {
		name, _, _ := splitName(n)
		if rt.names.real[name] || rt.names.virtual[name] {
			set[n] = true
			continue
		}
		e := &sources.Error{Msg: fmt.Sprintf("there is no package %q in %s", name, rt.describe())}
		if near := rt.names.nearest(name); len(near) > 0 {
			e.Hint = "did you mean " + strings.Join(near, ", ") + "?"
		} else {
			e.Hint = "check its name, and whether its component (contrib, non-free, non-free-firmware) is in the repository's components"
		}
		return nil, e
	}
	// A name with a version or a suite says more than the name alone.
	for n := range set {
		if name, arch, rest := splitName(n); rest != "" && arch == "" {
			delete(set, name)
		}
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// describe names the suites for a person.
func (rt *root) describe() string {
	var suites []string
	for _, r := range rt.repos {
		suites = append(suites, strings.TrimSpace(r.repo.Suite+" "+strings.Join(components(r.repo), " ")))
	}
	return strings.Join(suites, ", ") + " (" + rt.arch + ")"
}

// uriLine is what apt-get --print-uris prints for an archive.
var uriLine = regexp.MustCompile(`^'([^']+)' (\S+) ([0-9]+) (\S*)$`)

// scan goes through all stanzas of all indexes until fn returns false.
func (rt *root) scan(ctx context.Context, fn func(t target, stanza []byte) bool) error {
	more := true
	for _, t := range rt.targets {
		if !more {
			break
		}
		err := rt.cat(ctx, t, func(r io.Reader) error {
			return scanStanzas(r, func(b []byte) bool {
				more = fn(t, b)
				return more
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lookUp finds the archives that apt named in the verified indexes, and adds them to
// what is installed. Packages and places are sorted alike.
func (rt *root) lookUp(ctx context.Context, printed string, a *answer) ([]manifest.Package, []Place, error) {
	type archive struct {
		size, hash string
		uri        string
	}
	want := map[string]archive{}
	for line := range strings.Lines(printed) {
		if m := uriLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			want[plainURI(m[1])] = archive{m[3], m[4], m[1]}
		}
	}
	type hit struct {
		pkg   manifest.Package
		place Place
	}
	var hits []hit
	var bad error
	err := rt.scan(ctx, func(t target, stanza []byte) bool {
		f := parseStanza(stanza)
		uri := plainURI(strings.TrimRight(t.uri, "/") + "/" + escapePercent(string(f.filename)))
		w, ok := want[uri]
		if !ok || string(f.size) != w.size {
			return true
		}
		if h, ok := strings.CutPrefix(w.hash, "SHA256:"); ok && h != string(f.sha256) {
			return true // the same name in another repository
		}
		if _, err := hex.DecodeString(string(f.sha256)); err != nil || len(f.sha256) != 64 {
			bad = &sources.Error{
				Msg:  fmt.Sprintf("the index of %s has no SHA-256 checksum of %s", t.suite, f.name),
				Hint: "the repository is too old to be used",
			}
			return false
		}
		delete(want, uri)
		path := strings.TrimPrefix(string(f.filename), "./")
		hits = append(hits, hit{
			manifest.Package{
				Name: string(f.name), Version: string(f.version), Arch: string(f.arch),
				URL: URL(t.mirror, path), Size: number(f.size), SHA256: string(f.sha256),
			},
			Place{Mirror: t.mirror, Suite: t.suite, Component: t.component, Path: path},
		})
		a.installed = append(a.installed, installed{string(f.name), string(f.version), string(f.arch), installedStanza(stanza)})
		return len(want) > 0
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, nil, err
	}
	for _, w := range want {
		return nil, nil, fmt.Errorf("apt wants %s, which none of its indexes has", w.uri)
	}
	slices.SortFunc(hits, func(x, y hit) int {
		return cmp.Or(cmp.Compare(x.pkg.Name, y.pkg.Name), cmp.Compare(x.pkg.Arch, y.pkg.Arch))
	})
	pkgs, places := make([]manifest.Package, len(hits)), make([]Place, len(hits))
	for i, h := range hits {
		pkgs[i], places[i] = h.pkg, h.place
	}
	return pkgs, places, nil
}

// unescape undoes %XX; text that has none of it is returned as it is.
func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// escapePercent makes a file name one that unescape gives back.
func escapePercent(s string) string { return strings.ReplaceAll(s, "%", "%25") }

var (
	noVersion = regexp.MustCompile(`(Version|Release) '([^']*)' for '([^']*)' was not found`)
	virtual   = regexp.MustCompile(`Package (\S+) is a virtual package provided by:\n((?:  .*\n)+)`)
	unmet     = regexp.MustCompile(`(?s)The following packages have unmet dependencies:\n(.*?)(?:\nE: |$)`)
)

// solveError explains why apt has no answer.
func (rt *root) solveError(ctx context.Context, req *manifest.PackageRequest, out, stderr string, err error) error {
	text := out + "\n" + stderr
	if m := noVersion.FindStringSubmatch(text); m != nil {
		e := &sources.Error{Msg: fmt.Sprintf("there is no %s in the %s %s of %s", m[3], strings.ToLower(m[1]), m[2], rt.describe())}
		if has := rt.versions(ctx, m[3]); len(has) > 0 {
			e.Hint = "there is " + strings.Join(has, ", ")
		}
		return e
	}
	if m := virtual.FindStringSubmatch(text); m != nil {
		var by []string
		for line := range strings.Lines(m[2]) {
			by = append(by, strings.Fields(line)[0])
		}
		slices.Sort(by)
		by = slices.Compact(by)
		return &sources.Error{Msg: fmt.Sprintf("%s is a virtual package", m[1]), Hint: "name one that provides it: " + strings.Join(by, ", ")}
	}
	if strings.Contains(text, "need to be removed but remove is disabled") {
		return &sources.Error{
			Msg:  "the packages conflict with some that their base has",
			Hint: "take the conflicting name out, or build on another base",
		}
	}
	if m := unmet.FindStringSubmatch(text); m != nil {
		var lines []string
		for line := range strings.Lines(m[1]) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		e := &sources.Error{
			Msg:  "the packages do not fit together: " + strings.Join(lines[:min(len(lines), 6)], "; "),
			Hint: "look whether a repository is missing, or a version asked for is too old for the rest",
		}
		if req.Base != nil {
			e.Hint += "; what the base has is neither removed nor replaced"
		}
		return e
	}
	return aptError("apt cannot resolve the packages", out, stderr, err)
}

// versions lists those that the repositories have of a package.
func (rt *root) versions(ctx context.Context, name string) []string {
	name, _, _ = strings.Cut(name, ":")
	var out []string
	_ = rt.scan(ctx, func(t target, stanza []byte) bool {
		f := parseStanza(stanza)
		if v := string(f.version); string(f.name) == name && !slices.Contains(out, v) {
			out = append(out, v)
		}
		return true
	})
	return out
}
