package stages

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// linkTree is a tree full of links.
var linkTree = map[string]string{
	"/run/x": "x", "/usr/lib/y": "y", "/a/b/c/z": "z",
	"/var/run": "-> /run", "/lib": "-> usr/lib", "/a/up": "-> ../../../../usr", "/a/b/abs": "-> /a/up/lib",
	"/chain": "-> var/run/../run", "/loop": "-> loop2", "/loop2": "-> /loop", "/dangling": "-> /no/such/dir",
	"/dir/": "-> ./a/./b/", "/file-link": "-> run/x",
}

func TestResolve(t *testing.T) {
	c := testContext(t, nil)
	putTree(t, c.Tree, linkTree)
	for p, want := range map[string]string{
		"/":                 "",
		"run/x":             "/run/x",
		"/var/run/x":        "/run/x",
		"/var/run/new/file": "/run/new/file",
		"/lib/y":            "/usr/lib/y",
		"/a/up/lib/y":       "/usr/lib/y",
		"/a/b/abs/y":        "/usr/lib/y",
		"/chain/x":          "/run/x",
		"/../../etc":        "/etc",
		"/dangling/f":       "/no/such/dir/f",
		"/dir/c/z":          "/a/b/c/z",
		"/run/x/not-a-dir":  "/run/x/not-a-dir",
	} {
		got, err := c.Resolve(p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if diff := cmp.Diff(c.Tree+want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p, diff)
		}
	}
	if got, err := c.Resolve("/loop/x"); err == nil {
		t.Errorf("a loop leads to %s", got)
	}
}

// Where the kernel finds a file below a root, so must we, and the same one.
func FuzzResolve(f *testing.F) {
	for p := range linkTree {
		f.Add(p)
	}
	f.Add("/var/run/../x")
	f.Add("//a/./up/lib/../lib/y")
	f.Add("/a/b/abs/../../../../run/x")
	tree := f.TempDir()
	putTree(f, tree, linkTree)
	f.Fuzz(func(t *testing.T, p string) {
		root, err := unix.Open(tree, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(root)
		fd, err := unix.Openat2(root, p, &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_IN_ROOT})
		if err != nil {
			return
		}
		defer unix.Close(fd)
		want, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil {
			t.Fatal(err)
		}
		got, err := resolveIn(tree, p, true)
		if err != nil || got != want {
			t.Errorf("%q: %s, %v; the kernel finds %s", p, got, err, want)
		}
	})
}

func TestResolveLocation(t *testing.T) {
	c := testContext(t, nil)
	putTree(t, c.Tree, linkTree)
	m := filepath.Join(c.Paths.Mounts, "m")
	putTree(t, m, map[string]string{"/l": "-> /d", "/d/f": "x"})
	c.Mounts["m"] = MountArg{Path: m}
	c.Mounts["none"] = MountArg{}
	for _, tc := range []struct {
		loc  string
		last bool
		want string
	}{
		{"/file-link", true, c.Tree + "/run/x"},
		{"tree:///file-link", false, c.Tree + "/file-link"},
		{"tree:///var/run/x", false, c.Tree + "/run/x"},
		{"mount://m/l/f", false, m + "/d/f"},
		{"mount://m/l", false, m + "/l"},
		{"mount://m/l/", false, m + "/d/."},
		{"mount://m/", false, m + "/."},
		{"mount:///m/d", false, m + "/d"},
	} {
		got, err := c.ResolveLocation(tc.loc, tc.last)
		if err != nil || got != tc.want {
			t.Errorf("%s: %s, %v, want %s", tc.loc, got, err, tc.want)
		}
	}
	for _, loc := range []string{"mount://none/x", "mount://x/y", "input://x/y", "tree://x/y", "mount://m", "http://x/y", "tree:///loop/x"} {
		got, err := c.ResolveLocation(loc, true)
		var se *Error
		if !errors.As(err, &se) {
			t.Errorf("%s: %s, %v, want an error that is explained", loc, got, err)
		}
	}
}

func TestWriteFile(t *testing.T) {
	c := testContext(t, nil)
	putTree(t, c.Tree, map[string]string{"/old": "[0600] x", "/l": "-> /old", "/dir/x": "x"})
	for _, err := range []error{
		c.WriteFile("/l", "through"), c.WriteFile("/new/deep/f", "new"), c.ReplaceFile("/dir/x", "replaced"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := c.ReplaceFile("/dir", "x"); err == nil {
		t.Error("a directory was replaced")
	}
	want := map[string]string{"/old": "[0600] through", "/l": "-> /old", "/new/deep/f": "new", "/dir/x": "replaced"}
	if diff := cmp.Diff(want, listTree(t, c.Tree)); diff != "" {
		t.Errorf("tree differs (-want +got):\n%s", diff)
	}
	if err := rewriteFile(filepath.Join(c.Tree, "no/dir"), "x", 0o644); err == nil {
		t.Error("a file was made without its directory")
	}
}
