// Messages over real sockets: content, files, size, and what is no message.
package hostapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRoundTrip(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 8<<20/16)
	for _, c := range []struct {
		name  string
		msg   any
		files []string
	}{
		{name: "an object", msg: map[string]any{"a": "b", "n": nil, "list": []any{true, "<&>"}}},
		{name: "null", msg: nil},
		{name: "text beyond ASCII", msg: "hügel \U0001f600 \x00"},
		{name: "files", msg: []any{}, files: []string{"one", "two", "three"}},
		{name: "a packet of 200 KB", msg: big[:200_000], files: []string{"x"}},
		{name: "the longest packet", msg: strings.Repeat("x", wmemMax()-2)},
		{name: "one byte more", msg: strings.Repeat("x", wmemMax()-1), files: []string{"a", "b"}},
		{name: "8 MB", msg: big},
		{name: "as many files as the kernel takes", msg: "m", files: make([]string, maxFiles)},
		{name: "the same with a long document", msg: big, files: make([]string, maxFiles-1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := connPair(t)
			var files []*os.File
			for _, s := range c.files {
				files = append(files, tempFile(t, s))
			}
			before := openFiles(t)
			sent := make(chan error, 1)
			go func() { sent <- a.Send(c.msg, files...) }()
			var got any
			recv, err := b.Receive(&got)
			if err != nil {
				t.Fatal(err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.msg, got); diff != "" {
				t.Errorf("message (-want +got):\n%.2000s", diff)
			}
			var contents []string
			for _, f := range recv {
				text, err := io.ReadAll(f)
				if err != nil {
					t.Fatal(err)
				}
				contents = append(contents, string(text))
				if fl, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
					t.Error("a received file would reach the programs that are started")
				}
			}
			if diff := cmp.Diff(c.files, contents); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			closeAll(recv)
			if n := openFiles(t); n != before {
				t.Errorf("%d descriptors are left open", n-before)
			}
		})
	}
}

