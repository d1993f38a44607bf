// When something goes wrong: what is told, what is left behind, and that the next
// build succeeds.
package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

func TestStageError(t *testing.T) {
	e := newEngine(t, newStore(t), func(c *Config) { c.Target = func(p string) string { return "//images:" + p } })
	bad := func(s *manifest.Stage) *manifest.Manifest {
		s.Origin = manifest.Origin{File: "images/BUILD.star", Line: 12, Col: 3}
		return plan1(pipe("p", note("a", "1"), s, note("never", "1")))
	}
	device := stage(readStage, `{}`)
	device.Devices = map[string]*manifest.Device{"disk": loopback(`{"filename":"nothing.img"}`)}
	for _, c := range []struct {
		name   string
		stage  *manifest.Stage
		want   StageError
		msg    string // of the error, at its end
		output string // its end
	}{
		{name: "with a hint", stage: stage(failStage, `{}`), want: StageError{Status: 1, Msg: "it cannot be", Hint: "do it otherwise"}, msg: "failed: it cannot be", output: "line 9998 of many\nline 9999 of many\n"},
		{name: "upstream's", stage: stage("org.osbuild.error", `{"returncode":3}`), want: StageError{Status: 1, Msg: "the stage was asked to fail, with the return code 3"}, msg: "return code 3"},
		{name: "a program's status", stage: stage(shStage, `{"script":"echo oops >&2; exit 7"}`), want: StageError{Status: 7, Msg: "/bin/sh -ec cd /run/osbuild/tree; echo oops >&2; exit 7: exit status 7"}, msg: "exit status 7", output: "oops\n"},
		{name: "killed", stage: stage(shStage, `{"script":"kill -9 $$"}`), want: StageError{Status: 1, Msg: "/bin/sh -ec cd /run/osbuild/tree; kill -9 $$: signal: killed"}, msg: "signal: killed"},
		{name: "its options", stage: stage(noteStage, `{"nothing":1}`), want: StageError{Status: 1, Msg: `reading the options: json: unknown field "nothing"`}, msg: `unknown field "nothing"`},
		{name: "before it runs", stage: device, want: StageError{Msg: `device "disk": file "nothing.img" of the tree: no such file or directory`, Hint: "make the file in a stage before, such as org.osbuild.truncate"}, msg: "no such file or directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := bad(c.stage)
			res, err := e.Build(context.Background(), m, []string{"p"}, nil)
			var se *StageError
			if !errors.As(err, &se) {
				t.Fatalf("error: %v", err)
			}
			got := *se
			got.Err, got.Output, got.ID = nil, "", ""
			c.want.Pipeline, c.want.Type, c.want.Target, c.want.Origin = "p", c.stage.Type, "//images:p", c.stage.Origin
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(err.Error(), fmt.Sprintf("stage %s of pipeline \"p\" failed: ", c.stage.Type)) || !strings.HasSuffix(err.Error(), c.msg) {
				t.Errorf("message: %v", err)
			}
			if !strings.HasSuffix(se.Output, c.output) || len(se.Output) > maxTail {
				t.Errorf("output (%d bytes): …%q", len(se.Output), se.Output[max(0, len(se.Output)-100):])
			}
			if ids, _ := m.IDs(); se.ID != ids.Stage(m.Pipelines[0], 1) {
				t.Errorf("ID %s", se.ID)
			}
			for _, s := range res.Stages {
				if s.Type == c.stage.Type && s.Success {
					t.Errorf("told as a success: %+v", s)
				}
			}
			checkIdle(t, e)
			if got := ran(mustBuild(t, e, plan1(pipe("p", note("a", "1"), note("c", c.name))), "p")); len(got) == 0 {
				t.Error("the next build ran nothing")
			}
		})
	}
}

// Of several that run at once the one that failed is told, not those that were
// ended for it.
func TestFirstFailureIsTold(t *testing.T) {
	e := newEngine(t, newStore(t))
	m := plan1(
		pipe("waits", stage(waitStage, `{}`)),
		pipe("fails", note("a", "1"), stage(failStage, `{}`)),
		pipe("needs", note("b", "1"), stage(waitStage, `{"n":1}`), copyOf("fails")))
	for _, names := range [][]string{{"waits", "fails"}, {"needs"}} {
		_, err := e.Build(context.Background(), m, names, nil)
		var se *StageError
		if !errors.As(err, &se) || se.Type != failStage {
			t.Errorf("%v: %v", names, err)
		}
		checkIdle(t, e)
	}
}

