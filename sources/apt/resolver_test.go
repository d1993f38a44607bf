// Tests of resolving by the real apt, from a repository of the tests' own.
package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources"
)

func TestResolve(t *testing.T) {
	r := newTree(t)
	res := r.resolver()
	minbase := r.request()
	minbase.Variant = VariantMinbase
	tests := []struct {
		name string
		edit func(*manifest.PackageRequest)
		want []string
	}{
		{"essential is the default", func(q *manifest.PackageRequest) { q.Variant = "" }, []string{"libc=2.0-1:amd64", "sh=1:5.2+b1:amd64"}},
		{"minbase", func(q *manifest.PackageRequest) { q.Variant = VariantMinbase },
			[]string{"apt=2.6:amd64", "libc=2.0-1:amd64", "sh=1:5.2+b1:amd64", "tzdata=2025:all"}},
		{"another architecture", func(q *manifest.PackageRequest) { q.Variant, q.Arch = VariantEssential, "aarch64" }, []string{"libc=2.0-1:arm64", "sh=1:5.2+b1:arm64"}},
		{"names only", func(q *manifest.PackageRequest) { q.Names = []string{"editor", "editor"} },
			[]string{"editor=1.0:amd64", "editor-data=1.0:all", "libc=2.0-1:amd64"}},
		{"an alternative", func(q *manifest.PackageRequest) { q.Names = []string{"editor", "editor-lite"} },
			[]string{"editor=1.0:amd64", "editor-lite=1.0:all", "libc=2.0-1:amd64"}},
		{"recommends", func(q *manifest.PackageRequest) { q.Names, q.Recommends = []string{"editor"}, true },
			[]string{"editor=1.0:amd64", "editor-data=1.0:all", "libc=2.0-1:amd64", "spell=3~rc1:amd64"}},
		{"a version", func(q *manifest.PackageRequest) { q.Names = []string{"old", "old=1"} }, []string{"old=1:amd64"}},
		{"the newest", func(q *manifest.PackageRequest) { q.Names = []string{"old"} }, []string{"old=2:amd64"}},
		{"a suite", func(q *manifest.PackageRequest) { q.Names = []string{"old/test"} }, []string{"old=2:amd64"}},
		{"a plus at the end", func(q *manifest.PackageRequest) { q.Names = []string{"g++"} }, []string{"g++=12:amd64", "libc=2.0-1:amd64"}},
		{"a foreign package", func(q *manifest.PackageRequest) { q.Names = []string{"plugin:i386", "sh"} },
			[]string{"libc=2.0-1:amd64", "libc=2.0-1:i386", "plugin=1:i386", "sh=1:5.2+b1:amd64"}},
		{"nothing", func(q *manifest.PackageRequest) {}, []string{}},
		{"a base", func(q *manifest.PackageRequest) { q.Names, q.Variant, q.Base = []string{"editor", "sh"}, "", minbase },
			[]string{"editor=1.0:amd64", "editor-data=1.0:all"}},
		{"a base of a base", func(q *manifest.PackageRequest) {
			mid := *q
			mid.Names, mid.Base = []string{"editor"}, minbase
			q.Names, q.Base, q.Recommends = []string{"spell", "editor-data"}, &mid, true
		}, []string{"spell=3~rc1:amd64"}},
	}
	var reqs []*manifest.PackageRequest
	for _, tt := range tests {
		q := r.request()
		tt.edit(q)
		reqs = append(reqs, q)
	}
	got, err := res.Resolve(t.Context(), reqs)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range tests {
		if diff := cmp.Diff(tt.want, list(got[i])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}

	// The archives are where it says, and are what it says.
	f := sources.Fetcher{Dir: t.TempDir()}
	var items []sources.Item
	for _, pkgs := range got {
		for _, p := range pkgs {
			items = append(items, sources.Item{Checksum: "sha256:" + p.SHA256, URLs: []string{p.URL}, Size: p.Size})
		}
	}
	if _, err := f.Fetch(t.Context(), items); err != nil {
		t.Error(err)
	}
	pl, ok := res.Place(got[0][1])
	if diff := cmp.Diff(Place{Mirror: r.url, Suite: "test", Component: "main", Path: "pool/main/sh_15.2+b1_amd64.deb"}, pl); !ok || diff != "" {
		t.Errorf("place (-want +got):\n%s", diff)
	}

	// Once per set of repositories, and not at all for what is known.
	before := r.requests.Load()
	if _, err := res.Resolve(t.Context(), append(reqs, r.request("spell"))); err != nil {
		t.Fatal(err)
	}
	if n := r.requests.Load() - before; n != 0 {
		t.Errorf("%d requests to the mirror for known indexes", n)
	}

	// Another run revalidates, and sees what is new.
	r.suite("test", "main", "test", []string{"amd64"}, "", append([]string{pkg("old", "3", "amd64")}, tree...)...)
	again := &Resolver{CacheDir: res.CacheDir, HostAptDir: res.HostAptDir}
	got, err = again.Resolve(t.Context(), []*manifest.PackageRequest{r.request("old")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"old=3:amd64"}, list(got[0])); diff != "" {
		t.Error(diff)
	}
	if n, err := Clean(res.CacheDir, time.Now().Add(time.Hour)); err != nil || n != 3 {
		t.Errorf("clean: %d, %v; want 3", n, err)
	}
	if _, err := again.Resolve(t.Context(), []*manifest.PackageRequest{r.request("spell")}); err != nil {
		t.Errorf("after clean: %v", err)
	}
}

// What goes on top of a base that the lock has is resolved for those versions.
func TestResolveKnownBase(t *testing.T) {
	r := newTree(t)
	base := r.request("old=1")
	res := r.resolver()
	got, err := res.Resolve(t.Context(), []*manifest.PackageRequest{base})
	if err != nil {
		t.Fatal(err)
	}
	known := got[0]
	plain := r.request("old")
	top := r.request("old", "spell")
	top.Base = plain
	res = r.resolver()
	res.Known = func(q *manifest.PackageRequest) ([]manifest.Package, bool) {
		return known, RequestKey(q) == RequestKey(plain)
	}
	got, err = res.Resolve(t.Context(), []*manifest.PackageRequest{top})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"libc=2.0-1:amd64", "spell=3~rc1:amd64"}, list(got[0])); diff != "" {
		t.Error(diff)
	}
	// One that is asked for itself is resolved all the same.
	got, err = res.Resolve(t.Context(), []*manifest.PackageRequest{plain})
	if err != nil || got[0][0].Version != "2" {
		t.Errorf("%v, %v", got, err)
	}
	known[0].Version = "0.9"
	res = &Resolver{CacheDir: res.CacheDir, HostAptDir: res.HostAptDir, Known: res.Known}
	_, err = res.Resolve(t.Context(), []*manifest.PackageRequest{top})
	wantError(t, err, "old 0.9 is one", "lock --update")
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

