// Installing real packages: a small Debian, compared with what mmdebstrap makes of it.
package deb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/stages/deb/debtest"
)

// smallSet is a system with accounts, services and conffiles of many packages.
var smallSet = []string{"?essential", "?priority(required)", "apt", "dbus", "systemd-sysv", "e2fsprogs"}

var testEpoch = int64(1700000000)

// accepted are the differences between what mmdebstrap makes and what we make.
var accepted = []struct{ path, why string }{
	{"/dev/*", "mmdebstrap makes device nodes; an image has none until it starts"},
	{"/dev", "and so its time"},
	{"/tmp", "its time: mmdebstrap used it"},
	{"/etc/apt/preferences.d", "likewise"},
	{"/etc/apt/sources.list.d", "likewise"},
	{"/etc/*-", "backups of the account databases are removed"},
	{"/etc/.pwd.lock", "a lock file"},
	{"/etc/apt/sources.list", "the sources of mmdebstrap"},
	{"/etc/fstab", "of mmdebstrap"},
	{"/etc/hostname", "copied from the host by mmdebstrap"},
	{"/etc/resolv.conf", "copied from the host by mmdebstrap"},
	{"/etc/shells", "the same lines, in the order in which packages were configured"},
	{"/run/lock/subsys", "made by systemd-tmpfiles; scripts have an empty /run here"},
	{"/usr/bin/gunzip", "hard links in the package; unpacking over itself, as mmdebstrap does, parts them"},
	{"/usr/bin/uncompress", "likewise"},
	{"/var/cache/apt/archives/*", "of the apt that mmdebstrap runs"},
	{"/var/lib/apt/*", "likewise"},
	{"/var/cache/debconf/*-old", "backups are removed"},
	{"/var/lib/dpkg/arch", "only needed for foreign architectures"},
	{"/var/lib/dpkg/lock*", "lock files"},
	{"/var/lib/dpkg/triggers/File", "the same lines, in the order of unpacking"},
	{"/var/lib/dpkg/triggers/Lock", "a lock file"},
	{"/var/lib/dpkg/*-old", "backups are removed"},
	{"/var/log/apt", "mmdebstrap's apt writes there"},
}

// sameLines are files whose lines may be in another order.
var sameLines = []string{"/etc/shells", "/var/lib/dpkg/triggers/File"}

// accounts have the same names in both trees; their numbers and dates depend on the
// order of configuring and on the day.
var accounts = []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"}

func TestInstallReal(t *testing.T) {
	needRoot(t)
	archives := debtest.Fetch(t, smallSet...)
	dir := debtest.TempDir(t)
	trees := []string{filepath.Join(dir, "one"), filepath.Join(dir, "two")}
	var snaps []map[string]string
	for _, tree := range trees {
		must(t, os.Mkdir(tree, 0o755))
		r := install(t, Config{Tree: tree, Archives: archives, Epoch: &testEpoch})
		if r.New != len(archives) || len(r.Installed) != len(archives) {
			t.Errorf("%d of %d packages are new, %d installed", r.New, len(archives), len(r.Installed))
		}
		snaps = append(snaps, snapshot(t, tree))
	}
	if diff := cmp.Diff(snaps[0], snaps[1]); diff != "" {
		t.Errorf("installing twice makes two trees:\n%s", diff)
	}
	checkDatabase(t, trees[0], len(archives))

	t.Run("again", func(t *testing.T) {
		r := install(t, Config{Tree: trees[1], Archives: archives, Epoch: &testEpoch})
		if r.New != 0 || r.Present != len(archives) {
			t.Errorf("%d new, %d present", r.New, r.Present)
		}
		if diff := cmp.Diff(snaps[1], snapshot(t, trees[1])); diff != "" {
			t.Errorf("installing what is there changes the tree:\n%s", diff)
		}
	})
	t.Run("mmdebstrap", func(t *testing.T) { compareMmdebstrap(t, dir, trees[0], "", archives) })
	t.Run("added", func(t *testing.T) { testAdded(t, trees[1]) })
	t.Run("upgrade", func(t *testing.T) { testUpgrade(t, trees[1]) })
	t.Run("failures", func(t *testing.T) { testFailures(t, trees[0]) })
}

