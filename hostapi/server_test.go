// Servers, from start to end: whatever clients do, a server answers what it can, closes
// in time, and leaves nothing.
package hostapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// told collects exceptions.
type told struct {
	mu  sync.Mutex
	all []Exception
}

func (x *told) take(e Exception) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = append(x.all, e)
}

func (x *told) values() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for _, e := range x.all {
		out = append(out, e.Value)
	}
	return out
}

func serve(t testing.TB, cfg Config) *Server {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := Serve(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		ents, err := os.ReadDir(cfg.Dir)
		if err != nil || len(ents) > 0 {
			t.Errorf("left in the directory: %v %v", ents, err)
		}
	})
	return s
}

func dial(t testing.TB, path string) *Conn {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type exceptionRequest struct {
	Method    string `json:"method"`
	Exception any    `json:"exception,omitempty"`
}

func raise(value string) exceptionRequest {
	return exceptionRequest{"exception", Exception{Type: "ValueError", Value: value, Traceback: "  File \"x\"\n"}}
}

func TestArguments(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	serve(t, Config{Dir: dir, Arguments: []byte(`{"tree": "/run/osbuild/tree"}`)})
	got, err := os.ReadFile(filepath.Join(dir, "arguments"))
	if err != nil || string(got) != `{"tree": "/run/osbuild/tree"}` {
		t.Errorf("%q %v", got, err)
	}
	for name, want := range map[string]fs.FileMode{"arguments": 0o444, "osbuild": fs.ModeSocket | 0o600, "remoteloop": fs.ModeSocket | 0o600} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v %v", name, st.Mode(), err)
		}
	}
}

func TestServeFails(t *testing.T) {
	for _, name := range []string{"arguments", "osbuild", "remoteloop"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Serve(Config{Dir: dir, Arguments: []byte("{}")})
		if err == nil {
			s.Close(context.Background())
			t.Errorf("%s was replaced", name)
		}
		ents, _ := os.ReadDir(dir)
		if len(ents) != 1 {
			t.Errorf("%s is there: left are %v", name, ents)
		}
		if text, _ := os.ReadFile(filepath.Join(dir, name)); string(text) != "mine" {
			t.Errorf("%s is gone", name)
		}
	}
}

func TestExceptions(t *testing.T) {
	var x told
	dir := t.TempDir()
	s := serve(t, Config{Dir: dir, Exception: x.take})
	c := dial(t, filepath.Join(dir, "osbuild"))
	huge := strings.Repeat("x", min(wmemMax(), maxRequest/2)+1<<20)
	for _, msg := range []any{
		raise("one"), raise(huge), exceptionRequest{Method: "something else"}, map[string]any{},
		exceptionRequest{"exception", map[string]any{"type": 3, "value": []int{1}, "more": true}},
		map[string]any{"METHOD": "exception", "Exception": raise("not this").Exception},
	} {
		if err := c.Send(msg); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	soon(t, "three exceptions", func() bool { return len(x.values()) >= 3 })
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	want := []Exception{
		{Type: "ValueError", Value: "one", Traceback: "  File \"x\"\n"},
		{Type: "ValueError", Value: huge, Traceback: "  File \"x\"\n"},
		{Type: "3", Value: "[1]"},
	}
	if diff := cmp.Diff(want, x.all); diff != "" {
		t.Errorf("(-want +got):\n%.2000s", diff)
	}
	if e := (&Exception{Type: "KeyError", Value: "'x'"}); e.Error() != "KeyError: 'x'" {
		t.Error(e)
	}
}

// What is wrong with a request is answered, and the connection goes on.
func TestBadRequests(t *testing.T) {
	dir := t.TempDir()
	var x told
	serve(t, Config{Dir: dir, Exception: x.take})
	c := dial(t, filepath.Join(dir, "osbuild"))
	for _, r := range []struct {
		msg        any
		typ, value string
	}{
		{"exception", "BufferError", "cannot unmarshal string"},
		{[]int{1}, "BufferError", "cannot unmarshal array"},
		{map[string]any{"method": 3}, "ValueError", `"method"`},
		{exceptionRequest{Method: "exception"}, "KeyError", "'exception'"},
		{exceptionRequest{"exception", "text"}, "ValueError", `"exception"`},
		{raise(strings.Repeat("x", maxRequest)), "BufferError", "are the most"},
	} {
		if err := c.Send(r.msg); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Method    string
			Exception Exception
		}
		if _, err := c.Receive(&got); err != nil {
			t.Fatal(err)
		}
		if got.Method != "exception" || got.Exception.Type != r.typ || !strings.Contains(got.Exception.Value, r.value) {
			t.Errorf("%.60v: %+v", r.msg, got)
		}
	}
	if err := c.Send(raise("still here")); err != nil {
		t.Fatal(err)
	}
	soon(t, "an exception", func() bool { return len(x.values()) == 1 })
}

