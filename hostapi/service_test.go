// Host services: the test program is started as them.
package hostapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// testService is a service whose methods do what tests need.
func testService(mode string) error {
	var id string
	var fd int
	flags := flag.NewFlagSet(mode, flag.ContinueOnError)
	flags.StringVar(&id, "service-id", "", "")
	flags.IntVar(&fd, "service-fd", -1, "")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	if mode == "parent" { // starts a service and never ends by itself
		s, err := startTest(nil, ServiceConfig{Line: func(l string) { fmt.Println(l) }}, "stubborn")
		if err != nil {
			return err
		}
		_, err = s.Call(context.Background(), "say", "my pid is "+strconv.Itoa(s.cmd.Process.Pid), nil)
		time.Sleep(time.Hour)
		return err
	}
	if mode == "mute" {
		unix.Close(fd)
		time.Sleep(time.Hour)
	}
	c, err := FromFile(os.NewFile(uintptr(fd), "service"))
	if err != nil {
		return err
	}
	defer func() { fmt.Println("cleaned up " + id) }()
	type m = map[string]any
	for {
		var msg struct {
			Type string
			Data struct {
				Name string
				Args json.RawMessage
			}
		}
		files, err := c.Receive(&msg)
		if errors.Is(err, io.EOF) {
			if mode == "stubborn" {
				time.Sleep(time.Hour)
			}
			if mode == "bad end" {
				return errors.New("cannot unmount")
			}
			return nil
		}
		if err != nil {
			return err
		}
		closeAll(files)
		var text string
		_ = json.Unmarshal(msg.Data.Args, &text)
		switch msg.Data.Name {
		case "echo":
			err = c.Send(m{"type": "reply", "data": m{"reply": msg.Data.Args}})
		case "null":
			err = c.Send(m{"type": "reply", "data": m{"reply": nil}})
		case "say":
			fmt.Println(text)
			err = c.Send(m{"type": "reply", "data": m{"reply": id}})
		case "environment":
			fds, _ := os.ReadDir("/proc/self/fd")
			in, _ := io.ReadAll(os.Stdin)
			err = c.Send(m{"type": "reply", "data": m{"reply": m{"env": os.Environ(), "stdin": len(in), "group": unix.Getpgrp() == os.Getpid(), "files": len(fds) < 20}}})
		case "count":
			for i := range 3 {
				if err = c.Send(m{"type": "signal", "data": m{"reply": m{"n": i}}}); err != nil {
					return err
				}
			}
			err = c.Send(m{"type": "reply", "data": m{"reply": "done"}}, os.Stdin)
		case "raise":
			fmt.Println("about to fail")
			err = c.Send(m{"type": "exception", "data": m{"name": "RuntimeError", "value": text, "backtrace": "  line 1\n"}})
		case "die":
			fmt.Fprintln(os.Stderr, "Traceback")
			fmt.Fprintln(os.Stderr, text)
			os.Exit(3)
		case "reply and die":
			if err = c.Send(m{"type": "reply", "data": m{"reply": "last"}}); err == nil {
				os.Exit(0)
			}
		case "nonsense":
			err = c.Send(m{"type": "wisdom", "data": m{"reply": 42}})
		case "child", "escaped child":
			cmd := exec.Command("/bin/sleep", "1000")
			cmd.Stdout, cmd.ExtraFiles = os.Stdout, []*os.File{c.f} // it holds all that the service has
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: msg.Data.Name != "child"}
			if err = cmd.Start(); err == nil {
				err = c.Send(m{"type": "reply", "data": m{"reply": cmd.Process.Pid}})
			}
		case "hang":
			fmt.Println("hanging")
			time.Sleep(time.Hour)
		default:
			err = c.Send(m{"type": "exception", "data": m{"name": "ProtocolError", "value": "Unknown method", "backtrace": ""}})
		}
		if err != nil {
			return err
		}
	}
}

// printed collects lines.
type printed struct {
	mu    sync.Mutex
	lines []string
}

