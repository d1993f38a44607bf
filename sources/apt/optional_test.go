// Suites that are not made for an architecture.
package apt

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/manifest"
)

func TestNotMadeFor(t *testing.T) {
	r := newTree(t)
	r.suite("updates", "main", "test", []string{"amd64"}, "", pkg("libc", "2.0-2", "amd64", "Essential: yes", "Priority: required"))
	req := r.request("libc")
	req.Arch = "aarch64"
	updates := manifest.DebRepo{Mirror: r.url, Suite: "updates", Keyring: keys.public}
	req.Repos = append(req.Repos, updates)
	_, err := r.resolver().Resolve(t.Context(), []*manifest.PackageRequest{req})
	wantError(t, err, "the suite updates at "+r.url+" is not made for arm64: it has amd64", "a suite that has arm64")

	req.Repos[1].Optional = true
	for arch, want := range map[string]string{"aarch64": "libc=2.0-1:arm64", "x86_64": "libc=2.0-2:amd64"} {
		req.Arch = arch
		got, err := r.resolver().Resolve(t.Context(), []*manifest.PackageRequest{req})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{want}, list(got[0])); diff != "" {
			t.Errorf("%s, with an optional suite (-want +got):\n%s", arch, diff)
		}
	}
	// One that it is made for, and that is broken, is not passed over.
	r.write("dists/updates/main/binary-amd64/Packages", "Package: evil\n")
	req.Arch = "x86_64"
	if got, err := r.resolver().Resolve(t.Context(), []*manifest.PackageRequest{req}); err == nil {
		t.Errorf("with a broken optional suite: %v", list(got[0]))
	}
}
