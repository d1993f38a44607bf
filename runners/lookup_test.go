// Names: which runner serves which system.
package runners

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLookup(t *testing.T) {
	for name, want := range map[string]string{
		"org.osbuild.rhel82":        "org.osbuild.rhel82",
		"rhel82":                    "org.osbuild.rhel82",
		"rhel84":                    "org.osbuild.rhel82", // the newest older one
		"rhel81":                    "org.osbuild.rhel81",
		"rhel7":                     "org.osbuild.rhel7",
		"rhel79":                    "org.osbuild.rhel7",
		"rhel94":                    "org.osbuild.rhel90",
		"rhel100":                   "org.osbuild.rhel100",
		"rhel101":                   "org.osbuild.rhel100",
		"rhel810":                   "org.osbuild.rhel810", // 8.10 is older than 10.0
		"rhel910":                   "org.osbuild.rhel910",
		"org.osbuild.fedora41":      "org.osbuild.fedora38",
		"fedora37":                  "org.osbuild.fedora30",
		"debian":                    "org.osbuild.debian",
		"debian12":                  "org.osbuild.debian",
		"ubuntu2404":                "org.osbuild.ubuntu1804",
		"centos10":                  "org.osbuild.centos9",
		"almalinux8":                "org.osbuild.almalinux8",
		"almalinux89":               "org.osbuild.almalinux80",
		"almalinux810":              "org.osbuild.almalinux810",
		"almalinux95":               "org.osbuild.almalinux90",
		"rocky810":                  "org.osbuild.rocky810",
		"rocky100":                  "org.osbuild.rocky100",
		"ol89":                      "org.osbuild.ol80",
		"ol9":                       "org.osbuild.ol9",
		"arch":                      "org.osbuild.arch",
		"linux":                     "org.osbuild.linux",
		"linux7":                    "org.osbuild.linux",
		"fedora-asahi-remix42":      "org.osbuild.fedora-asahi-remix",
		"org.osbuild.eln11":         "org.osbuild.eln11",
		"org.osbuild.rhivos1":       "org.osbuild.rhivos",
		"org.osbuild.archlinux":     "org.osbuild.archlinux",
		"org.osbuild.rhel82 ":       "",
		"org.osbuild.org.osbuild.x": "",
	} {
		r, err := Lookup(name)
		switch {
		case want == "" && err == nil:
			t.Errorf("Lookup(%q) found %s", name, r.Name)
		case want != "" && (err != nil || r.Name != want):
			t.Errorf("Lookup(%q): %+v %v, want %s", name, r, err, want)
		}
	}
}

// Every name that upstream osbuild has a runner for is known, also the versions after.
func TestUpstreamNames(t *testing.T) {
	for _, name := range []string{
		"AutoSD9", "AutoSD10", "almalinux8", "almalinux9", "arch", "asahi-fedora-remix", "autosd", "centos8", "centos9", "debian", "eln11",
		"fedora-asahi-remix", "fedora30", "fedora38", "linux", "ol9", "rhel7", "rhel81", "rhel82", "rhivos", "ubuntu1804",
	} {
		if r, err := Lookup("org.osbuild." + name); err != nil {
			t.Errorf("%v %v", r, err)
		}
	}
}

// qemu-img of RHEL 8 on aarch64, and nothing else, is told to use one coroutine.
func TestEnv(t *testing.T) {
	for _, c := range []struct {
		runner, arch string
		want         []string
	}{
		{"rhel82", "aarch64", []string{"OSBUILD_QEMU_IMG_COROUTINES=1"}}, {"rhel89", "aarch64", []string{"OSBUILD_QEMU_IMG_COROUTINES=1"}},
		{"almalinux8", "aarch64", []string{"OSBUILD_QEMU_IMG_COROUTINES=1"}}, {"centos8", "aarch64", []string{"OSBUILD_QEMU_IMG_COROUTINES=1"}},
		{"rhel82", "x86_64", nil}, {"rhel81", "aarch64", nil}, {"rhel90", "aarch64", nil}, {"fedora40", "aarch64", nil}, {"debian12", "aarch64", nil},
	} {
		r, err := Lookup(c.runner)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, r.Env(c.arch)); diff != "" {
			t.Errorf("%s on %s (-want +got):\n%s", c.runner, c.arch, diff)
		}
	}
}

// Systems of one major version are set up alike, however their names sort.
func TestMinorVersions(t *testing.T) {
	steps := func(name string) int {
		r, err := Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return len(r.steps)
	}
	for _, family := range []string{"rhel", "almalinux", "rocky", "ol"} {
		for _, c := range []struct {
			version string
			python  bool // of the platform
		}{{"8.4", true}, {"8.9", true}, {"8.10", true}, {"9.0", false}, {"9.5", false}, {"9.10", false}, {"10.0", false}, {"10.1", false}, {"10.10", false}} {
			r, err := Lookup(fromOSRelease([]byte("ID=" + family + "\nVERSION_ID=\"" + c.version + "\"\n")))
			if err != nil {
				t.Fatal(err)
			}
			if got := linksPlatformPython(t, r); got != c.python {
				t.Errorf("%s %s is served by %s: platform python %v, want %v", family, c.version, r.Name, got, c.python)
			}
		}
	}
	if steps("debian12") == steps("fedora40") {
		t.Error("the steps of all systems are the same")
	}
}

