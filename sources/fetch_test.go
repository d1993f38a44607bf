// Tests of fetching, against a server on the loopback interface that misbehaves.
package sources

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/monitor"
)

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// content is n bytes that are the same in every run.
func content(n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return b
}

// serve answers requests with h and counts them.
func serve(t *testing.T, h func(n int, w http.ResponseWriter, r *http.Request)) (url string, count *atomic.Int32) {
	t.Helper()
	count = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h(int(count.Add(1)), w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, count
}

// whole serves b, ranges included.
func whole(b []byte) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

// cut serves the whole length of b in the header and only n bytes of it.
func cut(w http.ResponseWriter, b []byte, n int) {
	w.Header().Set("ETag", `"v1"`)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.Write(b[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func newFetcher(t *testing.T) *Fetcher {
	return &Fetcher{Dir: filepath.Join(t.TempDir(), "files"), Backoff: time.Millisecond, Retries: 2}
}

// files lists what a directory has.
func files(t *testing.T, dir string) []string {
	t.Helper()
	ents, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range ents {
		names = append(names, e.Name())
	}
	return names
}

// wantFile holds the stored file against its content.
func wantFile(t *testing.T, dir string, b []byte) {
	t.Helper()
	got, err := os.ReadFile(Path(dir, sum(b)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b) {
		t.Errorf("the stored file differs: %d bytes, want %d", len(got), len(b))
	}
}

func wantError(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error without a hint: %v", err)
	}
	if !strings.Contains(err.Error(), text) || !strings.Contains(e.Hint, hint) {
		t.Errorf("error %q, hint %q\nwant %q, %q", err, e.Hint, text, hint)
	}
}

func TestFetchAll(t *testing.T) {
	var items []Item
	bodies := map[string][]byte{}
	var busy, most atomic.Int32
	base, count := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		now := busy.Add(1)
		defer busy.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		whole(bodies[r.URL.Path])(n, w, r)
	})
	for i := range 40 {
		b := content(i * 1000)
		p := fmt.Sprintf("/pool/p%d_1.0+b1_all.deb", i)
		bodies[p] = b
		items = append(items, Item{Checksum: sum(b), URLs: []string{base + p}, Size: int64(len(b))})
	}
	items = append(items, items[3]) // named twice
	var last monitor.Event
	var mu sync.Mutex
	stream := monitor.New(monitor.ReaderFunc(func(e monitor.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind == monitor.Progress {
			last = e
		}
	}))
	f := newFetcher(t)
	f.PerHost = 3
	f.Span = stream.Start(nil, monitor.Event{Category: monitor.CatSource, Name: "sources"})
	res, err := f.Fetch(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	if len(res) != 40 || int(count.Load()) != 40 {
		t.Errorf("%d results, %d requests; want 40 of each", len(res), count.Load())
	}
	if most.Load() > 3 {
		t.Errorf("%d requests at once, want at most 3", most.Load())
	}
	total := int64(0)
	for _, b := range bodies {
		wantFile(t, f.Dir, b)
		total += int64(len(b))
	}
	if last.Done != total || last.Total != total || last.Unit != "bytes" {
		t.Errorf("last progress %d of %d %s, want %d", last.Done, last.Total, last.Unit, total)
	}
	if n := len(files(t, f.Dir)); n != 40 {
		t.Errorf("%d files in the directory, want 40", n)
	}
	res, err = f.Fetch(t.Context(), items)
	if err != nil || !res[7].Cached || count.Load() != 40 {
		t.Errorf("second time: cached %v, %d requests, error %v", res[7].Cached, count.Load(), err)
	}
}

func TestFetchTrouble(t *testing.T) {
	b := content(300_000)
	other := content(300_001)[:300_000]
	dead := deadURL(t)
	tests := []struct {
		name       string
		serve      func(n int, w http.ResponseWriter, r *http.Request)
		also       string // a mirror to try before
		nosize     bool
		requests   int32
		text, hint string // "" : it works
	}{
		{name: "fine", serve: whole(b), requests: 1},
		{name: "size not known", serve: whole(b), nosize: true, requests: 1},
		{name: "503 twice", requests: 3, serve: func(n int, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			whole(b)(n, w, r)
		}},
		{name: "503 for ever", requests: 3, serve: func(_ int, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "busy", http.StatusServiceUnavailable)
		},
			text: "503", hint: "try again later"},
		{name: "404", requests: 1, serve: func(_ int, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
			text: "not found (404)", hint: "osbuild-star lock --update"},
		{name: "403", requests: 1, serve: func(_ int, w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
			text: "403", hint: "credentials"},
		{name: "first mirror is dead", also: dead + "/x.deb", serve: whole(b), requests: 1},
		{name: "wrong content", requests: 1, serve: whole(other), text: "has checksum " + sum(other) + ", not " + sum(b), hint: "mirror"},
		{name: "wrong length", requests: 1, serve: whole(b[:1000]), text: "has 1000 bytes, not 300000", hint: "lock --update"},
		{name: "wrong length, not told", requests: 1, text: "has more than 300000 bytes", hint: "lock --update",
			serve: func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.(http.Flusher).Flush()
				w.Write(b)
				w.Write(b)
			}},
		{name: "cut again and again", requests: 4, serve: func(n int, w http.ResponseWriter, r *http.Request) {
			var at int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
			if n < 4 {
				if at > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(b)-1, len(b)))
					w.Header().Set("Content-Length", fmt.Sprint(len(b)-at))
					w.WriteHeader(206)
					w.Write(b[at : at+50_000])
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
				cut(w, b, 50_000)
			}
			if at != 150_000 {
				http.Error(w, fmt.Sprintf("asked for %d", at), 400)
				return
			}
			whole(b)(n, w, r)
		}},
		{name: "cut, then no ranges", requests: 2, serve: func(n int, w http.ResponseWriter, _ *http.Request) {
			if n == 1 {
				cut(w, b, 99_999)
			}
			w.Write(b)
		}},
		{name: "cut, then 416", requests: 3, serve: func(n int, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				cut(w, b, 99_999)
			case 2:
				w.WriteHeader(416)
			default:
				whole(b)(n, w, r)
			}
		}},
		{name: "cut, then another range", requests: 3, serve: func(n int, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				cut(w, b, 99_999)
			case 2:
				w.Header().Set("Content-Range", "bytes 5-9/10")
				w.WriteHeader(206)
				w.Write([]byte("12345"))
			default:
				whole(b)(n, w, r)
			}
		}},
		{name: "never more than a little", requests: 4, serve: func(n int, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				http.Error(w, "busy", 500)
				return
			}
			cut(w, b, 10)
		}, text: "500", hint: "server"},
		{name: "nothing for too long", requests: 3, text: "no data came", serve: func(_ int, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base, count := serve(t, tt.serve)
			f := newFetcher(t)
			f.Stall = 2 * time.Second
			if strings.HasPrefix(tt.name, "nothing") {
				f.Stall = 500 * time.Millisecond
			}
			it := Item{Checksum: sum(b), URLs: []string{base + "/x.deb"}, Size: int64(len(b))}
			if tt.also != "" {
				it.URLs = append([]string{tt.also}, it.URLs...)
			}
			if tt.nosize {
				it.Size = 0
			}
			_, err := f.Fetch(t.Context(), []Item{it})
			if n := count.Load(); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
			if tt.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				wantFile(t, f.Dir, b)
				if left := files(t, f.Dir); len(left) != 1 {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if tt.hint != "" {
				wantError(t, err, tt.text, tt.hint)
			} else if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %q", err, tt.text)
			}
			if Have(f.Dir, it.Checksum, 0) {
				t.Error("the wrong file is there")
			}
		})
	}
}

