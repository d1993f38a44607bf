package stages

import (
	"strings"
	"testing"
	"time"
)

func TestSquashfsAndErofs(t *testing.T) {
	tests := []struct {
		stage   string
		options map[string]any
		absent  string
	}{
		{"org.osbuild.squashfs", map[string]any{}, ""},
		{"org.osbuild.squashfs", map[string]any{"compression": map[string]any{"method": "lz4"}}, ""},
		{"org.osbuild.squashfs", map[string]any{"compression": map[string]any{"method": "xz", "options": map[string]any{"bcj": "x86"}}}, ""},
		{"org.osbuild.squashfs", map[string]any{"compression": map[string]any{"method": "zstd", "level": 3}, "exclude_paths": []string{"sub/bee"}}, "bee"},
		{"org.osbuild.squashfs", map[string]any{"source": "input://tree/"}, ""},
		{"org.osbuild.squashfs", map[string]any{"source": "mount:///"}, ""},
		{"org.osbuild.squashfs", map[string]any{"source": "mount://m/"}, ""},
		{"org.osbuild.erofs", map[string]any{}, ""},
		{"org.osbuild.erofs", map[string]any{"compression": map[string]any{"method": "lz4"}}, ""},
		{"org.osbuild.erofs", map[string]any{"compression": map[string]any{"method": "lz4hc", "level": 9}, "cluster-size": 65536}, ""},
		{"org.osbuild.erofs", map[string]any{"options": []string{"force-inode-compact", "noinline_data"}, "exclude_paths": []string{"sub/bee"}}, "bee"},
		{"org.osbuild.erofs", map[string]any{"source": "mount://m/"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.stage, func(t *testing.T) {
			need(t, Lookup(tt.stage).Tools...)
			tt.options["filename"] = "/fs.img"
			c := testContext(t, tt.options)
			dir := treeInput(t, c)
			c.Mounts["m"] = MountArg{Path: dir}
			c.Paths.Mounts = dir
			mustRun(t, tt.stage, c)
			img := c.TreePath("fs.img")
			var names string
			if strings.HasSuffix(tt.stage, "squashfs") {
				names = mustOutput(t, "unsquashfs", "-ls", img)
			} else {
				names = mustOutput(t, "dump.erofs", "--ls", "--path=/sub", img)
			}
			if !strings.Contains(names, "a\n") {
				t.Errorf("it has no sub/a:\n%s", names)
			}
			if tt.absent == "" != strings.Contains(names, "bee\n") {
				t.Errorf("unexpected content:\n%s", names)
			}
		})
	}
}

func TestSquashfsAndErofsReproducible(t *testing.T) {
	for _, stage := range []string{"org.osbuild.squashfs", "org.osbuild.erofs"} {
		need(t, Lookup(stage).Tools...)
		var sums [2]string
		for i := range sums {
			c := testContext(t, map[string]any{"filename": "fs.img"})
			epoch := int64(1700000000)
			c.Meta = MetaArg{ID: "abc", SourceEpoch: &epoch}
			treeInput(t, c)
			if i > 0 {
				time.Sleep(1100 * time.Millisecond) // into another second
			}
			mustRun(t, stage, c)
			sums[i] = sha256File(t, c.TreePath("fs.img"))
		}
		if sums[0] != sums[1] {
			t.Errorf("%s: two runs differ", stage)
		}
	}
}

func TestSquashfsRefuses(t *testing.T) {
	for options, want := range map[string]string{
		`{"filename": "x", "source": "input://tree/no"}`:                       "is not there",
		`{"filename": "no/x"}`:                                                 "its directory is not in the tree",
		`{"filename": "x", "compression": {"method": "lz4", "level": 3}}`:      "has no level",
		`{"filename": "x", "source": "mount://other/"}`:                        `no mount "other"`,
		`{"filename": "x", "compression": {"method": "zstd", "strange": "1"}}`: "strange",
	} {
		c := testContext(t, nil)
		c.Options = []byte(options)
		treeInput(t, c)
		if err := runSquashfs(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", options, err, want)
		}
	}
}
