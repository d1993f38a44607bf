// Single files of trees: found in the layers as the kernel shows them, exported by
// link or copy, and watched afterwards.
package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// checkFind compares Files, Find and ExportFile with a plain tree.
func checkFind(t *testing.T, e *Engine, o *store.Object, plain string) {
	t.Helper()
	want := []string{}
	err := filepath.WalkDir(plain, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(plain, p)
			want = append(want, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	got, err := e.Files(o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, append([]string{}, got...)); diff != "" {
		t.Errorf("files (-plain +found):\n%s", diff)
		return
	}
	out := t.TempDir()
	for _, f := range want {
		data, err := os.ReadFile(filepath.Join(plain, f))
		if err != nil {
			t.Fatal(err)
		}
		p, err := Find(o, f)
		if err != nil {
			t.Errorf("Find(%s): %v", f, err)
			continue
		}
		if b, err := os.ReadFile(p); err != nil || string(b) != string(data) {
			t.Errorf("%s found at %s has other data (%v)", f, p, err)
		}
		if _, err := e.ExportFile(context.Background(), o, f, filepath.Join(out, "f")); err != nil {
			t.Errorf("exporting %s: %v", f, err)
			continue
		}
		a, err := os.Stat(filepath.Join(plain, f))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.Stat(filepath.Join(out, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if a.Mode().Perm() != b.Mode().Perm() || a.Size() != b.Size() {
			t.Errorf("%s exported with mode %s, size %d; it has %s, %d", f, b.Mode(), b.Size(), a.Mode(), a.Size())
		}
	}
}

func artifact(t *testing.T, s ...*manifest.Stage) (*store.Store, *Engine, *store.Object) {
	t.Helper()
	st := newStore(t)
	e := newEngine(t, st)
	return st, e, mustBuild(t, e, plan1(pipe("p", s...)), "p").Trees["p"]
}

// What a later stage does to a file or to a directory above it.
func TestExportAfterLaterStages(t *testing.T) {
	sh := func(script string) *manifest.Stage { return stage(shStage, `{"script":"`+script+`"}`) }
	_, e, o := artifact(t,
		sh("mkdir -p a/b d gone opaque; echo data > a/b/f; chmod 600 a/b/f; echo data > d/f; echo x > gone/f; echo x > opaque/old; echo secret > top; ln -s /etc link; ln -s d dlink; ln -s top flink"),
		sh("chmod 755 a/b/f; chown 3 a/b/f"),
		sh("mv a e; mv d e/d; rm -r gone opaque; mkdir opaque; echo new > opaque/new"),
		sh("chmod 711 e/d/f; mv e/b/f e/b/g; mv e h; touch -d @86400 top"),
	)
	files, err := e.Files(o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"h/b/g", "h/d/f", "opaque/new", "top"}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		path, data string
		mode       fs.FileMode
		err        string
	}{
		{path: "h/b/g", data: "data\n", mode: 0o755},
		{path: "/h/d/../d/f", data: "data\n", mode: 0o711},
		{path: "opaque/new", data: "new\n", mode: 0o644},
		{path: "top", data: "secret\n", mode: 0o644},
		{path: "opaque/old", err: "file does not exist"},
		{path: "gone/f", err: "file does not exist"},
		{path: "a/b/f", err: "file does not exist"},
		{path: "e/b/f", err: "file does not exist"},
		{path: "d/f", err: "file does not exist"},
		{path: "top/x", err: "file does not exist"},
		{path: "../../../../etc/passwd", err: "file does not exist"},
		{path: "link/passwd", err: "link is a link"}, // never the host's
		{path: "dlink/f", err: "dlink is a link"},
		{path: "flink", err: "flink is no regular file"},
		{path: "h", err: "h is no regular file"},
		{path: "/", err: "is no regular file"},
		{path: "", err: "is no regular file"},
	} {
		dest := filepath.Join(t.TempDir(), "out", "f")
		_, err := e.ExportFile(context.Background(), o, c.path, dest)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.path, err, c.err)
			}
			if _, err := os.Stat(dest); err == nil {
				t.Errorf("%s was exported", c.path)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		b, err := os.ReadFile(dest)
		if err != nil || string(b) != c.data {
			t.Errorf("%s: %q, %v", c.path, b, err)
		}
		if st, err := os.Stat(dest); err != nil || st.Mode() != c.mode {
			t.Errorf("%s: mode %v, %v", c.path, st.Mode(), err)
		}
	}
	dest := filepath.Join(t.TempDir(), "top")
	if _, err := e.ExportFile(context.Background(), o, "top", dest); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dest); err != nil || st.ModTime().Unix() != 86400 {
		t.Errorf("time: %v %v", st.ModTime(), err)
	}
}

func sameInode(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}

func TestExportFile(t *testing.T) {
	// Another file system, for the copy: the links of one do not lead there.
	other, err := os.MkdirTemp("/dev/shm", "engine-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	st, e, o := artifact(t, note("disk.img", "image"), note("notes/readme", "text"))
	ctx := context.Background()
	for _, dir := range []string{t.TempDir(), other} {
		dest := filepath.Join(dir, "sub", "disk.img")
		export := func(want bool) {
			t.Helper()
			changed, err := e.ExportFile(ctx, o, "disk.img", dest)
			if err != nil || changed != want {
				t.Fatalf("changed %v (want %v), %v", changed, want, err)
			}
			if b, err := os.ReadFile(dest); err != nil || string(b) != "image" {
				t.Errorf("%q %v", b, err)
			}
			if ents, _ := os.ReadDir(filepath.Dir(dest)); len(ents) != 1 {
				t.Errorf("left beside it: %v", ents)
			}
		}
		export(true)
		export(false)
		if err := os.Remove(dest); err != nil {
			t.Fatal(err)
		}
		export(true)
		// Another file in its place, a link, an older copy that was changed.
		if err := os.Remove(dest); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dest, []byte("other"), 0o644); err != nil {
			t.Fatal(err)
		}
		export(true)
		if err := os.Remove(dest); err != nil {
			t.Fatal(err)
		}
		victim := filepath.Join(t.TempDir(), "victim")
		if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, dest); err != nil {
			t.Fatal(err)
		}
		export(true)
		if b, _ := os.ReadFile(victim); string(b) != "precious" {
			t.Errorf("written through a link: %q", b)
		}
	}
	// A copy that was written to is made again, and the object is not harmed.
	copied := filepath.Join(other, "sub", "disk.img")
	if p, _ := Find(o, "disk.img"); sameInode(t, p, copied) {
		t.Fatal("a link to another file system")
	}
	if err := os.WriteFile(copied, []byte("xmage"), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err := e.ExportFile(ctx, o, "disk.img", copied); err != nil || !changed {
		t.Errorf("changed %v, %v", changed, err)
	}
	if _, ok := st.Lookup(o.Key); !ok {
		t.Error("the object is gone")
	}
	for _, c := range []struct{ path, dest string }{{"nothing", filepath.Join(other, "x")}, {"disk.img", other}, {"disk.img", "/dev/null/x"}} {
		if _, err := e.ExportFile(ctx, o, c.path, c.dest); err == nil {
			t.Errorf("exported %s to %s", c.path, c.dest)
		}
	}
	if ents, _ := os.ReadDir(other); len(ents) != 1 {
		t.Errorf("left after failures: %v", ents)
	}
}

// A hard link that was written to harms the store's file: the object and what is
// below it are made again, and the export is the right file then.
func TestExportedLinkIsWrittenTo(t *testing.T) {
	st := newStore(t)
	e := newEngine(t, st)
	m := plan1(pipe("p", note("disk.img", "image"), note("sums", "1")))
	o := mustBuild(t, e, m, "p").Trees["p"]
	dest := filepath.Join(filepath.Dir(st.Dir), "disk.img")
	if _, err := e.ExportFile(context.Background(), o, "disk.img", dest); err != nil {
		t.Fatal(err)
	}
	if p, err := Find(o, "disk.img"); err != nil || !sameInode(t, p, dest) {
		t.Skip("this file system shares blocks instead")
	}
	if got := ran(mustBuild(t, e, m, "p")); len(got) != 0 {
		t.Errorf("before: %v", got)
	}
	time.Sleep(10 * time.Millisecond) // a coarse clock tells the time of files
	if err := os.WriteFile(dest, []byte("IMAGE"), 0o644); err != nil {
		t.Fatal(err)
	}
	res := mustBuild(t, e, m, "p")
	if diff := cmp.Diff([]string{"p note", "p note"}, ran(res)); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
	if changed, err := e.ExportFile(context.Background(), res.Trees["p"], "disk.img", dest); err != nil || !changed {
		t.Errorf("changed %v, %v", changed, err)
	}
	if b, err := os.ReadFile(dest); err != nil || string(b) != "image" {
		t.Errorf("%q %v", b, err)
	}
}

func TestExportTree(t *testing.T) {
	_, e, o := artifact(t, note("a/f", "1"), note("b", "2"))
	parent := t.TempDir()
	dir := filepath.Join(parent, "tree")
	// What a person has beside it is none of ours.
	mine := filepath.Join(parent, ".tree.mine")
	if err := os.MkdirAll(filepath.Join(mine, "precious"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := e.ExportTree(context.Background(), o, dir); err != nil {
		t.Fatal(err)
	}
	got, err := contents(dir)
	if diff := cmp.Diff(map[string]string{"a/f": "1", "b": "2"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if err := e.ExportTree(context.Background(), o, dir); err == nil {
		t.Error("a directory that is there was taken")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.ExportTree(ctx, o, dir+"2"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ents, err := os.ReadDir(parent)
	if err != nil || len(ents) != 2 {
		t.Errorf("%v %v", ents, err)
	}
	if _, err := os.Stat(filepath.Join(mine, "precious")); err != nil {
		t.Errorf("a directory beside it is gone: %v", err)
	}
	checkIdle(t, e)
}

// The root of the tree keeps what a stage gave it through all later layers.
func TestRootOfTheTree(t *testing.T) {
	old := unix.Umask(0o077) // the caller's umask is not the tree's
	defer unix.Umask(old)
	_, e, o := artifact(t, note("f", "1"), note("g", "2"))
	if st, err := os.Stat(exported(t, e, o)); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	res := mustBuild(t, e, plan1(pipe("q", note("f", "1"),
		stage(shStage, `{"script":"chown 3:4 .; chmod 1751 .; setfattr -n user.label -v x . || python3 -c 'import os; os.setxattr(\".\", \"user.label\", b\"x\")'; touch -d @86400 ."}`),
		stage(shStage, `{"script":"echo changed > f; chmod 600 f"}`))), "q")
	dir := exported(t, e, res.Trees["q"])
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 3 || st.Gid != 4 || st.Mode&0o7777 != 0o1751 || st.Mtim.Sec != 86400 || xattrs(dir) != ` user.label="x"` {
		t.Errorf("root: %d:%d %o mtime %d %s", st.Uid, st.Gid, st.Mode, st.Mtim.Sec, xattrs(dir))
	}
}

// Two files of one tree that are as large and as old, exported to the same place one
// after the other.
func TestExportAnotherFile(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "engine-test-") // by a copy, not a link
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	_, e, o := artifact(t, script("printf one > a; printf two > b; touch -d @1000 a b"))
	dest := filepath.Join(other, "f")
	for _, c := range []struct{ path, want string }{{"a", "one"}, {"/a", "one"}, {"b", "two"}} {
		if _, err := e.ExportFile(context.Background(), o, c.path, dest); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(dest); err != nil || string(b) != c.want {
			t.Errorf("%s: %q, %v", c.path, b, err)
		}
	}
}
