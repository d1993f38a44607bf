// What is in a tree, of trees that are there.
package report

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree makes files: a size for each, or their text.
func makeTree(t *testing.T, files map[string]any) *os.File {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		text, ok := content.(string)
		if !ok {
			text = strings.Repeat("x", content.(int))
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func flat(n *Node, prefix string, out []string) []string {
	out = append(out, fmt.Sprintf("%s%s %d", prefix, n.Name, n.Size))
	for _, k := range n.Kids {
		out = flat(k, prefix+"  ", out)
	}
	return out
}

const status = `Package: libc6
Status: install ok installed
Section: libs
Installed-Size: 12
Architecture: amd64
Version: 2.36-9
Description: a library
 Package: no package
 .

Package: gone
Status: deinstall ok config-files
Version: 1

Package: tool
Status: install ok installed
Section: contrib/admin
Architecture: all
Version: 1:1.0

`

func TestReadContent(t *testing.T) {
	dir := makeTree(t, map[string]any{
		"etc/os-release": "ID=debian\nPRETTY_NAME=\"Debian 12\"\n", "var/lib/dpkg/status": status,
		"var/lib/dpkg/info/libc6:amd64.list": "/.\n/lib\n/lib/x/libc.so\n/usr/share/doc/libc6/copyright\n", "var/lib/dpkg/info/tool.list": "/usr/bin/tool\n/usr/bin/tool\n",
		"usr/lib/x/libc.so": 50000, "usr/share/doc/libc6/copyright": 1000, "usr/bin/tool": 20000, "home/big": 30000, "home/small": 1, "home/smaller": 2,
	})
	at := dir.Name()
	for _, err := range []error{
		os.Symlink("usr/lib", filepath.Join(at, "lib")), os.Link(filepath.Join(at, "home/big"), filepath.Join(at, "home/zlink")),
		os.Symlink("/", filepath.Join(at, "home/loop")), os.Mkdir(filepath.Join(at, "empty"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !IsSystem(dir) {
		t.Error("it is no system")
	}
	c, err := ReadContent(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.OS != "Debian 12" || c.Database != "dpkg" || c.Files != 11 || !c.Current() {
		t.Errorf("%+v", c)
	}
	want := []Package{
		{"libc6", "2.36-9", "amd64", "libs", 12 << 10, 51000}, {"tool", "1:1.0", "all", "admin", 0, 20000},
	}
	if diff := cmp.Diff(want, c.Packages); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	rest := c.Size - 51000 - 20000 - 30003
	folders := strings.Join(flat(c.Folders, "", nil), "\n")
	for _, want := range []string{fmt.Sprintf("/ %d\n", c.Size), "\n  usr 71000\n    lib 50000\n      x 50000\n        libc.so 50000\n    bin 20000", "\n  home 30003\n    big 30000\n    3 smaller 3"} {
		if !strings.Contains(folders, want) {
			t.Errorf("folders are without %q:\n%s", want, folders)
		}
	}
	sections := strings.Join(flat(c.Sections, "", nil), "\n")
	for _, want := range []string{"\n  libs 51000\n    libc6 51000\n      /usr/lib/x/libc.so 50000", fmt.Sprintf("\n  of no package %d\n", rest+30003), "\n  admin 20000\n    tool 20000"} {
		if !strings.Contains(sections, want) {
			t.Errorf("sections are without %q:\n%s", want, sections)
		}
	}
	for name, size := range map[string]int64{"usr": 71000, "usr/lib": 50000, "usr/share/doc": 1000, "usr/share/doc/libc6": 0, "home": 30003} {
		if c.Dirs[name] != size {
			t.Errorf("%s has %d, want %d", name, c.Dirs[name], size)
		}
	}
}

// Trees that are none of a system, of another database, and with a trap in place of
// one: what a stage wrote is read within the tree, and never waited for.
func TestReadContentOfOthers(t *testing.T) {
	disk := makeTree(t, map[string]any{"disk.qcow2": 9})
	if IsSystem(disk) {
		t.Error("a disk is a system")
	}
	rpm := makeTree(t, map[string]any{"usr/lib/os-release": "PRETTY_NAME=Fedora", "usr/lib/sysimage/rpm/rpmdb.sqlite": 5})
	if c, err := ReadContent(rpm); err != nil || c.Database != "rpm" || c.OS != "Fedora" || len(c.Packages) != 0 || c.Sections != nil {
		t.Errorf("%+v, %v", c, err)
	}
	out := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(out, []byte("PRETTY_NAME=outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	trap := makeTree(t, map[string]any{"etc/passwd": 1, "var/lib/dpkg/info/x": 1})
	for name, to := range map[string]string{"etc/os-release": out, "var/lib/dpkg/status": "/dev/zero"} {
		if err := os.Symlink(to, filepath.Join(trap.Name(), name)); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := ReadContent(trap); err != nil || c.OS != "" || len(c.Packages) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	fifo := makeTree(t, map[string]any{"etc/x": 1, "var/lib/dpkg/info/x": 1})
	if err := exec.Command("mkfifo", filepath.Join(fifo.Name(), "etc/os-release"), filepath.Join(fifo.Name(), "var/lib/dpkg/status")).Run(); err != nil {
		t.Fatal(err)
	}
	if c, err := ReadContent(fifo); err != nil || c.OS != "" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestCompareVersions(t *testing.T) {
	judge, _ := exec.LookPath("dpkg")
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1.0", "1.0", 0}, {"1.0", "1.1", -1}, {"1.9", "1.10", -1}, {"1:0", "9", 1}, {"1.0~rc1", "1.0", -1}, {"1.0-1", "1.0-1+deb12u1", -1},
		{"1.0-2", "1.0-10", -1}, {"1.0a", "1.0+", -1}, {"2.36-9+deb12u14", "2.36-9+deb12u2", 1}, {"0", "", 0}, {"1.0-0", "1.0", 0}, {"00012", "12", 0}, {"1.2.3", "1.2", 1},
		{"7~~", "7~", -1}, {"99999999999999999999999", "100000000000000000000000", -1},
	} {
		for _, x := range []struct {
			a, b string
			want int
		}{{c.a, c.b, c.want}, {c.b, c.a, -c.want}} {
			if got := compareVersions(x.a, x.b); got != x.want {
				t.Errorf("%q and %q: %d, want %d", x.a, x.b, got, x.want)
			}
			op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[x.want]
			if judge != "" && x.a != "" && x.b != "" && exec.Command(judge, "--compare-versions", x.a, op, x.b).Run() != nil {
				t.Errorf("dpkg does not say that %q is %s %q", x.a, op, x.b)
			}
		}
	}
}

func TestWhy(t *testing.T) {
	s := MadeStage{Pipeline: "os", Index: 1, Type: "t", Key: "new", Options: "o", Program: "p 1", Base: "b", Build: "r", Inputs: map[string]string{"tree": "i"}}
	old := func(change func(*MadeStage)) *Made {
		o := s
		o.Key = "old"
		change(&o)
		return &Made{Stages: []MadeStage{{Pipeline: "os", Type: "first"}, o}}
	}
	for want, before := range map[string]*Made{
		"the first build of this target":                    nil,
		"its layer is not in the store any more":            old(func(o *MadeStage) { o.Key = "new" }),
		"a new stage":                                       old(func(o *MadeStage) { o.Type = "u" }),
		"its options or files changed":                      old(func(o *MadeStage) { o.Options = "x"; o.Base = "x" }),
		"its program or runner changed":                     old(func(o *MadeStage) { o.Program = "p 0" }),
		"the stages before it changed":                      old(func(o *MadeStage) { o.Index = 7 }),
		"its build root changed":                            old(func(o *MadeStage) { o.Build = "x" }),
		"its input tree changed":                            old(func(o *MadeStage) { o.Inputs = nil }),
		"a stage before it changed":                         old(func(o *MadeStage) { o.Base = "x" }),
		"what the host or its libraries give to it changed": old(func(*MadeStage) {}),
	} {
		if got := why(s, before); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
