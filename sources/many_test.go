// Fetching many files for a build that runs beside it: what is told when, and what
// does not wait for what.
package sources

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Files come in the order of the items, and each is told of at once; those of this
// machine do not wait for a server that is slow.
func TestFetchTellsAtOnce(t *testing.T) {
	one, two, three, local := content(100), content(200), content(300), content(50)
	var mu sync.Mutex
	var told []string
	localCame := make(chan struct{})
	f := newFetcher(t)
	f.Jobs = 1
	f.Done = func(r Result) {
		if r.Err != nil || r.Path == "" {
			t.Errorf("%+v", r)
		}
		if !Have(f.Dir, r.Checksum, 0) {
			t.Errorf("%s is told of, and is not there", r.Checksum)
		}
		mu.Lock()
		told = append(told, r.Checksum)
		mu.Unlock()
		if r.Checksum == sum(local) {
			close(localCame)
		}
	}
	url, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			select {
			case <-localCame:
			case <-time.After(30 * time.Second):
				t.Error("the file of this machine waits for the server")
			}
		}
		b := map[string][]byte{"/1": one, "/2": two, "/3": three}[r.URL.Path]
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
	name := filepath.Join(t.TempDir(), "local")
	if err := os.WriteFile(name, local, 0o644); err != nil {
		t.Fatal(err)
	}
	items := []Item{
		{Checksum: sum(three), URLs: []string{url + "/3"}}, {Checksum: sum(one), URLs: []string{url + "/1"}},
		{Checksum: sum(local), Path: name}, {Checksum: sum(two), URLs: []string{url + "/2"}},
	}
	if _, err := f.Fetch(context.Background(), items); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{sum(local), sum(three), sum(one), sum(two)}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	// What is there is told of too.
	told = nil
	localCame = make(chan struct{})
	if _, err := f.Fetch(context.Background(), items); err != nil || len(told) != 4 {
		t.Errorf("again: %v, %v", told, err)
	}
}

// With KeepGoing the others come when one fails.
func TestFetchKeepGoing(t *testing.T) {
	good, later := content(100), content(200)
	url, _ := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			w.Write(good)
		case "/later":
			w.Write(later)
		default:
			http.NotFound(w, r)
		}
	})
	items := []Item{
		{Checksum: "sha256:" + string(bytes.Repeat([]byte("0"), 64)), URLs: []string{url + "/none"}},
		{Checksum: sum(good), URLs: []string{url + "/good"}}, {Checksum: sum(later), URLs: []string{url + "/later"}},
	}
	for _, keep := range []bool{true, false} {
		f := newFetcher(t)
		f.Jobs, f.KeepGoing = 1, keep
		var told []string
		f.Done = func(r Result) {
			if r.Err == nil {
				told = append(told, r.Checksum)
			}
		}
		_, err := f.Fetch(context.Background(), items)
		wantError(t, err, "404", "")
		want := []string{sum(good), sum(later)}
		if !keep {
			want = nil
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("keep going %v (-want +got):\n%s", keep, diff)
		}
		slices.Sort(want)
		if diff := cmp.Diff(append([]string{}, want...), files(t, f.Dir)); diff != "" {
			t.Errorf("keep going %v: files (-want +got):\n%s", keep, diff)
		}
	}
}
