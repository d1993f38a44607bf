// Tests of finding a mirror in the host's configuration.
package apt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osbuild-star/osbuild-star/manifest"
)

const listText = `# deb http://commented.example/ bookworm main
deb-src http://source.example/debian bookworm main
deb cdrom:[Debian 12]/ bookworm main
deb http://vendor.example/tool stable-tool main
deb [ arch=amd64 signed-by=/k/a.gpg,/k/b.gpg ] http://list.example/debian/ bookworm main # and a comment
deb	[trusted=yes]	http://list.example/debian-security	bookworm-security	main
deb file:/srv/flat ./
`

const deb822Text = `Types: deb deb-src
# a comment inside
URIs: http://one.example/debian
 http://two.example/debian
Suites: trixie
 trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEYCQjIxYJKwYBBAHaRw8BAQdAD
Enabled: yes

Types: deb
URIs: http://off.example/debian
Suites: sid
Enabled: no

types: deb-src
URIs: http://source.example/debian
Suites: experimental
`

func TestMirror(t *testing.T) {
	files := map[string]string{"sources.list": listText, "sources.list.d/a.sources": deb822Text, "sources.list.d/b.list.off": "deb http://off.example/ forky main\n"}
	tests := []struct {
		name     string
		files    map[string]string
		override string
		repo     manifest.DebRepo
		want     string // an error if it has blanks
	}{
		{"its own", files, "http://o.example", manifest.DebRepo{Mirror: "http://own.example/d/", Suite: "bookworm"}, "http://own.example/d"},
		{"list", files, "", manifest.DebRepo{Suite: "bookworm"}, "http://list.example/debian"},
		{"security", files, "", manifest.DebRepo{Suite: "bookworm-security"}, "http://list.example/debian-security"},
		{"another one's security", files, "", manifest.DebRepo{Suite: "trixie-security"}, "http://list.example/debian-security"},
		{"deb822", files, "", manifest.DebRepo{Suite: "trixie-updates"}, "http://one.example/debian"},
		{"backports are of the same kind", files, "", manifest.DebRepo{Suite: "bookworm-backports"}, "http://list.example/debian"},
		{"not the disabled one", files, "", manifest.DebRepo{Suite: "sid"}, "http://list.example/debian"},
		{"flat", files, "", manifest.DebRepo{Suite: "./"}, "file:///srv/flat"},
		{"override", files, "http://o.example/debian/", manifest.DebRepo{Suite: "bookworm"}, "http://o.example/debian"},
		{"override of security", files, "http://o.example/debian", manifest.DebRepo{Suite: "bookworm-security"}, "http://o.example/debian-security"},
		{"override by suite", files, "http://o.example/x bookworm=http://p.example/b?a=1", manifest.DebRepo{Suite: "bookworm"}, "http://p.example/b?a=1"},
		{"only another suite's override", files, "sid=http://p.example/b", manifest.DebRepo{Suite: "bookworm"}, "http://list.example/debian"},
		{"bad override", files, "nonsense", manifest.DebRepo{Suite: "bookworm"}, `the mirror "nonsense" of the suite "bookworm" cannot be used`},
		{"nothing at all", nil, "", manifest.DebRepo{Suite: "bookworm"}, `no mirror is known for the suite "bookworm"`},
		{"no security", map[string]string{"sources.list": "deb http://a.example/debian bookworm main\n"}, "", manifest.DebRepo{Suite: "bookworm-security"}, "no mirror is known"},
		{"only a vendor", map[string]string{"sources.list": "deb http://a.example/x stable-tool main\n"}, "", manifest.DebRepo{Suite: "bookworm"}, "http://a.example/x"},
	}
	tests[len(tests)-1].files = map[string]string{"sources.list": "deb http://a.example/x vendor main\n"}
	tests[len(tests)-1].want = "no mirror is known"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			os.Mkdir(filepath.Join(dir, "sources.list.d"), 0o755)
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv(EnvMirror, tt.override)
			r := &Resolver{HostAptDir: dir}
			got, err := r.Mirror(tt.repo)
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) || !strings.Contains(tt.want, " ") {
					t.Errorf("error %v, want %s", err, tt.want)
				}
				return
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestURL(t *testing.T) {
	got := URL("http://m.example/debian/", "pool/main/g/g++/g++_4%3a12~rc 1_amd64.deb")
	want := "http://m.example/debian/pool/main/g/g%2b%2b/g%2b%2b_4%253a12~rc%201_amd64.deb"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func FuzzHostSources(f *testing.F) {
	f.Add([]byte(listText))
	f.Add([]byte(deb822Text))
	f.Add([]byte(" continued\nTypes deb\n\nSuites:a\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range append(parseList(b), parseDeb822(b)...) {
			if e.uri == "" || e.suite == "" {
				t.Errorf("an entry without a place: %+v", e)
			}
			pick([]hostEntry{e}, "bookworm")
		}
	})
}
