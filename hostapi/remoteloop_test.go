// The protocol of loop devices; real ones are attached in the tests of build roots.
package hostapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// loopAnswer is either answer of the socket.
type loopAnswer struct {
	Devname   string    `json:"devname"`
	Method    string    `json:"method"`
	Exception Exception `json:"exception"`
}

func askLoop(t *testing.T, c *Conn, msg any, files ...*os.File) loopAnswer {
	t.Helper()
	if err := c.Send(msg, files...); err != nil {
		t.Fatal(err)
	}
	var a loopAnswer
	if _, err := c.Receive(&a); err != nil {
		t.Fatal(err)
	}
	return a
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRemoteLoop(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making device nodes needs root")
	}
	var asked []LoopRequest
	var contents, order []string
	dir, dev := t.TempDir(), openDir(t, t.TempDir())
	s := serve(t, Config{Dir: dir, Loop: func(_ context.Context, r LoopRequest) (Loop, error) {
		text, err := io.ReadAll(r.File)
		if err != nil {
			return Loop{}, err
		}
		contents = append(contents, string(text))
		r.File = nil
		asked = append(asked, r)
		if r.Offset == 13 {
			return Loop{}, &os.PathError{Op: "attach", Path: "x", Err: unix.EINVAL}
		}
		name := fmt.Sprintf("loop%d", 1000+len(asked))
		order = append(order, "+"+name)
		return Loop{Name: name, Major: 7, Minor: uint32(1000 + len(asked)), Close: func() error { order = append(order, "-"+name); return nil }}, nil
	}})
	c, err := Dial(filepath.Join(dir, "remoteloop"))
	if err != nil {
		t.Fatal(err)
	}
	file := func(text string) *os.File { return tempFile(t, text) }
	type m = map[string]any
	// As upstream's client sends it.
	a := askLoop(t, c, m{"fd": 0, "dir_fd": 1, "lock": false, "partscan": false, "read_only": false, "sector_size": 512}, file("first"), dev)
	if a.Devname != "loop1001" {
		t.Errorf("%+v", a)
	}
	a = askLoop(t, c, m{"dir_fd": 0, "fd": 1, "offset": 4096, "sizelimit": 1 << 40, "lock": true, "partscan": true, "read_only": true, "sector_size": 4096}, dev, file("second"))
	if a.Devname != "loop1002" {
		t.Errorf("%+v", a)
	}
	askLoop(t, c, m{"fd": 0, "dir_fd": 1, "offset": nil, "sizelimit": nil}, file("third"), dev)
	readOnly := openDir(t, "/proc/self")
	for _, r := range []struct {
		name  string
		msg   any
		files []*os.File
		typ   string
	}{
		{"no fd", m{"dir_fd": 0}, []*os.File{dev}, "KeyError"},
		{"no dir_fd", m{"fd": 0}, []*os.File{dev}, "KeyError"},
		{"no files", m{"fd": 0, "dir_fd": 1}, nil, "IndexError"},
		{"one file too few", m{"fd": 0, "dir_fd": 1}, []*os.File{dev}, "IndexError"},
		{"below none", m{"fd": -1, "dir_fd": 0}, []*os.File{dev}, "IndexError"},
		{"a negative offset", m{"fd": 0, "dir_fd": 1, "offset": -1}, []*os.File{file(""), dev}, "ValueError"},
		{"a truth of another kind", m{"fd": 0, "dir_fd": 1, "lock": "yes"}, []*os.File{file(""), dev}, "ValueError"},
		{"cannot be attached", m{"fd": 0, "dir_fd": 1, "offset": 13}, []*os.File{file("13"), dev}, "OSError"},
		{"no directory", m{"fd": 0, "dir_fd": 1}, []*os.File{file("f"), file("")}, "OSError"},
		{"where no node can be", m{"fd": 0, "dir_fd": 1}, []*os.File{file("g"), readOnly}, "OSError"},
	} {
		if a := askLoop(t, c, r.msg, r.files...); a.Method != "exception" || a.Exception.Type != r.typ {
			t.Errorf("%s: %+v", r.name, a)
		}
	}
	c.Close()
	for name, minor := range map[string]uint32{"loop1001": 1001, "loop1002": 1002, "loop1003": 1003} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dev.Name(), name), &st); err != nil || st.Mode != unix.S_IFBLK|0o600 || st.Rdev != unix.Mkdev(7, minor) {
			t.Errorf("%s: mode %o, device %x (%v)", name, st.Mode, st.Rdev, err)
		}
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	// Devices without a node are gone, others stay until the server closes.
	if diff := cmp.Diff([]string{"+loop1001", "+loop1002", "+loop1003", "+loop1005", "-loop1005", "+loop1006", "-loop1006"}, order); diff != "" {
		t.Errorf("after Stop (-want +got):\n%s", diff)
	}
	order = nil
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"-loop1003", "-loop1002", "-loop1001"}, order); diff != "" {
		t.Errorf("at Close (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"first", "second", "third", "13", "f", "g"}, contents); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	want := []LoopRequest{
		{SectorSize: 512},
		{Offset: 4096, SizeLimit: 1 << 40, SectorSize: 4096, Lock: true, PartScan: true, ReadOnly: true},
		{SectorSize: 512}, {Offset: 13, SectorSize: 512}, {SectorSize: 512}, {SectorSize: 512},
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// Errors of letting devices go are errors of Close, and every device is let go.
func TestRemoteLoopCloseErrors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making device nodes needs root")
	}
	dir, n := t.TempDir(), 0
	bad := errors.New("it is busy")
	s, err := Serve(Config{Dir: dir, Loop: func(context.Context, LoopRequest) (Loop, error) {
		n++
		return Loop{Name: fmt.Sprintf("loop%d", n), Major: 7, Minor: uint32(1000 + n), Close: func() error { n--; return bad }}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, filepath.Join(dir, "remoteloop"))
	dev := openDir(t, t.TempDir())
	f := tempFile(t, "")
	for i := range maxLoops + 2 {
		a := askLoop(t, c, map[string]any{"fd": 0, "dir_fd": 1}, f, dev)
		if ok := a.Devname != ""; ok != (i < maxLoops) {
			t.Fatalf("device %d: %+v", i, a)
		}
	}
	if ents, _ := os.ReadDir(dev.Name()); len(ents) != maxLoops {
		t.Errorf("%d nodes", len(ents))
	}
	if err := s.Close(context.Background()); !errors.Is(err, bad) {
		t.Errorf("error: %v", err)
	}
	if n != 0 {
		t.Errorf("%d devices are left", n)
	}
}

func TestNoLoops(t *testing.T) {
	dir := t.TempDir()
	serve(t, Config{Dir: dir})
	c := dial(t, filepath.Join(dir, "remoteloop"))
	if a := askLoop(t, c, map[string]any{"fd": 0, "dir_fd": 0}, tempFile(t, "")); a.Exception.Type != "RuntimeError" {
		t.Errorf("%+v", a)
	}
}
