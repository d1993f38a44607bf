// A library directory for tests: programs in sh, and some that are the test program
// itself, by the name it is started with.
package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/hostapi"
	"github.com/osbuild-star/osbuild-star/libdir"
	"golang.org/x/sys/unix"
)

// libdirPrograms are what the test program does as a program of a library directory.
var libdirPrograms = map[string]func() error{
	"org.x.in":     func() error { return serveTest(&inputService{}) },
	"org.x.dev":    func() error { return serveTest(&deviceService{}) },
	"org.x.mnt":    func() error { return serveTest(&mountService{}) },
	"org.x.src":    func() error { return serveTest(&sourceService{}) },
	"org.x.throw":  throwException,
	"org.x.remote": useRemoteLoop,
}

func libdirMain() int {
	if err := libdirPrograms[filepath.Base(os.Args[0])](); err != nil {
		fmt.Println("failed:", err)
		return 3
	}
	return 0
}

// newLibdir makes a library directory of files by their paths. The content "self" is
// the test program; every module without a description of its own gets one that takes
// anything.
func newLibdir(t testing.TB, files map[string]string) *libdir.Dir {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if text != "self" {
			write(name, text)
		} else if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if kind := filepath.Dir(name); files[name+".meta.json"] == "" && kind != "runners" && kind != "osbuild" && !strings.HasSuffix(name, ".meta.json") {
			write(name+".meta.json", `{"summary":"","description":[],"schema":{"additionalProperties":true},"schema_2":{"additionalProperties":true}}`)
		}
	}
	d, err := libdir.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// with gives an engine a library directory.
func with(d *libdir.Dir, prefer bool) func(*Config) {
	return func(c *Config) { c.Programs = Programs{Dir: d, Prefer: prefer} }
}

// rewrite changes a program; the size stays.
func rewrite(t testing.TB, d *libdir.Dir, name, from, to string) {
	t.Helper()
	p := filepath.Join(d.Path, name)
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), from, to)
	if text == string(b) || len(from) != len(to) {
		t.Fatalf("%s has no %q", name, from)
	}
	if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// testService is a host service: call answers a method, stop undoes it.
type testService interface {
	call(method string, args map[string]any) (any, error)
	stop() error
}