func (p *printed) line(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, s)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// noRaceSleep keeps programs under the race detector from sleeping when they exit.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

// startTest starts the test program as a service.
func startTest(t *testing.T, cfg ServiceConfig, mode string) (*Service, error) {
	var err error
	if cfg.Program, err = os.Executable(); err != nil {
		return nil, err
	}
	cfg.ID = "test/x"
	cfg.Env = append(cfg.Env, helperEnv+"="+mode, noRaceSleep)
	s, err := StartService(cfg)
	if err == nil && t != nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func mustStart(t *testing.T, cfg ServiceConfig, mode string) *Service {
	t.Helper()
	s, err := startTest(t, cfg, mode)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

func TestServiceCalls(t *testing.T) {
	var out printed
	s := mustStart(t, ServiceConfig{Line: out.line, Env: []string{"A=b"}}, "service")
	ctx := context.Background()
	huge := strings.Repeat("x", wmemMax()+1<<20)
	for _, c := range []struct {
		method string
		args   any
		want   string
	}{
		{"echo", map[string]any{"a": []int{1, 2}}, `{"a":[1,2]}`},
		{"echo", nil, `[]`},
		{"echo", huge, `"` + huge + `"`},
		{"null", nil, `null`},
		{"say", "hello\nworld", `"test/x"`},
		{"environment", nil, `{"env":["A=b","` + helperEnv + `=service","` + noRaceSleep + `"],"files":true,"group":true,"stdin":0}`},
	} {
		got, err := s.Call(ctx, c.method, c.args, nil)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %.200s %v", c.method, got, err)
		}
	}
	var signals []string
	got, err := s.Call(ctx, "count", nil, func(m json.RawMessage) { signals = append(signals, string(m)) })
	if err != nil || string(got) != `"done"` {
		t.Errorf("%s %v", got, err)
	}
	if diff := cmp.Diff([]string{`{"n":0}`, `{"n":1}`, `{"n":2}`}, signals); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
	if _, err := s.Call(ctx, "count", nil, nil); err != nil {
		t.Errorf("signals nobody wants: %v", err)
	}
	// An exception is no end of the service.
	_, err = s.Call(ctx, "raise", "it cannot be", nil)
	var se *ServiceError
	if !errors.As(err, &se) || !cmp.Equal(*se, ServiceError{"RuntimeError", "it cannot be", "  line 1\n"}) {
		t.Errorf("%#v", err)
	}
	if want := "test/x (hostapi.test): RuntimeError: it cannot be; it printed: hello; world; about to fail"; err == nil || !strings.HasSuffix(err.Error(), want) {
		soon(t, "its output", func() bool { return strings.Contains(out.String(), "about to fail") })
		_, err = s.Call(ctx, "raise", "it cannot be", nil)
		if !strings.Contains(err.Error(), "about to fail") {
			t.Errorf("error: %v", err)
		}
	}
	if _, err := s.Call(ctx, "unheard of", nil, nil); err == nil || !strings.Contains(err.Error(), "ProtocolError: Unknown method") {
		t.Errorf("error: %v", err)
	}
	pid := s.cmd.Process.Pid
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !gone(pid) {
		t.Error("it runs still")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Call(ctx, "echo", nil, nil); err == nil {
		t.Error("a closed service was called")
	}
	if got := out.String(); !strings.HasPrefix(got, "hello\nworld\nabout to fail\n") || !strings.HasSuffix(got, "\ncleaned up test/x") {
		t.Errorf("it printed: %s", got)
	}
}

func TestServiceEnds(t *testing.T) {
	ctx := context.Background()
	t.Run("in a call", func(t *testing.T) {
		s := mustStart(t, ServiceConfig{}, "service")
		_, err := s.Call(ctx, "die", "ImportError: no module", nil)
		if err == nil || !strings.Contains(err.Error(), "it ended (exit status 3); it printed: Traceback; ImportError: no module") {
			t.Errorf("error: %v", err)
		}
		if _, again := s.Call(ctx, "echo", nil, nil); again == nil || again.Error() != err.Error() {
			t.Errorf("the next call: %v", again)
		}
		if err := s.Close(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
			t.Errorf("Close: %v", err)
		}
	})
	t.Run("after its reply", func(t *testing.T) {
		for range 20 {
			s := mustStart(t, ServiceConfig{}, "service")
			if got, err := s.Call(ctx, "reply and die", nil, nil); err != nil || string(got) != `"last"` {
				t.Errorf("%s %v", got, err)
			}
			<-s.ended
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("while a child holds the socket", func(t *testing.T) {
		s := mustStart(t, ServiceConfig{}, "service")
		var pid int
		got, err := s.Call(ctx, "child", nil, nil)
		if json.Unmarshal(got, &pid) != nil || gone(pid) {
			t.Fatalf("%s %v", got, err)
		}
		within(t, 5*time.Second, "the end", func() {
			if _, err := s.Call(ctx, "die", "", nil); err == nil {
				t.Error("no error")
			}
		})
		soon(t, "the child's end", func() bool { return gone(pid) })
	})
	t.Run("while a child of another group holds the socket", func(t *testing.T) {
		s := mustStart(t, ServiceConfig{}, "service")
		var pid int
		got, err := s.Call(ctx, "escaped child", nil, nil)
		if json.Unmarshal(got, &pid) != nil || gone(pid) {
			t.Fatalf("%s %v", got, err)
		}
		defer unix.Kill(pid, unix.SIGKILL)
		within(t, 10*time.Second, "the end", func() {
			if _, err := s.Call(ctx, "die", "", nil); err == nil || !strings.Contains(err.Error(), "exit status 3") {
				t.Errorf("error: %v", err)
			}
			s.Close()
		})
	})
	t.Run("badly", func(t *testing.T) {
		s := mustStart(t, ServiceConfig{}, "bad end")
		if _, err := s.Call(ctx, "echo", nil, nil); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err == nil || !strings.Contains(err.Error(), "exit status 1; it printed:") || !strings.Contains(err.Error(), "cannot unmount") {
			t.Errorf("Close: %v", err)
		}
	})
	t.Run("without a word", func(t *testing.T) {
		s := mustStart(t, ServiceConfig{Grace: 50 * time.Millisecond}, "mute")
		_, err := s.Call(ctx, "echo", nil, nil)
		if err == nil || !strings.Contains(err.Error(), "it closed its socket") {
			t.Errorf("error: %v", err)
		}
	})
	t.Run("not in time", func(t *testing.T) {
		s := mustStart(t, ServiceConfig{Grace: 100 * time.Millisecond}, "stubborn")
		var pid int
		got, _ := s.Call(ctx, "child", nil, nil)
		if err := json.Unmarshal(got, &pid); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "closing", func() {
			if err := s.Close(); err == nil || !strings.Contains(err.Error(), "did not end within 100ms, and was killed") {
				t.Errorf("Close: %v", err)
			}
		})
		soon(t, "the end of it and its child", func() bool { return gone(pid) && gone(s.cmd.Process.Pid) })
	})
	t.Run("by nonsense", func(t *testing.T) {
		s := mustStart(t, ServiceConfig{}, "service")
		if _, err := s.Call(ctx, "nonsense", nil, nil); !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), `type "wisdom"`) {
			t.Errorf("error: %v", err)
		}
		if _, err := s.Call(ctx, "echo", nil, nil); err == nil {
			t.Error("a service that was misunderstood is called again")
		}
	})
}

func TestServiceCancel(t *testing.T) {
	why := errors.New("the build was stopped")
	var out printed
	s := mustStart(t, ServiceConfig{Line: out.line, Grace: 100 * time.Millisecond}, "service")
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		for !strings.Contains(out.String(), "hanging") {
			time.Sleep(time.Millisecond)
		}
		cancel(why)
	}()
	within(t, 5*time.Second, "the call", func() {
		if _, err := s.Call(ctx, "hang", nil, nil); !errors.Is(err, why) {
			t.Errorf("error: %v", err)
		}
	})
	if _, err := s.Call(context.Background(), "echo", nil, nil); !errors.Is(err, why) {
		t.Errorf("the next call: %v", err)
	}
	within(t, 5*time.Second, "closing", func() { s.Close() })
}

// Close during a call ends the call.
func TestServiceCloseInCall(t *testing.T) {
	var out printed
	s := mustStart(t, ServiceConfig{Line: out.line, Grace: 100 * time.Millisecond}, "service")
	failed := make(chan error, 1)
	go func() {
		_, err := s.Call(context.Background(), "hang", nil, nil)
		failed <- err
	}()
	soon(t, "the call", func() bool { return strings.Contains(out.String(), "hanging") })
	within(t, 5*time.Second, "closing", func() { s.Close() })
	within(t, 5*time.Second, "the call", func() {
		if err := <-failed; err == nil {
			t.Error("the call succeeded")
		}
	})
}

func TestServiceDoesNotStart(t *testing.T) {
	before := openFiles(t)
	for name, cfg := range map[string]ServiceConfig{
		"no such file or directory": {Program: "/nonexistent/org.osbuild.x", ID: "input/x"},
		"permission denied":         {Program: tempFile(t, "text").Name(), ID: "input/x"},
		"no such namespace":         {Program: "/bin/true", ID: "input/x", Do: func(func() error) error { return errors.New("no such namespace") }},
		"it was not started":        {Program: "/bin/true", ID: "input/x", Do: func(func() error) error { return nil }},
	} {
		s, err := StartService(cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "input/x") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := openFiles(t); n != before+1 { // the file of one case
		t.Errorf("%d descriptors are open, and %d were", n, before)
	}
}

// The service is started on the thread that Do chooses, which stays.
func TestServiceThread(t *testing.T) {
	var thread int
	ended := make(chan struct{})
	s := mustStart(t, ServiceConfig{Do: func(f func() error) error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread = unix.Gettid()
		defer close(ended)
		return f()
	}}, "service")
	if _, err := s.Call(context.Background(), "echo", nil, nil); err != nil {
		t.Fatal(err)
	}
	kids, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", thread))
	if err == nil && !strings.Contains(" "+string(kids), fmt.Sprintf(" %d ", s.cmd.Process.Pid)) {
		t.Errorf("the children of the thread are %q", kids)
	}
	select {
	case <-ended:
		t.Error("the thread is gone while the service runs")
	default:
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}

// A service does not outlive this process, however that ends.
func TestServiceDiesWithItsParent(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{helperEnv + "=parent"}
	r, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(r, "my pid is %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	if gone(pid) {
		t.Fatal("there is no service")
	}
	cmd.Process.Kill()
	cmd.Wait()
	soon(t, "the service's end", func() bool { return gone(pid) })
}

// A service that prints for ever, or without end of line, takes no memory.
func TestServiceOutput(t *testing.T) {
	var mu sync.Mutex
	longest, total := 0, 0
	script := filepath.Join(t.TempDir(), "loud")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nhead -c 10000000 /dev/zero | tr '\\0' x\nprintf '\\n\\n  the end  '\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := StartService(ServiceConfig{Program: script, ID: "input/x", Env: []string{"PATH=/usr/bin:/bin"}, Line: func(l string) {
		mu.Lock()
		defer mu.Unlock()
		longest, total = max(longest, len(l)), total+len(l)
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-s.ended
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if longest > maxLine || total != 10000000+len("  the end  ") {
		t.Errorf("the longest line has %d bytes, all %d", longest, total)
	}
	if got := s.last.String(); !strings.HasSuffix(got, "; the end") {
		t.Errorf("its last words: %q", got[len(got)-20:])
	}
}