// deadURL is the address of a server that is gone.
func deadURL(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestFetchUnreachable(t *testing.T) {
	base := deadURL(t)
	var items []Item
	for i := range 20 {
		items = append(items, Item{Checksum: sum(content(i)), URLs: []string{fmt.Sprintf("%s/%d.deb", base, i)}})
	}
	_, err := newFetcher(t).Fetch(t.Context(), items)
	wantError(t, err, "cannot be reached", "OSBUILD_STAR_DEB_MIRROR")
	if !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), base) {
		t.Errorf("error %q does not tell why or where", err)
	}
}

func TestFetchSecondMirror(t *testing.T) {
	b := content(1000)
	bad, _ := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	wrong, _ := serve(t, whole(content(1001)[:1000]))
	good, _ := serve(t, whole(b))
	f := newFetcher(t)
	res, err := f.Fetch(t.Context(), []Item{{Checksum: sum(b), URLs: []string{bad + "/a", wrong + "/a", good + "/a"}}})
	if err != nil {
		t.Fatal(err)
	}
	if res[0].From != good+"/a" {
		t.Errorf("from %s, want %s", res[0].From, good)
	}
	wantFile(t, f.Dir, b)
	f = newFetcher(t)
	_, err = f.Fetch(t.Context(), []Item{{Checksum: sum(b), URLs: []string{bad + "/a.deb", wrong + "/a.deb"}}})
	wantError(t, err, "no mirror has the file", "lock --update")
	if !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "has checksum") {
		t.Errorf("error %q does not tell both", err)
	}
}

