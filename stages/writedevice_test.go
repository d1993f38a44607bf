package stages

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The digest is that of upstream's result: a swap area in the second MiB of a disk.
func TestWriteDevice(t *testing.T) {
	need(t, "mkswap")
	c := testContext(t, map[string]any{"uuid": testUUID})
	small := blankImage(t, c, "small.img", 1<<20)
	mustRun(t, "org.osbuild.mkswap", c)

	c = testContext(t, map[string]any{"from": "input://i/small.img"})
	c.Inputs["i"] = InputArg{Path: filepath.Dir(small)}
	img := blankImage(t, c, "disk.img", 4<<20)
	dev := loopDevice(t, img, "1048576", "1048576")
	c.Devices["device"] = DeviceArg{Path: dev}
	mustRun(t, "org.osbuild.write-device", c)
	if got, want := sha256File(t, img), "efddf129f98a8f75c3d028a0c77a8b0819f7f1be7660c2795e7c1a28e609c4bc"; got != want {
		t.Errorf("sha256 is %s, want %s", got, want)
	}
	if got := allocated(t, img); got > 64<<10 {
		t.Errorf("%d bytes are allocated: the holes of the source were written", got)
	}

	writeTree(t, filepath.Dir(small), map[string]string{"small.img": strings.Repeat("x", 1<<20+1)})
	err := runWriteDevice(c)
	if err == nil || !strings.Contains(err.Error(), "1048577 bytes, but the device has 1048576") {
		t.Errorf("too large a file: %v", err)
	}
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestDD(t *testing.T) {
	tests := []struct {
		name    string
		options map[string]any
		want    string
	}{
		{"range", map[string]any{"src": "tree:///src", "dst": "new", "src_offset": 3, "count": 4}, "3456"},
		{"to the end", map[string]any{"src": "input://i/src", "dst": "/new", "src_offset": 7, "count": 400}, "789"},
		{"beyond the end", map[string]any{"src": "tree:///src", "dst": "new", "src_offset": 70, "count": 4}, ""},
		{"over a file", map[string]any{"src": "tree:///src", "dst": "old", "count": 2}, "01cde"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testContext(t, tt.options)
			writeTree(t, c.Tree, map[string]string{"src": "0123456789", "old": "abcde"})
			c.Inputs["i"] = InputArg{Path: c.Tree}
			mustRun(t, "org.osbuild.dd", c)
			got, err := os.ReadFile(c.TreePath(tt.options["dst"].(string)))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Holes of a source must overwrite what the target has.
func TestCopyRangeHoles(t *testing.T) {
	dir := t.TempDir()
	src, err := os.Create(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := src.Truncate(3 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := src.WriteAt([]byte("middle"), 1<<20+5); err != nil {
		t.Fatal(err)
	}
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := dst.Write(bytes.Repeat([]byte{0xff}, 2<<20)); err != nil {
		t.Fatal(err)
	}
	if n, err := copyRange(dst, 1, src, 0, 4<<20); err != nil || n != 3<<20 {
		t.Fatalf("copyRange: %d, %v", n, err)
	}
	got, err := os.ReadFile(dst.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 3<<20+1)
	want[0] = 0xff
	copy(want[1<<20+6:], "middle")
	if !bytes.Equal(got, want) {
		t.Error("the copy differs")
	}
}
