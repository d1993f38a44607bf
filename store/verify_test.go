// Damage is found, told, and dropped with what stands on it.
package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// flip changes one bit in the middle of a file, as a bad disk does: its times stay.
func flip(t *testing.T, file string) {
	t.Helper()
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], st.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b[:], st.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func addSource(t *testing.T, s *Store, text string) string {
	t.Helper()
	h := sha256.Sum256([]byte(text))
	sum := "sha256:" + hex.EncodeToString(h[:])
	if err := os.WriteFile(filepath.Join(s.SourcesDir(), sum), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return sum
}

func sumAll(t *testing.T, s *Store) {
	t.Helper()
	layers, err := s.Unsummed()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if _, err := s.Entries(l); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t *testing.T, s *Store, opts VerifyOptions) []string {
	t.Helper()
	v, err := s.Verify(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range v.Problems {
		out = append(out, p.Kind+" "+p.Name+": "+p.What)
	}
	return out
}

func TestVerify(t *testing.T) {
	type parts struct {
		s          *Store
		below, mid *Object
		file       string // of the layer of mid
		source     string
	}
	lost := func(keys ...string) map[string]bool {
		out := map[string]bool{"below": true, "mid": true, "adopted": true, "top": true, "other": true}
		for _, k := range keys {
			out[k] = false
		}
		return out
	}
	onMid := lost("mid", "adopted", "top")
	for name, tt := range map[string]struct {
		damage func(p parts) error
		want   string // of the one problem
		found  map[string]bool
	}{
		"nothing": {func(parts) error { return nil }, "", lost()},
		"a bit of a layer": {func(p parts) error { flip(t, p.file); return nil },
			"layer MID: f has another content", onMid},
		"a bit of a source": {func(p parts) error { flip(t, filepath.Join(p.s.SourcesDir(), p.source)); return nil },
			"source SOURCE: its content is not what its checksum says", lost()},
		"a mode":        {func(p parts) error { return os.Chmod(p.file, 0o600) }, "layer MID: f has mode 0600, not 0644", onMid},
		"an owner":      {func(p parts) error { return os.Lchown(p.file, 7, 8) }, "layer MID: f belongs to 7:8, not 0:0", onMid},
		"a time":        {func(p parts) error { return os.Chtimes(p.file, time.Unix(1, 0), time.Unix(1, 0)) }, "layer MID: f has another time", onMid},
		"an attribute":  {func(p parts) error { return unix.Setxattr(p.file, "user.x", []byte("y"), 0) }, "layer MID: f has other extended attributes", onMid},
		"a file less":   {func(p parts) error { return os.Remove(p.file) }, "layer MID: f is gone", onMid},
		"a file more":   {func(p parts) error { return os.WriteFile(p.file+"2", nil, 0o644) }, "layer MID: f2 was not there", onMid},
		"a length":      {func(p parts) error { return os.Truncate(p.file, 1) }, "layer MID: f has 1 bytes, not 3", onMid},
		"a layer gone":  {func(p parts) error { return os.RemoveAll(p.mid.LayerDirs()[1]) }, "layer MID: it is gone", onMid},
		"an object cut": {func(p parts) error { return os.Truncate(p.s.path("objects", "mid", "info.json"), 9) }, "object mid: it cannot be read: unexpected end of JSON input", lost("mid")},
		"links": {func(p parts) error {
			os.Mkdir(p.s.path("links"), 0o755)
			return os.WriteFile(p.s.path("links", p.mid.Layers[1]+".json"), []byte("["), 0o644)
		}, "layer MID: its links outside cannot be read", onMid},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && name == "an owner" {
				t.Skip("only root gives files away")
			}
			p := parts{s: open(t)}
			s := p.s
			p.below = commit(t, s, "below", nil, "e")
			p.mid = commit(t, s, "mid", p.below, "f")
			p.file = filepath.Join(p.mid.LayerDirs()[1], "f")
			if _, err := s.Adopt(Info{Key: "adopted"}, p.mid, s.path("tmp")); err != nil {
				t.Fatal(err)
			}
			commit(t, s, "top", p.mid, "g")
			commit(t, s, "other", p.below, "h")
			p.source = addSource(t, s, "a source")
			s.Close()
			sumAll(t, s)
			if err := tt.damage(p); err != nil {
				t.Fatal(err)
			}
			var want []string
			if tt.want != "" {
				want = []string{strings.NewReplacer("MID", p.mid.Layers[1], "SOURCE", p.source).Replace(tt.want)}
			}
			layers := layersLeft(t, s)
			if diff := cmp.Diff(want, verify(t, s, VerifyOptions{Keep: true})); diff != "" {
				t.Errorf("--keep (-want +got):\n%s", diff)
			}
			if n := layersLeft(t, s); n != layers {
				t.Errorf("--keep left %d layers of %d", n, layers)
			}
			if diff := cmp.Diff(want, verify(t, s, VerifyOptions{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.found, found(s, "below", "mid", "adopted", "top", "other")); diff != "" {
				t.Errorf("what is left (-want +got):\n%s", diff)
			}
			s.Close()
			if again := verify(t, s, VerifyOptions{}); again != nil {
				t.Errorf("it is not clean afterwards: %v", again)
			}
			if tmp, _ := namesIn(s.path("tmp")); slices.ContainsFunc(tmp, func(n string) bool { return strings.HasPrefix(n, "gc-") }) {
				t.Errorf("left in tmp: %v", tmp)
			}
			if strings.HasPrefix(tt.want, "source") == exists(filepath.Join(s.SourcesDir(), p.source)) {
				t.Error("the source is there, or is not, and should")
			}
		})
	}
}

// What killed builds leave is no damage, and goes.
func TestVerifyLeftovers(t *testing.T) {
	s := open(t)
	commit(t, s, "k", nil, "f")
	s.Close()
	sumAll(t, s)
	for _, dir := range []string{"layers/0123456789abcdef", "tmp/run-killed", "links", "locks", "tmp/gc-2/layers/x"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"sums/.new-1", "sums/0123456789abcdee.zst", "links/0123456789abcded.json", "links/x.json.new", "locks/k"} {
		if err := os.WriteFile(s.path(file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if p := verify(t, s, VerifyOptions{}); p != nil {
		t.Errorf("problems: %v", p)
	}
	var left []string
	filepath.WalkDir(s.Dir, func(p string, _ os.DirEntry, _ error) error {
		left = append(left, strings.TrimPrefix(p, s.Dir))
		return nil
	})
	for _, p := range left {
		for _, bad := range []string{"01234", "tmp/gc", "tmp/run-killed", ".new", "locks/k"} {
			if strings.Contains(p, bad) {
				t.Errorf("left: %s", p)
			}
		}
	}
	if _, ok := s.Lookup("k"); !ok {
		t.Error("and what is needed is gone")
	}
}

// A sum is that of the data, wherever there are holes, and that of sha256sum where
// there is no block of zeros.
func TestSumFile(t *testing.T) {
	dir := t.TempDir()
	sum := func(name string, write func(f *os.File)) string {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		write(f)
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		got, err := sumFile(t.Context(), f, st.Size(), make([]byte, 1<<16), nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	text := strings.Repeat("osbuild-star\n", 100000)
	want := sha256.Sum256([]byte(text))
	if got := sum("plain", func(f *os.File) { f.WriteString(text) }); got != hex.EncodeToString(want[:]) {
		t.Errorf("a file without zeros has the sum %s, want %x", got, want)
	}
	const size = 4 << 20
	hole := sum("hole", func(f *os.File) { f.WriteAt([]byte("x"), 3<<20); f.Truncate(size) })
	zeros := sum("zeros", func(f *os.File) { f.Write(make([]byte, size)); f.WriteAt([]byte("x"), 3<<20) })
	moved := sum("moved", func(f *os.File) { f.WriteAt([]byte("x"), 2<<20); f.Truncate(size) })
	if hole != zeros {
		t.Error("a hole and zeros have different sums")
	}
	if hole == moved {
		t.Error("data that moved have the same sum")
	}
}

// What a layer can have is listed, and nothing changes when it is read back.
func TestEntries(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("device nodes need root")
	}
	s := open(t)
	up := layer(t, s, "f", "text")
	for _, err := range []error{
		os.Link(filepath.Join(up, "f"), filepath.Join(up, "g")),
		os.Symlink("f", filepath.Join(up, "s")),
		unix.Mknod(filepath.Join(up, "w"), unix.S_IFCHR|0o600, 0),
		unix.Mkfifo(filepath.Join(up, "p"), 0o600),
		os.Mkdir(filepath.Join(up, "d"), 0o755),
		unix.Setxattr(filepath.Join(up, "d"), "trusted.overlay.opaque", []byte("y"), 0),
		os.Chmod(filepath.Join(up, "f"), os.ModeSetuid|0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	o, err := s.Commit(Info{Key: "k"}, nil, up)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Entries(o.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	kept, err := s.Entries(o.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, kept); diff != "" {
		t.Errorf("read back:\n%s", diff)
	}
	var got []string
	for _, e := range kept {
		got = append(got, fmt.Sprint(e.Path, " ", e.Type, " ", e.Size, " ", e.Target, e.Device, e.Link, " ", len(e.SHA256), " ", len(e.Xattrs)))
	}
	want := []string{". dir 0  0 0", "d dir 0  0 1", "f file 4  64 0", "g file 4 f 64 0", "p fifo 0  0 0", "s symlink 0 f 0 0", "w char 0 0:0 0 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
