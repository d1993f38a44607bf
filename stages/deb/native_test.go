package deb

import (
	"testing"
)

// linux-base is in Perl, asks uname for the machine and makes another link on ppc64el:
// the native Perl would answer for this machine.
func TestNativePerl(t *testing.T) {
	tr, err := openTree("/")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	db, err := readDatabase(tr)
	if err != nil || len(db.entries) == 0 {
		t.Skipf("this machine has no packages of Debian: %v", err)
	}
	versions := map[string]string{}
	for _, e := range db.entries {
		versions[e.name] = e.version
	}
	for arch, want := range map[string]bool{"s390x": true, "arm64": true, "riscv64": true, "ppc64el": false, "powerpc": false, "mips64el": false} {
		n, err := makeNatives("/", t.TempDir(), arch, versions)
		if err != nil {
			t.Fatal(err)
		}
		if n == nil {
			t.Skip("this machine has no programs that can be started elsewhere")
		}
		if _, dash := n.files["dash"]; !dash {
			t.Errorf("%s: no dash", arch)
		}
		if _, got := n.files["perl"]; got != want {
			t.Errorf("%s: a native Perl: %v, want %v", arch, got, want)
		}
	}
}