// A run that was cancelled leaves what it has, and the next one goes on there.
func TestFetchResume(t *testing.T) {
	b := content(400_000)
	ctx, cancel := context.WithCancel(t.Context())
	ranges := make(chan string, 4)
	base, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		ranges <- r.Header.Get("Range") + " " + r.Header.Get("If-Range")
		if n > 1 {
			whole(b)(n, w, r)
			return
		}
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b[:200_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	f := newFetcher(t)
	it := Item{Checksum: sum(b), URLs: []string{base + "/x"}, Size: int64(len(b))}
	part := filepath.Join(f.Dir, partPrefix+it.Checksum)
	go func() {
		for {
			if fi, err := os.Stat(part); err == nil && fi.Size() == 200_000 {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := f.Fetch(ctx, []Item{it}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want %v", err, context.Canceled)
	}
	if Have(f.Dir, it.Checksum, 0) {
		t.Fatal("half a file is there")
	}
	if _, err := f.Fetch(t.Context(), []Item{it}); err != nil {
		t.Fatal(err)
	}
	wantFile(t, f.Dir, b)
	<-ranges
	if diff := cmp.Diff(`bytes=200000- "v1"`, <-ranges); diff != "" {
		t.Error(diff)
	}
	if left := files(t, f.Dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// What another run left may be anything.
func TestFetchResumeGarbage(t *testing.T) {
	b := content(400_000)
	tests := map[string][]byte{
		"other bytes":    content(1000),
		"too long":       content(500_000),
		"all, but wrong": content(400_001)[:400_000],
		"all, and right": b,
		"empty":          {},
	}
	for name, old := range tests {
		t.Run(name, func(t *testing.T) {
			base, count := serve(t, whole(b))
			f := newFetcher(t)
			it := Item{Checksum: sum(b), URLs: []string{base + "/x"}, Size: int64(len(b))}
			os.MkdirAll(f.Dir, 0o755)
			os.WriteFile(filepath.Join(f.Dir, partPrefix+it.Checksum), old, 0o644)
			if _, err := f.Fetch(t.Context(), []Item{it}); err != nil {
				t.Fatal(err)
			}
			wantFile(t, f.Dir, b)
			if name == "all, and right" && count.Load() != 0 {
				t.Errorf("%d requests for a file that was complete", count.Load())
			}
		})
	}
	t.Run("wrong size under its own name", func(t *testing.T) {
		base, _ := serve(t, whole(b))
		f := newFetcher(t)
		it := Item{Checksum: sum(b), URLs: []string{base + "/x"}, Size: int64(len(b))}
		os.MkdirAll(f.Dir, 0o755)
		os.WriteFile(Path(f.Dir, it.Checksum), b[:10], 0o644)
		if _, err := f.Fetch(t.Context(), []Item{it}); err != nil {
			t.Fatal(err)
		}
		wantFile(t, f.Dir, b)
	})
}

// Several fetchers at one directory share the work.
func TestFetchTogether(t *testing.T) {
	b := content(200_000)
	base, count := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Write(b[:100_000])
		w.(http.Flusher).Flush()
		time.Sleep(30 * time.Millisecond)
		w.Write(b[100_000:])
	})
	f := newFetcher(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			g := *f
			if _, err := g.Fetch(t.Context(), []Item{{Checksum: sum(b), URLs: []string{base + "/x"}, Size: int64(len(b))}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantFile(t, f.Dir, b)
	if count.Load() != 1 {
		t.Errorf("%d requests, want 1", count.Load())
	}
	if left := files(t, f.Dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// A failure stops the other files, and is the error that is told.
func TestFetchFirstFailure(t *testing.T) {
	b := content(1000)
	started := make(chan bool, 1)
	base, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			<-started
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", "1000")
		w.Write(b[:500])
		w.(http.Flusher).Flush()
		started <- true
		<-r.Context().Done()
	})
	f := newFetcher(t)
	res, err := f.Fetch(t.Context(), []Item{
		{Checksum: sum(b), URLs: []string{base + "/slow"}, Size: 1000},
		{Checksum: sum([]byte("x")), URLs: []string{base + "/bad"}},
	})
	wantError(t, err, "404", "check the URL")
	if !errors.Is(res[0].Err, errGivenUp) {
		t.Errorf("the other file: %v", res[0].Err)
	}
}
