// What a built image must not have: traces of the machine and of the day that it was
// made on, and what a system makes for itself when it starts first.
package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// forbidden are paths that no image has, but as it is said. Backups of the databases of
// accounts, /etc/passwd- and so on, are there: org.osbuild.users makes them, as upstream's.
var forbidden = []struct {
	pattern string // of path.Match
	empty   bool   // it may be there, empty
	why     string
}{
	{"/etc/machine-id", true, "the identity of one machine"},
	{"/var/lib/dbus/machine-id", false, "likewise"},
	{"/etc/ssh/ssh_host_*", false, "keys of one machine"},
	{"/var/lib/systemd/random-seed", false, "a seed that all machines would share"},
	{"/var/lib/systemd/credential.secret", false, "a secret of one machine"},
	{"/var/lib/systemd/timers/*", false, "when timers ran last"},
	{"/etc/ssl/private/*", false, "keys of one machine"},
	{"/etc/.pwd.lock", true, "a lock"},
	{"/etc/resolv.conf", true, "of the network that it was built in"},
	{"/etc/mailname", false, "of the machine that it was built on"},
	{"/var/cache/ldconfig/*", false, "inodes and times of libraries"},
	{"/var/cache/apt/*.bin", false, "a cache"}, {"/var/cache/apt/archives/*.deb", false, "a cache"},
	{"/var/cache/debconf/*-old", false, "a backup"}, {"/var/cache/debconf/passwords.dat", true, "answers to questions for passwords"},
	{"/var/cache/man/*", false, "a cache with times"}, {"/var/cache/fontconfig/*", false, "a cache with times"},
	{"/var/lib/apt/lists/*_*", false, "indexes of one day"},
	{"/var/lib/dpkg/*-old", false, "a backup"}, {"/var/lib/dpkg/lock*", false, "a lock"}, {"/var/lib/dpkg/triggers/Lock", false, "a lock"},
	{"/var/backups/*", false, "a backup"},
	{"/root/.*_history", false, "a history"}, {"/root/.wget-hsts", false, "a history"},
	{"/boot/grub/grubenv", false, "what GRUB notes at each start"},
}

// lsImage lists a root file system: type, mode, size, time, and then the path; and then
// what the shell commands print in it.
const lsImage = `
set -e
cd "$1"
qemu-img convert -O raw "$2" disk.raw
mkdir root
mount -o ro,noload,loop,offset=$(($(sfdisk -l -o start disk.raw | tail -1) * 512)) disk.raw root
cd root
find . -xdev -printf '%y %s %T@ %P\n'
echo
cut -d: -f1,3 etc/shadow
echo
grep -rlaE "$3" etc var boot/grub || true
`

// TestNothingOfTheMachine looks at an image that was built: OSBUILD_STAR_TEST_IMAGE.
func TestNothingOfTheMachine(t *testing.T) {
	image := os.Getenv("OSBUILD_STAR_TEST_IMAGE")
	if image == "" {
		t.Skip("missing: an image of Debian; name one by OSBUILD_STAR_TEST_IMAGE")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	module, err := os.ReadFile("../../MODULE.star")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`source_epoch = (\d+)`).FindSubmatch(module)
	if found == nil {
		t.Fatal("MODULE.star has no source epoch")
	}
	epoch, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	image, err = filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	traces := []string{"osbuild-star-run", "/run/osbuild", "/var/cache/osbuild-star"}
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 30 {
		traces = append(traces, string(bytes.TrimSpace(id)))
	}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		traces = append(traces, string(bytes.TrimSpace(b)))
	}
	out, err := exec.Command("unshare", "--mount", "sh", "-c", lsImage, "sh", t.TempDir(), image, strings.Join(traces, "|")).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, rest, _ := strings.Cut(string(out), "\n\n")
	shadow, mentions, _ := strings.Cut(rest, "\n\n")
	n := 0
	for s := bufio.NewScanner(strings.NewReader(files)); s.Scan(); n++ {
		f := strings.SplitN(s.Text(), " ", 4)
		kind, size, file := f[0], f[1], "/"+f[3]
		sec, _, _ := strings.Cut(f[2], ".")
		if at, err := strconv.ParseInt(sec, 10, 64); err != nil || at > epoch {
			t.Errorf("%s has the time %s, after the source epoch", file, f[2])
		}
		for _, no := range forbidden {
			if ok, _ := path.Match(no.pattern, file); ok && kind == "f" && !(no.empty && size == "0") {
				t.Errorf("%s is there, with %s bytes: %s", file, size, no.why)
			}
		}
		switch {
		case kind == "f" && size != "0" && strings.HasPrefix(file, "/var/log/"):
			t.Errorf("a log: %s", file)
		case kind != "d" && (strings.HasPrefix(file, "/tmp/") || strings.HasPrefix(file, "/var/tmp/") || strings.HasPrefix(file, "/run/")):
			t.Errorf("a file of what was running: %s", file)
		case strings.HasSuffix(file, ".dpkg-new") || strings.HasSuffix(file, ".dpkg-tmp") || strings.HasSuffix(file, ".dpkg-dist"):
			t.Errorf("what dpkg had on the way: %s", file)
		}
	}
	if n < 5000 {
		t.Errorf("only %d files", n)
	}
	for line := range strings.Lines(shadow) {
		user, day, _ := strings.Cut(strings.TrimSpace(line), ":")
		if day != strconv.FormatInt(epoch/86400, 10) {
			t.Errorf("the password of %s was changed on day %q, which is not that of the source epoch", user, day)
		}
	}
	for line := range strings.Lines(mentions) {
		t.Errorf("it speaks of the machine or of the build: /%s", line)
	}
}
