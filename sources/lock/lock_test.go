// Tests of the lock file, with a resolver that is a table.
package lock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/sources/apt"
)

var repos = []manifest.DebRepo{
	{Suite: "bookworm", Components: []string{"main", "contrib"}},
	{Suite: "bookworm-security", Components: []string{"main"}},
	{Mirror: "http://vendor.example/deb", Suite: "bookworm", Components: []string{"main"}},
	{Mirror: "http://flat.example", Suite: "./"},
}

// mirrorAt knows the mirrors of a host.
func mirrorAt(host string) func(manifest.DebRepo) (string, error) {
	return func(r manifest.DebRepo) (string, error) {
		switch {
		case r.Mirror != "":
			return r.Mirror, nil
		case strings.HasSuffix(r.Suite, "-security"):
			return "http://" + host + "/debian-security", nil
		}
		return "http://" + host + "/debian", nil
	}
}

func request(names ...string) *manifest.PackageRequest {
	return &manifest.PackageRequest{Kind: "deb", Arch: "x86_64", Repos: repos, Names: names, Origin: manifest.Origin{File: "images/BUILD.star", Line: 3}}
}

// resolver answers every name with an archive of that name and the current version.
type resolver struct {
	version string
	calls   []string // the names of each request
}

func (r *resolver) resolve(_ context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error) {
	var out [][]manifest.Package
	for _, q := range reqs {
		r.calls = append(r.calls, strings.Join(q.Names, "+"))
		var pkgs []manifest.Package
		for _, n := range q.Names {
			url := "http://a.example/debian/pool/main/x/" + n + "_1.deb"
			switch {
			case strings.HasPrefix(n, "sec"):
				url = "http://a.example/debian-security/pool/main/x/" + n + "_1%2b1.deb"
			case strings.HasPrefix(n, "vendor"):
				url = "http://vendor.example/deb/pool/main/x/" + n + "_1.deb"
			case strings.HasPrefix(n, "flat"):
				url = "http://flat.example/" + n + "_1.deb"
			}
			pkgs = append(pkgs, manifest.Package{Name: n, Version: r.version, Arch: "amd64", URL: url, Size: 7, SHA256: strings.Repeat("0a", 32)})
		}
		out = append(out, pkgs)
	}
	return out, nil
}

func run(t *testing.T, path string, opts Options, r *resolver, host string, reqs ...*manifest.PackageRequest) ([][]manifest.Package, error) {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	r.calls = nil
	return Resolve(t.Context(), f, opts, r.resolve, mirrorAt(host), reqs)
}

