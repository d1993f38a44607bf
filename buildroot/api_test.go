// The API of programs in a real build root; the client is the test program itself, so
// that the tree needs nothing.
package buildroot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/hostapi"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// apiClient is the test program as a stage that upstream's programs could be.
func apiClient() {
	act := map[string]func() error{"raise": clientRaise, "loop": clientLoop, "wait": clientWait}[os.Args[1]]
	if err := act(); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func clientArguments() (args struct{ Text string }, err error) {
	text, err := os.ReadFile("/run/osbuild/api/arguments")
	if err == nil {
		err = json.Unmarshal(text, &args)
	}
	return args, err
}

// clientRaise tells an exception and is gone.
func clientRaise() error {
	args, err := clientArguments()
	if err != nil {
		return err
	}
	c, err := hostapi.Dial("/run/osbuild/api/osbuild")
	if err != nil {
		return err
	}
	err = c.Send(map[string]any{"method": "exception", "exception": hostapi.Exception{Type: "ValueError", Value: args.Text, Traceback: "  line 1\n"}})
	if err == nil {
		os.Exit(2)
	}
	return err
}

// attach asks for a loop device on a file, and returns the path of its node.
func clientAttach(c *hostapi.Conn, file string, more map[string]any) (string, error) {
	mode := os.O_RDWR
	if more["read_only"] == true {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	dev, err := os.Open("/dev")
	if err != nil {
		return "", err
	}
	defer dev.Close()
	q := map[string]any{"fd": 0, "dir_fd": 1}
	for k, v := range more {
		q[k] = v
	}
	if err := c.Send(q, f, dev); err != nil {
		return "", err
	}
	var a struct {
		Devname   string
		Exception *hostapi.Exception
	}
	if _, err := c.Receive(&a); err != nil {
		return "", err
	}
	if a.Exception != nil {
		return "", a.Exception
	}
	return "/dev/" + a.Devname, nil
}

const marker = "written through the device"

// clientLoop writes through one device, and reads through another, read-only one.
func clientLoop() error {
	c, err := hostapi.Dial("/run/osbuild/api/remoteloop")
	if err != nil {
		return err
	}
	const disk = "/run/osbuild/tree/disk"
	path, err := clientAttach(c, disk, map[string]any{"offset": 4096, "sizelimit": 65536, "lock": true})
	if err != nil {
		return err
	}
	d, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	size, err := d.Seek(0, io.SeekEnd)
	if err != nil || size != 65536 {
		return fmt.Errorf("%s has %d bytes: %v", path, size, err)
	}
	if _, err := d.WriteAt([]byte(marker), 0); err != nil {
		return err
	}
	d.Close() // what is cached is written when the device is detached
	second, err := clientAttach(c, disk, map[string]any{"read_only": true, "sector_size": 4096})
	if err != nil {
		return err
	}
	if second == path {
		return errors.New("both devices are the same")
	}
	if d, err = os.OpenFile(second, os.O_RDWR, 0); err == nil {
		if _, err = d.WriteAt([]byte("x"), 0); err == nil {
			return errors.New("the read-only device can be written")
		}
	}
	if _, err := os.ReadFile(second); err != nil {
		return err
	}
	_, err = clientAttach(c, "/dev/null", nil)
	var x *hostapi.Exception
	if !errors.As(err, &x) || x.Type != "OSError" {
		return fmt.Errorf("a device on /dev/null: %v", err)
	}
	fmt.Println(path, second)
	return nil
}

// clientWait has a device in use, and everything connected, and waits.
func clientWait() error {
	idle, err := hostapi.Dial("/run/osbuild/api/osbuild")
	if err != nil {
		return err
	}
	c, err := hostapi.Dial("/run/osbuild/api/remoteloop")
	if err != nil {
		return err
	}
	path, err := clientAttach(c, "/run/osbuild/tree/disk", nil)
	if err != nil {
		return err
	}
	d, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	fmt.Println(path)
	time.Sleep(time.Hour)
	idle.Close()
	return d.Close()
}

// client is a job that runs the test program as a client of the API.
func client(t *testing.T, action string) Job {
	t.Helper()
	return Job{Program: as(t, filepath.Join(t.TempDir(), "api-client")), Argv: []string{action}, Limit: time.Minute}
}

// disk makes a directory with a file of 1 MiB.
func diskTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// attached tells whether a device shows that file. That it shows something is not enough:
// others on this machine, tests too, take a device as soon as it is free.
func attached(t *testing.T, device, file string) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/dev/" + filepath.Base(device))
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	return err == nil && info.Inode == st.Ino && info.Device == st.Dev
}

func TestException(t *testing.T) { eachSandbox(t, testException) }

func testException(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	huge := strings.Repeat("x", 8<<20)
	var wg sync.WaitGroup
	for i, text := range []string{"it cannot be", huge, "third", "fourth"} {
		job := client(t, "raise")
		job.Arguments, _ = json.Marshal(map[string]string{"text": text})
		wg.Add(1)
		go func() {
			defer wg.Done()
			res, err := b.Run(context.Background(), job)
			if err != nil || res.Status != 2 {
				t.Errorf("%d: %v %+v", i, err, res)
				return
			}
			want := &hostapi.Exception{Type: "ValueError", Value: text, Traceback: "  line 1\n"}
			if diff := cmp.Diff(want, res.Exception); diff != "" {
				t.Errorf("%d: (-want +got):\n%.500s", i, diff)
			}
		}()
	}
	wg.Wait()
	if _, res := sh(t, b, "exit 1"); res.Exception != nil {
		t.Errorf("an exception of nobody: %v", res.Exception)
	}
}

func TestRemoteLoop(t *testing.T) { byBoth(t, testRemoteLoop) }

func testRemoteLoop(t *testing.T, b *BuildRoot) {
	tree := diskTree(t)
	job := client(t, "loop")
	job.Mounts = []Mount{{Path: tree, Target: "/run/osbuild/tree"}}
	var out []string
	job.Line = func(s string) { out = append(out, s) }
	res, err := b.Run(context.Background(), job)
	if err != nil || res.Status != 0 || len(out) != 1 {
		t.Fatalf("%v %+v: %s", err, res, out)
	}
	got, err := os.ReadFile(filepath.Join(tree, "disk"))
	if err != nil || string(got[4096:4096+len(marker)]) != marker {
		t.Errorf("in the file: %q (%v)", got[4096:4096+len(marker)], err)
	}
	for _, dev := range strings.Fields(out[0]) {
		if attached(t, dev, filepath.Join(tree, "disk")) {
			t.Errorf("%s is attached still", dev)
		}
		// Its right went with it.
		if got, _ := sh(t, b, "head -c1 "+dev+" 2>&1 >/dev/null || true", Mount{Path: dev, Target: dev}); !strings.Contains(got, "not permitted") {
			t.Errorf("%s can be opened by the next program: %q", dev, got)
		}
	}
}

// Close alone takes servers and devices away, whoever uses them; and Stop leaves the
// devices to programs that are not yet ended.
func TestCloseClosesServers(t *testing.T) { eachSandbox(t, testCloseClosesServers) }

func testCloseClosesServers(t *testing.T, sandbox string) {
	s := newSpace(t)
	vardir := t.TempDir()
	b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: t.TempDir(), Var: vardir})
	if err != nil {
		t.Fatal(err)
	}
	a, err := b.serveAPI(&Job{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := hostapi.Dial(filepath.Join(a.dir, "remoteloop"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nodes, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer nodes.Close()
	file, err := os.OpenFile(filepath.Join(diskTree(t), "disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := c.Send(map[string]any{"fd": 0, "dir_fd": 1}, file, nodes); err != nil {
		t.Fatal(err)
	}
	var answer struct{ Devname string }
	if _, err := c.Receive(&answer); err != nil || !attached(t, answer.Devname, file.Name()) {
		t.Fatalf("%+v %v", answer, err)
	}
	b.stopAPIs()
	if _, err := c.Receive(&answer); !errors.Is(err, io.EOF) {
		t.Errorf("a connection after the end: %v", err)
	}
	if !attached(t, answer.Devname, file.Name()) {
		t.Error("the device is gone before the programs are")
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if attached(t, answer.Devname, file.Name()) {
		t.Error("the device is left")
	}
	if ents, err := os.ReadDir(vardir); err != nil || len(ents) > 0 {
		t.Errorf("left: %v %v", ents, err)
	}
}

// A build root that is closed while a program uses its API takes everything with it.
func TestCloseWithServers(t *testing.T) { eachSandbox(t, testCloseWithServers) }

func testCloseWithServers(t *testing.T, sandbox string) {
	s, err := NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	leaks := ignoreWaiting()
	// Its name is short: sockets are told by it, and the kernel knows 107 bytes of theirs.
	vardir, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(vardir) })
	b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: t.TempDir(), Var: vardir})
	if err != nil {
		t.Fatal(err)
	}
	job := client(t, "wait")
	tree := diskTree(t)
	disk := filepath.Join(tree, "disk")
	job.Mounts = []Mount{{Path: tree, Target: "/run/osbuild/tree"}}
	up, ended := make(chan string, 1), make(chan error, 1)
	job.Line = func(s string) { up <- s }
	go func() {
		_, err := b.Run(context.Background(), job)
		ended <- err
	}()
	dev := <-up
	listeners := func() int {
		text, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), vardir)
	}
	if !attached(t, dev, disk) || listeners() < 2 {
		b.Close() // else the Space waits for it
		t.Fatalf("%s is attached: %v, %d listeners", dev, attached(t, dev, disk), listeners())
	}
	began := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
	if n := listeners(); n > 0 {
		t.Errorf("%d listeners are left", n)
	}
	if attached(t, dev, disk) {
		t.Errorf("%s is attached still", dev)
	}
	if ents, err := os.ReadDir(vardir); err != nil || len(ents) > 0 {
		t.Errorf("left: %v %v", ents, err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the build root ended") {
		t.Errorf("the program: %v", err)
	}
	if _, err := b.serveAPI(&Job{}); err == nil {
		t.Error("an API was made afterwards")
	}
	if err := goleak.Find(leaks...); err != nil {
		t.Error(err)
	}
}

