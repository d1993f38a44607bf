// A small signed repository on the loopback interface, made by the tests.
package apt

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/osbuild-star/osbuild-star/manifest"
)

// keys is a directory of GnuPG with one key, made once for all tests.
var keys struct{ home, public, other, skip string }

func TestMain(m *testing.M) {
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, p := range []string{"apt-get", "apt-config", "gpg", "gpgv"} {
		if _, err := exec.LookPath(p); err != nil {
			keys.skip = p + " is missing (packages apt, gnupg, gpgv)"
		}
	}
	if keys.skip == "" {
		keys.home, keys.public, keys.other = home, filepath.Join(home, "test.gpg"), filepath.Join(home, "other.gpg")
		for _, k := range []struct{ name, file string }{{"test", keys.public}, {"other", keys.other}} {
			for _, args := range [][]string{
				{"--passphrase", "", "--quick-gen-key", k.name + "@example.org", "ed25519", "sign", "never"},
				{"--output", k.file, "--export", k.name + "@example.org"},
			} {
				if out, err := gpg(nil, args...); err != nil {
					fmt.Fprintf(os.Stderr, "gpg: %v\n%s", err, out)
					os.Exit(1)
				}
			}
		}
	}
	code := m.Run()
	if keys.home != "" {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
	}
	os.RemoveAll(home)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func gpg(in []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("gpg", append([]string{"--homedir", keys.home, "--batch", "--quiet", "--yes"}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	return cmd.CombinedOutput()
}

// repo is an archive that a test serves.
type repo struct {
	t        *testing.T
	dir, url string
	requests atomic.Int32
}

func newRepo(t *testing.T) *repo {
	t.Helper()
	if keys.skip != "" {
		t.Skip(keys.skip)
	}
	r := &repo{t: t, dir: t.TempDir()}
	files := http.FileServer(http.Dir(r.dir))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		files.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

func (r *repo) write(name, text string) {
	r.t.Helper()
	name = filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	// Servers tell the time of the last change in seconds only.
	at := time.Date(2026, 1, 1, 0, 0, int(writes.Add(1)), 0, time.UTC)
	if err := os.Chtimes(name, at, at); err != nil {
		r.t.Fatal(err)
	}
}

// writes counts the files that were written.
var writes atomic.Int32

// pkg is one package: its fields but those of the file, one a line.
func pkg(name, version, arch string, fields ...string) string {
	return fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: A <a@example.org>\nInstalled-Size: 1\nDescription: d\n more\n%s",
		name, version, arch, strings.Join(append(fields, ""), "\n"))
}

// suite publishes packages in a suite and component, signed by a key ("test", or
// "other", or "" for no signature). extra are more fields of the Release file.
func (r *repo) suite(suite, component, key string, arches []string, extra string, pkgs ...string) {
	r.t.Helper()
	var sums strings.Builder
	for _, arch := range arches {
		var idx strings.Builder
		for _, p := range pkgs {
			f := parseStanza([]byte(p))
			if a := string(f.arch); a != arch && a != "all" {
				continue
			}
			body := fmt.Sprintf("archive of %s %s %s in %s\n", f.name, f.version, f.arch, component)
			name := fmt.Sprintf("pool/%s/%s_%s_%s.deb", component, f.name, strings.ReplaceAll(string(f.version), ":", ""), f.arch)
			r.write(name, body)
			fmt.Fprintf(&idx, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", p, name, len(body), sha256.Sum256([]byte(body)))
		}
		name := fmt.Sprintf("%s/binary-%s/Packages", component, arch)
		r.write("dists/"+suite+"/"+name, idx.String())
		fmt.Fprintf(&sums, " %x %d %s\n", sha256.Sum256([]byte(idx.String())), idx.Len(), name)
	}
	text := fmt.Sprintf("Origin: Test\nSuite: %s\nCodename: %s\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: %s\nComponents: %s\n%sSHA256:\n%s",
		suite, suite, strings.Join(arches, " "), component, extra, sums.String())
	r.sign(suite, key, text)
}

func (r *repo) sign(suite, key, text string) {
	r.t.Helper()
	os.Remove(filepath.Join(r.dir, "dists", suite, "InRelease"))
	r.write("dists/"+suite+"/Release", text)
	if key == "" {
		return
	}
	out, err := gpg([]byte(text), "--local-user", key+"@example.org", "--clearsign")
	if err != nil {
		r.t.Fatalf("gpg: %v\n%s", err, out)
	}
	r.write("dists/"+suite+"/InRelease", string(out))
}

// request asks for names in the suite "test".
func (r *repo) request(names ...string) *manifest.PackageRequest {
	return &manifest.PackageRequest{
		Kind: "deb", Arch: "x86_64", Variant: VariantNone, Names: names,
		Repos:  []manifest.DebRepo{{Mirror: r.url, Suite: "test", Keyring: keys.public}},
		Origin: manifest.Origin{File: "images/BUILD.star", Line: 7},
	}
}

// tree is what the tests below resolve from.
var tree = []string{
	pkg("libc", "2.0-1", "amd64", "Essential: yes", "Priority: required", "Multi-Arch: same"),
	pkg("libc", "2.0-1", "arm64", "Essential: yes", "Priority: required", "Multi-Arch: same"),
	pkg("libc", "2.0-1", "i386", "Priority: required", "Multi-Arch: same"),
	pkg("sh", "1:5.2+b1", "amd64", "Essential: yes", "Priority: required", "Depends: libc (>= 2.0)"),
	pkg("sh", "1:5.2+b1", "arm64", "Essential: yes", "Priority: required", "Depends: libc (>= 2.0)"),
	pkg("apt", "2.6", "amd64", "Priority: important", "Depends: libc"),
	pkg("tzdata", "2025", "all", "Priority: required"),
	pkg("editor", "1.0", "amd64", "Depends: libc, editor-data | editor-lite", "Recommends: spell"),
	pkg("editor-data", "1.0", "all"),
	pkg("editor-lite", "1.0", "all"),
	pkg("spell", "3~rc1", "amd64", "Depends: libc"),
	pkg("mta-a", "1", "amd64", "Provides: mta (= 1)", "Conflicts: mta"),
	pkg("mta-b", "1", "amd64", "Provides: mta", "Conflicts: mta"),
	pkg("broken", "1", "amd64", "Depends: libc (>= 9)"),
	pkg("plugin", "1", "i386", "Depends: libc"),
	pkg("g++", "12", "amd64", "Depends: libc"),
	pkg("old", "1", "amd64"),
	pkg("old", "2", "amd64"),
}

func newTree(t *testing.T) *repo {
	r := newRepo(t)
	r.suite("test", "main", "test", []string{"amd64", "arm64", "i386"}, "", tree...)
	return r
}

func (r *repo) resolver() *Resolver {
	return &Resolver{CacheDir: filepath.Join(r.t.TempDir(), "a cache 100%"), HostAptDir: r.t.TempDir()}
}

// list writes an answer as name=version:arch.
func list(pkgs []manifest.Package) []string {
	out := []string{}
	for _, p := range pkgs {
		out = append(out, p.Name+"="+p.Version+":"+p.Arch)
	}
	if !slices.IsSortedFunc(pkgs, func(a, b manifest.Package) int { return strings.Compare(a.Name, b.Name) }) {
		out = append(out, "not sorted")
	}
	return out
}