func mustRun(t *testing.T, path string, opts Options, r *resolver, reqs ...*manifest.PackageRequest) [][]manifest.Package {
	t.Helper()
	got, err := run(t, path, opts, r, "a.example", reqs...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func wantError(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	var e *sources.Error
	if !errors.As(err, &e) {
		t.Fatalf("error without a hint: %v", err)
	}
	if !strings.Contains(err.Error(), text) || !strings.Contains(e.Hint, hint) {
		t.Errorf("error %q, hint %q\nwant %q, %q", err, e.Hint, text, hint)
	}
}

func TestResolve(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	r := &resolver{version: "1:2~rc1-3+b4"}
	req := request("bash", "sec", "vendor", "flat")
	first := mustRun(t, path, Options{}, r, req, request("zsh"), req)
	if diff := cmp.Diff([]string{"bash+sec+vendor+flat", "zsh"}, r.calls); diff != "" {
		t.Errorf("resolved (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(first[0], first[2]); diff != "" {
		t.Errorf("equal requests differ:\n%s", diff)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"a.example", "vendor.example", "BUILD.star"} {
		if bytes.Contains(text, []byte(s)) {
			t.Errorf("the file tells %q:\n%s", s, text)
		}
	}
	if !bytes.Contains(text, []byte("\n sec 1:2~rc1-3+b4 amd64 bookworm-security/main pool/main/x/sec_1+1.deb 7 0a0a")) {
		t.Errorf("the entry is not as documented:\n%s", text)
	}

	// Again: nothing is resolved, the file is not touched, and the mirror may be
	// another one.
	before, _ := os.Stat(path)
	got, err := run(t, path, Options{Locked: true}, r, "b.example", request("flat", "vendor", "sec", "bash"))
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, p := range got[0] {
		urls = append(urls, p.URL)
	}
	want := []string{
		"http://b.example/debian/pool/main/x/bash_1.deb", "http://flat.example/flat_1.deb",
		"http://b.example/debian-security/pool/main/x/sec_1%2b1.deb", "http://vendor.example/deb/pool/main/x/vendor_1.deb",
	}
	if diff := cmp.Diff(want, urls); diff != "" {
		t.Errorf("URLs (-want +got):\n%s", diff)
	}
	after, _ := os.Stat(path)
	if len(r.calls) != 0 || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("resolved %v; or the file was touched", r.calls)
	}

	// Something new leaves the rest; an update of the same leaves the file.
	r.version = "9"
	mustRun(t, path, Options{}, r, req, request("new"))
	if diff := cmp.Diff([]string{"new"}, r.calls); diff != "" {
		t.Errorf("resolved (-want +got):\n%s", diff)
	}
	mustRun(t, path, Options{Update: true}, r, request("new"))
	again, _ := os.ReadFile(path)
	if !bytes.Contains(again, []byte("1:2~rc1-3+b4")) || strings.Count(string(again), "\ndeb ") != 3 {
		t.Errorf("entries are gone:\n%s", again)
	}
	inode, _ := os.Stat(path)
	mustRun(t, path, Options{Update: true}, r, request("new"))
	if now, _ := os.Stat(path); !os.SameFile(inode, now) {
		t.Error("an update without a change wrote the file")
	}

	// An update of everything drops what nobody asks for.
	mustRun(t, path, Options{Update: true, Prune: true}, r, req)
	again, _ = os.ReadFile(path)
	if strings.Count(string(again), "\ndeb ") != 1 || bytes.Contains(again, []byte("rc1")) {
		t.Errorf("not pruned or not updated:\n%s", again)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// What is on top of a base belongs to the base as it was.
func TestResolveBase(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	r := &resolver{version: "1"}
	base := request("bash")
	top := request("zsh")
	top.Base = base
	tip := request("fish")
	tip.Base = top
	mustRun(t, path, Options{}, r, tip)
	if diff := cmp.Diff([]string{"bash", "zsh", "fish"}, r.calls); diff != "" {
		t.Errorf("bases first (-want +got):\n%s", diff)
	}
	mustRun(t, path, Options{}, r, base, tip, top)
	if len(r.calls) != 0 {
		t.Errorf("resolved again: %v", r.calls)
	}
	mustRun(t, path, Options{Update: true}, r, base)
	mustRun(t, path, Options{}, r, tip)
	if len(r.calls) != 0 {
		t.Errorf("resolved again though the base is the same: %v", r.calls)
	}
	r.version = "2"
	mustRun(t, path, Options{Update: true}, r, base)
	_, err := run(t, path, Options{Locked: true}, r, "a.example", tip)
	wantError(t, err, "(its base has changed)", "osbuild-star lock")
	mustRun(t, path, Options{}, r, tip)
	if diff := cmp.Diff([]string{"zsh", "fish"}, r.calls); diff != "" {
		t.Errorf("after an update of the base (-want +got):\n%s", diff)
	}
}

func TestResolveErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Name)
	r := &resolver{version: "1"}
	var many []*manifest.PackageRequest
	for i := range 7 {
		many = append(many, request(fmt.Sprintf("p%d", i)))
	}
	_, err := run(t, path, Options{Locked: true}, r, "a.example", many...)
	wantError(t, err, "images/BUILD.star:3: amd64 bookworm bookworm-security", "commit the file")
	if !strings.Contains(err.Error(), "and 2 more") {
		t.Errorf("error %q", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 || len(r.calls) != 0 {
		t.Errorf("a locked run left %v and resolved %v", left, r.calls)
	}
	_, err = run(t, path, Options{Locked: true, Update: true}, r, "a.example", many...)
	wantError(t, err, "both kept and updated", "--locked")

	f, _ := Open(path)
	boom := errors.New("boom")
	_, err = Resolve(t.Context(), f, Options{}, func(context.Context, []*manifest.PackageRequest) ([][]manifest.Package, error) { return nil, boom }, mirrorAt("x"), many)
	if !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	mustRun(t, path, Options{}, r, many[0])
	f, _ = Open(path)
	_, err = Resolve(t.Context(), f, Options{}, r.resolve, func(manifest.DebRepo) (string, error) { return "", boom }, many[:1])
	if !errors.Is(err, boom) {
		t.Errorf("no mirror: error %v", err)
	}
}

// Two processes that add different things both find theirs in the end.
func TestSaveTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	r := &resolver{version: "1"}
	a, _ := Open(path)
	b, _ := Open(path)
	for _, s := range []struct {
		f    *File
		name string
	}{{a, "bash"}, {b, "zsh"}} {
		if _, err := Resolve(t.Context(), s.f, Options{}, r.resolve, mirrorAt("a.example"), []*manifest.PackageRequest{request(s.name)}); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, path, Options{Locked: true}, r, request("bash"), request("zsh"))
}

// The places that a resolver knows win over what the URL looks like.
func TestSetPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	f, _ := Open(path)
	req := request("p")
	pkg := manifest.Package{Name: "p", Version: "1", Arch: "all", URL: "http://all.example/pool/p.deb", Size: 1, SHA256: strings.Repeat("b", 64)}
	place := func(manifest.Package) (apt.Place, bool) {
		return apt.Place{Mirror: "http://all.example", Suite: "bookworm-security", Component: "main", Path: "pool/p.deb"}, true
	}
	if err := f.Set(req, []manifest.Package{pkg}, place); err != nil {
		t.Fatal(err)
	}
	got, ok, err := f.Packages(req, mirrorAt("c.example"))
	if !ok || err != nil || got[0].URL != "http://c.example/debian-security/pool/p.deb" {
		t.Errorf("%v %v %v", got, ok, err)
	}
	pkg.Name = "p\n q"
	if err := f.Set(req, []manifest.Package{pkg}, place); err == nil {
		t.Error("a name with a line feed is taken")
	}
}

const good = header + `
deb 0123456789abcdef0123456789abcdef 1 - amd64 bookworm essential
 bash 5.2-1 amd64 bookworm/main pool/main/b/bash_5.2-1_amd64.deb 7 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
deb 1123456789abcdef0123456789abcdef 0 0123456789abcdef0123456789abcdef:0123456789abcdef
`

func TestParseErrors(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	tests := []struct{ name, text, want, hint string }{
		{"empty", "", ":1: the file is empty", "osbuild-star lock"},
		{"first line", "hello\n", ":1: the first line", "osbuild-star lock"},
		{"newer", Name + " 2\n", `:1: format "2"`, "newer"},
		{"garbage", good + "garbage\n", ":5: neither a request", "take back"},
		{"merge", edit("\ndeb", "\n<<<<<<< ours\ndeb"), ":2: neither a request", "merge"},
		{"no request", header + "\n bash\n", ":2: a package without", "take back"},
		{"a package gone", edit(" bash", " bash 1 2\n bash"), ":3: 3 words", "take back"},
		{"count", edit("def 1 -", "def 2 -"), ":2: 2 packages are announced and 1 follow", "take back"},
		{"count of the last", edit("def 0 ", "def 1 "), ":4: 1 packages are announced and 0 follow", "take back"},
		{"no count", edit("def 1 -", "def x -"), ":2: \"x\" is not a number", "take back"},
		{"key", edit("deb 0", "deb X"), ":2: ", "take back"},
		{"base", edit("1 - amd64", "1 zz amd64"), ":2: ", "take back"},
		{"twice", edit("deb 1123", "deb 0123"), ":4: the request 0123456789abcdef0123456789abcdef stands there twice", "take back"},
		{"size", edit(" 7 ", " 07 "), ":3: \"07\" is not a size", "take back"},
		{"no size", edit(" 7 ", " 0 "), ":3: 0 is not the size", "take back"},
		{"checksum", edit(" aaaa", " aaaA"), ":3: ", "take back"},
		{"path up", edit("pool/main", "../main"), ":3: \"../main/b/bash_5.2-1_amd64.deb\" is not a path", "take back"},
		{"absolute path", edit(" pool", " /pool"), ":3: ", "take back"},
		{"name", edit(" bash", " Bash"), ":3: \"Bash\" is not the name", "take back"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), Name)
			os.WriteFile(path, []byte(tt.text), 0o644)
			_, err := Open(path)
			wantError(t, err, Name+tt.want, tt.hint)
		})
	}
	groups, err := parse("x", []byte(strings.ReplaceAll(good, "\n", "\r\n")))
	if err != nil || string(render(groups)) != good[:len(good)-1]+" \n" {
		t.Errorf("%v\n%q", err, render(groups))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(header + "\n\n"))
	f.Add([]byte(header + "\ndeb 0 0 - \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		groups, err := parse("x", b)
		if err != nil {
			return
		}
		text := render(groups)
		again, err := parse("x", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !bytes.Equal(text, render(again)) {
			t.Errorf("written differently the second time:\n%s", text)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	groups := map[string]*group{}
	for i := range 20 {
		g := &group{key: fmt.Sprintf("%032x", i), base: "-"}
		for j := range 200 {
			g.entries = append(g.entries, entry{fmt.Sprintf("package-%d", j), "1.2.3-4+deb12u1", "amd64", "bookworm/main",
				fmt.Sprintf("pool/main/p/package/package-%d_1.2.3-4+deb12u1_amd64.deb", j), 12345, strings.Repeat("a", 64)})
		}
		g.sort()
		groups[g.key] = g
	}
	path := filepath.Join(b.TempDir(), Name)
	os.WriteFile(path, render(groups), 0o644)
	for b.Loop() {
		if _, err := Open(path); err != nil {
			b.Fatal(err)
		}
	}
}