// checkDatabase asks dpkg whether all is well.
func checkDatabase(t *testing.T, tree string, packages int) {
	t.Helper()
	for _, args := range [][]string{{"--audit"}, {"--verify"}} {
		if out := run(t, "dpkg", append([]string{"--root=" + tree}, args...)...); out != "" {
			t.Errorf("dpkg %v:\n%s", args, out)
		}
	}
	out := run(t, "dpkg-query", "--admindir="+tree+adminDir, "-W", "-f", "${db:Status-Abbrev}\n")
	if n := strings.Count(out, "ii \n"); n != packages || n != strings.Count(out, "\n") {
		t.Errorf("%d packages of %d are installed:\n%s", n, packages, out)
	}
}

func compareMmdebstrap(t *testing.T, dir, tree, arch string, archives []string) {
	needRoot(t, "mmdebstrap")
	repo, theirs := filepath.Join(dir, "repo"), filepath.Join(dir, "theirs")
	must(t, os.Mkdir(repo, 0o755))
	var index strings.Builder
	var names []string
	for _, path := range archives {
		b, err := os.ReadFile(path)
		must(t, err)
		base := filepath.Base(path)
		must(t, os.WriteFile(filepath.Join(repo, base), b, 0o644))
		j, err := openJob(path)
		must(t, err)
		j.close()
		names = append(names, j.name)
		fmt.Fprintf(&index, "%s\nFilename: ./%s\nSize: %d\nSHA256: %x\n\n", strings.Trim(j.control, "\n"), base, len(b), sha256.Sum256(b))
	}
	must(t, os.WriteFile(filepath.Join(repo, "Packages"), []byte(index.String()), 0o644))
	release := fmt.Sprintf("Codename: %s\nSHA256:\n %x %d Packages\n", "test", sha256.Sum256([]byte(index.String())), index.Len())
	must(t, os.WriteFile(filepath.Join(repo, "Release"), []byte(release), 0o644))
	args := []string{"mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--include=" + strings.Join(names, ",")}
	if arch != "" {
		// It looks whether programs of the architecture run, by the kernel's table.
		args = append([]string{"unshare", "-m", "sh", "-c", `mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; exec "$@"`, "sh"}, args...)
		args = append(args, "--architectures="+arch, "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
	}
	args = append(args, "test", theirs, "deb [trusted=yes] copy://"+repo+" ./")
	run(t, args[0], args[1:]...)

	for _, path := range accounts {
		if diff := cmp.Diff(accountNames(t, theirs+path), accountNames(t, tree+path)); diff != "" {
			t.Errorf("%s differs (-mmdebstrap +ours):\n%s", path, diff)
		}
	}
	for _, path := range sameLines {
		if diff := cmp.Diff(sortedLines(t, theirs+path), sortedLines(t, tree+path)); diff != "" {
			t.Errorf("%s differs (-mmdebstrap +ours):\n%s", path, diff)
		}
	}
	var patterns []string
	for _, a := range accepted {
		patterns = append(patterns, a.path)
	}
	patterns = append(patterns, accounts...)
	want, got := forget(snapshot(t, theirs), patterns...), forget(snapshot(t, tree), patterns...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the trees differ (-mmdebstrap +ours):\n%s", diff)
	}
}

func sortedLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return slices.Sorted(strings.Lines(string(b)))
}

// accountNames returns the accounts of a file without dates, sorted.
func accountNames(t *testing.T, path string) []string {
	lines := sortedLines(t, path)
	date := regexp.MustCompile(`^([^:]*:[^:]*:)\d+:`)
	for i := range lines {
		if strings.HasSuffix(path, "shadow") {
			lines[i] = date.ReplaceAllString(lines[i], "$1:")
		}
	}
	return lines
}

