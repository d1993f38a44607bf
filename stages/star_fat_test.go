package stages

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStarFAT(t *testing.T) {
	need(t, "mkfs.fat", "mcopy", "mmd", "mtype", "fsck.fat")
	epoch := int64(1700000000)
	var sums [2]string
	for i := range sums {
		c := testContext(t, map[string]any{
			"filename": "disk.img", "start": 2048, "size": 70000, "label": "ESP", "fat-size": 32, "volid": "7B7795E7",
			"files": []any{
				map[string]any{"from": "input://tree/grub.efi", "to": "/EFI/BOOT/BOOTX64.EFI"},
				map[string]any{"from": "input://tree/dir/", "to": "/debian"},
				map[string]any{"from": "input://tree/grub.efi", "to": "/efi/debian/"},
				map[string]any{"from": "input://tree/second", "to": "/debian/a long name.txt"},
			},
		})
		c.Meta = MetaArg{ID: "5", SourceEpoch: &epoch}
		dir := filepath.Join(c.Paths.Inputs, "tree")
		writeTree(t, dir, map[string]string{
			"grub.efi": strings.Repeat("efi", 40000), "second": "second\n",
			"dir/a long name.txt": "first\n", "dir/sub/deep/x": "x\n", "dir/b": "b\n",
		})
		if err := os.Symlink("../b", filepath.Join(dir, "dir/sub/to-b")); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(1600000000, 0)
		for _, p := range []string{"grub.efi", "second", "dir/a long name.txt", "dir/sub/deep/x", "dir/b"} {
			if err := os.Chtimes(filepath.Join(dir, p), time.Now(), when); err != nil {
				t.Fatal(err)
			}
		}
		c.Inputs["tree"] = InputArg{Path: dir}
		img := blankImage(t, c, "disk.img", 40<<20)
		if i == 1 {
			f, err := os.OpenFile(img, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte(strings.Repeat("old", 1<<20)), 2048*512); err != nil {
				t.Fatal(err)
			}
			f.Close()
			time.Sleep(2100 * time.Millisecond) // FAT counts in steps of two seconds
		}
		mustRun(t, "org.osbuild-star.fat", c)
		sums[i] = sha256File(t, img)
		if i == 0 {
			continue
		}
		at := img + "@@1048576"
		for path, want := range map[string]string{
			"::/EFI/BOOT/BOOTX64.EFI": strings.Repeat("efi", 40000), "::/EFI/debian/grub.efi": strings.Repeat("efi", 40000),
			"::/debian/sub/deep/x": "x\n", "::/debian/sub/to-b": "b\n", "::/debian/a long name.txt": "second\n",
		} {
			if got := mustOutput(t, "mtype", "-i", at, path); got != want {
				t.Errorf("%s has %.40q, want %.40q", path, got, want)
			}
		}
		out := mustOutput(t, "mdir", "-i", at, "::/debian")
		for _, want := range []string{"7B77-95E7", "2020-09-13"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		part := extract(t, img, 2048, 70000)
		mustOutput(t, "fsck.fat", "-n", part)
		if out := mustOutput(t, "blkid", "-p", part); !strings.Contains(out, "FAT32") || !strings.Contains(out, `LABEL="ESP"`) {
			t.Errorf("unexpected file system: %s", out)
		}
		if got := allocated(t, img); got > 2<<20 {
			t.Errorf("%d bytes are allocated", got)
		}
	}
	if sums[0] != sums[1] {
		t.Error("two builds differ")
	}
}

func TestStarFATRefuses(t *testing.T) {
	need(t, "mkfs.fat", "mcopy")
	tests := []struct {
		from, to string
		want     string
	}{
		{"input://tree/none", "/x", "is not there"},
		{"input://tree/dev/", "/dev", "neither a file nor a directory"},
		{"input://tree/file", "/a:b", "no names with"},
		{"input://tree/big", "/big", "large enough"},
	}
	for _, tt := range tests {
		c := testContext(t, map[string]any{"filename": "disk.img", "files": []any{map[string]any{"from": tt.from, "to": tt.to}}})
		dir := filepath.Join(c.Paths.Inputs, "tree")
		writeTree(t, dir, map[string]string{"file": "x", "big": strings.Repeat("x", 4<<20), "dev/file": ""})
		if err := os.Symlink("/dev/null", filepath.Join(dir, "dev/null")); err != nil {
			t.Fatal(err)
		}
		c.Inputs["tree"] = InputArg{Path: dir}
		blankImage(t, c, "disk.img", 2<<20)
		if err := runStarFAT(c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s to %s: %v, want %q", tt.from, tt.to, err, tt.want)
		}
	}
}
