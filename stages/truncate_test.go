package stages

import (
	"os"
	"testing"
)

func TestTruncateSizes(t *testing.T) {
	tests := []struct {
		size string
		cur  int64
		want int64 // -1: an error
	}{
		{"65536", 0, 65536},
		{"65536", 1 << 20, 65536},
		{"1M", 0, 1 << 20},
		{"1m", 0, 1 << 20},
		{"1MB", 0, 1000000},
		{"1MiB", 0, 1 << 20},
		{"2kB", 0, 2000},
		{"K", 0, 1024},
		{"3G", 0, 3 << 30},
		{"+512", 65536, 66048},
		{"-512", 65536, 65024},
		{"-70000", 65536, 0},
		{"<100", 50, 50},
		{"<100", 500, 100},
		{">100", 50, 100},
		{"> 100", 500, 500},
		{"/4096", 5000, 4096},
		{"%4096", 5000, 8192},
		{"%4096", 8192, 8192},
		{" 12", 0, 12},
		{"0", 7, 0},
		{"", 0, -1},
		{"+", 0, -1},
		{"<+5", 0, -1},
		{"/0", 5, -1},
		{"1X", 0, -1},
		{"1.5G", 0, -1},
		{"1KiBB", 0, -1},
		{"9223372036854775808", 0, -1},
		{"8E", 0, -1},
		{"+9223372036854775807", 1, -1},
		{"0x10", 0, -1},
	}
	for _, tt := range tests {
		got, err := newSize(tt.size, tt.cur)
		if err != nil {
			got = -1
		}
		if got != tt.want {
			t.Errorf("newSize(%q, %d) = %d (%v), want %d", tt.size, tt.cur, got, err, tt.want)
		}
	}
}

func FuzzTruncateSize(f *testing.F) {
	for _, s := range []string{"1", "+1K", "%4096", "<3GiB", "QB", "-", "  12"} {
		f.Add(s, int64(5000))
	}
	f.Fuzz(func(t *testing.T, s string, cur int64) {
		if cur < 0 {
			return
		}
		if n, err := newSize(s, cur); err == nil && n < 0 {
			t.Errorf("newSize(%q, %d) = %d", s, cur, n)
		}
	})
}

func TestTruncate(t *testing.T) {
	c := testContext(t, map[string]any{"filename": "/a.img", "size": "8M"})
	if err := runTruncate(c); err != nil {
		t.Fatal(err)
	}
	c.Options = []byte(`{"filename": "a.img", "size": "+512"}`)
	if err := runTruncate(c); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(c.TreePath("a.img"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := st.Size(), int64(8<<20+512); got != want {
		t.Errorf("size is %d, want %d", got, want)
	}
	c.Options = []byte(`{"filename": "no/such/a.img", "size": "1"}`)
	if err := runTruncate(c); err == nil {
		t.Error("a file in a directory that is not there was made")
	}
}
