// Package debtest gets real packages for tests, by the apt of this machine.
package debtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var instLine = regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) .*\[(\S+)\]\)`)

// Fetch downloads packages with all that they depend on, nothing being installed, and
// returns the paths of the archives. They stay in the user's cache directory. Names may
// be patterns of apt. The test is skipped where apt is missing or cannot download.
func Fetch(t testing.TB, names ...string) []string {
	t.Helper()
	return FetchArch(t, "", names...)
}

// FetchArch does that for an architecture, by Debian's name; "" is this machine's.
// Packages of another one come without security updates, which not every one has.
func FetchArch(t testing.TB, arch string, names ...string) []string {
	t.Helper()
	return FetchSome(t, arch, nil, names...)
}

// FetchSome does that too, and leaves out all packages but those whose names match; nil
// matches each.
func FetchSome(t testing.TB, arch string, match *regexp.Regexp, names ...string) []string {
	t.Helper()
	if testing.Short() {
		t.Skip("downloads packages")
	}
	for _, p := range []string{"apt-get", "dpkg"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	dir := filepath.Join(cache, "osbuild-star-test", strings.TrimSuffix("apt-"+arch, "-"))
	for _, d := range []string{"etc/sources.list.d", "etc/preferences.d", "etc/apt.conf.d", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	sources(t, dir, arch == "")
	if err := os.WriteFile(filepath.Join(dir, "status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	opts := []string{"-qq", "-y"}
	for k, v := range map[string]string{
		"Dir::Etc": dir + "/etc", "Dir::Etc::Trusted": "/etc/apt/trusted.gpg", "Dir::Etc::TrustedParts": "/etc/apt/trusted.gpg.d",
		"Dir::State": dir + "/state", "Dir::State::status": dir + "/status", "Dir::Cache": dir + "/cache",
		"APT::Install-Recommends": "0", "APT::Architectures::": arch, "APT::Sandbox::User": "root", "APT::Keep-Downloaded-Packages": "1",
	} {
		if v != "" {
			opts = append(opts, "-o", k+"="+v)
		}
	}
	if arch != "" {
		opts = append(opts, "-o", "APT::Architecture="+arch)
	}
	apt := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("apt-get", append(opts, args...)...)
		cmd.Dir = filepath.Join(dir, "cache/archives") // where "download" puts them
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Skipf("apt-get %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	stamp := filepath.Join(dir, "updated")
	if st, err := os.Stat(stamp); err != nil || time.Since(st.ModTime()) > 24*time.Hour {
		apt("update")
		if err := os.WriteFile(stamp, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if match == nil {
		apt(append([]string{"--download-only", "install"}, names...)...)
	}
	archives := filepath.Join(dir, "cache/archives")
	var paths []string
	for _, m := range instLine.FindAllStringSubmatch(apt(append([]string{"-s", "-q=0", "install"}, names...)...), -1) {
		file := fmt.Sprintf("%s_%s_%s.deb", m[1], strings.ReplaceAll(m[2], ":", "%3a"), m[3])
		if match != nil {
			if !match.MatchString(m[1]) {
				continue
			}
			if _, err := os.Stat(filepath.Join(archives, file)); err != nil {
				apt("download", m[1]+"="+m[2])
			}
		}
		paths = append(paths, filepath.Join(archives, file))
	}
	if len(paths) == 0 {
		t.Fatalf("apt chose no packages for %v", names)
	}
	return paths
}

// stanzas are the parts of a file of sources.
var stanzas = regexp.MustCompile(`\n\s*\n`)

// sources gives apt the sources that this machine has for Debian itself.
func sources(t testing.TB, dir string, security bool) {
	t.Helper()
	found := false
	for from, to := range map[string]string{
		"/etc/apt/sources.list.d/debian.sources": "sources.list.d/debian.sources", "/etc/apt/sources.list": "sources.list",
	} {
		b, err := os.ReadFile(from)
		if err != nil {
			continue
		}
		found = true
		if !security {
			sep := "\n"
			if strings.HasSuffix(to, ".sources") {
				b, sep = stanzas.ReplaceAll(b, []byte("\x00")), "\x00"
			}
			parts := slices.DeleteFunc(strings.Split(string(b), sep), func(s string) bool { return strings.Contains(s, "security") })
			b = []byte(strings.Join(parts, strings.ReplaceAll(sep, "\x00", "\n\n")) + "\n")
		}
		if err := os.WriteFile(filepath.Join(dir, "etc", to), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Skip("apt has no sources of Debian here")
	}
}

// TempDir is a directory for trees: in memory where there is room, since what is
// tested writes tens of thousands of files.
func TempDir(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	var st unix.Statfs_t
	if unix.Statfs(memory, &st) != nil || st.Type != unix.TMPFS_MAGIC || st.Bavail*uint64(st.Bsize) < 8<<30 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "osbuild-star-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
