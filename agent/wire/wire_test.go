// Messages over a real socket pair: content, files, size, and what is no message.
package wire

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func pair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// file makes an open file with that content.
func file(t testing.TB, content string) *os.File {
	t.Helper()
	p := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRoundTrip(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 5<<20/16)
	for _, c := range []struct {
		name  string
		req   Request
		files []string
	}{
		{name: "empty", req: Request{}},
		{name: "prepare", req: Request{Kind: Prepare, ID: 1, Runner: "org.osbuild.debian12", Arch: "s390x"}, files: []string{"log"}},
		{name: "run", req: Request{Kind: Run, ID: 1 << 63, Program: &Program{
			Native: "org.osbuild.noop", Env: []string{"A=b=c", "EMPTY="}, Caps: []string{"CHOWN"}, NewPrivs: true,
			Arguments: json.RawMessage(`{"options":{"n":12345678901234567890}}`),
			Attach:    []Attach{{File: 1, Target: "/run/osbuild/tree"}, {File: 0, Target: "/dev/loop7", IsFile: true}}, Log: 2,
		}}, files: []string{"one", "two", "three"}},
		{name: "5 MB", req: Request{Kind: Run, Program: &Program{Argv: []string{big}, Caps: []string{}}}, files: []string{"x"}},
		{name: "as many files as the kernel takes", req: Request{Kind: Run}, files: make([]string, maxFiles-1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			var files []*os.File
			for _, s := range c.files {
				files = append(files, file(t, s))
			}
			if err := Send(a, &c.req, files...); err != nil {
				t.Fatal(err)
			}
			var got Request
			recv, err := Receive(b, &got)
			if err != nil {
				t.Fatal(err)
			}
			defer CloseAll(recv)
			if diff := cmp.Diff(c.req, got); diff != "" {
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
		})
	}
}

// Messages keep their order and do not run into each other.
func TestManyMessages(t *testing.T) {
	a, b := pair(t)
	const n = 200
	done := make(chan error, 1)
	go func() {
		for i := range n {
			if err := Send(a, &Answer{ID: uint64(i), Err: &Error{Msg: strings.Repeat("m", i), Hint: "h"}}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i := range n {
		var ans Answer
		files, err := Receive(b, &ans)
		if err != nil || len(files) != 0 || ans.ID != uint64(i) || len(ans.Err.Msg) != i {
			t.Fatalf("message %d: %v, %d files, %+v", i, err, len(files), ans)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestEnd(t *testing.T) {
	a, b := pair(t)
	if err := Send(a, &Answer{Ready: true}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Shutdown(a, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	var ans Answer
	if _, err := Receive(b, &ans); err != nil || !ans.Ready {
		t.Fatalf("what was sent before the end is lost: %v", err)
	}
	if _, err := Receive(b, &ans); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if err := Send(b, &ans); !errors.Is(err, unix.EPIPE) {
		t.Errorf("sending to nobody: %v", err)
	}
}

func TestTooManyFiles(t *testing.T) {
	a, _ := pair(t)
	f := file(t, "")
	files := make([]*os.File, maxFiles)
	for i := range files {
		files[i] = f
	}
	err := Send(a, &Request{}, files...)
	if err == nil || !strings.Contains(err.Error(), "253 files") {
		t.Errorf("error: %v", err)
	}
}

// openFiles counts the open descriptors of this process.
func openFiles(t testing.TB) int {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// What is no message is an error, and the files that came with it are closed.
func TestMalformed(t *testing.T) {
	a, b := pair(t)
	extra := file(t, "extra")
	for name, content := range map[string]string{
		"empty": "", "no JSON": "{", "another type": `{"id":"x"}`, "text": "hello",
	} {
		t.Run(name, func(t *testing.T) {
			mem := file(t, content)
			before := openFiles(t)
			if err := unix.Sendmsg(a, []byte{1}, unix.UnixRights(int(mem.Fd()), int(extra.Fd())), nil, 0); err != nil {
				t.Fatal(err)
			}
			var ans Answer
			if _, err := Receive(b, &ans); err == nil || errors.Is(err, io.EOF) && name != "empty" {
				t.Errorf("error: %v", err)
			}
			if n := openFiles(t); n != before {
				t.Errorf("%d descriptors are left open", n-before)
			}
		})
	}
	t.Run("no file at all", func(t *testing.T) {
		if err := unix.Sendmsg(a, []byte{1}, nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		var ans Answer
		if _, err := Receive(b, &ans); err == nil || !strings.Contains(err.Error(), "without content") {
			t.Errorf("error: %v", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"kind":"run","id":1,"program":{"argv":["/bin/true"],"attach":[{"file":0,"target":"/dev/null"}],"log":1}}`,
		`{"error":{"msg":"x"}}`, `{"metadata":`, `[]`, "\xff", `{"id":-1}`, `{"program":null}{"kind":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		mem := os.NewFile(uintptr(fd), "fuzz")
		defer mem.Close()
		if _, err := mem.Write(data); err != nil {
			t.Fatal(err)
		}
		var req Request
		if decodeFile(mem, &req) != nil {
			return
		}
		// What was taken says the same when it is sent on.
		text, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		var again Request
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		back, err := json.Marshal(again)
		if err != nil || string(back) != string(text) {
			t.Errorf("%s became %s (%v)", text, back, err)
		}
	})
}