// testAdded installs packages with scripts into a system.
func testAdded(t *testing.T, tree string) {
	dir := t.TempDir()
	prepare(t, tree, map[string]string{"/etc/kept": "mine\n"})
	debs := []testDeb{
		{name: "aa-watch", control: map[string]string{
			"triggers": "interest-noawait /usr/share/watched\n",
			"postinst": "#!/bin/sh\nset -e\necho \"$@\" >> /var/aa-log\n",
		}},
		{name: "bb-divert", control: map[string]string{
			"preinst": "#!/bin/sh\nset -e\ntest ! -e /usr/share/bb\ndpkg-divert --package bb-divert --rename --quiet --add /usr/share/diverted\n",
		}, items: []item{{path: "/usr/share/diverted", mode: 0o644, data: "of bb\n"}, {path: "/usr/share/bb", mode: 0o644, data: "x"}}},
		{name: "cc-plain", items: []item{{path: "/usr/share/diverted", mode: 0o644, data: "of cc\n"}}},
		{name: "dd-pre", fields: "Pre-Depends: ee-lib\n", control: map[string]string{
			// Needs ee-lib configured, and its conffile in place.
			"preinst": "#!/bin/sh\nset -e\ntest \"$1\" = install\ntest $# = 1\ntest -e /var/ee-done\ntest -e /etc/ee\ntest \"$DPKG_MAINTSCRIPT_PACKAGE $DPKG_MAINTSCRIPT_NAME\" = 'dd-pre preinst'\n",
		}},
		{name: "ee-lib", control: map[string]string{
			"conffiles": "/etc/ee\n/etc/kept\n",
			"postinst":  "#!/bin/sh\nset -e\ntest -e /etc/ee\ntest -e /proc/self/status\ntest -e /dev/null\ntest -d /sys/kernel\n: > /var/ee-done\n: > /tmp/left\n: > /run/left\ninvoke-rc.d --query ee start && exit 1 || test $? = 101\nstart-stop-daemon --start --exec /bin/false\n",
		}, items: []item{{path: "/etc/ee", mode: 0o644, data: "ee\n"}, {path: "/etc/kept", mode: 0o644, data: "theirs\n"}}},
		{name: "ff-ask", fields: "Depends: debconf\n", control: map[string]string{
			"templates": "Template: ff/q\nType: string\nDefault: nothing\nDescription: A question\n It is asked.\n",
			"config":    "#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_input critical ff/q || true\ndb_go || true\n",
			"postinst":  "#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_get ff/q\necho \"$RET\" > /etc/ff\n",
		}},
		{name: "gg-file", items: []item{{path: "/usr/share/watched/new", mode: 0o644, data: "x"}}},
	}
	build := func(debs ...testDeb) (out []string) {
		for _, d := range debs {
			out = append(out, d.build(t, dir))
		}
		return out
	}
	before := len(install(t, Config{Tree: tree, Archives: build(debs[:6]...), Epoch: &testEpoch, Preseed: []string{"ff-ask ff/q string answered"}}).Installed)
	install(t, Config{Tree: tree, Archives: build(debs[6]), Epoch: &testEpoch})
	for path, want := range map[string]string{
		"/var/aa-log":                 "configure \ntriggered /usr/share/watched\n",
		"/usr/share/diverted":         "of bb\n",
		"/usr/share/diverted.distrib": "of cc\n",
		"/etc/kept":                   "mine\n",
		"/etc/kept.dpkg-dist":         "theirs\n",
		"/etc/ff":                     "answered\n",
	} {
		if b, err := os.ReadFile(filepath.Join(tree, path)); err != nil || string(b) != want {
			t.Errorf("%s: %q, want %q (%v)", path, b, want, err)
		}
	}
	for _, path := range []string{"/tmp/left", "/run/left", policyFile, adminDir + "/tmp.ci"} {
		if _, err := os.Lstat(filepath.Join(tree, path)); err == nil {
			t.Errorf("%s was left", path)
		}
	}
	if t.Failed() {
		return
	}
	for _, path := range []string{"/etc/kept"} { // dpkg --verify tells of a changed conffile
		must(t, os.Rename(filepath.Join(tree, path+".dpkg-dist"), filepath.Join(tree, path)))
	}
	checkDatabase(t, tree, before+1)
}

