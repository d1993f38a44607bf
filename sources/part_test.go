// Tests of what concerns this machine: local files, a full disk, proxies, and what
// is left of incomplete files.
package sources

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestFetchLocal(t *testing.T) {
	b := content(5000)
	name := filepath.Join(t.TempDir(), "a file+1")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	fileURL := (&url.URL{Scheme: "file", Path: name}).String()
	empty := []byte{}
	tests := []struct {
		name       string
		item       Item
		want       []byte
		text, hint string
	}{
		{name: "path", item: Item{Checksum: sum(b), Path: name}, want: b},
		{name: "file url", item: Item{Checksum: sum(b), URLs: []string{fileURL}}, want: b},
		{name: "inline", item: Item{Checksum: sum(b), Inline: b}, want: b},
		{name: "empty inline", item: Item{Checksum: sum(empty), Inline: empty}, want: empty},
		{name: "changed path", item: Item{Checksum: sum(empty), Path: name}, text: name + " has checksum " + sum(b), hint: "changed since"},
		{name: "no such path", item: Item{Checksum: sum(b), Path: name + "x"}, text: "no such file", hint: "check the path"},
		{name: "a directory", item: Item{Checksum: sum(b), URLs: []string{"file:///"}}, text: "not a regular file", hint: ""},
		{name: "inline wrong", item: Item{Checksum: sum(b), Inline: []byte("x")}, text: "has checksum", hint: "by hand"},
		{name: "no place", item: Item{Checksum: sum(b)}, text: "nothing says where", hint: "URL"},
		{name: "bad scheme", item: Item{Checksum: sum(b), URLs: []string{"ftp://x/y"}}, text: "cannot be fetched", hint: "https://"},
		{name: "bad checksum text", item: Item{Checksum: "sha256:../../etc"}, text: "not a checksum", hint: "64 lower-case"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFetcher(t)
			_, err := f.Fetch(t.Context(), []Item{tt.item})
			if tt.text != "" {
				if tt.hint != "" {
					wantError(t, err, tt.text, tt.hint)
				} else if err == nil || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("error %v", err)
				}
				if left := files(t, f.Dir); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, f.Dir, tt.want)
		})
	}
}

// A process can end between any two calls of commit: the next one takes what is there,
// and leaves nothing.
func TestFetchAfterKilledCommit(t *testing.T) {
	big := content(300_000)
	base, requests := serve(t, whole(big))
	it := Item{Checksum: sum(big), Size: int64(len(big)), URLs: []string{base + "/x"}}
	for name, there := range map[string][]string{
		"all is written":          {partPrefix + it.Checksum, partPrefix + it.Checksum + infoSuffix},
		"its origin is removed":   {partPrefix + it.Checksum},
		"it has got its own name": {it.Checksum},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t)
			if err := os.MkdirAll(f.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, n := range there {
				b := big
				if strings.HasSuffix(n, infoSuffix) {
					b = []byte(base + "/x\n\"tag\"\n")
				}
				if err := os.WriteFile(filepath.Join(f.Dir, n), b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			before := requests.Load()
			if _, err := f.Fetch(t.Context(), []Item{it}); err != nil {
				t.Fatal(err)
			}
			wantFile(t, f.Dir, big)
			if n := requests.Load() - before; n != 0 {
				t.Errorf("%d requests for what was there", n)
			}
			if diff := cmp.Diff([]string{it.Checksum}, files(t, f.Dir)); diff != "" {
				t.Errorf("in the directory (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFetchDiskFull(t *testing.T) {
	dir := smallDir(t, "256k")
	big := content(600_000)
	base, _ := serve(t, whole(big))
	f := newFetcher(t)
	f.Dir = filepath.Join(dir, "files")
	for _, known := range []bool{true, false} {
		it := Item{Checksum: sum(big), URLs: []string{base + "/x"}}
		if known {
			it.Size = int64(len(big))
		}
		_, err := f.Fetch(t.Context(), []Item{it})
		wantError(t, err, f.Dir, "make room")
		var se *SpaceError
		if !errors.As(err, &se) || !errors.Is(err, unix.ENOSPC) || se.Free < 0 {
			t.Errorf("error %#v is no SpaceError", err)
		}
		if Have(f.Dir, it.Checksum, 0) {
			t.Error("half a file is there")
		}
	}
}

// smallDir is a file system of that size that is mounted nowhere and goes away with
// its last descriptor.
func smallDir(t *testing.T, size string) string {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("no file system can be made here: fsopen: %v", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "size", size); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Skipf("no file system can be made here: fsconfig: %v", err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(m) })
	return fmt.Sprintf("/proc/self/fd/%d", m)
}

func TestFetchPacked(t *testing.T) {
	b := []byte(strings.Repeat("lzma ", 1000))
	packed := runFilter(t, b, "xz", "--format=lzma")
	f := newFetcher(t)
	if _, err := f.Fetch(t.Context(), []Item{{Checksum: sum(b), Inline: packed, Packed: true}}); err != nil {
		t.Fatal(err)
	}
	wantFile(t, f.Dir, b)
	f = newFetcher(t)
	if _, err := f.Fetch(t.Context(), []Item{{Checksum: sum(b), Inline: packed[:40], Packed: true}}); err == nil || !strings.Contains(err.Error(), "unpacking") {
		t.Errorf("cut data: error %v", err)
	}
}

func TestFetchProxies(t *testing.T) {
	b := content(100)
	var asked atomic.Value
	proxy, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		asked.Store(r.RequestURI)
		whole(b)(n, w, r)
	})
	t.Setenv(envProxy, proxy)
	f := newFetcher(t)
	if _, err := f.Fetch(t.Context(), []Item{{Checksum: sum(b), URLs: []string{"http://mirror.invalid/x.rpm"}}}); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != "http://mirror.invalid/x.rpm" {
		t.Errorf("the proxy was asked for %v", asked.Load())
	}
	t.Setenv(envProxy, "")
	conf := filepath.Join(t.TempDir(), "apt.conf")
	if err := os.WriteFile(conf, []byte("Acquire::http::Proxy \""+proxy+"\";\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", conf)
	t.Setenv("no_proxy", "*")
	f = newFetcher(t)
	if _, err := f.Fetch(t.Context(), []Item{{Checksum: sum(b), URLs: []string{"http://mirror.invalid/x.deb"}}}); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != "http://mirror.invalid/x.deb" {
		t.Errorf("the proxy was asked for %v", asked.Load())
	}
}

func TestRemoveStaleParts(t *testing.T) {
	dir := t.TempDir()
	it := &Item{Checksum: sum(nil)}
	p, err := openPart(t.Context(), dir, it, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(p, "busy")
	os.WriteFile(filepath.Join(dir, partPrefix+"sha256:old"), []byte("stale"), 0o644)
	os.WriteFile(filepath.Join(dir, partPrefix+"sha256:old"+infoSuffix), []byte("x"), 0o644)
	os.WriteFile(filepath.Join(dir, "sha256:whole"), []byte("whole"), 0o644)
	freed, err := RemoveStaleParts(dir, 0)
	if err != nil || freed != 5 {
		t.Errorf("freed %d, %v; want 5", freed, err)
	}
	if diff := cmp.Diff([]string{partPrefix + it.Checksum, "sha256:whole"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	p.close()
	if freed, err := RemoveStaleParts(filepath.Join(dir, "none"), 0); freed != 0 || err != nil {
		t.Errorf("no directory: %d, %v", freed, err)
	}
}
