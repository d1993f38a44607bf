// Helpers of the tests: small packages made by dpkg-deb, and comparing trees.
package deb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// item is a file of a package that a test makes.
type item struct {
	path  string
	mode  uint32 // with the type, S_IFREG for none
	data  string // content, or target of a link
	owner [2]int
}

const (
	isDir  = unix.S_IFDIR
	isLink = unix.S_IFLNK
	isHard = 1 << 30
)

// testDeb is a package that a test makes.
type testDeb struct {
	name, version, arch string
	fields              string            // more lines of control
	control             map[string]string // more control files
	items               []item
	compress            string // of dpkg-deb
}

var oldTime = time.Unix(1600000000, 0)

// needRoot skips a test that makes devices, owners and mounts.
func needRoot(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SOURCE_DATE_EPOCH=1600000000", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// build makes the package and returns the path of its archive.
func (d testDeb) build(t *testing.T, dir string) string {
	t.Helper()
	if d.version == "" {
		d.version = "1.0"
	}
	if d.arch == "" {
		d.arch = hostArch(t)
	}
	root := t.TempDir()
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\n%sMaintainer: A Tester <tester@example.org>\nDescription: package of a test\n It has two lines.\n",
		d.name, d.version, d.arch, d.fields)
	must(t, os.Mkdir(filepath.Join(root, "DEBIAN"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o644))
	for name, text := range d.control {
		mode := os.FileMode(0o644)
		if isScript(name) || name == "config" {
			mode = 0o755
		}
		must(t, os.WriteFile(filepath.Join(root, "DEBIAN", name), []byte(text), mode))
	}
	for _, it := range d.items {
		p := filepath.Join(root, it.path)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		perm := it.mode & 0o7777
		switch it.mode &^ 0o7777 {
		case isDir:
			must(t, os.MkdirAll(p, 0o755))
		case isLink:
			must(t, os.Symlink(it.data, p))
		case isHard:
			must(t, os.Link(filepath.Join(root, it.data), p))
			continue
		case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
			must(t, unix.Mknod(p, it.mode, int(unix.Mkdev(1, 7))))
		default:
			must(t, os.WriteFile(p, []byte(it.data), 0o644))
		}
		must(t, os.Lchown(p, it.owner[0], it.owner[1]))
		if it.mode&^0o7777 != isLink {
			must(t, unix.Chmod(p, perm))
		}
	}
	must(t, filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ts := []unix.Timespec{unix.NsecToTimespec(oldTime.UnixNano()), unix.NsecToTimespec(oldTime.UnixNano())}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	}))
	if d.compress == "" {
		d.compress = "gzip"
	}
	out := filepath.Join(dir, fmt.Sprintf("%s_%s_%s.deb", d.name, strings.ReplaceAll(d.version, ":", "%3a"), d.arch))
	run(t, "dpkg-deb", "-Z"+d.compress, "--build", root, out)
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hostArch(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, "dpkg", "--print-architecture"))
}

// snapshot describes every file of a tree: path → type, mode, owner, content or
// target, links, and the time of all but directories that have something in them.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(p, root)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		s := fmt.Sprintf("%06o %d:%d", st.Mode, st.Uid, st.Gid)
		timed := true
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %d %x", st.Size, sha256.Sum256(b))
			if st.Size < 400 && !bytes.ContainsAny(b, "\x00") {
				s += fmt.Sprintf(" %q", b)
			}
			if st.Nlink > 1 {
				if inodes[st.Ino] == "" {
					inodes[st.Ino] = rel
				}
				s += " linked:" + inodes[st.Ino]
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + to
		case unix.S_IFDIR:
			names, err := os.ReadDir(p)
			if err != nil {
				return err
			}
			timed = len(names) == 0
		case unix.S_IFCHR, unix.S_IFBLK:
			s += fmt.Sprintf(" %x", st.Rdev)
		}
		// What is new has the time of the test, which says nothing.
		if timed && time.Since(time.Unix(st.Mtim.Unix())) > time.Hour {
			s += fmt.Sprintf(" @%d", st.Mtim.Sec)
		}
		if rel != "" {
			out[rel] = s
		}
		return nil
	})
	must(t, err)
	return out
}

// forget leaves out paths that match patterns of path/filepath, or are below them.
func forget(snap map[string]string, patterns ...string) map[string]string {
	for p := range snap {
		if slices.ContainsFunc(patterns, func(pat string) bool {
			for q := p; q != "/"; q = filepath.Dir(q) {
				if ok, _ := filepath.Match(pat, q); ok {
					return true
				}
			}
			return false
		}) {
			delete(snap, p)
		}
	}
	return snap
}

// install runs Install, and fails the test if that fails.
func install(t *testing.T, c Config) *Result {
	t.Helper()
	var log bytes.Buffer
	if c.Log == nil {
		c.Log = &log
	}
	r, err := Install(context.Background(), c)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	if n := mountsBelow(t, c.Tree); len(n) > 0 {
		t.Errorf("mounts were left: %v", n)
	}
	return r
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4]+"/", dir+"/") {
			out = append(out, f[4])
		}
	}
	return out
}

// pieces is a source of given pieces.
type pieces struct {
	list [][]byte
	end  error
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.list) == 0 {
		return nil, p.end
	}
	b := p.list[0]
	p.list = p.list[1:]
	return b, nil
}

var errTest = errors.New("an error of the test")