// Files that come with a request nobody wants them for are closed.
func TestUnwantedFiles(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it closes what is forgotten
	dir := t.TempDir()
	var x told
	serve(t, Config{Dir: dir, Exception: x.take})
	c := dial(t, filepath.Join(dir, "osbuild"))
	many := make([]*os.File, maxFiles)
	for i := range many {
		many[i] = tempFile(t, "")
	}
	if err := c.Send(raise("0")); err != nil {
		t.Fatal(err)
	}
	soon(t, "the first exception", func() bool { return len(x.values()) == 1 })
	before := openFiles(t)
	for range 20 {
		if err := c.Send(raise("x"), many...); err != nil {
			t.Fatal(err)
		}
	}
	soon(t, "all exceptions", func() bool { return len(x.values()) == 21 })
	soon(t, "the files to be closed", func() bool { return openFiles(t) == before })
}

// A program tells its error and is gone before anybody looks: it is not lost.
func TestLastWords(t *testing.T) {
	for range 200 {
		var x told
		dir := t.TempDir()
		s := serve(t, Config{Dir: dir, Exception: x.take})
		for i := range 3 {
			c := dial(t, filepath.Join(dir, "osbuild"))
			for j := range 3 {
				if err := c.Send(raise(fmt.Sprint(i, j))); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
		}
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := x.values(); len(got) != 9 {
			t.Fatalf("only %v", got)
		}
	}
}

// Clients that say nothing, in whatever number, hold nothing up.
func TestSilentClients(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, Config{Dir: dir})
	for range 2 * maxConns {
		dial(t, filepath.Join(dir, "osbuild"))
	}
	within(t, drainLimit/2, "closing", func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, err := Dial(filepath.Join(dir, "osbuild")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("connecting afterwards: %v", err)
	}
}

// inFlight starts a server, and a request to it whose answer waits for something.
func inFlight(t *testing.T, work func(ctx context.Context) error) (*Server, *Conn) {
	t.Helper()
	working := make(chan bool)
	path := filepath.Join(t.TempDir(), "store")
	s, err := ServeStore(StoreConfig{Path: path, Source: func(ctx context.Context, name string) (string, error) {
		close(working)
		return "/there/" + name, work(ctx)
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	if err := c.Send(map[string]string{"method": "source", "name": "x"}); err != nil {
		t.Fatal(err)
	}
	<-working
	return s, c
}

func TestInFlightIsDrained(t *testing.T) {
	s, c := inFlight(t, func(context.Context) error { time.Sleep(drainLimit / 4); return nil })
	within(t, drainLimit, "closing", func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	var got map[string]string
	if _, err := c.Receive(&got); err != nil || got["path"] != "/there/x" {
		t.Errorf("the answer: %v %v", got, err)
	}
	if _, err := c.Receive(&got); !errors.Is(err, io.EOF) {
		t.Errorf("after it: %v", err)
	}
}

func TestInFlightIsCutOff(t *testing.T) {
	var ended atomic.Bool
	s, c := inFlight(t, func(ctx context.Context) error { <-ctx.Done(); ended.Store(true); return ctx.Err() })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	within(t, drainLimit/2, "closing", func() {
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if !ended.Load() {
		t.Error("the server is closed, and its request is still worked on")
	}
	var got struct {
		Method    string
		Exception Exception
	}
	if _, err := c.Receive(&got); err != nil || got.Method != "exception" || !strings.Contains(got.Exception.Value, "closed") && !strings.Contains(got.Exception.Value, "canceled") {
		t.Errorf("the client got %+v, %v", got, err)
	}
}

// A client that sends for ever, and one that never reads, end with the server.
func TestBusyClients(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, Config{Dir: dir})
	var wg sync.WaitGroup
	for _, msg := range []any{raise("again"), []int{}} { // the second is answered
		for range 4 {
			c := dial(t, filepath.Join(dir, "osbuild"))
			wg.Add(1)
			go func() {
				defer wg.Done()
				for c.Send(msg) == nil {
				}
			}()
		}
	}
	time.Sleep(50 * time.Millisecond)
	within(t, 2*drainLimit, "closing", func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	within(t, 5*time.Second, "the clients' end", wg.Wait)
}

// When this process can open no more files, clients wait, and are served later.
func TestAcceptWithoutFiles(t *testing.T) {
	dir := t.TempDir()
	var x told
	serve(t, Config{Dir: dir, Exception: x.take})
	var clients []*Conn
	dir2, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir2.Close()
	withFewFiles(t, 3, func() {
		for range 3 { // all that are left, so that none can be accepted
			c, err := Dial(filepath.Join(dir, "osbuild"))
			if err != nil {
				break
			}
			clients = append(clients, c)
			c.Send(raise("x"))
		}
		time.Sleep(50 * time.Millisecond)
	})
	if len(clients) == 0 {
		t.Fatal("no client could connect")
	}
	soon(t, "all exceptions", func() bool { return len(x.values()) == len(clients) })
	for _, c := range clients {
		c.Close()
	}
}

func TestCloseAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, Config{Dir: dir})
	dial(t, filepath.Join(dir, "osbuild"))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var err error
			if i%3 == 0 {
				err = s.Stop(context.Background())
			} else {
				err = s.Close(context.Background())
			}
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "osbuild")); err == nil {
				t.Error("the socket is there still")
			}
		}()
	}
	wg.Wait()
}

// A thousand servers come and go under clients that connect, talk and leave at any
// time; goleak, the race detector, and a count of what is open look on.
func TestManyTimes(t *testing.T) {
	const cycles = 1000
	dir := t.TempDir()
	before := openFiles(t)
	at := func(i int) string { return filepath.Join(dir, fmt.Sprint(i%4), "osbuild") }
	for i := range 4 {
		if err := os.Mkdir(filepath.Dir(at(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var sent, cut, got atomic.Int64
	stop := make(chan struct{})
	var clients, servers sync.WaitGroup
	for i := range 8 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				c, err := Dial(at(n))
				if err != nil {
					time.Sleep(100 * time.Microsecond)
					continue
				}
				if n%3 > 0 {
					if c.Send(raise(fmt.Sprint(n))) == nil {
						sent.Add(1)
					}
				}
				if n%3 > 1 {
					var v any
					if c.Send([]int{}) == nil { // answered by an exception
						if _, err := c.Receive(&v); err != nil {
							cut.Add(1)
						}
					}
				}
				c.Close()
			}
		}()
	}
	for i := range 4 {
		servers.Add(1)
		go func() {
			defer servers.Done()
			for n := range cycles / 4 {
				s, err := Serve(Config{
					Dir: filepath.Dir(at(i)), Arguments: []byte(`{}`), Exception: func(Exception) { got.Add(1) },
					Loop: func(context.Context, LoopRequest) (Loop, error) { return Loop{}, errors.New("none") },
				})
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Duration(n%5) * 200 * time.Microsecond)
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				if err := s.Close(ctx); err != nil {
					t.Error(err)
				}
				cancel()
			}
		}()
	}
	servers.Wait()
	close(stop)
	clients.Wait()
	t.Logf("%d exceptions were sent and %d taken; %d connections were cut", sent.Load(), got.Load(), cut.Load())
	if got.Load() == 0 {
		t.Error("no client got through")
	}
	for i := range 4 {
		if ents, err := os.ReadDir(filepath.Dir(at(i))); err != nil || len(ents) > 0 {
			t.Errorf("left: %v %v", ents, err)
		}
	}
	if n := openFiles(t); n != before {
		t.Errorf("%d descriptors are left open", n-before)
	}
	if text, err := os.ReadFile("/proc/net/unix"); err != nil || strings.Contains(string(text), dir) {
		t.Errorf("a listener is left (%v)", err)
	}
}