// serveTest is the host's side of upstream's protocol, until the socket is closed.
// What happens is noted in the file that the option "log" names.
func serveTest(s testService) error {
	if len(os.Args) != 5 || os.Args[1] != "--service-id" || os.Args[3] != "--service-fd" || os.Args[4] != "3" {
		return fmt.Errorf("started as %q", os.Args)
	}
	id, log := os.Args[2], ""
	note := func(what string) error {
		f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = fmt.Fprintf(f, "%s %s\n", id, what)
		return err
	}
	conn, err := hostapi.FromFile(os.NewFile(3, "service"))
	if err != nil {
		return err
	}
	fmt.Println("PYTHONPATH is", os.Getenv("PYTHONPATH"), "and PYTHONUNBUFFERED", os.Getenv("PYTHONUNBUFFERED"))
	for {
		var msg struct {
			Type string
			Data struct {
				Name string
				Args map[string]any
			}
		}
		if _, err := conn.Receive(&msg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		options, _ := msg.Data.Args["options"].(map[string]any)
		if l, ok := options["log"].(string); ok {
			log = l
		}
		reply, err := s.call(msg.Data.Name, msg.Data.Args)
		if why, ok := options["fail"].(string); ok {
			err = errors.New(why)
		}
		var answer any = map[string]any{"type": "reply", "data": map[string]any{"reply": reply}}
		if err != nil {
			answer = map[string]any{"type": "exception", "data": map[string]any{"name": "ValueError", "value": err.Error(), "backtrace": "somewhere"}}
		}
		if log != "" {
			if err := note(msg.Data.Name); err != nil {
				return err
			}
		}
		if err := conn.Send(answer); err != nil {
			return err
		}
	}
	if log != "" {
		if err := note("stop"); err != nil {
			return err
		}
	}
	return s.stop()
}

// inputService shows what the store's socket answers: it links files of sources, and
// shows trees, the option "file" of a reference alone where it is given.
type inputService struct{}

func (*inputService) stop() error { return nil }

func (*inputService) call(method string, args map[string]any) (any, error) {
	if method != "map" {
		return nil, fmt.Errorf("no method %s", method)
	}
	target := args["target"].(string)
	conn, err := hostapi.Dial(args["api"].(map[string]any)["store"].(string))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ask := func(q map[string]any) (string, error) {
		var a struct{ Path, Error *string }
		if err := conn.Send(q); err != nil {
			return "", err
		}
		if _, err := conn.Receive(&a); err != nil {
			return "", err
		}
		if a.Error != nil {
			return "", errors.New(*a.Error)
		}
		if a.Path == nil {
			return "nothing", nil
		}
		return *a.Path, nil
	}
	seen := map[string]any{}
	for ref, o := range args["refs"].(map[string]any) {
		opts := o.(map[string]any)
		if args["origin"] == "org.osbuild.source" {
			dir, err := ask(map[string]any{"method": "source", "name": "org.osbuild.files"})
			if err != nil {
				return nil, err
			}
			if err := os.Link(filepath.Join(dir, ref), filepath.Join(target, ref)); err != nil {
				return nil, err
			}
			seen[ref] = opts
			continue
		}
		tree, err := ask(map[string]any{"method": "read-tree", "object-id": ref})
		if err != nil {
			return nil, err
		}
		sub, _ := opts["file"].(string)
		at := target
		if sub != "" {
			at = filepath.Join(target, "file")
			if err := os.WriteFile(at, nil, 0o644); err != nil {
				return nil, err
			}
		}
		if tree == "nothing" {
			seen["unknown"] = ref
			continue
		}
		b, err := os.ReadFile(filepath.Join(tree, "hello"))
		if err != nil {
			return nil, err
		}
		seen["hello"] = string(b)
		if _, err := ask(map[string]any{"method": "read-tree-at", "object-id": ref, "target": at, "subtree": "/" + sub}); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(at, "hello"), nil, 0o644); sub == "" && !errors.Is(err, unix.EROFS) {
			return nil, fmt.Errorf("the tree can be written to: %v", err)
		}
	}
	tmp, err := ask(map[string]any{"method": "mkdtemp", "prefix": "pre", "suffix": "post"})
	if err != nil {
		return nil, err
	}
	ents, err := os.ReadDir(tmp)
	if err != nil {
		return nil, err
	}
	base := filepath.Base(tmp)
	seen["tmp"] = strings.HasPrefix(base, "pre") && strings.HasSuffix(base, "post") && len(ents) == 0
	if opts := args["options"].(map[string]any); opts["outside"] == true {
		target = "/etc"
	}
	return map[string]any{"path": target, "data": map[string]any{"seen": seen}}, os.RemoveAll(tmp)
}

// deviceService attaches a loop device to a file of the tree; its node has another
// name than the kernel's, but with the option "plain".
type deviceService struct{ loop *buildroot.Loop }

func (s *deviceService) call(method string, args map[string]any) (any, error) {
	if method != "open" {
		return nil, fmt.Errorf("no method %s", method)
	}
	options := args["options"].(map[string]any)
	if parent, ok := args["parent"].(string); ok {
		// A part of the parent, which is found by its node.
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(args["dev"].(string), parent), &st); err != nil {
			return nil, fmt.Errorf("the parent's node: %w", err)
		}
		name := "of-" + strings.ReplaceAll(parent, "/", "-")
		// Its node is a file with another node bound on it, as upstream's are.
		at := filepath.Join(args["dev"].(string), name)
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			return nil, err
		}
		if err := unix.Mount(filepath.Join(args["dev"].(string), parent), at, "", unix.MS_BIND, ""); err != nil {
			return nil, err
		}
		return map[string]any{"path": name, "node": map[string]any{"major": unix.Major(st.Rdev), "minor": unix.Minor(st.Rdev)}}, nil
	}
	var err error
	s.loop, err = buildroot.OpenLoop(buildroot.LoopConfig{File: filepath.Join(args["tree"].(string), options["filename"].(string))})
	if err != nil {
		return nil, err
	}
	rel := "mapper/disk"
	if options["plain"] == true {
		rel = filepath.Base(s.loop.Path)
	}
	at := filepath.Join(args["dev"].(string), rel)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mknod(at, unix.S_IFBLK|0o660, int(unix.Mkdev(s.loop.Major, s.loop.Minor))); err != nil {
		return nil, err
	}
	return map[string]any{"path": rel, "node": map[string]any{"major": s.loop.Major, "minor": s.loop.Minor}, "more": "yes"}, nil
}

