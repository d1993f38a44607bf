// Unpacking, compared with what the dpkg of this machine makes of the same packages.
package deb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// ofDpkg are the files that only running dpkg leaves, or that differ by design.
var ofDpkg = []string{
	"/var/lib/dpkg/lock", "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/*-old", "/var/lib/dpkg/triggers/Lock",
	"/var/lib/dpkg/triggers/Unincorp", "/var/lib/dpkg/updates", "/var/lib/dpkg/alternatives",
	"/var/lib/dpkg/info/format", // dpkg writes it when it first has an instance of several
}

func TestUnpackAsDpkg(t *testing.T) {
	needRoot(t, "dpkg-deb", "dpkg")
	const longPart = "a-directory-with-a-name-that-is-as-long-as-it-takes-to-need-more-than-a-hundred-bytes"
	tests := []struct {
		name  string
		debs  []testDeb
		files map[string]string // in the tree before: path → content, "-> target" or "dir"
		opts  []string          // of dpkg
		conf  Config
		skip  []string // accepted differences
	}{
		{name: "kinds of files", debs: []testDeb{{name: "aa-kinds", compress: "xz", items: []item{
			{path: "/usr/bin/suid", mode: 0o4755, data: "x"}, {path: "/usr/bin/sgid", mode: 0o2755, data: "x", owner: [2]int{0, 42}},
			{path: "/usr/bin/both", mode: 0o6711, data: "x", owner: [2]int{7, 42}},
			{path: "/etc/secret", mode: 0o600, data: "secret\n"}, {path: "/etc/shared", mode: 0o664, data: "shared\n", owner: [2]int{0, 50}},
			{path: "/etc/empty", mode: 0o644}, {path: "/etc/none", mode: 0, data: "none"},
			{path: "/srv/empty", mode: isDir | 0o750, owner: [2]int{33, 33}},
			{path: "/srv/sticky", mode: isDir | 0o1777}, {path: "/srv/staff", mode: isDir | 0o2775, owner: [2]int{0, 50}},
			{path: "/srv/staff/file", mode: 0o644, data: "of root"}, {path: "/srv/staff/sub", mode: isDir | 0o755},
			{path: "/srv/staff/link", mode: isLink, data: "file"},
			{path: "/srv/relative", mode: isLink, data: "../etc/empty"}, {path: "/srv/absolute", mode: isLink, data: "/etc/empty"},
			{path: "/srv/dangling", mode: isLink, data: "nowhere", owner: [2]int{1, 1}},
			{path: "/srv/zhard", mode: isHard, data: "/usr/bin/suid"}, {path: "/usr/bin/hard", mode: isHard, data: "/usr/bin/suid"},
			{path: "/srv/fifo", mode: unix.S_IFIFO | 0o640, owner: [2]int{0, 5}}, {path: "/srv/null", mode: unix.S_IFCHR | 0o666},
			{path: "/srv/disk", mode: unix.S_IFBLK | 0o660, owner: [2]int{0, 6}},
			{path: "/srv/with space/ünïcode", mode: 0o644, data: "x"},
			{path: "/srv/" + longPart + "/" + longPart + "/" + longPart + "/file", mode: 0o644, data: "far"},
			{path: "/srv/" + longPart + "/" + longPart + "/link", mode: isLink, data: longPart + "/" + longPart + "/file"},
			{path: "/srv/large", mode: 0o644, data: strings.Repeat("0123456789abcdef", 200000)},
		}}}},
		{name: "compressions", debs: []testDeb{
			{name: "aa-xz", compress: "xz", items: []item{{path: "/a", mode: 0o644, data: strings.Repeat("a", 9000)}}},
			{name: "bb-zst", compress: "zstd", items: []item{{path: "/b", mode: 0o644, data: strings.Repeat("b", 9000)}}},
			{name: "cc-gz", compress: "gzip", items: []item{{path: "/c", mode: 0o644, data: strings.Repeat("c", 9000)}}},
			{name: "dd-none", compress: "none", items: []item{{path: "/d", mode: 0o644, data: strings.Repeat("d", 9000)}}},
		}},
		{name: "status fields", debs: []testDeb{{name: "aa-fields", version: "1:2.0~rc1-3+b1", fields: `Source: other (1.0)
Priority: optional
Section: admin
Depends: zz-none|zz-other (>=1.0) ,zz-third:any
Recommends: x11 (<< 3) | y1
Homepage: https://example.org
Installed-Size: 17
Multi-Arch: foreign
X-Own: something
Built-Using: gcc (= 1)
Essential: no
`}, {name: "bb-same", fields: "Multi-Arch: same\n", control: map[string]string{"triggers": "activate ldconfig\n", "shlibs": "x\n"},
			items: []item{{path: "/usr/lib/x", mode: 0o644, data: "x"}}}}},
		{name: "conffiles", files: map[string]string{"/etc/other": "dir", "/etc/linked": "-> other/target", "/etc/other/target": "mine\n"},
			debs: []testDeb{{name: "aa-conf", control: map[string]string{"conffiles": "/etc/conf\n/etc/linked\n/etc/dir/conf2\nremove-on-upgrade /etc/old\n"}, items: []item{
				{path: "/etc/conf", mode: 0o640, data: "conf\n", owner: [2]int{0, 42}}, {path: "/etc/linked", mode: 0o644, data: "theirs\n"},
				{path: "/etc/dir/conf2", mode: 0o644, data: "conf2\n"}, {path: "/etc/plain", mode: 0o644, data: "plain\n"}}}}},
		{name: "md5sums of the package", debs: []testDeb{{name: "aa-sums", control: map[string]string{"md5sums": "0123456789abcdef0123456789abcdef  x\n"},
			items: []item{{path: "/x", mode: 0o644, data: "x"}}}}},
		{name: "replaces the earlier", debs: []testDeb{
			{name: "aa-old", items: []item{{path: "/usr/share/f", mode: 0o644, data: "old"}, {path: "/usr/share/g", mode: isLink, data: "f"}, {path: "/usr/share/own", mode: 0o644}}},
			{name: "bb-new", fields: "Replaces: aa-old (<< 2)\n", items: []item{{path: "/usr/share/f", mode: 0o755, data: "new"}, {path: "/usr/share/g", mode: 0o644, data: "g"}}},
		}},
		{name: "replaces the later", debs: []testDeb{
			{name: "aa-new", fields: "Replaces: bb-old\n", items: []item{{path: "/usr/share/f", mode: 0o755, data: "new"}}},
			{name: "bb-old", items: []item{{path: "/usr/share/f", mode: 0o644, data: "old"}, {path: "/usr/share/own", mode: 0o644}}},
		}},
		{name: "shared directories", debs: []testDeb{
			{name: "aa-first", items: []item{{path: "/srv/d", mode: isDir | 0o700, owner: [2]int{5, 6}}, {path: "/srv/own", mode: 0o644}}},
			{name: "bb-second", items: []item{{path: "/srv/d", mode: isDir | 0o755}, {path: "/srv/d/f", mode: 0o644}}},
		}},
		{name: "links and directories", files: map[string]string{"/srv/was-dir": "dir", "/srv/real": "dir", "/srv/to-real": "-> real", "/srv/plain": "old"},
			debs: []testDeb{{name: "aa-links", items: []item{
				{path: "/srv/was-dir", mode: isLink, data: "real"}, {path: "/srv/to-real", mode: isDir | 0o700}, {path: "/srv/to-real/f", mode: 0o644, data: "f"},
				{path: "/srv/plain", mode: isLink, data: "real"}}}}},
		{name: "merged usr", files: map[string]string{"/usr/bin": "dir", "/usr/lib": "dir", "/bin": "-> usr/bin", "/lib": "-> usr/lib"}, debs: []testDeb{
			{name: "aa-bin", items: []item{{path: "/bin/x", mode: 0o755, data: "x"}, {path: "/lib/deep/er/y", mode: 0o644, data: "y"}}},
			{name: "bb-bin", items: []item{{path: "/usr/lib/deep/z", mode: 0o644, data: "z"}}},
			{name: "cc-alias", items: []item{{path: "/usr/bin/x", mode: 0o700, data: "later"}}},
		}},
		{name: "diversions and overrides", files: map[string]string{
			"/var/lib/dpkg/diversions":   "/usr/bin/prog\n/usr/bin/prog.distrib\nzz-other\n/usr/bin/mine\n/usr/bin/mine.distrib\naa-div\n/etc/local\n/etc/local.real\n:\n",
			"/var/lib/dpkg/statoverride": "root #42 2750 /usr/bin/override\n",
		}, debs: []testDeb{{name: "aa-div", items: []item{
			{path: "/usr/bin/prog", mode: 0o755, data: "prog"}, {path: "/usr/bin/mine", mode: 0o755, data: "mine"},
			{path: "/etc/local", mode: 0o644, data: "local"}, {path: "/usr/bin/override", mode: 0o755, data: "o"},
			{path: "/usr/bin/hard", mode: isHard, data: "/usr/bin/prog"}}}}},
		{name: "filters", opts: []string{"--path-exclude=/usr/share/doc/*", "--path-include=/usr/share/doc/*/copyright", "--path-exclude=/usr/share/man/*", "--path-exclude=/opt/[ab]?/x"},
			conf: Config{Filters: []Filter{{false, "/usr/share/doc/*"}, {true, "/usr/share/doc/*/copyright"}, {false, "/usr/share/man/*"}, {false, "/opt/[ab]?/x"}}},
			debs: []testDeb{{name: "aa-doc", control: map[string]string{"conffiles": "/usr/share/doc/aa/conf\n"}, items: []item{
				{path: "/usr/share/doc/aa/copyright", mode: 0o644, data: "c"}, {path: "/usr/share/doc/aa/changelog", mode: 0o644, data: "c"},
				{path: "/usr/share/doc/aa/conf", mode: 0o644, data: "c"}, {path: "/usr/share/doc/bb", mode: isLink, data: "aa"},
				{path: "/usr/share/man/man1/aa.1", mode: 0o644, data: "m"}, {path: "/opt/ax/x", mode: 0o644, data: "m"}, {path: "/opt/cx/x", mode: 0o644, data: "m"}}}}},
		{name: "triggers", debs: []testDeb{
			{name: "aa-int", control: map[string]string{"triggers": "# comment\ninterest-noawait /usr/share/watched\ninterest /etc/other\ninterest-await named\n"}},
			{name: "bb-int", fields: "Multi-Arch: same\n", control: map[string]string{"triggers": "interest-noawait named\n  interest /usr/share/watched\n"}},
			{name: "cc-act", control: map[string]string{"triggers": "activate-noawait named\n"}, items: []item{{path: "/usr/share/watched/f", mode: 0o644}}},
		}},
		{name: "several architectures", debs: []testDeb{
			{name: "aa-lib", arch: "amd64", fields: "Multi-Arch: same\n", items: []item{{path: "/usr/share/both", mode: 0o644, data: "same"}, {path: "/usr/lib/a64", mode: 0o644, data: "a"}}},
			{name: "aa-lib", arch: "armhf", fields: "Multi-Arch: same\n", items: []item{{path: "/usr/share/both", mode: 0o644, data: "same"}, {path: "/usr/lib/arm", mode: 0o644, data: "b"}}},
		}, conf: Config{Arch: "amd64"}, files: map[string]string{"/var/lib/dpkg/arch": "amd64\narmhf\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
			for _, root := range []string{ours, theirs} {
				for _, d := range []string{"info", "triggers", "updates", "alternatives"} {
					must(t, os.MkdirAll(filepath.Join(root, adminDir, d), 0o755))
				}
				must(t, os.WriteFile(filepath.Join(root, adminDir, "status"), nil, 0o644))
				prepare(t, root, tt.files)
			}
			var archives []string
			for _, d := range tt.debs {
				archives = append(archives, d.build(t, dir))
			}
			run(t, "dpkg", append(append([]string{"--root=" + theirs, "--force-unsafe-io", "--force-script-chrootless", "--log=/dev/null", "--unpack"}, tt.opts...), archives...)...)
			c := tt.conf
			c.Tree, c.Archives, c.Unpack, c.SplitUsr = ours, archives, true, true
			install(t, c)
			want, got := forget(snapshot(t, theirs), append(ofDpkg, tt.skip...)...), forget(snapshot(t, ours), append(ofDpkg, tt.skip...)...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the trees differ (-dpkg +ours):\n%s", diff)
			}
			// And both are configured alike.
			for _, root := range []string{ours, theirs} {
				run(t, "dpkg", "--root="+root, "--force-unsafe-io", "--force-depends", "--force-confold", "--log=/dev/null", "--configure", "-a")
				if out := run(t, "dpkg", "--root="+root, "--audit"); out != "" && !strings.Contains(out, "not ") {
					t.Errorf("audit of %s:\n%s", root, out)
				}
			}
			want, got = forget(snapshot(t, theirs), ofDpkg...), forget(snapshot(t, ours), ofDpkg...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the configured trees differ (-dpkg +ours):\n%s", diff)
			}
		})
	}
}