func TestResolveErrors(t *testing.T) {
	r := newTree(t)
	r.suite("unsigned", "main", "", []string{"amd64"}, "", tree...)
	r.suite("foreign", "main", "other", []string{"amd64"}, "", tree...)
	r.suite("expired", "main", "test", []string{"amd64"}, "Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n", tree...)
	r.suite("stale", "main", "test", []string{"amd64"}, "", tree...)
	r.write("dists/stale/main/binary-amd64/Packages", "Package: evil\nVersion: 1\n")
	r.suite("forged", "main", "test", []string{"amd64"}, "", tree...)
	b, err := os.ReadFile(filepath.Join(r.dir, "dists/forged/InRelease"))
	if err != nil {
		t.Fatal(err)
	}
	r.write("dists/forged/InRelease", strings.Replace(string(b), "Origin: Test", "Origin: Evil", 1))
	r.suite("newer", "main", "test", []string{"amd64"}, "", pkg("libc", "9", "amd64"), pkg("needs", "1", "amd64", "Depends: libc (>= 9)"),
		pkg("rival", "1", "amd64", "Conflicts: sh"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()

	suite := func(s string) func(*manifest.PackageRequest) {
		return func(q *manifest.PackageRequest) { q.Repos[0].Suite = s }
	}
	names := func(n ...string) func(*manifest.PackageRequest) {
		return func(q *manifest.PackageRequest) { q.Names = n }
	}
	onTop := func(name string) func(*manifest.PackageRequest) {
		return func(q *manifest.PackageRequest) {
			b := *q
			b.Names = []string{"sh"}
			q.Base, q.Names = &b, []string{name}
			q.Repos = append(q.Repos[:1:1], manifest.DebRepo{Mirror: r.url, Suite: "newer", Keyring: keys.public})
		}
	}
	tests := []struct {
		name       string
		edit       func(*manifest.PackageRequest)
		text, hint string
	}{
		{"unknown package", names("editr"), `images/BUILD.star:7: there is no package "editr" in test main (amd64)`, "did you mean editor"},
		{"unknown, nothing near", names("zzzzzzzz"), "no package", "non-free"},
		{"unknown version", names("old=7"), "no old in the version 7", "there is 1, 2"},
		{"unknown release", names("old/sid"), "no old in the release sid", "there is 1, 2"},
		{"virtual", names("mta"), "mta is a virtual package", "mta-a, mta-b"},
		{"unmet", names("broken"), "broken : Depends: libc (>= 9)", "repository is missing"},
		{"contradiction", names("mta-a", "mta-b"), "do not fit together", ""},
		{"an option as a name", names("--allow-unauthenticated"), "not the name of a package", "lower-case"},
		{"removal as a name", names("sh-"), "no package", "did you mean"},
		{"unknown suite", suite("nosuch"), "no such suite: " + r.url + " nosuch Release", "name of the suite"},
		{"unknown component", func(q *manifest.PackageRequest) { q.Repos[0].Components = []string{"contrib"} }, `has no component "contrib" for amd64`, "components"},
		{"architecture not made", func(q *manifest.PackageRequest) { q.Arch = "s390x" }, `not made for s390x: it has amd64, arm64, i386`, "a suite that has s390x"},
		{"unknown architecture", func(q *manifest.PackageRequest) { q.Arch = "pdp11" }, `"pdp11" is not known`, "x86_64"},
		{"unreachable", func(q *manifest.PackageRequest) { q.Repos[0].Mirror = "http://" + l.Addr().String() }, "cannot be reached: Could not connect to 127.0.0.1", EnvMirror},
		{"unknown host", func(q *manifest.PackageRequest) { q.Repos[0].Mirror = "http://mirror.invalid/debian" }, "the name mirror.invalid is not known", EnvMirror},
		{"unsigned", suite("unsigned"), "not signed", "keyring"},
		{"another key", suite("foreign"), "not signed by a key of its keyring: NO_PUBKEY", "keyring"},
		{"forged", suite("forged"), "not signed", "keyring"},
		{"expired", suite("expired"), "expired", "clock"},
		{"index is another", suite("stale"), "not consistent", "try again"},
		{"keyring missing", func(q *manifest.PackageRequest) { q.Repos[0].Keyring = "/nonexistent.gpg" }, "does not exist", "deb_repo"},
		{"keyring relative", func(q *manifest.PackageRequest) { q.Repos[0].Keyring = "a.gpg" }, "absolute", "file"},
		{"no repository", func(q *manifest.PackageRequest) { q.Repos = nil }, "no repository", "deb_repo"},
		{"no mirror", func(q *manifest.PackageRequest) { q.Repos[0].Mirror = "" }, "no mirror is known for the suite", EnvMirror},
		{"bad mirror", func(q *manifest.PackageRequest) { q.Repos[0].Mirror = "cdrom:[x]/" }, "cannot be used", "http://"},
		{"suite with an option", suite("a b"), "not the name of a suite", "bookworm"},
		{"base for another architecture", func(q *manifest.PackageRequest) { b := *q; q.Base = &b; q.Arch = "aarch64" }, "on top of a base", "same architecture"},
		{"base would be upgraded", onTop("needs"), "other versions of packages that their base has: libc", "same repositories"},
		{"base would be removed", onTop("rival"), "rival : Conflicts: sh", "neither removed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := r.resolver()
			q := r.request("sh")
			tt.edit(q)
			_, err := res.Resolve(t.Context(), []*manifest.PackageRequest{q})
			wantError(t, err, tt.text, tt.hint)
			updated := strings.HasPrefix(tt.name, "unknown p") || strings.Contains(tt.text, "package") || tt.name == "unmet"
			left, _ := filepath.Glob(filepath.Join(escapeGlob(res.CacheDir), "*"))
			for _, name := range left {
				if fi, err := os.Stat(name); err == nil && fi.IsDir() && !updated {
					if _, err := os.Stat(filepath.Join(name, doneFile)); err != nil {
						t.Errorf("half a cache is left: %s", name)
					}
				}
			}
		})
	}
}

func escapeGlob(s string) string { return strings.NewReplacer("*", `\*`, "[", `\[`).Replace(s) }

// A mirror that breaks later leaves the indexes that are there alone.
func TestResolveKeepsCache(t *testing.T) {
	r := newTree(t)
	res := r.resolver()
	if _, err := res.Resolve(t.Context(), []*manifest.PackageRequest{r.request("sh")}); err != nil {
		t.Fatal(err)
	}
	r.suite("test", "main", "other", []string{"amd64"}, "", tree...)
	broken := &Resolver{CacheDir: res.CacheDir, HostAptDir: res.HostAptDir}
	_, err := broken.Resolve(t.Context(), []*manifest.PackageRequest{r.request("sh")})
	wantError(t, err, "not signed", "keyring")
	r.suite("test", "main", "test", []string{"amd64"}, "", tree...)
	fixed := &Resolver{CacheDir: res.CacheDir, HostAptDir: res.HostAptDir}
	if _, err := fixed.Resolve(t.Context(), []*manifest.PackageRequest{r.request("sh")}); err != nil {
		t.Error(err)
	}
}

func TestResolveCancel(t *testing.T) {
	r := newTree(t)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		cancel()
		<-q.Context().Done()
	})}
	go s.Serve(l)
	defer s.Close()
	q := r.request("sh")
	q.Repos[0].Mirror = "http://" + l.Addr().String()
	res := r.resolver()
	if _, err := res.Resolve(ctx, []*manifest.PackageRequest{q}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if left, _ := filepath.Glob(filepath.Join(escapeGlob(res.CacheDir), "*", "apt.conf")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Proxies, and nothing else that is dangerous, come from the host's apt.
func TestResolveHostConfig(t *testing.T) {
	r := newTree(t)
	res := r.resolver()
	hook := filepath.Join(t.TempDir(), "hook ran")
	os.Mkdir(filepath.Join(res.HostAptDir, "apt.conf.d"), 0o755)
	conf := fmt.Sprintf("Acquire::http::Proxy %q;\nAPT::Update::Pre-Invoke { \"touch '%s'\"; };\nAPT::Architecture \"s390x\";\nAPT::Default-Release \"nosuch\";\n", r.url, hook)
	if err := os.WriteFile(filepath.Join(res.HostAptDir, "apt.conf.d", "90test"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(filepath.Join(res.HostAptDir, "preferences.d"), 0o755)
	os.WriteFile(filepath.Join(res.HostAptDir, "preferences.d", "pin"), []byte("Package: *\nPin: version *\nPin-Priority: -1\n"), 0o644)
	q := r.request("sh")
	q.Repos[0].Mirror = "http://mirror.invalid" // only the proxy knows it
	got, err := res.Resolve(t.Context(), []*manifest.PackageRequest{q})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"libc=2.0-1:amd64", "sh=1:5.2+b1:amd64"}, list(got[0])); diff != "" {
		t.Error(diff)
	}
	if want := "http://mirror.invalid/pool/main/sh_15.2%2bb1_amd64.deb"; got[0][1].URL != want {
		t.Errorf("url %s, want %s", got[0][1].URL, want)
	}
	if _, err := os.Stat(hook); err == nil {
		t.Error("a hook of the host ran")
	}
}

func TestRequestKey(t *testing.T) {
	make := func(edit func(*manifest.PackageRequest)) string {
		q := &manifest.PackageRequest{
			Kind: "deb", Arch: "x86_64", Names: []string{"b", "a"},
			Repos: []manifest.DebRepo{{Suite: "bookworm", Components: []string{"main", "contrib"}}},
		}
		if edit != nil {
			edit(q)
		}
		return RequestKey(q)
	}
	same := map[string]func(*manifest.PackageRequest){
		"origin":             func(q *manifest.PackageRequest) { q.Origin.Line = 9 },
		"order of names":     func(q *manifest.PackageRequest) { q.Names = []string{"a", "b", "a"} },
		"name of the arch":   func(q *manifest.PackageRequest) { q.Arch = "amd64" },
		"default variant":    func(q *manifest.PackageRequest) { q.Variant = VariantEssential },
		"order of component": func(q *manifest.PackageRequest) { q.Repos[0].Components = []string{"contrib", "main"} },
		"keyring":            func(q *manifest.PackageRequest) { q.Repos[0].Keyring = "/k.gpg" },
	}
	for name, edit := range same {
		if make(edit) != make(nil) {
			t.Errorf("%s changes the key", name)
		}
	}
	differ := map[string]func(*manifest.PackageRequest){
		"names":      func(q *manifest.PackageRequest) { q.Names = []string{"a"} },
		"quoting":    func(q *manifest.PackageRequest) { q.Names = []string{"a\"\nname \"b"} },
		"arch":       func(q *manifest.PackageRequest) { q.Arch = "s390x" },
		"recommends": func(q *manifest.PackageRequest) { q.Recommends = true },
		"variant":    func(q *manifest.PackageRequest) { q.Variant = VariantNone },
		"suite":      func(q *manifest.PackageRequest) { q.Repos[0].Suite = "trixie" },
		"mirror":     func(q *manifest.PackageRequest) { q.Repos[0].Mirror = "http://x" },
		"repository": func(q *manifest.PackageRequest) { q.Repos = append(q.Repos, q.Repos[0]) },
		"base":       func(q *manifest.PackageRequest) { q.Base = &manifest.PackageRequest{} },
	}
	seen := map[string]string{make(nil): "nothing"}
	for name, edit := range differ {
		k := make(edit)
		if seen[k] != "" {
			t.Errorf("%s and %s give the same key", name, seen[k])
		}
		seen[k] = name
	}
}

func FuzzStanzas(f *testing.F) {
	f.Add([]byte(strings.Join(tree, "\n")))
	f.Add([]byte("\n\nPackage: a\n b\r\n\r\nPackage"))
	f.Add([]byte(": x\n:\n\t\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		err := scanStanzas(bytes.NewReader(b), func(s []byte) bool {
			if len(s) == 0 {
				t.Error("an empty stanza")
			}
			total += len(s)
			if bytes.Contains(installedStanza(s), []byte("\n\n")) {
				t.Errorf("a stanza becomes two: %q", s)
			}
			return true
		})
		if err != nil || total > len(b) {
			t.Errorf("%d bytes of %d, %v", total, len(b), err)
		}
		if err := newNames().read(bytes.NewReader(b), true); err != nil {
			t.Error(err)
		}
	})
}

func TestScanStanzasBounds(t *testing.T) {
	long := "Package: a\nDepends: " + strings.Repeat("x, ", 300_000) + "y\n\n"
	var got []string
	err := scanStanzas(strings.NewReader(long+"Package: b\n"), func(b []byte) bool {
		got = append(got, string(parseStanza(b).name))
		return true
	})
	if diff := cmp.Diff([]string{"a", "b"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	endless := io.LimitReader(zeros{}, maxStanza+1)
	if err := scanStanzas(endless, func([]byte) bool { return true }); !errors.Is(err, errStanza) {
		t.Errorf("error %v, want %v", err, errStanza)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}
