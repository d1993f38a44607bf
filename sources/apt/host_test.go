// Resolving from the mirror that this machine's apt is configured with.
package apt

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/manifest"
)

// The set that the example image is made of: what comes out is complete, exact, the
// same the second time, and split between a base and what goes on top of it.
func TestHostMirror(t *testing.T) {
	if testing.Short() {
		t.Skip("short: no network")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("apt-get is missing (package apt)")
	}
	r := &Resolver{CacheDir: t.TempDir()}
	repos := []manifest.DebRepo{
		{Suite: "bookworm", Components: []string{"main"}},
		{Suite: "bookworm-security", Components: []string{"main"}},
	}
	for _, repo := range repos {
		if _, err := r.Mirror(repo); err != nil {
			t.Skipf("this machine's apt has no mirror: %v", err)
		}
	}
	base := &manifest.PackageRequest{Kind: "deb", Repos: repos, Arch: "x86_64", Variant: VariantMinbase}
	kernel := &manifest.PackageRequest{Kind: "deb", Repos: repos, Arch: "x86_64", Names: []string{"linux-image-cloud-amd64"}, Base: base}
	both := &manifest.PackageRequest{Kind: "deb", Repos: repos, Arch: "x86_64", Names: []string{"linux-image-cloud-amd64"}, Variant: VariantMinbase}
	got, err := r.Resolve(t.Context(), []*manifest.PackageRequest{base, kernel, both, base})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("base %d, kernel %d, both %d packages", len(got[0]), len(got[1]), len(got[2]))
	has := map[string]bool{}
	for _, p := range got[0] {
		has[p.Name] = true
		if len(p.SHA256) != 64 || p.Size <= 0 || p.Version == "" || !strings.HasSuffix(p.URL, ".deb") || p.Arch != "amd64" && p.Arch != "all" {
			t.Errorf("incomplete: %+v", p)
		}
		if pl, ok := r.Place(p); !ok || pl.Component != "main" || !strings.HasPrefix(pl.Path, "pool/") {
			t.Errorf("place of %s: %+v", p.Name, pl)
		}
	}
	for _, name := range []string{"apt", "bash", "dpkg", "libc6", "base-files", "mount", "tzdata"} {
		if !has[name] {
			t.Errorf("minbase lacks %s", name)
		}
	}
	for _, p := range got[1] {
		if has[p.Name] {
			t.Errorf("%s is in the base and on top of it", p.Name)
		}
		has[p.Name] = true
	}
	if !has["linux-image-cloud-amd64"] || len(got[0])+len(got[1]) != len(got[2]) {
		t.Errorf("%d and %d packages on top, %d at once", len(got[0]), len(got[1]), len(got[2]))
	}
	if diff := cmp.Diff(got[0], got[3]); diff != "" {
		t.Errorf("equal requests differ:\n%s", diff)
	}
}