// What upstream sends, byte for byte, is understood, and what it gets is a packet as it
// knows them.
func TestGoldenPackets(t *testing.T) {
	t.Run("received", func(t *testing.T) {
		c, sock := rawPair(t)
		for _, text := range []string{
			`{"type": "reply", "data": {"reply": {"path": "loop6", "node": {"major": 7, "minor": 6}}}}`,
			`{"method": "exception", "exception": {"type": "ValueError", "value": "h\u00fcgel \ud83d\ude00", "traceback": "  File \"x\", line 1\n"}}`,
		} {
			if err := unix.Sendmsg(sock, []byte(text), nil, nil, 0); err != nil {
				t.Fatal(err)
			}
			var got, want any
			if _, err := c.Receive(&got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(text), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	})
	t.Run("received by file", func(t *testing.T) {
		c, sock := rawPair(t)
		rights := unix.UnixRights(int(memory(t, `{"a": [1, 2]}`).Fd()), int(tempFile(t, "other").Fd()))
		if err := unix.Sendmsg(sock, []byte("<args-via-fd>"), rights, nil, 0); err != nil {
			t.Fatal(err)
		}
		var got struct{ A []int }
		files, err := c.Receive(&got)
		if err != nil || len(files) != 1 || !cmp.Equal(got.A, []int{1, 2}) {
			t.Fatalf("%v, %d files, %v", err, len(files), got)
		}
		defer closeAll(files)
		if text, _ := io.ReadAll(files[0]); string(text) != "other" {
			t.Errorf("the file: %q", text)
		}
	})
	read := func(t *testing.T, sock int) (string, []int) {
		t.Helper()
		buf, oob := make([]byte, 1<<20), make([]byte, 1024)
		n, oobn, _, _, err := unix.Recvmsg(sock, buf, oob, 0)
		if err != nil {
			t.Fatal(err)
		}
		var fds []int
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for i := range msgs {
			more, _ := unix.ParseUnixRights(&msgs[i])
			fds = append(fds, more...)
		}
		return string(buf[:n]), fds
	}
	t.Run("sent", func(t *testing.T) {
		c, sock := rawPair(t)
		if err := c.Send(map[string]string{"devname": "loop6"}); err != nil {
			t.Fatal(err)
		}
		if text, fds := read(t, sock); text != `{"devname":"loop6"}` || len(fds) != 0 {
			t.Errorf("%s and %d files", text, len(fds))
		}
	})
	t.Run("sent, as long as a packet can be", func(t *testing.T) {
		c, sock := rawPair(t)
		sent := make(chan error, 1)
		go func() { sent <- c.Send(strings.Repeat("x", wmemMax()-2)) }()
		if n, err := unix.Read(sock, make([]byte, wmemMax()+1)); err != nil || n != wmemMax() {
			t.Errorf("a packet of %d bytes (%v), want %d", n, err, wmemMax())
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
	t.Run("sent by file", func(t *testing.T) {
		c, sock := rawPair(t)
		long := strings.Repeat("x", wmemMax())
		if err := c.Send(long, tempFile(t, "other")); err != nil {
			t.Fatal(err)
		}
		text, fds := read(t, sock)
		if text != "<args-via-fd>" || len(fds) != 2 {
			t.Fatalf("%q and %d files", text, len(fds))
		}
		doc, other := os.NewFile(uintptr(fds[0]), "document"), os.NewFile(uintptr(fds[1]), "other")
		defer doc.Close()
		defer other.Close()
		// Upstream reads on from where the file stands.
		if got, err := io.ReadAll(doc); err != nil || string(got) != `"`+long+`"` {
			t.Errorf("the document has %d bytes (%v)", len(got), err)
		}
		if got, _ := io.ReadAll(other); string(got) != "other" {
			t.Errorf("the file: %q", got)
		}
	})
}

func TestPeerCloses(t *testing.T) {
	a, b := connPair(t)
	if err := b.Send("unread"); err != nil {
		t.Fatal(err)
	}
	if err := a.Send("last words"); err != nil {
		t.Fatal(err)
	}
	a.Close() // with something unread, which is ECONNRESET for b
	var got string
	if _, err := b.Receive(&got); err != nil || got != "last words" {
		t.Errorf("what was sent before the end: %q %v", got, err)
	}
	if _, err := b.Receive(&got); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if err := b.Send("x"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("sending to nobody: %v", err)
	}
}

func TestCloseEndsReceive(t *testing.T) {
	a, _ := connPair(t)
	got := make(chan error, 1)
	go func() {
		var v any
		_, err := a.Receive(&v)
		got <- err
	}()
	time.Sleep(20 * time.Millisecond)
	a.Close()
	within(t, 5*time.Second, "closing", func() {
		if err := <-got; !errors.Is(err, os.ErrClosed) {
			t.Errorf("receiving: %v", err)
		}
	})
}

// What is no message is an error, takes no memory and no files, does not block, and the
// connection is as good as before.
func TestMalformed(t *testing.T) {
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	sparse := memory(t, "")
	if err := sparse.Truncate(1 << 45); err != nil {
		t.Fatal(err)
	}
	writeOnly, err := os.OpenFile(tempFile(t, "{}").Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writeOnly.Close()
	const limit = 100_000
	extra := tempFile(t, "extra")
	for _, c := range []struct {
		name, data string
		files      []*os.File
		want       string
	}{
		{name: "text", data: "hello", want: "invalid character"},
		{name: "half a document", data: `{"a":`, want: "unexpected end"},
		{name: "two documents", data: `{}{}`, want: "after top-level value"},
		{name: "no JSON with files", data: "\xff", files: []*os.File{extra, extra}, want: "invalid character"},
		{name: "too long", data: `"` + strings.Repeat("x", limit) + `"`, files: []*os.File{extra}, want: "100002 bytes, and 100000 are the most"},
		{name: "deep", data: strings.Repeat("[", 50_000), want: "max depth"},
		{name: "no file for the document", data: viaFile, want: "is missing"},
		{name: "by a pipe", data: viaFile, files: []*os.File{pipe, extra}, want: "not in a file in memory"},
		{name: "by a directory", data: viaFile, files: []*os.File{dir}, want: "not in a file in memory"},
		{name: "by an endless device", data: viaFile, files: []*os.File{zero}, want: "not in a file in memory"},
		{name: "by 32 TB of holes", data: viaFile, files: []*os.File{sparse, extra}, want: "35184372088832 bytes, and 100000 are the most"},
		{name: "by a file that cannot be read", data: viaFile, files: []*os.File{writeOnly}, want: "its document"},
		{name: "by a file that is empty", data: viaFile, files: []*os.File{memory(t, "")}, want: "unexpected end"},
		{name: "by a file with no JSON", data: viaFile, files: []*os.File{memory(t, "x"), extra}, want: "invalid character"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, sock := rawPair(t)
			conn.SetLimit(limit)
			before := openFiles(t)
			var fds []int
			for _, f := range c.files {
				fds = append(fds, int(f.Fd()))
			}
			if err := unix.Sendmsg(sock, []byte(c.data), unix.UnixRights(fds...), nil, 0); err != nil {
				t.Fatal(err)
			}
			var v any
			within(t, 5*time.Second, "receiving", func() {
				_, err := conn.Receive(&v)
				if !errors.Is(err, ErrMessage) || !strings.Contains(fmt.Sprint(err), c.want) {
					t.Errorf("error: %v", err)
				}
			})
			if n := openFiles(t); n != before {
				t.Errorf("%d descriptors are left open", n-before)
			}
			if err := unix.Sendmsg(sock, []byte(`"next"`), nil, nil, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Receive(&v); err != nil || v != "next" {
				t.Errorf("the next message: %v %v", v, err)
			}
		})
	}
	// Upstream takes an empty packet for the end.
	t.Run("nothing", func(t *testing.T) {
		conn, sock := rawPair(t)
		if err := unix.Sendmsg(sock, []byte{}, nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		var v any
		if _, err := conn.Receive(&v); !errors.Is(err, io.EOF) {
			t.Errorf("error: %v", err)
		}
	})
}

func TestSendErrors(t *testing.T) {
	a, _ := connPair(t)
	f := tempFile(t, "")
	many := make([]*os.File, maxFiles+1)
	for i := range many {
		many[i] = f
	}
	closed := tempFile(t, "")
	closed.Close()
	before := openFiles(t)
	for _, c := range []struct {
		name  string
		msg   any
		files []*os.File
		want  string
	}{
		{"too many files", "", many, "254 files; 253 is the most"},
		{"one too many for a long document", strings.Repeat("x", wmemMax()), many[1:], "254 files; 253 is the most"},
		{"a closed file", "", []*os.File{closed}, "file already closed"},
		{"what JSON cannot say", func() {}, nil, "encoding a message"},
	} {
		if err := a.Send(c.msg, c.files...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if n := openFiles(t); n != before {
		t.Errorf("%d descriptors are left open", n-before)
	}
}

func TestFromFileTakesOnlyPacketSockets(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	before := openFiles(t)
	for _, f := range []*os.File{os.NewFile(uintptr(fds[0]), "stream"), tempFile(t, "x")} {
		if c, err := FromFile(f); err == nil {
			c.Close()
			t.Errorf("%s was taken", f.Name())
		}
	}
	if n := openFiles(t); n != before-1 {
		t.Errorf("%d descriptors are open, and %d were, one of which was given away", n, before)
	}
}

// Addresses of sockets have 108 bytes; paths have more.
func TestLongPath(t *testing.T) {
	for _, n := range []int{107, 108, 1000} {
		dir := t.TempDir()
		for len(dir) < n-120 {
			dir = filepath.Join(dir, strings.Repeat("d", 100))
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, strings.Repeat("s", n-len(dir)-1))
		before := openFiles(t)
		l, err := listen(path)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		c, err := Dial(path)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		c.Close()
		l.Close()
		if _, err := Dial(path); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("when nobody listens: %v", err)
		}
		if n := openFiles(t); n != before {
			t.Errorf("%d descriptors are left open", n-before)
		}
	}
}

// withFewFiles runs f while the process can open only so many files more.
func withFewFiles(t *testing.T, more int, f func()) {
	t.Helper()
	probe, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	lowest := uint64(probe.Fd()) // every number below is in use
	probe.Close()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := was
	few.Cur = lowest + uint64(more)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// A message with more files than this process can open is lost as a whole; nothing of
// it stays open.
func TestTooManyOpenFiles(t *testing.T) {
	a, b := connPair(t)
	f := tempFile(t, "")
	if err := a.Send("first", f, f, f, f, f, f, f, f); err != nil {
		t.Fatal(err)
	}
	if err := a.Send("second", f); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	var v any
	withFewFiles(t, 3, func() {
		if _, err := b.Receive(&v); !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), "too many open") {
			t.Errorf("error: %v", err)
		}
		files, err := b.Receive(&v)
		if err != nil || v != "second" || len(files) != 1 {
			t.Errorf("the next message: %v %v", v, err)
		}
		closeAll(files)
	})
	if n := openFiles(t); n != before {
		t.Errorf("%d descriptors are left open", n-before)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte(`{"method": "exception", "exception": {}}`), []byte(""), uint8(0))
	f.Add([]byte(viaFile), []byte(`{"a": 1}`), uint8(2))
	f.Add([]byte(viaFile), []byte(`[`), uint8(1))
	f.Add([]byte(`{"fd":0,"dir_fd":1}`), []byte("x"), uint8(2))
	f.Add([]byte("\xff\xfe"), []byte{}, uint8(3))
	f.Fuzz(func(t *testing.T, data, file []byte, files uint8) {
		conn, sock := rawPair(t)
		conn.SetLimit(1 << 12)
		mem := memory(t, string(file))
		before := openFiles(t)
		var fds []int
		for range files % 8 {
			fds = append(fds, int(mem.Fd()))
		}
		if err := unix.Sendmsg(sock, data, unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT); err != nil {
			t.Skip(err)
		}
		var got object
		recv, err := conn.Receive(&got)
		if err == nil {
			doc := data
			if string(data) == viaFile {
				doc, fds = file, fds[1:]
			}
			if len(recv) != len(fds) {
				t.Errorf("%d files of %d", len(recv), len(fds))
			}
			if !json.Valid(doc) || len(doc) > 1<<12 {
				t.Errorf("%q was taken", doc)
			}
		}
		closeAll(recv)
		if n := openFiles(t); n != before {
			t.Errorf("%d descriptors are left open", n-before)
		}
	})
}
