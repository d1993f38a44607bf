// The root directory of a build root: what of a tree is shown, by the rules of its
// architecture.
package buildroot

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// makeTree makes a tree: "dir/" a directory, "a -> b" a link, anything else a file.
func makeTree(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		name, target, isLink := strings.Cut(e, " -> ")
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, p)
		case strings.HasSuffix(e, "/"):
			err = os.MkdirAll(p, 0o755)
		default:
			err = os.WriteFile(p, []byte(name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newSpace(t testing.TB) *Space {
	t.Helper()
	needRoot(t)
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// look tells what is at p: "link to X", "dir", "dir, read-only", "file".
func look(p string) string {
	st, err := os.Lstat(p)
	switch {
	case err != nil:
		return "nothing"
	case st.Mode()&os.ModeSymlink != 0:
		to, _ := os.Readlink(p)
		return "link to " + to
	case st.IsDir():
		if unix.Access(p, unix.W_OK) == unix.EROFS {
			return "dir, read-only"
		}
		return "dir"
	}
	return "file"
}

func TestCompose(t *testing.T) {
	space := newSpace(t)
	merged := []string{"usr/bin/env", "usr/lib64/ld.so", "bin -> usr/bin", "sbin -> usr/sbin", "lib -> usr/lib"}
	with := func(more ...string) []string { return append(append([]string{}, merged...), more...) }
	for _, c := range []struct {
		name, arch string
		tree       []string
		boot       bool
		want       map[string]string
		err        string
	}{
		{name: "links stay links", arch: "x86_64", tree: with("lib64 -> usr/lib64"),
			want: map[string]string{"usr": "dir, read-only", "bin": "link to usr/bin", "sbin": "link to usr/sbin", "lib": "link to usr/lib", "lib64": "link to usr/lib64", "lib32": "nothing"}},
		{name: "absolute links too", arch: "x86_64", tree: []string{"usr/bin/env", "bin -> /usr/bin"},
			want: map[string]string{"bin": "link to /usr/bin", "lib64": "nothing"}},
		{name: "real directories", arch: "x86_64", tree: []string{"usr/bin/env", "bin/sh", "lib/x", "lib64/ld.so"},
			want: map[string]string{"bin": "dir, read-only", "lib": "dir, read-only", "lib64": "dir, read-only", "bin/sh": "file", "lib64/ld.so": "file", "sbin": "nothing"}},
		{name: "what is made", arch: "x86_64", tree: merged,
			want: map[string]string{"etc": "dir", "var": "dir", "tmp": "dir", "run": "dir", "proc": "dir", "sys": "dir", "dev": "dir", "root": "dir", "home": "nothing", "srv": "nothing"}},
		{name: "nothing else of the tree", arch: "x86_64", tree: with("etc/passwd", "home/x", "opt/y", "var/lib/z", "root/.ssh/key"),
			want: map[string]string{"etc/passwd": "nothing", "home": "nothing", "opt": "nothing", "var/lib": "nothing", "root/.ssh": "nothing"}},
		{name: "configuration of programs", arch: "x86_64", tree: with("etc/mke2fs.conf", "etc/selinux/config", "etc/containers/", "etc/alternatives -> ../usr/alt", "usr/alt/x -> /usr/bin/env", "usr/alt/README",
			"etc/ca-certificates.conf", "etc/pki/ca-trust/source/anchors/own.pem", "etc/pki/tls/private/key"),
			want: map[string]string{"etc/mke2fs.conf": "file", "etc/selinux": "dir, read-only", "etc/selinux/config": "file", "etc/containers": "dir, read-only",
				"etc/alternatives": "dir", "etc/alternatives/x": "link to /usr/bin/env", "etc/alternatives/README": "nothing",
				"etc/ca-certificates.conf": "file", "etc/pki/ca-trust/source": "dir, read-only", "etc/pki/ca-trust/source/anchors/own.pem": "file", "etc/pki/tls": "nothing"}},
		{name: "configuration that leads nowhere", arch: "x86_64", tree: with("etc/mke2fs.conf -> /nowhere", "etc/selinux -> ../../../../etc"),
			want: map[string]string{"etc/mke2fs.conf": "nothing", "etc/selinux/passwd": "nothing"}},
		{name: "boot when asked for", arch: "x86_64", boot: true, tree: with("boot/vmlinuz"), want: map[string]string{"boot": "dir, read-only", "boot/vmlinuz": "file"}},
		{name: "no boot of the host", arch: "x86_64", tree: with("boot/vmlinuz"), want: map[string]string{"boot": "nothing"}},

		{name: "lib64 absent: s390x", arch: "s390x", tree: merged, want: map[string]string{"lib64": "link to /usr/lib64"}},
		{name: "lib64 absent: ppc64le", arch: "ppc64le", tree: merged, want: map[string]string{"lib64": "link to /usr/lib64"}},
		{name: "lib64 absent: x86_64", arch: "x86_64", tree: merged, want: map[string]string{"lib64": "nothing"}},
		{name: "lib64 absent: aarch64", arch: "aarch64", tree: merged, want: map[string]string{"lib64": "nothing"}},
		{name: "lib64 absent: big-endian ppc64", arch: "ppc64", tree: merged, want: map[string]string{"lib64": "nothing"}},
		{name: "lib64 absent: not known", arch: "", tree: merged, want: map[string]string{"lib64": "nothing"}},
		{name: "lib64 real: s390x", arch: "s390x", tree: with("lib64/ld64.so.1"), want: map[string]string{"lib64": "dir, read-only", "lib64/ld64.so.1": "file"}},
		{name: "lib64 a link of its own: ppc64le", arch: "ppc64le", tree: with("lib64 -> usr/lib64"), want: map[string]string{"lib64": "link to usr/lib64"}},
		{name: "lib64 a link elsewhere: s390x", arch: "s390x", tree: with("lib64 -> /usr/lib/other", "usr/lib/other/"), want: map[string]string{"lib64": "link to /usr/lib/other"}},
		{name: "lib64 dangling: s390x", arch: "s390x", tree: with("lib64 -> /usr/nothing"), err: "/lib64 is a link to /usr/nothing, which leads nowhere; s390x programs need it"},
		{name: "lib64 dangling: ppc64le", arch: "ppc64le", tree: with("lib64 -> ../nowhere"), err: "/lib64 is a link to ../nowhere, which leads nowhere"},
		{name: "lib64 a link to itself: s390x", arch: "s390x", tree: with("lib64 -> lib64"), err: "leads nowhere"},
		{name: "lib64 a link to a file: s390x", arch: "s390x", tree: with("lib64 -> usr/bin/env"), err: "/lib64 is a link to usr/bin/env, which is no directory"},
		{name: "lib64 dangling: x86_64 does not mind", arch: "x86_64", tree: with("lib64 -> /usr/nothing"), want: map[string]string{"lib64": "link to /usr/nothing"}},
		{name: "lib64 a file", arch: "s390x", tree: with("lib64"), err: "/lib64 is neither a directory nor a link"},
		{name: "usr a file", arch: "x86_64", tree: []string{"usr"}, err: "/usr is neither a directory nor a link"},
		// A link means what it means inside the tree: the host's /usr/lib64 or
		// /etc is nothing to it.
		{name: "lib64 leads out of the tree: s390x", arch: "s390x", tree: []string{"usr/bin/env", "lib64 -> /etc"}, err: "leads nowhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree, dir := makeTree(t, c.tree...), t.TempDir()
			got := map[string]string{}
			err := space.Do(func() error {
				defer Unmount(dir)
				if err := compose(dir, tree, c.arch, c.boot); err != nil {
					return err
				}
				for p := range c.want {
					got[p] = look(filepath.Join(dir, p))
				}
				return nil
			})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if ents, err := os.ReadDir(dir); err != nil || len(ents) != 0 {
				t.Errorf("the mounts are seen outside of the Space: %v %v", ents, err)
			}
		})
	}
}

// elf is the beginning of a program for that machine.
func elf(machine uint16, big bool) []byte {
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	order := binary.ByteOrder(binary.LittleEndian)
	if big {
		b[5], order = 2, binary.BigEndian
	}
	order.PutUint16(b[16:], 2)
	order.PutUint16(b[18:], machine)
	return b
}

// elf32 is one of 32 bits.
func elf32(machine uint16) []byte {
	b := elf(machine, false)
	b[4] = 1
	return b
}

func TestArch(t *testing.T) {
	for _, c := range []struct {
		name   string
		header []byte
		want   string
	}{
		{"x86_64", elf(62, false), "x86_64"},
		{"aarch64", elf(183, false), "aarch64"},
		{"s390x", elf(22, true), "s390x"},
		{"ppc64le", elf(21, false), "ppc64le"},
		{"ppc64", elf(21, true), "ppc64"},
		{"riscv64", elf(243, false), "riscv64"},
		{"i686", elf32(3), "i686"},
		{"armv7hl", elf32(40), "armv7hl"},
		{"a machine of the other class", elf(3, false), ""},
		{"a machine that is not known", elf(1234, false), ""},
		{"s390x read the wrong way", elf(22<<8, false), ""},
		{"a script", []byte("#!/bin/sh\nexit 0 # long enough to hold a header\n"), ""},
		{"cut short", elf(62, false)[:19], ""},
		{"empty", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := makeTree(t, "usr/bin/")
			if err := os.WriteFile(filepath.Join(dir, "usr/bin/env"), c.header, 0o755); err != nil {
				t.Fatal(err)
			}
			if got := Arch(dir); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	t.Run("through links, inside the tree", func(t *testing.T) {
		dir := makeTree(t, "bin -> /usr/bin", "usr/bin/sh -> /opt/busybox", "opt/")
		if err := os.WriteFile(filepath.Join(dir, "opt/busybox"), elf(22, true), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := Arch(dir); got != "s390x" {
			t.Errorf("%q", got)
		}
	})
	t.Run("scripts are passed over", func(t *testing.T) {
		dir := makeTree(t, "usr/bin/env", "sbin/")
		if err := os.WriteFile(filepath.Join(dir, "sbin/init"), elf(183, false), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := Arch(dir); got != "aarch64" {
			t.Errorf("%q", got)
		}
	})
	t.Run("an empty tree", func(t *testing.T) {
		if got := Arch(t.TempDir()); got != "" {
			t.Errorf("%q", got)
		}
	})
}

func TestInRoot(t *testing.T) {
	dir := makeTree(t, "a/b/file", "up -> ../../../../a", "abs -> /a/b", "loop -> loop", "etc -> /etc")
	for p, want := range map[string]string{
		"a/b/file": "a/b/file", "/a/b/file": "a/b/file", "": "", "/": "", "up/b/file": "a/b/file", "abs/file": "a/b/file",
		"../../a/b": "a/b", "loop": "!", "etc/passwd": "!", "nothing": "!", "a/b/file/x": "!",
	} {
		got, err := InRoot(dir, p)
		if want == "!" {
			if err == nil {
				t.Errorf("%q is at %s", p, got)
			}
			continue
		}
		if err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%q: %q, %v", p, got, err)
		}
	}
}

func FuzzElfArch(f *testing.F) {
	f.Add(elf(62, false))
	f.Add(elf(22, true))
	f.Add([]byte("\x7fELF"))
	f.Add([]byte("#!"))
	p := filepath.Join(f.TempDir(), "f")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if arch := elfArch(p); arch != "" && (len(b) < 20 || string(b[:4]) != "\x7fELF") {
			t.Errorf("%q is for %s", b, arch)
		}
	})
}
