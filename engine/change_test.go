// Random changes of a tree: by stages in layers, and by the same code in a plain
// directory. What comes out has to be the same.
package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/stages"
	"golang.org/x/sys/unix"
)

func runChange(c *stages.Context) error {
	var o struct {
		Seed  uint64
		Count int
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	return change(c.Tree, o.Seed, o.Count)
}

// change makes count random changes below root. The same seed on the same tree
// makes the same changes.
func change(root string, seed uint64, count int) error {
	r := rand.New(rand.NewPCG(seed, 7))
	for n := range count {
		if err := changeOnce(root, r, fmt.Sprintf("%d.%d", seed, n)); err != nil {
			return fmt.Errorf("change %d: %w", n, err)
		}
	}
	return nil
}

func changeOnce(root string, r *rand.Rand, label string) error {
	var dirs, files, all []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			dirs = append(dirs, p)
		case d.Type().IsRegular():
			files = append(files, p)
		}
		if p != root {
			all = append(all, p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	pick := func(from []string) string {
		if len(from) == 0 {
			return ""
		}
		return from[r.IntN(len(from))]
	}
	// A name that is free, or in use at times.
	name := func() string { return filepath.Join(pick(dirs), fmt.Sprintf("n%d", r.IntN(12))) }
	content := func() []byte {
		b := make([]byte, r.IntN(6000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	free := func(p string) bool { _, err := os.Lstat(p); return err != nil }
	switch op := r.IntN(20); op {
	case 0, 1, 2, 3: // a file
		if p, b := name(), content(); free(p) {
			return os.WriteFile(p, b, 0o600)
		}
	case 4, 5:
		if p := name(); free(p) {
			return os.Mkdir(p, 0o700)
		}
	case 6:
		if p := name(); free(p) {
			return os.Symlink("../"+label, p)
		}
	case 7:
		d, b := pick(dirs), content()
		p := filepath.Join(d, "h"+label)
		if err := os.WriteFile(p, b, 0o640); err != nil {
			return err
		}
		if err := os.Link(p, p+".second"); err != nil {
			return err
		}
		return os.Link(p, filepath.Join(pick(dirs), "h"+label+".third"))
	case 8:
		if p := pick(files); p != "" {
			return os.WriteFile(p, content(), 0o600)
		}
	case 9: // more data, so that what has only its attributes copied up gets its data
		if p, b := pick(files), content(); p != "" {
			f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Write(b)
			return err
		}
	case 10:
		if p := pick(files); p != "" {
			return os.Chmod(p, fs.FileMode(r.IntN(0o1000)))
		}
	case 11:
		if p := pick(append(all, root)); p != "" {
			return os.Lchown(p, r.IntN(5), r.IntN(5))
		}
	case 12:
		if p := pick(dirs); p != "" {
			return os.Chmod(p, fs.FileMode(0o700|r.IntN(0o100)))
		}
	case 13:
		if p := pick(append(dirs, files...)); p != "" {
			return unix.Lsetxattr(p, fmt.Sprintf("user.x%d", r.IntN(3)), []byte(label), 0)
		}
	case 14:
		if p := pick(all); p != "" {
			return os.RemoveAll(p)
		}
	case 15: // a directory made anew hides what was in it
		if p := pick(dirs); p != root {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
			if err := os.Mkdir(p, 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(p, "again"), []byte(label), 0o644)
		}
	case 16, 17: // a file or a whole directory gets another name
		p, to := pick(all), name()
		if p != "" && free(to) && !strings.HasPrefix(to+"/", p+"/") {
			return os.Rename(p, to)
		}
	case 18:
		if p := name(); free(p) {
			if r.IntN(2) == 0 {
				return unix.Mkfifo(p, 0o640)
			}
			return unix.Symlink("/absolute/"+label, p)
		}
	case 19:
		if p := pick(files); p != "" {
			t := time.Unix(int64(r.IntN(1000000)), 0)
			return os.Chtimes(p, t, t)
		}
	}
	return nil
}

// describe tells all of a tree that has to be the same, by path. Times are those of
// trees that were clamped.
func describe(t testing.TB, root string) map[string]string {
	t.Helper()
	out, err := described(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func described(root string) (map[string]string, error) {
	out := map[string]string{}
	inodes := map[uint64][]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		rel = strconv.Quote(rel)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d:%d rdev=%d", st.Mode, st.Uid, st.Gid, st.Rdev)
		switch {
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(b)
			text += fmt.Sprintf(" %d bytes %s", len(b), hex.EncodeToString(sum[:4]))
			if st.Blocks*512 < st.Size/2 && st.Size > 1<<20 {
				text += " sparse"
			}
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " -> " + to
		}
		if !d.IsDir() {
			inodes[st.Ino] = append(inodes[st.Ino], rel)
			text += fmt.Sprintf(" links=%d", st.Nlink)
		}
		if st.Mtim.Sec < 1000000 || st.Mtim.Sec == testEpoch || st.Mtim.Sec > 2000000000 { // not by the clock
			text += fmt.Sprintf(" mtime=%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		out[rel] = text + xattrs(p)
		return nil
	})
	for _, names := range inodes {
		if len(names) == 1 {
			continue
		}
		sort.Strings(names)
		for _, n := range names {
			out[n] += " names: " + strings.Join(names, ",")
		}
	}
	return out, err
}

func xattrs(p string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return ""
	}
	all := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.SGI_ACL_") {
			continue // XFS shows its own form of an ACL too
		}
		value := make([]byte, 1000)
		if n, err := unix.Lgetxattr(p, name, value); err == nil {
			all[name] = string(value[:n])
		}
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&out, " %s=%q", name, all[name])
	}
	return out.String()
}

// changePipelines makes pipelines of several stages of random changes, and the same
// in plain directories.
func changePipelines(t *testing.T, seeds, steps, count int) (*manifest.Manifest, []string, map[string]string) {
	t.Helper()
	m := &manifest.Manifest{}
	var names []string
	plain := map[string]string{}
	for seed := range seeds {
		name := fmt.Sprintf("p%d", seed)
		p := pipe(name)
		dir := filepath.Join(t.TempDir(), "plain")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for n := range steps {
			s := uint64(seed*1000 + n)
			p.Stages = append(p.Stages, stage(changeStage, fmt.Sprintf(`{"Seed":%d,"Count":%d}`, s, count)))
			if err := change(dir, s, count); err != nil {
				t.Fatal(err)
			}
		}
		m.Pipelines, names, plain[name] = append(m.Pipelines, p), append(names, name), dir
	}
	return m, names, plain
}

// Trees of many layers are what the same changes make of a plain directory: made by
// stages in build roots here, and of more kinds of files by [TestLayersProperty].
func TestLayersAgainstPlainCopy(t *testing.T) {
	m, names, plain := changePipelines(t, 8, 5, 30)
	s := newStore(t)
	e := newEngine(t, s)
	res := mustBuild(t, e, m, names...)
	for _, name := range names {
		o := res.Trees[name]
		if len(o.Layers) != 5 {
			t.Errorf("%s has %d layers", name, len(o.Layers))
		}
		want := describe(t, plain[name])
		if diff := cmp.Diff(want, describe(t, exported(t, e, o))); diff != "" {
			t.Errorf("%s (-plain +layers):\n%s", name, diff)
		}
		checkFind(t, e, o, plain[name])
	}
}

// A chain that grew too long becomes one layer, and the same tree.
func TestFlatten(t *testing.T) {
	defer func(n int) { maxLayers = n }(maxLayers)
	maxLayers = 3
	m, names, plain := changePipelines(t, 2, 9, 15)
	e := newEngine(t, newStore(t))
	res := mustBuild(t, e, m, names...)
	for _, name := range names {
		o := res.Trees[name]
		if n := len(o.Layers); n > maxLayers {
			t.Errorf("%s has %d layers", name, n)
		}
		if diff := cmp.Diff(describe(t, plain[name]), describe(t, exported(t, e, o))); diff != "" {
			t.Errorf("%s (-plain +layers):\n%s", name, diff)
		}
	}
	checkIdle(t, e)
}

// A stage that changes all files, as one that sets labels or owners does, keeps the
// names of a file together.
func TestManyNames(t *testing.T) {
	m := plan1(pipe("p",
		stage(shStage, `{"script":"mkdir d; echo x > a; ln a b; ln a d/c; echo y > one; ln one two"}`),
		stage(shStage, `{"script":"chmod 640 a b d/c; chown -R 3:3 ."}`),
		stage(shStage, `{"script":"rm b; echo more >> new"}`)))
	e := newEngine(t, newStore(t))
	dir := exported(t, e, mustBuild(t, e, m, "p").Trees["p"])
	got := describe(t, dir)
	for p, want := range map[string]string{"a": `"a","d/c"`, "d/c": `"a","d/c"`, "one": `"one","two"`} {
		if !strings.HasSuffix(got[strconv.Quote(p)], " names: "+want) || !strings.Contains(got[strconv.Quote(p)], " 3:3 ") {
			t.Errorf("%s: %s", p, got[strconv.Quote(p)])
		}
	}
}
