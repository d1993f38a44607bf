// What the tests of the engine share: stages of their own, manifests made in Go,
// and looking for what is left behind.
package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osbuild-star/osbuild-star/agent"
	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/internal/testenv"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/stages"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// testHost is what tests use as the host's tree.
var testHost Host

// The test program is the agent too, so that its stages run in build roots.
func TestMain(m *testing.M) {
	switch {
	case agent.Is(os.Args):
		os.Exit(agent.Main(os.Args))
	case libdirPrograms[filepath.Base(os.Args[0])] != nil:
		os.Exit(libdirMain())
	}
	h, err := testenv.Setup()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testHost = Host{Tree: h.Tree, Runner: h.Runner}
	if os.Args[0] == "engine-holder" {
		os.Exit(hold(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// Names of the stages that only tests have.
const (
	noteStage   = "org.osbuild-star.test.note"   // writes its option "text" to the file of its option "file"
	readStage   = "org.osbuild-star.test.read"   // its metadata are what it sees: inputs, mounts, devices
	changeStage = "org.osbuild-star.test.change" // random changes of the tree, by a seed
	meetStage   = "org.osbuild-star.test.meet"   // waits for another stage that runs at the same time
	failStage   = "org.osbuild-star.test.fail"   // prints a lot and fails with a hint
	shStage     = "org.osbuild-star.test.sh"     // runs a shell script in the tree
	waitStage   = "org.osbuild-star.test.wait"   // says that it is there, and never ends
)

func init() {
	for _, s := range []*stages.Stage{
		{Name: noteStage, Run: runNote},
		{Name: readStage, Run: runRead},
		{Name: changeStage, Run: runChange},
		{Name: meetStage, Run: runMeet},
		{Name: shStage, Run: func(c *stages.Context) error {
			var o struct{ Script string }
			if err := c.Decode(&o); err != nil {
				return err
			}
			return c.Run("/bin/sh", "-ec", "cd "+c.Tree+"; "+o.Script)
		}},
		{Name: failStage, Run: func(c *stages.Context) error {
			for i := range 10000 {
				c.Logf("line %d of many", i)
			}
			return &stages.Error{Msg: "it cannot be", Hint: "do it otherwise"}
		}},
		{Name: waitStage, Run: func(c *stages.Context) error {
			if err := os.WriteFile(c.TreePath("/half"), []byte("x"), 0o644); err != nil {
				return err
			}
			cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & echo waiting; sleep 1000")
			cmd.Stdout, cmd.Stderr = c.Log, c.Log
			return cmd.Run()
		}},
	} {
		s.Revision = 1
		stages.Register(s)
	}
}

func runNote(c *stages.Context) error {
	var o struct {
		File, Text string
		MTime      int64 `json:"mtime"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	p := c.TreePath(o.File)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(p, []byte(o.Text), 0o644); err != nil {
		return err
	}
	if o.MTime != 0 {
		return os.Chtimes(p, time.Unix(o.MTime, 0), time.Unix(o.MTime, 0))
	}
	return nil
}

// seen is the metadata of readStage.
type seen struct {
	Inputs  map[string]map[string]string          `json:"inputs,omitempty"` // input → path → content
	Data    map[string]map[string]json.RawMessage `json:"data,omitempty"`   // input → file → metadata
	Mounts  map[string]map[string]string          `json:"mounts,omitempty"`
	Devices map[string]string                     `json:"devices,omitempty"` // device → its first 4 bytes
	Epoch   *int64                                `json:"epoch,omitempty"`
}

func runRead(c *stages.Context) error {
	s := seen{
		Inputs: map[string]map[string]string{}, Data: map[string]map[string]json.RawMessage{},
		Mounts: map[string]map[string]string{}, Devices: map[string]string{}, Epoch: c.Meta.SourceEpoch,
	}
	var err error
	for name, in := range c.Inputs {
		if s.Inputs[name], err = contents(in.Path); err != nil {
			return err
		}
		if in.Data.Files != nil {
			s.Data[name] = in.Data.Files
		}
		if err := os.WriteFile(filepath.Join(in.Path, "written"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("input %s can be written to: %v", name, err)
		}
	}
	for name, m := range c.Mounts {
		if m.Path == "" {
			continue
		}
		if s.Mounts[name], err = contents(m.Path); err != nil {
			return err
		}
	}
	for name, d := range c.Devices {
		f, err := os.Open(d.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, 4)
		if _, err := f.Read(b); err != nil {
			return err
		}
		s.Devices[name] = string(b)
	}
	return c.SetMeta(s)
}

// contents reads the files below a directory, by their paths.
func contents(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		out[rel] = string(b)
		return err
	})
	return out, err
}

// runMeet meets the other stage of the same name at a socket: stages in one build
// root have no other thing in common.
func runMeet(c *stages.Context) error {
	var o struct{ At, Who string }
	if err := c.Decode(&o); err != nil {
		return err
	}
	l, err := net.Listen("unix", "@"+o.At)
	if err == nil {
		defer l.Close()
		if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("nobody came: %w", err)
		}
		return conn.Close()
	}
	// The other one has the name a moment before it listens.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", "@"+o.At)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// options are those of a stage, from JSON.
func options(text string) map[string]any {
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		panic(fmt.Sprintf("%s: %v", text, err))
	}
	return v
}

func stage(typ, opts string) *manifest.Stage {
	return &manifest.Stage{Type: typ, Options: options(opts)}
}

func note(file, text string) *manifest.Stage {
	return stage(noteStage, fmt.Sprintf(`{"file":%q,"text":%q}`, file, text))
}

// copyOf is the copy of the whole tree of a pipeline.
func copyOf(pipeline string) *manifest.Stage {
	s := stage("org.osbuild.copy", `{"paths":[{"from":"input://tree/","to":"tree:///"}]}`)
	s.Inputs = map[string]*manifest.Input{"tree": treeOf(pipeline)}
	return s
}

func treeOf(pipeline string) *manifest.Input {
	return &manifest.Input{Type: "org.osbuild.tree", Origin: manifest.OriginPipeline, References: []manifest.Reference{{ID: "name:" + pipeline}}}
}

func loopback(opts string) *manifest.Device {
	return &manifest.Device{Type: "org.osbuild.loopback", Options: options(opts)}
}

// pipe is a pipeline that is built on the host, by the runner that does least; where a
// build environment stands for the host, by that one's.
func pipe(name string, s ...*manifest.Stage) *manifest.Pipeline {
	runner := "org.osbuild.linux"
	if testHost.Tree != "/" {
		runner = testHost.Runner
	}
	return &manifest.Pipeline{Name: name, Build: &manifest.BuildRoot{Runner: runner}, Stages: s}
}

func plan1(p ...*manifest.Pipeline) *manifest.Manifest { return &manifest.Manifest{Pipelines: p} }

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// eachSandbox runs a test in each of the sandboxes: it gets what chooses one.
func eachSandbox(t *testing.T, test func(t *testing.T, sandbox func(*Config))) {
	for _, name := range []string{buildroot.SandboxNspawn, buildroot.SandboxNative} {
		t.Run(name, func(t *testing.T) {
			if _, err := buildroot.Sandbox(name); err != nil {
				t.Skip(err)
			}
			test(t, func(c *Config) { c.Sandbox = name })
		})
	}
}

func newStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newEngine makes an engine whose places are checked when the test ends.
func newEngine(t testing.TB, s *store.Store, change ...func(*Config)) *Engine {
	t.Helper()
	needRoot(t)
	cfg := Config{Store: s, Jobs: 2, Work: t.TempDir(), Var: t.TempDir(), Limit: time.Minute, Host: testHost}
	for _, f := range change {
		f(&cfg)
	}
	e := New(cfg)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		for _, d := range []string{cfg.Work, cfg.Var, filepath.Join(s.Dir, "tmp")} {
			ents, err := os.ReadDir(d)
			if err != nil {
				t.Error(err)
			}
			for _, ent := range ents {
				if p := filepath.Join(d, ent.Name()); !inUse(p) { // by another engine of the test
					t.Errorf("left: %s", p)
				}
			}
		}
		checkMounts(t, cfg.Work, s.Dir)
	})
	return e
}

// inUse tells whether somebody holds the lock of a directory.
func inUse(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// checkMounts looks for mounts and loop devices that belong to these directories.
func checkMounts(t testing.TB, dirs ...string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if bytes.Contains(mounts, []byte(d)) {
			t.Errorf("mounts below %s can be seen", d)
		}
		for _, l := range loops(d) {
			t.Errorf("left attached: %s", l)
		}
	}
}

// loops lists the loop devices on files below a directory.
func loops(dir string) []string {
	var out []string
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), dir) {
			out = append(out, f+": "+strings.TrimSpace(string(b)))
		}
	}
	return out
}

// checkIdle looks for what a build left in an engine that still runs.
func checkIdle(t testing.TB, e *Engine) {
	t.Helper()
	ents, err := os.ReadDir(e.run.Path)
	if err != nil {
		t.Error(err)
	}
	runners := 1 // and the empty directory
	for _, r := range e.roots {
		if r.dir != "" {
			runners++ // they stay as long as their build roots
		}
	}
	if len(ents) != runners {
		t.Errorf("left in the store: %v", ents)
	}
	err = e.space.Do(func() error {
		mounts, err := os.ReadFile("/proc/thread-self/mounts")
		for line := range strings.Lines(string(mounts)) {
			// The build roots stay.
			if f := strings.Fields(line); strings.HasPrefix(f[1], e.work.Path+"/step-") || strings.HasPrefix(f[1], e.work.Path+"/shell-") {
				t.Errorf("left mounted: %s", line)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	ents, err = os.ReadDir(e.work.Path)
	for _, ent := range ents {
		if !strings.HasPrefix(ent.Name(), "root-") && !strings.HasPrefix(ent.Name(), "tree-") {
			t.Errorf("left: %s", ent.Name())
		}
	}
	if err != nil {
		t.Error(err)
	}
	checkMounts(t, e.work.Path, e.cfg.Store.Dir)
}

func mustBuild(t testing.TB, e *Engine, m *manifest.Manifest, names ...string) *Result {
	t.Helper()
	res, err := e.Build(context.Background(), m, names, nil)
	if err != nil {
		t.Fatal(explain(err))
	}
	return res
}

// explain is an error with the output of its stage.
func explain(err error) string {
	var se *StageError
	if errors.As(err, &se) {
		return fmt.Sprintf("%v (hint %q, output %q)", err, se.Hint, se.Output)
	}
	return err.Error()
}

// ran lists what a build ran, as "pipeline stage".
func ran(r *Result) []string {
	out := []string{}
	for _, s := range r.Stages {
		out = append(out, s.Pipeline+" "+s.Type[strings.LastIndexByte(s.Type, '.')+1:])
	}
	return out
}

// exported copies a tree out of the store.
func exported(t testing.TB, e *Engine, o *store.Object) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	if err := e.ExportTree(context.Background(), o, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// layerCount counts the layers in a store.
func layerCount(t testing.TB, s *store.Store) int {
	t.Helper()
	ents, err := os.ReadDir(s.LayersDir())
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// onEvent is a span whose events f gets.
func onEvent(f func(monitor.Event)) *monitor.Span {
	return monitor.New(monitor.ReaderFunc(f)).Start(nil, monitor.Event{Category: monitor.CatBuild, Name: "build"})
}