// The API is there before the first instruction of a program, and gone after its last.
func TestAPIBelongsToTheProgram(t *testing.T) { eachSandbox(t, testAPIBelongsToTheProgram) }

func testAPIBelongsToTheProgram(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	dirs := filepath.Join(b.vardir.Path, "stages")
	apis := func() []string { m, _ := filepath.Glob(filepath.Join(dirs, "api-*")); return m }
	during := -1
	res, err := b.Run(context.Background(), Job{
		Argv: []string{"/bin/sh", "-c", `cd /run/osbuild/api; stat -c '%n %F %a' *; cat arguments; touch x 2>/dev/null || echo; echo end; sleep 1`}, // it lives while it is looked at
		Line: func(s string) {
			if s == "end" {
				during = len(apis())
			}
		},
		Arguments: json.RawMessage(`{"tree": "x"}`),
	})
	if err != nil || res.Status != 0 || during != 1 {
		t.Errorf("%v %+v, %d APIs", err, res, during)
	}
	if left := apis(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	out, _ := sh(t, b, `cd /run/osbuild/api; stat -c '%n %F %a' . *; touch x 2>/dev/null || echo read-only`)
	if diff := cmp.Diff(". directory 755\nosbuild socket 600\nremoteloop socket 600\nread-only", out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Native stages have none, and need none.
	b.apiMu.Lock()
	b.closed = true
	b.apiMu.Unlock()
	if _, err := b.Run(context.Background(), Job{Argv: []string{"/bin/true"}}); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("a program without an API: %v", err)
	}
	if res, err := b.Run(context.Background(), Job{Native: "org.osbuild.noop", Arguments: json.RawMessage(`{"options":{}}`)}); err != nil || res.Err != nil {
		t.Errorf("a native stage: %v %+v", err, res)
	}
}

// What the host gives a program is under its own name, read-only, and started in order.
func TestProgramRunnerLibdir(t *testing.T) { eachSandbox(t, testProgramRunnerLibdir) }

func testProgramRunnerLibdir(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	stage := write("stages/org.test.stage", "#!/bin/sh\necho stage \"$@\"; cat /run/osbuild/lib/osbuild/x\nfor f in /run/osbuild/lib/y /run/osbuild/bin/org.test.stage /run/osbuild/runner/org.test.runner; do (echo >> $f) 2>/dev/null || echo refused; done; echo '{\"a\":1}' > /run/osbuild/meta\n")
	write("runners/real", "#!/bin/sh\necho runner ${0##*/} \"$@\"; exec \"$@\"\n")
	runner := filepath.Join(dir, "runners/org.test.runner") // a link, as upstream has them
	if err := os.Symlink("real", runner); err != nil {
		t.Fatal(err)
	}
	write("osbuild/x", "library\n")
	run := func(j Job) (string, *Result) {
		t.Helper()
		var out []string
		j.Line, j.Limit = func(s string) { out = append(out, s) }, time.Minute
		res, err := b.Run(context.Background(), j)
		if err != nil || res.Err != nil {
			t.Fatal(err, res)
		}
		return strings.Join(out, "\n"), res
	}
	out, res := run(Job{Program: stage, Runner: runner, Libdir: dir, Argv: []string{"one", "two words"}})
	want := "runner org.test.runner /run/osbuild/bin/org.test.stage one two words\nstage one two words\nlibrary\nrefused\nrefused\nrefused"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if string(res.Metadata) != `{"a":1}` {
		t.Errorf("metadata: %s", res.Metadata)
	}
	if out, _ := run(Job{Runner: runner, Argv: []string{"/bin/echo", "hello"}}); out != "runner org.test.runner /bin/echo hello\nhello" {
		t.Errorf("a program of the tree through a runner: %q", out)
	}
	if _, err := b.Run(context.Background(), Job{Program: filepath.Join(dir, "nothing")}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a program that is not there: %v", err)
	}
}
