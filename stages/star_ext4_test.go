package stages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// imageTree makes the input "tree": files of many kinds.
func imageTree(t *testing.T, c *Context) string {
	t.Helper()
	dir := filepath.Join(c.Paths.Inputs, "tree")
	files := map[string]string{
		"etc/hosts": "127.0.0.1 localhost\n", "usr/bin/tool": strings.Repeat("x", 70000), "empty": "",
		"boot/efi/EFI/BOOT/BOOTX64.EFI": "efi\n", "var/log/old": "log\n",
	}
	for i := range 300 {
		files[fmt.Sprintf("usr/share/many/file-%03d", i)] = fmt.Sprintln(i)
	}
	writeTree(t, dir, files)
	for _, err := range []error{
		os.Symlink("../bin/tool", filepath.Join(dir, "usr/share/link")),
		os.Symlink("/"+strings.Repeat("long/", 40), filepath.Join(dir, "usr/share/longlink")),
		os.Link(filepath.Join(dir, "etc/hosts"), filepath.Join(dir, "etc/hosts2")),
		os.Chmod(filepath.Join(dir, "usr/bin/tool"), 0o755|os.ModeSetuid),
		os.Chmod(dir, 0o711),
		os.Chmod(filepath.Join(dir, "boot/efi"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), 50<<20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if os.Getuid() == 0 {
		for p, id := range map[string]int{"etc/hosts": 1000, "usr/share/many": 70000, ".": 3} {
			if err := os.Lchown(filepath.Join(dir, p), id, id+1); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Mknod(filepath.Join(dir, "null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
			t.Fatal(err)
		}
	}
	_ = unix.Setxattr(filepath.Join(dir, "etc/hosts"), "user.note", []byte("v"), 0)
	err = filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
		if err != nil || st.Mode()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(p, time.Now(), time.Unix(1600000000, 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Inputs["tree"] = InputArg{Path: dir}
	return dir
}

// extract copies an ext4 file system out of a part of an image, for programs that
// take no offset.
func extract(t *testing.T, img string, start, size int64) string {
	t.Helper()
	src, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	out := filepath.Join(t.TempDir(), "part.img")
	dst, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := copyRange(dst, 0, src, start*sectorSize, size*sectorSize); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStarExt4(t *testing.T) {
	need(t, "mkfs.ext4", "e2fsck", "debugfs")
	epoch := int64(1700000000)
	for name, options := range map[string]map[string]any{
		"default":    {},
		"plain":      {"features": []string{"^metadata_csum", "^64bit"}, "label": "root", "uuid": testUUID, "reserved-percent": 0},
		"no sums":    {"features": []string{"^metadata_csum", "^uninit_bg", "^resize_inode"}},
		"csum seed":  {"features": []string{"metadata_csum_seed", "inline_data"}},
		"lazy":       {"lazy_init": true},
		"no journal": {"features": []string{"^has_journal", "^extent", "^64bit", "^flex_bg"}},
	} {
		t.Run(name, func(t *testing.T) {
			var sums [2]string
			for i := range sums {
				all := map[string]any{"filename": "disk.img", "start": 2048, "size": 100000, "root": "input://tree/"}
				for k, v := range options {
					all[k] = v
				}
				c := testContext(t, all)
				c.Meta = MetaArg{ID: "77", SourceEpoch: &epoch}
				imageTree(t, c)
				img := blankImage(t, c, "disk.img", 2048*512+100000*512+100000)
				if i == 1 { // what was there before makes no difference
					f, err := os.OpenFile(img, os.O_WRONLY, 0)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.WriteAt([]byte(strings.Repeat("old content ", 300000)), 2048*512); err != nil {
						t.Fatal(err)
					}
					f.Close()
				}
				mustRun(t, "org.osbuild-star.ext4", c)
				sums[i] = sha256File(t, img)
				if got := allocated(t, img); got > 20<<20 {
					t.Errorf("%d bytes are allocated", got)
				}
				if i == 1 {
					checkExt4(t, extract(t, img, 2048, 100000), options)
				}
			}
			if sums[0] != sums[1] {
				t.Error("two builds differ")
			}
		})
	}
}

// checkExt4 looks at an image of imageTree.
func checkExt4(t *testing.T, part string, options map[string]any) {
	t.Helper()
	mustOutput(t, "e2fsck", "-fn", part)
	for path, want := range map[string][]string{
		"/":               {"Mode:  0711", "mtime: 0x5f5e1000", "ctime: 0x6553f100", "atime: 0x6553f100", "crtime: 0x6553f100"},
		"/etc/hosts":      {"Links: 2", "mtime: 0x5f5e1000", "ctime: 0x6553f100", "atime: 0x6553f100", "crtime: 0x6553f100:00000000"},
		"/usr/bin/tool":   {"Mode:  04755"},
		"/lost+found":     {"mtime: 0x6553f100"},
		"/boot/efi/EFI":   {"directory"},
		"/usr/share/link": {"../bin/tool", "mtime: 0x6553f100"}, // made just now: not later than the epoch
	} {
		out := mustOutput(t, "debugfs", "-R", "stat "+path, part)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s has no %q:\n%s", path, w, out)
			}
		}
		if os.Getuid() == 0 && path == "/" && !strings.Contains(out, "User:     3   Group:     4") {
			t.Errorf("the root directory has another owner:\n%s", out)
		}
	}
	if options["uuid"] != nil || options["label"] != nil {
		out := mustOutput(t, "dumpe2fs", "-h", part)
		for _, w := range []string{testUUID, "root"} {
			if !strings.Contains(out, w) {
				t.Errorf("it has no %q:\n%s", w, out)
			}
		}
	}
	if options["features"] == nil {
		out := mustOutput(t, "dumpe2fs", part)
		if zeroed := !strings.Contains(out, "INODE_UNINIT]") && !strings.Contains(out, "[]"); zeroed == (options["lazy_init"] == true) {
			t.Errorf("inode tables zeroed: %v", zeroed)
		}
	}
}

// The kernel mounts it, and sees the tree that went in.
func TestStarExt4Mounts(t *testing.T) {
	need(t, "mkfs.ext4")
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	c := testContext(t, map[string]any{"filename": "disk.img", "root": "input://tree/", "exclude": []string{"/boot/efi", "/none", "var/log"}})
	dir := imageTree(t, c)
	img := blankImage(t, c, "disk.img", 100<<20)
	mustRun(t, "org.osbuild-star.ext4", c)
	dev := loopDevice(t, img, "0", "104857600")
	want := readTree(t, dir)
	delete(want, "/boot/efi/EFI/BOOT/BOOTX64.EFI")
	delete(want, "/var/log/old")
	point := t.TempDir()
	var got map[string]string
	var st unix.Stat_t
	err := inMountNamespace(func() error {
		if err := unix.Mount(dev, point, "ext4", unix.MS_RDONLY, ""); err != nil {
			return err
		}
		defer unix.Unmount(point, 0)
		got = readTree(t, point)
		return unix.Stat(filepath.Join(point, "boot/efi"), &st)
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the tree differs (-want +got):\n%.2000s", diff)
	}
	if st.Mode&0o7777 != 0o700 {
		t.Errorf("the empty /boot/efi has mode %o, want 700", st.Mode&0o7777)
	}
	if _, err := os.Stat(filepath.Join(dir, "boot/efi/EFI")); err != nil {
		t.Errorf("the source changed: %v", err)
	}
}

func TestStarExt4Refuses(t *testing.T) {
	need(t, "mkfs.ext4")
	tests := []struct {
		options map[string]any
		want    string
	}{
		{map[string]any{"filename": "no.img", "root": "input://tree/"}, "not in the tree"},
		{map[string]any{"filename": "disk.img", "root": "input://tree/empty"}, "not a directory"},
		{map[string]any{"filename": "disk.img", "root": "input://tree/", "start": 2048, "size": 200000}, "too few for a part"},
		{map[string]any{"filename": "disk.img", "root": "input://tree/", "start": 1 << 60}, "out of range"},
		{map[string]any{"filename": "disk.img", "root": "input://tree/big/", "size": 8192}, "does not fit"},
		{map[string]any{"filename": "disk.img", "root": "input://tree/", "exclude": []string{"etc/hosts"}}, "cannot be left out"},
		{map[string]any{"filename": "disk.img", "root": "input://tree/", "exclude": []string{"/"}}, "cannot be left out"},
	}
	for _, tt := range tests {
		c := testContext(t, tt.options)
		dir := imageTree(t, c)
		writeTree(t, dir, map[string]string{"big/file": strings.Repeat("y", 8<<20)})
		blankImage(t, c, "disk.img", 64<<20)
		if err := runStarExt4(c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.options, err, tt.want)
		}
	}
}

func FuzzExt4(f *testing.F) {
	super := make([]byte, 8192)
	super[1024+0x38], super[1024+0x39] = 0x53, 0xef
	for _, at := range []int{0x0, 0x4, 0x20, 0x28} {
		super[1024+at] = 64
	}
	super[1024+0x59] = 1 // inodes of 256 bytes
	super[1024+0x14] = 1
	super[2048+8] = 3
	f.Add(super)
	f.Fuzz(func(t *testing.T, data []byte) {
		p := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		fs, err := openExt4(img, 0)
		if err != nil {
			return
		}
		epoch := int64(1)
		_ = fs.apply(ext4Fix{root: &ext4Root{}, epoch: &epoch, zeroed: true}) // must not panic
	})
}