// linksPlatformPython runs a runner on a tree that has nothing but that Python.
func linksPlatformPython(t *testing.T, r *Runner) bool {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "usr/libexec/platform-python", "")
	write(t, dir, "etc/.keep", "")
	if err := r.Prepare(context.Background(), Root{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	_, err := os.Lstat(filepath.Join(dir, "etc/alternatives/python3"))
	return err == nil
}

func TestUnknown(t *testing.T) {
	for _, c := range []struct {
		name string
		want []string // known names that the error lists, all of them
	}{
		{"fedora29", []string{"fedora30", "fedora38"}},
		{"ubuntu", []string{"ubuntu1804"}},
		{"centos7", []string{"centos8", "centos9"}},
		{"ubuntu99999999999999999999", []string{"ubuntu1804"}},
	} {
		_, err := Lookup(c.name)
		var ue *UnknownError
		if !errors.As(err, &ue) {
			t.Fatalf("Lookup(%q): %v", c.name, err)
		}
		if diff := cmp.Diff(&UnknownError{c.name, c.want}, ue); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if !strings.Contains(err.Error(), c.name) || !strings.Contains(err.Error(), c.want[0]) {
			t.Errorf("message: %v", err)
		}
	}
	for _, name := range []string{"", "plan9", "org.osbuild.", "12", "ünïx"} {
		_, err := Lookup(name)
		var ue *UnknownError
		if !errors.As(err, &ue) || len(ue.Known) != len(All()) || !slices.IsSorted(ue.Known) {
			t.Errorf("Lookup(%q): %v", name, err)
		}
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range All() {
		if seen[r.Name] {
			t.Errorf("%s is there twice", r.Name)
		}
		seen[r.Name] = true
		if r.Doc == "" || r.Revision < 1 || len(r.steps) == 0 {
			t.Errorf("incomplete: %+v", r)
		}
		if got, err := Lookup(r.Name); err != nil || got.Name != r.Name {
			t.Errorf("Lookup(%q) finds %v, %v", r.Name, got, err)
		}
		if got, err := Lookup(r.short()); err != nil || got.Name != r.Name {
			t.Errorf("Lookup(%q) finds %v, %v", r.short(), got, err)
		}
	}
	if !slices.IsSortedFunc(All(), func(a, b *Runner) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("All is not sorted")
	}
}

func TestFullName(t *testing.T) {
	for in, want := range map[string]string{"rhel82": "org.osbuild.rhel82", "org.osbuild.rhel82": "org.osbuild.rhel82", "com.example.x": "com.example.x"} {
		if got := FullName(in); got != want {
			t.Errorf("FullName(%q) = %q", in, got)
		}
	}
}

func TestFromOSRelease(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"debian", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n", "debian12"},
		{"dots", "ID=ubuntu\nVERSION_ID=\"24.04\"", "ubuntu2404"},
		{"single quotes", "ID='fedora'\nVERSION_ID='40'\n", "fedora40"},
		{"quoted ID", "ID=\"rhel\"\nVERSION_ID=\"8.10\"\n", "rhel810"},
		{"no version", "ID=arch\nBUILD_ID=rolling\n", "arch"},
		{"empty version", "ID=arch\nVERSION_ID=\n", "arch"},
		{"no ID", "NAME=x\nVERSION_ID=3\n", "linux3"},
		{"empty", "", "linux"},
		{"comments, blanks, no newline", "# ID=no\n\n  ID=debian  \nVERSION_ID=13", "debian13"},
		{"carriage returns", "ID=debian\r\nVERSION_ID=13\r\n", "debian13"},
		{"alike names", "VARIANT_ID=server\nID_LIKE=\"rhel fedora\"\nID=\"centos\"\nVERSION_ID=\"9\"\n", "centos9"},
		{"dashes", "ID=fedora-asahi-remix\nVERSION_ID=42\n", "fedora-asahi-remix42"},
		{"empty ID", "ID=\n", "linux"},
	} {
		if got := fromOSRelease([]byte(c.text)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestHost(t *testing.T) {
	dir := t.TempDir()
	if got := Host(dir); got != "org.osbuild.linux" {
		t.Errorf("of nothing: %s", got)
	}
	write(t, dir, "usr/lib/os-release", "ID=fedora\nVERSION_ID=40\n")
	if got := Host(dir); got != "org.osbuild.fedora40" {
		t.Errorf("of usr: %s", got)
	}
	write(t, dir, "etc/os-release", "ID=debian\nVERSION_ID=12\n")
	if got := Host(dir); got != "org.osbuild.debian12" {
		t.Errorf("of etc, which goes first: %s", got)
	}
	if _, err := Lookup(Host("/")); err != nil {
		t.Logf("this host: %v", err)
	}
}

func FuzzFromOSRelease(f *testing.F) {
	for _, s := range []string{"ID=debian\nVERSION_ID=\"12\"", "ID='a b'\n", "ID=\"\n=\n\n\xff", "VERSION_ID=99999999999999999999\nID=rhel", "ID=-1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		name := fromOSRelease(b)
		if name == "" || strings.Contains(name, "\n") {
			t.Errorf("%q gives %q", b, name)
		}
		r, err := Lookup(name)
		if (r == nil) == (err == nil) {
			t.Errorf("%q: %v and %v", name, r, err)
		}
	})
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"rhel82", "linux", "", "12", "a1b2", "x00012", "x99999999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		family, version := split(name)
		if !strings.HasPrefix(name, family) || version < 0 {
			t.Fatalf("split(%q) = %q, %d", name, family, version)
		}
		digits := name[len(family):]
		if strings.Trim(digits, "0123456789") != "" || family != "" && strings.ContainsRune("0123456789", rune(family[len(family)-1])) {
			t.Errorf("split(%q) = %q, %d: digits %q", name, family, version, digits)
		}
	})
}