// testUpgrade replaces versions, which the dpkg of the tree does.
func testUpgrade(t *testing.T, tree string) {
	dir := t.TempDir()
	old := testDeb{name: "hh-up", items: []item{{path: "/usr/share/hh/old", mode: 0o644}, {path: "/etc/hh", mode: 0o644, data: "1\n"}},
		control: map[string]string{"conffiles": "/etc/hh\n"}}
	other := testDeb{name: "ii-own", items: []item{{path: "/usr/share/moved", mode: 0o644, data: "ii"}}}
	install(t, Config{Tree: tree, Archives: []string{old.build(t, dir), other.build(t, dir)}, Epoch: &testEpoch})
	old.version, old.items = "2.0", []item{{path: "/usr/share/hh/new", mode: 0o644}, {path: "/etc/hh", mode: 0o644, data: "2\n"}}
	old.control["preinst"] = "#!/bin/sh\necho \"$@\" > /var/hh-args\n"
	taker := testDeb{name: "jj-take", fields: "Replaces: ii-own\n", items: []item{{path: "/usr/share/moved", mode: 0o644, data: "jj"}}}
	r := install(t, Config{Tree: tree, Archives: []string{old.build(t, dir), taker.build(t, dir)}, Epoch: &testEpoch})
	if r.New != 2 {
		t.Errorf("%d packages are new", r.New)
	}
	for path, want := range map[string]string{"/etc/hh": "2\n", "/usr/share/hh/new": "", "/var/hh-args": "upgrade 1.0 2.0\n", "/usr/share/moved": "jj"} {
		if b, err := os.ReadFile(filepath.Join(tree, path)); err != nil || string(b) != want {
			t.Errorf("%s: %q, want %q (%v)", path, b, want, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(tree, "/usr/share/hh/old")); err == nil {
		t.Error("a file of the old version is still there")
	}
	checkDatabase(t, tree, len(r.Installed))
}

func testFailures(t *testing.T, tree string) {
	dir := t.TempDir()
	for script, d := range map[string]testDeb{
		"post-installation": {name: "kk-post", control: map[string]string{"postinst": "#!/bin/sh\necho first line\necho the reason >&2\nexit 3\n"}},
		"exit status 4":     {name: "kk-pre", control: map[string]string{"preinst": "#!/bin/sh\necho the reason >&2\nexit 4\n"}},
		"kk-none":           {name: "kk-dep", fields: "Depends: kk-none\n"},
	} {
		_, err := Install(context.Background(), Config{Tree: tree, Archives: []string{d.build(t, dir)}, Log: &bytes.Buffer{}})
		var pe *PackageError
		if !errors.As(err, &pe) || !strings.Contains(err.Error(), d.name) || !strings.Contains(err.Error(), script) ||
			script != "kk-none" && !slices.Contains(pe.Output, "the reason") {
			t.Errorf("%s: the error is %v", d.name, err)
		}
		// What failed must not be in the way of the next.
		run(t, "chroot", tree, "dpkg", "--force-all", "--purge", d.name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Install(ctx, Config{Tree: tree, Archives: []string{testDeb{name: "ll-late"}.build(t, dir)}}); err == nil {
		t.Error("a canceled installation succeeded")
	}
	if _, err := Install(context.Background(), Config{Tree: t.TempDir(), Archives: []string{testDeb{name: "ll-late"}.build(t, dir)}}); !errors.Is(err, ErrNoDpkg) {
		t.Errorf("without dpkg the error is %v", err)
	}
	if n := mountsBelow(t, tree); len(n) > 0 {
		t.Errorf("mounts were left: %v", n)
	}
}