func TestLimitOfStages(t *testing.T) {
	e := newEngine(t, newStore(t), func(c *Config) { c.Limit = 300 * time.Millisecond })
	_, err := e.Build(context.Background(), plan1(pipe("p", stage(waitStage, `{}`))), []string{"p"}, nil)
	var se *StageError
	if !errors.As(err, &se) || !strings.HasSuffix(err.Error(), "it took longer than 300ms") {
		t.Errorf("error: %v", err)
	}
	checkIdle(t, e)
}

// Ctrl-C at any time: nothing is left, and the same engine builds on.
func TestCancel(t *testing.T) {
	st := newStore(t)
	e := newEngine(t, st)
	device := stage(waitStage, `{}`)
	device.Devices = map[string]*manifest.Device{"disk": loopback(`{"filename":"disk.img"}`)}
	device.Inputs = map[string]*manifest.Input{"in": treeOf("os")}
	m := plan1(pipe("os", note("a", "1")), pipe("p", stage("org.osbuild.truncate", `{"filename":"disk.img","size":"1M"}`), device))
	for _, c := range []struct {
		name string
		when func(monitor.Event) bool
	}{
		{"while the build root starts", func(e monitor.Event) bool { return e.Kind == monitor.Start && strings.HasPrefix(e.Name, "start host") }},
		{"while a stage is prepared", func(e monitor.Event) bool { return e.Kind == monitor.Start && e.Name == waitStage }},
		{"while a stage runs", func(e monitor.Event) bool { return e.Kind == monitor.Output && e.Text == "waiting" }},
		{"while another commits", func(e monitor.Event) bool { return e.Kind == monitor.Start && e.Name == "commit" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			m.Pipelines[0].Stages[0] = note("a", c.name)
			_, err := e.Build(ctx, m, []string{"p", "os"}, onEvent(func(ev monitor.Event) {
				if c.when(ev) {
					cancel()
				}
			}))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error: %v", err)
			}
			checkIdle(t, e)
			if got := ran(mustBuild(t, e, plan1(pipe("next", note("n", c.name))), "next")); len(got) != 1 {
				t.Errorf("the next build ran %v", got)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.Build(ctx, m, []string{"p"}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}

// A build root that was ended from outside fails one build, not the next.
func TestBuildRootIsEnded(t *testing.T) {
	e := newEngine(t, newStore(t))
	_, err := e.Build(context.Background(), plan1(pipe("p", stage(waitStage, `{}`))), []string{"p"}, onEvent(func(ev monitor.Event) {
		if ev.Kind != monitor.Output || ev.Text != "waiting" {
			return
		}
		killed := 0
		for _, pid := range descendants(t, os.Getpid()) {
			// The agent, not the program that it was started by.
			if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.HasPrefix(string(comm), "osbuild-star-ag") {
				if err := unix.Kill(pid, unix.SIGKILL); err != nil {
					t.Error(err)
				}
				killed++
			}
		}
		if killed != 1 {
			t.Errorf("killed %d agents", killed)
		}
	}))
	var se *StageError
	if !errors.As(err, &se) || !strings.Contains(err.Error(), "the build root ended") {
		t.Errorf("error: %v", err)
	}
	checkIdle(t, e)
	mustBuild(t, e, plan1(pipe("p", note("a", "1"))), "p")
}

// children lists the processes that this one started and that still run.
func children(t *testing.T, pid int) []int {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		for _, s := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// descendants lists the children of a process, theirs, and so on.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	var out []int
	for _, c := range children(t, pid) {
		out = append(append(out, c), descendants(t, c)...)
	}
	return out
}

// holdPlan is what the helper builds: a device is attached while its last stage
// runs for ever.
func holdPlan() *manifest.Manifest {
	wait := stage(waitStage, `{}`)
	wait.Devices = map[string]*manifest.Device{"disk": loopback(`{"filename":"disk.img"}`)}
	wait.Inputs = map[string]*manifest.Input{"in": treeOf("os")}
	return plan1(
		pipe("os", note("a", "1"), note("b", "1")),
		pipe("p", note("first", "1"), stage("org.osbuild.truncate", `{"filename":"disk.img","size":"1M"}`), wait))
}

// hold is the test program as another process: it builds in a store until it is
// killed.
func hold(args []string) int {
	st, err := store.Open(args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	e := New(Config{Host: testHost, Store: st, Work: args[1], Var: args[2]})
	m := holdPlan()
	if len(args) > 3 {
		m = manyPlan()
	}
	_, err = e.Build(context.Background(), m, []string{"p"}, onEvent(func(ev monitor.Event) {
		if ev.Kind == monitor.Output {
			fmt.Println(ev.Text)
		}
	}))
	if err = errors.Join(err, e.Close()); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// startHolder starts the test program as another process that builds.
func startHolder(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "engine-holder"
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// A build that is killed with SIGKILL leaves no mount, no device and no process,
// and nothing that a later one would trust; the later one removes its directories.
func TestKilledBuild(t *testing.T) {
	needRoot(t)
	st := newStore(t)
	work, vardir := t.TempDir(), t.TempDir()
	cmd, out := startHolder(t, st.Dir, work, vardir)
	line, err := out.ReadString('\n')
	attached := loops(st.Dir)
	attached = append(attached, loops("/disk.img")...)
	processes := descendants(t, cmd.Process.Pid)
	cmd.Process.Kill()
	cmd.Wait()
	if line != "waiting\n" || err != nil {
		t.Fatalf("%q %v", line, err)
	}
	if len(processes) == 0 {
		t.Error("no container ran")
	}
	for _, pid := range processes {
		for range 1000 {
			if unix.Kill(pid, 0) != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if unix.Kill(pid, 0) == nil {
			t.Errorf("process %d lives on", pid)
		}
	}
	for range 1000 { // a device is free when the last process that sees it is gone
		if len(loops(st.Dir)) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	checkMounts(t, work, vardir, st.Dir)
	t.Logf("attached meanwhile: %v", attached)
	if ents, _ := os.ReadDir(filepath.Join(st.Dir, "tmp")); len(ents) == 0 {
		t.Error("nothing is left to be swept")
	}
	e := newEngine(t, st, func(c *Config) { c.Work, c.Var = work, vardir })
	m := holdPlan()
	m.Pipelines[1].Stages = m.Pipelines[1].Stages[:2]
	res := mustBuild(t, e, m, "p", "os")
	// What was complete is trusted; the stages in place were not.
	if diff := cmp.Diff([]string{"p truncate"}, ran(res), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("ran (-want +got):\n%s", diff)
	}
	for _, d := range []string{filepath.Join(st.Dir, "tmp"), work, vardir} {
		if ents, _ := os.ReadDir(d); len(ents) > 1 {
			t.Errorf("not swept: %v", ents)
		}
	}
}

// manyPlan is enough work for two that build it at once to get in each other's way.
func manyPlan() *manifest.Manifest {
	m := &manifest.Manifest{}
	last := pipe("p")
	for i := range 4 {
		p := pipe(fmt.Sprintf("p%d", i))
		for n := range 5 {
			p.Stages = append(p.Stages, note(fmt.Sprintf("f%d", n), fmt.Sprint(i)))
		}
		m.Pipelines = append(m.Pipelines, p)
		read := stage(readStage, fmt.Sprintf(`{"n":%d}`, i))
		read.Inputs = map[string]*manifest.Input{"in": treeOf(p.Name)}
		last.Stages = append(last.Stages, read)
	}
	last.Stages = append(last.Stages, note("end", "1"))
	m.Pipelines = append(m.Pipelines, last)
	return m
}

// Two processes, and two engines of one, build the same in one store at once.
func TestTwoEngines(t *testing.T) {
	st := newStore(t)
	again, err := store.Open(st.Dir)
	if err != nil {
		t.Fatal(err)
	}
	engines := []*Engine{newEngine(t, st), newEngine(t, again)}
	m := manyPlan()
	cmd, out := startHolder(t, st.Dir, t.TempDir(), t.TempDir(), "many")
	errs := make(chan error, len(engines))
	trees := make([]*store.Object, len(engines))
	for i, e := range engines {
		go func() {
			res, err := e.Build(context.Background(), m, []string{"p"}, nil)
			if err == nil {
				trees[i] = res.Trees["p"]
			}
			errs <- err
		}()
	}
	for range engines {
		if err := <-errs; err != nil {
			t.Error(explain(err))
		}
	}
	said, _ := out.ReadString(0)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the other process: %v: %s", err, said)
	}
	if t.Failed() {
		return
	}
	if diff := cmp.Diff(trees[0].Layers, trees[1].Layers); diff != "" {
		t.Errorf("two trees of one key:\n%s", diff)
	}
	// One layer of each step that changes something: 4 times 5, and the first and the
	// last of the last pipeline.
	if n := layerCount(t, st); n != 22 {
		t.Errorf("%d layers", n)
	}
	got, err := contents(exported(t, engines[0], trees[0]))
	if diff := cmp.Diff(map[string]string{"end": "1"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// Places whose names have characters that mount options give a meaning to.
func TestOddPlaces(t *testing.T) {
	st, err := store.Open(filepath.Join(t.TempDir(), `a store, with: odd\ "names" %s`))
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, st)
	p := pipe("p")
	for i := range 4 {
		p.Stages = append(p.Stages, note(fmt.Sprint(i), "x"))
	}
	res := mustBuild(t, e, plan1(p), "p")
	got, err := contents(exported(t, e, res.Trees["p"]))
	if diff := cmp.Diff(map[string]string{"0": "x", "1": "x", "2": "x", "3": "x"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
