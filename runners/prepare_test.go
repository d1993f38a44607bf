// Preparing: each step is seen by its effect in a temporary root. The programs
// that runners start are this test program, started again inside that root.
package runners

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Started by one of these names the test program notes how, and does what a file
// in /plan says.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); name {
	case "ldconfig", "ldconfig.real", "systemd-sysusers", "systemd-tmpfiles":
		os.Exit(fake(name))
	}
	os.Exit(m.Run())
}

func fake(name string) int {
	f, err := os.OpenFile("/calls", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 100
	}
	defer f.Close()
	line := strings.Join(os.Args, " ")
	if id, err := os.ReadFile("/etc/machine-id"); err == nil {
		line += " id=" + strings.TrimSpace(string(id))
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		return 100
	}
	switch plan, _ := os.ReadFile("/plan/" + name); string(plan) {
	case "fail":
		os.Stderr.WriteString(name + " is not happy\n")
		return 65
	case "factory": // as systemd-tmpfiles does for files of /usr/share/factory
		if os.WriteFile("/etc/nsswitch.conf", []byte("hosts: resolve\n"), 0o644) != nil {
			return 101
		}
	}
	return 0
}

// newRoot makes a root with the fake programs in it, each where a name says.
func newRoot(t *testing.T, programs ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for chroot")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, p := range programs {
		to := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if os.Link(self, to) == nil {
			continue
		}
		b, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func prepare(t *testing.T, name, dir string) (log string, err error) {
	t.Helper()
	r, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	// A file, as in the agent: a program that stays behind holds nothing up.
	out, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	err = r.Prepare(context.Background(), Root{Dir: dir, Arch: "x86_64", Log: out})
	if _, serr := out.Seek(0, io.SeekStart); serr != nil {
		t.Fatal(serr)
	}
	b, rerr := io.ReadAll(out)
	if rerr != nil {
		t.Fatal(rerr)
	}
	return string(b), err
}

// tree lists what is below dir, but not the programs: files by mode and content,
// links by where they lead.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch {
		case d.IsDir():
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			out[rel] = "-> " + to
		default:
			st, err := d.Info()
			if err != nil || st.Size() > 1<<20 {
				return err
			}
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			first, _, _ := strings.Cut(string(b), "\n")
			out[rel] = st.Mode().Perm().String() + " " + first
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var (
	wantAccounts = map[string]string{
		"etc/passwd":  "-rw-r--r-- root:x:0:0:root:/root:/bin/sh",
		"etc/group":   "-rw-r--r-- root:x:0:",
		"etc/shadow":  "-rw------- root:*:19000:0:99999:7:::",
		"etc/gshadow": "-rw------- root:*::",
	}
	calls      = "-rw-r--r-- /usr/sbin/ldconfig"
	wantLinked = with(wantAccounts, "etc/ld.so.conf", "-rw-r--r-- ", "calls", calls)
)

func with(a map[string]string, more ...string) map[string]string {
	out := map[string]string{}
	for k, v := range a {
		out[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

func TestPrepare(t *testing.T) {
	all := []string{"usr/sbin/ldconfig", "usr/bin/systemd-sysusers", "usr/bin/systemd-tmpfiles"}
	tmpfilesArgs := "/usr/bin/systemd-tmpfiles --create --exclude-prefix=/dev --exclude-prefix=/proc --exclude-prefix=/sys --exclude-prefix=/run/osbuild"
	const id, id1 = " id=ffffffffffffffffffffffffffffffff", " id=00000000000000000000000000000001"
	for _, c := range []struct {
		name, runner string
		programs     []string
		files        map[string]string // in the tree before
		want         map[string]string // afterwards, without the files from before
		calls        []string
		log          string
	}{
		{name: "accounts only", runner: "linux", programs: all, want: wantAccounts},
		{name: "accounts that are there stay", runner: "linux", files: map[string]string{"etc/passwd": "mine\n"},
			want: with(wantAccounts, "etc/passwd", "-rw-r--r-- mine")},
		{name: "debian", runner: "debian12", programs: all, want: wantLinked,
			calls: []string{"/usr/sbin/ldconfig", "/usr/bin/systemd-sysusers", tmpfilesArgs}},
		{name: "fedora has a machine ID for systemd-tmpfiles", runner: "fedora30", programs: all, want: wantLinked,
			calls: []string{"/usr/sbin/ldconfig", "/usr/bin/systemd-sysusers", tmpfilesArgs + id}},
		{name: "a machine ID that is there stays", runner: "rhel90", programs: all, files: map[string]string{"etc/machine-id": "00000000000000000000000000000001\n"},
			want:  with(wantLinked, "calls", calls+id1, "etc/machine-id", "-rw-r--r-- 00000000000000000000000000000001"),
			calls: []string{"/usr/sbin/ldconfig" + id1, "/usr/bin/systemd-sysusers" + id1, tmpfilesArgs + id1}},
		{name: "ldconfig that is a script, and what it is around", runner: "ubuntu2404", programs: []string{"usr/sbin/ldconfig.real"},
			files: map[string]string{"usr/sbin/ldconfig": "#!/no/sh\n"},
			want:  with(wantLinked, "calls", "-rw-r--r-- /usr/sbin/ldconfig.real"), calls: []string{"/usr/sbin/ldconfig.real"}},
		{name: "a script without its interpreter", runner: "debian12", files: map[string]string{"usr/sbin/ldconfig": "#!/no/sh\n"},
			want: with(wantAccounts, "etc/ld.so.conf", "-rw-r--r-- ")},
		{name: "the linker's configuration stays", runner: "debian12", programs: all[:1], files: map[string]string{"etc/ld.so.conf": "/opt/lib\n"},
			want: with(wantLinked, "etc/ld.so.conf", "-rw-r--r-- /opt/lib"), calls: []string{"/usr/sbin/ldconfig"}},
		{name: "a tree without the programs", runner: "fedora38", want: wantAccounts},
		{name: "programs in other places", runner: "debian12", programs: []string{"sbin/ldconfig", "bin/systemd-sysusers"},
			want: with(wantLinked, "calls", "-rw-r--r-- /sbin/ldconfig"), calls: []string{"/sbin/ldconfig", "/bin/systemd-sysusers"}},
		{name: "sysusers and tmpfiles may fail", runner: "debian12", programs: all,
			files: map[string]string{"plan/systemd-sysusers": "fail", "plan/systemd-tmpfiles": "fail"},
			want:  wantLinked, calls: []string{"/usr/sbin/ldconfig", "/usr/bin/systemd-sysusers", tmpfilesArgs},
			log: "systemd-sysusers is not happy\nsystemd-tmpfiles is not happy\n"},
		{name: "the factory's name service switch is dropped", runner: "debian12", programs: all,
			files: map[string]string{"plan/systemd-tmpfiles": "factory"},
			want:  wantLinked, calls: []string{"/usr/sbin/ldconfig", "/usr/bin/systemd-sysusers", tmpfilesArgs}},
		{name: "crypto policies", runner: "centos9", files: map[string]string{
			"usr/share/crypto-policies/back-ends/DEFAULT/opensslcnf.config": "", "usr/share/crypto-policies/back-ends/DEFAULT/README": "",
			"usr/share/crypto-policies/DEFAULT/opensslcnf.txt": "", "usr/share/crypto-policies/DEFAULT/nss.txt": ""},
			want: with(wantAccounts,
				"etc/crypto-policies/back-ends/opensslcnf.config", "-> /usr/share/crypto-policies/back-ends/DEFAULT/opensslcnf.config",
				"etc/crypto-policies/back-ends/nss.config", "-> /usr/share/crypto-policies/DEFAULT/nss.txt")},
		{name: "crypto policies of rhel 8.2", runner: "rhel82", files: map[string]string{"usr/share/crypto-policies/back-ends/DEFAULT/gnutls.config": ""},
			want: with(wantAccounts, "etc/crypto-policies/back-ends/gnutls.config", "-> /usr/share/crypto-policies/back-ends/DEFAULT/gnutls.config")},
		{name: "no crypto policies on older ones", runner: "fedora30", files: map[string]string{
			"usr/share/crypto-policies/back-ends/DEFAULT/opensslcnf.config": ""}, want: wantAccounts},
		{name: "rhel 8.1 has no os-release of its own", runner: "rhel81", want: with(wantAccounts, "etc/os-release", "-rw-r--r-- NAME=\"Red Hat Enterprise Linux\"")},
		{name: "rhel 8.1 where there is one", runner: "rhel81", files: map[string]string{"usr/lib/os-release": "ID=rhel"}, want: wantAccounts},
		{name: "a python of the tree's own choice", runner: "rhel84", files: map[string]string{"usr/bin/python3.6": "", "etc/alternatives/python3": "mine"},
			want: with(wantAccounts, "etc/alternatives/python3", "-rw-r--r-- mine")},
		{name: "platform python", runner: "rhel84", files: map[string]string{"usr/libexec/platform-python": ""},
			want: with(wantAccounts, "etc/alternatives/python3", "-> /usr/libexec/platform-python")},
		{name: "python 3.6 goes first", runner: "rhel84", files: map[string]string{"usr/bin/python3.6": "", "usr/libexec/platform-python": ""},
			want: with(wantAccounts, "etc/alternatives/python3", "-> /usr/bin/python3.6")},
		{name: "rhel 7 has no systemd-sysusers", runner: "rhel7", programs: all,
			want: with(wantLinked, "etc/ld.so.conf", "-rw-r--r-- /usr/lib64/iscsi"), calls: []string{"/usr/sbin/ldconfig"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := newRoot(t, c.programs...)
			for name, text := range c.files {
				if p := write(t, dir, name, text); strings.HasPrefix(text, "#!") {
					if err := os.Chmod(p, 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			log, err := prepare(t, c.runner, dir)
			if err != nil {
				t.Fatal(err)
			}
			got := tree(t, dir)
			for name := range c.files {
				if _, ok := c.want[name]; !ok {
					delete(got, name)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			b, _ := os.ReadFile(filepath.Join(dir, "calls"))
			if diff := cmp.Diff(strings.Join(append(c.calls, ""), "\n"), string(b)); diff != "" && len(c.calls) > 0 {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if log != c.log {
				t.Errorf("log %q, want %q", log, c.log)
			}
		})
	}
}

// A linker's cache that cannot be made is an error: programs would not find their
// libraries, and say something else.
func TestLdconfigFails(t *testing.T) {
	dir := newRoot(t, "usr/sbin/ldconfig")
	write(t, dir, "plan/ldconfig", "fail")
	log, err := prepare(t, "debian12", dir)
	if err == nil || !strings.Contains(err.Error(), "ldconfig: exit status 65") || !strings.Contains(log, "not happy") {
		t.Errorf("error %v, log %q", err, log)
	}
}

func TestNotAProgram(t *testing.T) {
	dir := newRoot(t)
	p := write(t, dir, "usr/sbin/ldconfig", "no program")
	if _, err := prepare(t, "debian12", dir); err != nil {
		t.Errorf("a file that cannot be executed: %v", err)
	}
	if err := os.Chmod(p, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(t, "debian12", dir); err == nil || !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("a file that is no program: %v", err)
	}
}

// What is cancelled is not taken for a failure that does not matter.
func TestPrepareCancelled(t *testing.T) {
	dir := newRoot(t, "usr/bin/systemd-sysusers")
	r, err := Lookup("debian12")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Prepare(ctx, Root{Dir: dir, Log: &bytes.Buffer{}}); err == nil {
		t.Error("no error")
	}
}

// A tree that is prepared already is no obstacle.
func TestPrepareTwice(t *testing.T) {
	dir := newRoot(t, "usr/sbin/ldconfig")
	write(t, dir, "usr/share/crypto-policies/back-ends/DEFAULT/a.config", "")
	for range 2 {
		if _, err := prepare(t, "rhel90", dir); err != nil {
			t.Fatal(err)
		}
	}
}
