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
	archives := debtest.FetchArch(t, "s390x", smallSet...)
	dir := debtest.TempDir(t)
	tree := filepath.Join(dir, "tree")
	must(t, os.Mkdir(tree, 0o755))
	began := time.Now()
	r := install(t, Config{Tree: tree, Arch: "s390x", Archives: archives, Epoch: &testEpoch})
	t.Logf("%d packages in %.1f s", r.New, time.Since(began).Seconds())
	if len(r.Installed) != len(archives) {
		t.Errorf("%d of %d packages are installed", len(r.Installed), len(archives))
	}
	before := snapshot(t, tree)
	install(t, Config{Tree: tree, Arch: "s390x", Archives: archives, Epoch: &testEpoch})
	if diff := cmp.Diff(before, snapshot(t, tree)); diff != "" {
		t.Errorf("installing what is there changes the tree:\n%s", diff)
	}
	began = time.Now()
	compareMmdebstrap(t, dir, tree, "s390x", archives)
	t.Logf("mmdebstrap and comparing: %.1f s", time.Since(began).Seconds())
}
