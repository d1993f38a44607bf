// Installing real packages of another architecture: a small Debian, compared with what
// mmdebstrap makes of it.
package deb

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/buildroot/binfmt"
	"github.com/osbuild-star/osbuild-star/stages/deb/debtest"
)

// foreignSet is a system without the large Perl, as images are.
var foreignSet = append([]string{"usr-is-merged"}, smallSet...)

// TestInstallForeign takes minutes: scripts of packages are emulated, here and below
// mmdebstrap.
func TestInstallForeign(t *testing.T) {
	needRoot(t)
	if os.Getenv("OSBUILD_STAR_SLOW") == "" {
		t.Skip("slow: make test-slow")
	}
	run, err := binfmt.Use("s390x")
	if err != nil {
		t.Skip(err)
	}
	defer run.Close()
	archives := debtest.FetchArch(t, "s390x", foreignSet...)
	dir := debtest.TempDir(t)
	tree := filepath.Join(dir, "tree")
	must(t, os.Mkdir(tree, 0o755))
	began := time.Now()
	r := install(t, Config{Tree: tree, Arch: "s390x", Archives: archives, Epoch: &testEpoch})
	t.Logf("%d packages in %.1f s", r.New, time.Since(began).Seconds())
	if len(r.Installed) != len(archives) {
		t.Errorf("%d of %d packages are installed", len(r.Installed), len(archives))
	}
	testNative(t, dir, tree, archives)
	before := snapshot(t, tree)
	install(t, Config{Tree: tree, Arch: "s390x", Archives: archives, Epoch: &testEpoch})
	if diff := cmp.Diff(before, snapshot(t, tree)); diff != "" {
		t.Errorf("installing what is there changes the tree:\n%s", diff)
	}
	began = time.Now()
	compareMmdebstrap(t, dir, tree, "s390x", archives)
	t.Logf("mmdebstrap and comparing: %.1f s", time.Since(began).Seconds())
}

// testNative: with native programs for its scripts the same tree comes out, in less
// time.
func testNative(t *testing.T, dir, emulated string, archives []string) {
	native, tree := filepath.Join(dir, "native"), filepath.Join(dir, "helped")
	must(t, os.Mkdir(native, 0o755))
	must(t, os.Mkdir(tree, 0o755))
	install(t, Config{Tree: native, Archives: debtest.Fetch(t, foreignSet...), Epoch: &testEpoch})
	was := snapshot(t, native)
	began := time.Now()
	install(t, Config{Tree: tree, Arch: "s390x", Archives: archives, Epoch: &testEpoch, Native: native})
	t.Logf("with native programs: %.1f s", time.Since(began).Seconds())
	if diff := cmp.Diff(snapshot(t, emulated), snapshot(t, tree)); diff != "" {
		t.Errorf("native programs make another tree (-emulated +native):\n%s", diff)
	}
	if diff := cmp.Diff(was, snapshot(t, native)); diff != "" {
		t.Errorf("the tree of the native programs was changed:\n%s", diff)
	}
}