// prepare puts files into a tree, with an old time.
func prepare(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for p, s := range files {
		if s == "dir" {
			must(t, os.MkdirAll(filepath.Join(root, p), 0o755))
		}
	}
	for p, s := range files {
		full := filepath.Join(root, p)
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		if to, ok := strings.CutPrefix(s, "-> "); ok {
			must(t, os.Symlink(to, full))
		} else if s != "dir" {
			must(t, os.WriteFile(full, []byte(s), 0o644))
		}
		ts := []unix.Timespec{{Sec: 1500000000}, {Sec: 1500000000}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, full, ts, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// Links in the tree are followed inside of it only, as they would be in a chroot.
func TestUnpackConfined(t *testing.T) {
	needRoot(t, "dpkg-deb")
	dir := t.TempDir()
	tree := filepath.Join(dir, "a/b/tree")
	must(t, os.MkdirAll(tree, 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "outside"), 0o755))
	prepare(t, tree, map[string]string{
		"/up": "-> ../../../../outside", "/abs": "-> " + dir + "/outside", "/etc/conf": "-> ../../../../../outside/conf",
		"/etc/over": "-> " + dir + "/outside/over",
	})
	evil := testDeb{name: "aa-evil", control: map[string]string{"conffiles": "/etc/conf\n"}, items: []item{
		{path: "/up/one", mode: 0o644, data: "1"}, {path: "/abs/two", mode: 0o644, data: "2"},
		{path: "/etc/conf", mode: 0o644, data: "3"}, {path: "/etc/over", mode: 0o644, data: "4"},
	}}.build(t, dir)
	install(t, Config{Tree: tree, Archives: []string{evil}, Unpack: true})
	if names, err := os.ReadDir(filepath.Join(dir, "outside")); err != nil || len(names) > 0 {
		t.Errorf("outside of the tree there are %v %v", names, err)
	}
	for p, want := range map[string]string{"/outside/one": "1", dir + "/outside/two": "2", "/etc/over": "4"} {
		if b, err := os.ReadFile(filepath.Join(tree, p)); string(b) != want {
			t.Errorf("%s: %q, %v", p, b, err)
		}
	}
}

func TestUnpackErrors(t *testing.T) {
	needRoot(t, "dpkg-deb")
	file := func(path, data string) []item { return []item{{path: path, mode: 0o644, data: data}} }
	tests := []struct {
		name  string
		debs  []testDeb
		files map[string]string
		want  string
	}{
		{name: "conflict", want: "is in", debs: []testDeb{{name: "aa", items: file("/x", "1")}, {name: "bb", items: file("/x", "2")}}},
		{name: "conflict through an alias", debs: []testDeb{{name: "aa", items: file("/x", "1")}, {name: "bb", items: file("/x", "2")}}, want: "/x is in"},
		{name: "directory in the place", files: map[string]string{"/x": "dir"}, want: "directory", debs: []testDeb{{name: "aa", items: file("/x", "1")}}},
		{name: "file in the place of a directory", files: map[string]string{"/x": "file"}, want: "not a directory", debs: []testDeb{{name: "aa", items: file("/x/y", "1")}}},
		{name: "two versions", want: "in versions", debs: []testDeb{{name: "aa"}, {name: "aa", version: "2"}}},
		{name: "conflicting packages", want: "conflict", debs: []testDeb{{name: "aa", fields: "Conflicts: bb\n"}, {name: "bb"}}},
		{name: "breaking packages", want: "conflict", debs: []testDeb{{name: "aa"}, {name: "bb", fields: "Breaks: aa (<< 2)\n"}}},
		{name: "architectures that differ", want: "differs from that of another architecture", debs: []testDeb{
			{name: "aa", arch: "amd64", fields: "Multi-Arch: same\n", items: file("/x", "1")}, {name: "aa", arch: "armhf", fields: "Multi-Arch: same\n", items: file("/x", "2")}}},
		{name: "divert target", want: "diverted to", files: map[string]string{"/var/lib/dpkg/diversions": "/a\n/x\nother\n"}, debs: []testDeb{{name: "aa", items: file("/x", "1")}}},
		{name: "interrupted dpkg", want: "middle of a change", files: map[string]string{"/var/lib/dpkg/updates/0001": "x"}, debs: []testDeb{{name: "aa"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tree := filepath.Join(dir, "tree")
			must(t, os.Mkdir(tree, 0o755))
			prepare(t, tree, tt.files)
			var archives []string
			for _, d := range tt.debs {
				archives = append(archives, d.build(t, dir))
			}
			_, err := Install(context.Background(), Config{Tree: tree, Archives: archives, Unpack: true})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want one with %q", err, tt.want)
			}
			var pe *PackageError
			if errors.As(err, &pe) && !strings.HasPrefix(pe.Package, "aa ") && !strings.HasPrefix(pe.Package, "bb ") {
				t.Errorf("the error names the package %q", pe.Package)
			}
		})
	}
}

// A conflict, and who wins it, may not depend on the order in which workers run.
func TestUnpackDeterministic(t *testing.T) {
	needRoot(t, "dpkg-deb")
	dir := t.TempDir()
	var archives []string
	for i := range 12 {
		replaces := ""
		for j := range i {
			replaces += fmt.Sprintf("pp%02d, ", j)
		}
		d := testDeb{name: fmt.Sprintf("pp%02d", i), items: []item{
			{path: "/srv", mode: isDir | 0o700 | uint32(i)}, {path: "/srv/shared", mode: isDir | 0o740 | uint32(i%8), owner: [2]int{i, i}},
			{path: "/srv/shared/same", mode: 0o644, data: strings.Repeat("x", i*1000)},
			{path: "/srv/empty", mode: isDir | 0o711, owner: [2]int{0, i}},
			{path: fmt.Sprintf("/srv/shared/own%d", i), mode: 0o644, data: strings.Repeat("y", (12-i)*5000)},
		}}
		if replaces != "" {
			d.fields = "Replaces: " + strings.TrimSuffix(replaces, ", ") + "\n"
		}
		archives = append(archives, d.build(t, dir))
	}
	var first map[string]string
	for i := range 8 {
		tree := filepath.Join(dir, fmt.Sprint("tree", i))
		must(t, os.Mkdir(tree, 0o755))
		install(t, Config{Tree: tree, Archives: archives, Unpack: true})
		snap := snapshot(t, tree)
		if i == 0 {
			first = snap
			if !strings.HasPrefix(snap["/srv/shared"], "040740 0:0") || !strings.Contains(snap["/srv/shared/same"], " 11000 ") {
				t.Errorf("shared %q, same %q", snap["/srv/shared"], snap["/srv/shared/same"])
			}
			continue
		}
		if diff := cmp.Diff(first, snap); diff != "" {
			t.Fatalf("another tree in run %d:\n%s", i, diff)
		}
	}
}
