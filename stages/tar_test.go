package stages

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// treeInput gives c an input of a small tree: /file1, /file2, /sub/a, /sub/bee.
func treeInput(t *testing.T, c *Context) string {
	t.Helper()
	dir := filepath.Join(c.Paths.Inputs, "tree")
	writeTree(t, dir, map[string]string{"file2": "two\n", "file1": "one\n", "sub/bee": "bee\n", "sub/a": strings.Repeat("a", 5000)})
	when := time.Unix(1600000000, 0)
	for _, p := range []string{"file1", "file2", "sub/a", "sub/bee", "sub", "."} {
		if err := os.Chtimes(filepath.Join(dir, p), when, when); err != nil {
			t.Fatal(err)
		}
	}
	c.Inputs["tree"] = InputArg{Path: dir}
	return dir
}

func tarNames(t *testing.T, path string) []string {
	return strings.Split(strings.TrimSuffix(mustOutput(t, "tar", "-tf", path), "\n"), "\n")
}

func TestTarNames(t *testing.T) {
	need(t, "tar", "xz", "zstd", "gzip")
	tests := []struct {
		name    string
		options map[string]any
		want    []string
	}{
		{"whole", map[string]any{"filename": "out.tar"}, []string{"./", "./file1", "./file2", "./sub/", "./sub/a", "./sub/bee"}},
		{"include", map[string]any{"filename": "out.tar.gz", "root-node": "include"}, []string{"./", "./file1", "./file2", "./sub/", "./sub/a", "./sub/bee"}},
		{"omit", map[string]any{"filename": "out.tar.xz", "root-node": "omit"}, []string{"file1", "file2", "sub/", "sub/a", "sub/bee"}},
		{"paths in their order", map[string]any{"filename": "/out.tar.zst", "paths": []string{"file2", "file1", "file1", "file2"}}, []string{"file2", "file1", "file1", "file2"}},
		{"directory", map[string]any{"filename": "out.tar", "compression": "zstd", "paths": []string{"sub/"}}, []string{"sub/", "sub/a", "sub/bee"}},
		{"transform", map[string]any{"filename": "out.tar", "paths": []string{"file1", "file2"}, "transform": "s/file1/foo99/;s/file2/bar11/"}, []string{"foo99", "bar11"}},
		{"plain", map[string]any{"filename": "out.tar", "format": "v7", "acls": false, "selinux": false, "xattrs": false, "paths": []string{"file1"}}, []string{"file1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testContext(t, tt.options)
			treeInput(t, c)
			mustRun(t, "org.osbuild.tar", c)
			if diff := cmp.Diff(tt.want, tarNames(t, c.TreePath(tt.options["filename"].(string)))); diff != "" {
				t.Errorf("names differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTarRefuses(t *testing.T) {
	need(t, "tar")
	tests := []struct {
		options map[string]any
		want    string
	}{
		{map[string]any{"filename": "o.tar", "paths": []string{"nothing"}}, `"nothing" is not in the tree`},
		{map[string]any{"filename": "o.tar", "paths": []string{"/etc"}}, "does not lead into the tree"},
		{map[string]any{"filename": "o.tar", "paths": []string{"sub/../../x"}}, "does not lead into the tree"},
		{map[string]any{"filename": "no/o.tar"}, "its directory is not in the tree"},
		// GNU sed would run a program for "e"; tar must not.
		{map[string]any{"filename": "o.tar", "paths": []string{"file1"}, "transform": "s/file1/date/e"}, "exit status"},
	}
	for _, tt := range tests {
		c := testContext(t, tt.options)
		treeInput(t, c)
		err := runTar(c)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("options %v: %v, want %q", tt.options, err, tt.want)
		}
	}
}

func TestTarContent(t *testing.T) {
	need(t, "tar")
	c := testContext(t, map[string]any{"filename": "o.tar", "numeric-owner": true})
	epoch := int64(1700000000)
	c.Meta.SourceEpoch = &epoch
	dir := treeInput(t, c)
	if err := unix.Setxattr(filepath.Join(dir, "file1"), "user.note", []byte("v"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	} else if err != nil {
		t.Skip("no extended attributes here")
	}
	mustRun(t, "org.osbuild.tar", c)
	f, err := os.Open(c.TreePath("o.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.AccessTime.IsZero() || !h.ChangeTime.IsZero() {
			t.Errorf("%s has times of access or change", h.Name)
		}
		if h.Uname != "" {
			t.Errorf("%s has the owner name %q", h.Name, h.Uname)
		}
		if h.Name == "./file1" && h.PAXRecords["SCHILY.xattr.user.note"] != "v" {
			t.Errorf("file1 lost its extended attribute: %v", h.PAXRecords)
		}
	}
}

func TestTarReproducible(t *testing.T) {
	need(t, "tar", "zstd")
	var sums [2]string
	for i := range sums {
		c := testContext(t, map[string]any{"filename": "o.tar.zst"})
		epoch := int64(1700000000)
		c.Meta.SourceEpoch = &epoch
		dir := treeInput(t, c)
		if i == 1 { // another time of access and change
			now := time.Now()
			if err := os.Chtimes(filepath.Join(dir, "file1"), now, time.Unix(1600000000, 0)); err != nil {
				t.Fatal(err)
			}
		}
		mustRun(t, "org.osbuild.tar", c)
		sums[i] = sha256File(t, c.TreePath("o.tar.zst"))
	}
	if sums[0] != sums[1] {
		t.Error("two runs differ")
	}
}

func TestTarTools(t *testing.T) {
	for name, want := range map[string][]string{"a.tar": nil, "a.tar.gz": {"gzip"}, "a.txz": {"xz"}, "a.tar.zst": {"zstd"}, "a.tar.bz2": {"bzip2"}} {
		if diff := cmp.Diff(want, tarTools(map[string]any{"filename": name})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff([]string{"xz"}, tarTools(map[string]any{"filename": "a.gz", "compression": "xz"})); diff != "" {
		t.Errorf("compression xz (-want +got):\n%s", diff)
	}
}

func TestUntar(t *testing.T) {
	need(t, "tar")
	c := testContext(t, map[string]any{"filename": "o.tar.gz", "root-node": "omit"})
	treeInput(t, c)
	mustRun(t, "org.osbuild.tar", c)
	archive, err := os.ReadFile(c.TreePath("o.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	c = testContext(t, map[string]any{"prefix": "/usr/local"})
	fileInput(t, c, "file", string(archive))
	err = runUntar(c)
	if err == nil || !strings.Contains(err.Error(), "is not a directory of the tree") {
		t.Errorf("a prefix that is not there: %v", err)
	}
	if err := os.MkdirAll(c.TreePath("/usr/local"), 0o755); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "org.osbuild.untar", c)
	want := map[string]string{
		"/usr/local/file1": "one\n", "/usr/local/file2": "two\n",
		"/usr/local/sub/a": strings.Repeat("a", 5000), "/usr/local/sub/bee": "bee\n",
	}
	if diff := cmp.Diff(want, readTree(t, c.Tree)); diff != "" {
		t.Errorf("tree differs (-want +got):\n%s", diff)
	}
}