func (s *deviceService) stop() error {
	if s.loop == nil {
		return nil
	}
	return s.loop.Close()
}

// mountService mounts the file system of its source, or a tmpfs with a file that says
// what it was called with. With the option "tree" that is in the tree.
type mountService struct{ at string }

func (s *mountService) call(method string, args map[string]any) (any, error) {
	if method != "mount" {
		return nil, fmt.Errorf("no method %s", method)
	}
	options := args["options"].(map[string]any)
	target, _ := args["target"].(string)
	at := filepath.Join(args["root"].(string), target)
	if sub, ok := options["tree"].(string); ok {
		at = filepath.Join(args["tree"].(string), sub)
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	fstype, source := "tmpfs", "none"
	if t, ok := options["fstype"].(string); ok {
		fstype, source = t, args["source"].(string)
	}
	if err := unix.Mount(source, at, fstype, 0, ""); err != nil {
		return nil, err
	}
	s.at = at
	delete(args, "root")
	delete(args, "tree")
	b, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(at, "called"), b, 0o644); err != nil {
		return nil, err
	}
	if options["tree"] != nil {
		return nil, nil
	}
	return at, nil
}

func (s *mountService) stop() error {
	if s.at == "" {
		return nil
	}
	return unix.Unmount(s.at, 0)
}

// sourceService writes what its items say into the store.
type sourceService struct{}

func (*sourceService) stop() error { return nil }

func (*sourceService) call(method string, args map[string]any) (any, error) {
	if method != "download" {
		return nil, fmt.Errorf("no method %s", method)
	}
	dir := filepath.Join(args["cache"].(string), "org.osbuild.files")
	success := true
	var results []any
	for sum, item := range args["items"].(map[string]any) {
		r := map[string]any{"success": true, "error": "", "metadata": map[string]any{"checksum": sum, "cached": false}}
		if text, ok := item.(map[string]any)["text"].(string); !ok {
			r["success"], r["error"], success = false, "there is no text", false
		} else if err := os.WriteFile(filepath.Join(dir, sum), []byte(text), 0o644); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return map[string]any{"name": "source org.x.src", "source_type": "org.x.src", "success": success, "output": "", "results": results}, nil
}

// throwException ends as upstream's runners do over an exception.
func throwException() error {
	conn, err := hostapi.Dial("/run/osbuild/api/osbuild")
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Println("about to throw")
	err = conn.Send(map[string]any{"method": "exception", "exception": map[string]any{"type": "KeyError", "value": "'x'", "traceback": "line 1"}})
	if err != nil {
		return err
	}
	os.Exit(2)
	return nil
}

// useRemoteLoop attaches a file of the tree as upstream's osbuild.remoteloop does, and
// writes through the device.
func useRemoteLoop() error {
	conn, err := hostapi.Dial("/run/osbuild/api/remoteloop")
	if err != nil {
		return err
	}
	defer conn.Close()
	file, err := os.OpenFile("/run/osbuild/tree/disk", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if err := file.Truncate(1 << 20); err != nil {
		return err
	}
	dev, err := os.Open("/dev")
	if err != nil {
		return err
	}
	if err := conn.Send(map[string]any{"fd": 0, "dir_fd": 1, "offset": 4096}, file, dev); err != nil {
		return err
	}
	var a struct{ Devname string }
	if _, err := conn.Receive(&a); err != nil {
		return err
	}
	d, err := os.OpenFile("/dev/"+a.Devname, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := d.Write([]byte("through the device")); err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close(), os.Remove("/dev/"+a.Devname))
}
