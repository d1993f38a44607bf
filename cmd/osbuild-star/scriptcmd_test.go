// What scripts have beside testscript's own commands:
//
//	fails STATUS PROGRAM ARG...   run it; it has to end with that status
//	json FILE [PATH OP [VALUE]]   FILE (stdout, stderr or a name) is JSON; what is at
//	                              PATH (images.0.label, stages.len for a length) is
//	                              VALUE (==), is not (!=), has it (has), or is there
//	                              (exists)
//	save NAME FILE PATH           set the variable to what is at PATH
//	serve NAME DIR                serve DIR by HTTP; the variable becomes its URL. What
//	                              is named stall begins and does not go on
//	await FILE PATTERN            wait until the file has a match
//	start NAME PROGRAM ARG...     start it in the background
//	signal NAME INT|KILL          send it a signal
//	finish NAME STATUS            wait for it; it has to end with that status
//	clean [NAME [TOKEN]]          nothing is left: of builds in this script, of the
//	                              process NAME, of programs whose name is TOKEN
//	gone NAME TOKEN               wait until the containers of the process NAME, and
//	                              programs whose name is TOKEN, have ended
//	as-nobody STATUS PROGRAM ARG...  run it as a user without rights
//	keep NAME FILE, kept NAME FILE   the file is the same one as before, untouched
//	trace FILE NAME...            FILE is a trace with complete spans, and has events of
//	                              those names
//	trace FILE NAME...            FILE is a trace with complete spans of those names
//	flip NAME DIR                 change a bit of the file of that name below DIR, and
//	                              not its time, as a bad disk does
//	jsonl FILE KEY VALUE NAME     each line of FILE is JSON; one has that value, and
//	                              that name
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

type stateKey struct{}

// scriptState is what a script has beside its folder.
type scriptState struct {
	vars    []string // environment at its start
	before  *leftovers
	started map[string]*process
	kept    map[string]string
	server  *httptest.Server
}

// process is one that a script started in the background.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	done           chan struct{}
	err            error
}

func state(ts *testscript.TestScript) *scriptState { return ts.Value(stateKey{}).(*scriptState) }

// end ends what a script that failed left running.
func (s *scriptState) end() {
	for _, p := range s.started {
		p.cmd.Process.Kill()
		<-p.done
	}
	if s.server != nil {
		s.server.Close()
	}
}

var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"fails": cmdFails, "json": cmdJSON, "save": cmdSave, "serve": cmdServe, "await": cmdAwait, "start": cmdStart, "signal": cmdSignal,
	"finish": cmdFinish, "gone": cmdGone, "clean": cmdClean, "as-nobody": cmdAsNobody, "keep": cmdKeep, "kept": cmdKept, "trace": cmdTrace, "jsonl": cmdJSONL,
	"flip": cmdFlip,
}

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "fails STATUS PROGRAM ARG...")
	err := ts.Exec(args[1], args[2:]...)
	checkStatus(ts, args[0], err)
}

func checkStatus(ts *testscript.TestScript, want string, err error) {
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("it did not run: %v", err)
	}
	if strconv.Itoa(got) != want {
		ts.Fatalf("exit status %d, want %s (%v)", got, want, err)
	}
}

// at finds what a path speaks of in JSON.
func at(v any, path string) (any, bool) {
	if path == "." {
		return v, true
	}
	for name := range strings.SplitSeq(path, ".") {
		name = strings.ReplaceAll(name, "/", ".") // names with dots are written with slashes
		switch x := v.(type) {
		case map[string]any:
			if name == "len" {
				v = json.Number(strconv.Itoa(len(x)))
				continue
			}
			var ok bool
			if v, ok = x[name]; !ok {
				return nil, false
			}
		case []any:
			if name == "len" {
				v = json.Number(strconv.Itoa(len(x)))
				continue
			}
			n, err := strconv.Atoi(name)
			if err != nil || n < 0 || n >= len(x) {
				return nil, false
			}
			v = x[n]
		default:
			return nil, false
		}
	}
	return v, true
}

func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func readJSON(ts *testscript.TestScript, file string) any {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(file)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		ts.Fatalf("%s is not JSON: %v", file, err)
	}
	if d.More() {
		ts.Fatalf("%s has more than one value", file)
	}
	return v
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 1 || len(args) == 3 || len(args) == 4), "json FILE [PATH OP [VALUE]]")
	v := readJSON(ts, args[0])
	if len(args) == 1 {
		return
	}
	got, found := at(v, args[1])
	want := ""
	if len(args) == 4 {
		want = args[3]
	}
	ok := false
	switch args[2] {
	case "exists":
		ok = found
	case "==":
		ok = found && text(got) == want
	case "!=":
		ok = !found || text(got) != want
	case "has":
		ok = found && strings.Contains(text(got), want)
	default:
		ts.Fatalf("no operator %s", args[2])
	}
	if !ok {
		ts.Fatalf("%s is %s, want %s %s, in:\n%s", args[1], text(got), args[2], want, ts.ReadFile(args[0]))
	}
}

func cmdSave(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "save NAME FILE PATH")
	v, ok := at(readJSON(ts, args[1]), args[2])
	if !ok {
		ts.Fatalf("there is no %s in %s", args[2], args[1])
	}
	ts.Setenv(args[0], text(v))
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2 && state(ts).server == nil, "serve NAME DIR, once")
	files := http.FileServer(http.Dir(ts.MkAbs(args[1])))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/stall") {
			// A server that begins, and then says no more.
			w.Header().Set("Content-Length", "1000000")
			w.Write([]byte("the beginning"))
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		files.ServeHTTP(w, r)
	}))
	state(ts).server = srv
	ts.Setenv(args[0], srv.URL)
}

// patience is how long scripts wait for what has to come.
const patience = 60 * time.Second

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "await FILE PATTERN")
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && re.Match(b) {
			return
		}
	}
	for name, p := range state(ts).started {
		ts.Logf("%s prints:\n%s%s", name, &p.stdout, &p.stderr)
	}
	ts.Fatalf("%s never had %s", args[0], args[1])
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "start NAME PROGRAM ARG...")
	s := state(ts)
	p := &process{cmd: exec.Command(args[1], args[2:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), &p.stdout, &p.stderr
	for _, kv := range s.vars {
		k, _, _ := strings.Cut(kv, "=")
		p.cmd.Env = append(p.cmd.Env, k+"="+ts.Getenv(k))
	}
	// A group of its own, as a shell makes one.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(p.cmd.Start())
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	s.started[args[0]] = p
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}
	usage(ts, !neg && len(args) == 2 && state(ts).started[args[0]] != nil && signals[args[1]] != 0, "signal NAME INT|KILL|TERM")
	ts.Check(state(ts).started[args[0]].cmd.Process.Signal(signals[args[1]]))
}

func cmdFinish(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2 && state(ts).started[args[0]] != nil, "finish NAME STATUS")
	p := state(ts).started[args[0]]
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s does not end; it prints:\n%s%s", args[0], &p.stdout, &p.stderr)
	}
	// Beside the script's folder for cmp, stdout and stderr.
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".stdout"), p.stdout.Bytes(), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".stderr"), p.stderr.Bytes(), 0o644))
	ts.Logf("%s printed:\n%s%s", args[0], &p.stdout, &p.stderr)
	if args[1] != "killed" {
		checkStatus(ts, args[1], p.err)
	}
}

func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2 && state(ts).started[args[0]] != nil, "gone NAME TOKEN")
	pid := state(ts).started[args[0]].cmd.Process.Pid
	var left []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		left = append(processesWith(fmt.Sprintf("osbuild-star-%d-", pid)), processesWith(args[1])...)
		if len(left) == 0 && len(cgroupProcesses(fmt.Sprintf("osbuild-star.%d.", pid))) == 0 {
			return
		}
	}
	ts.Fatalf("processes are left: %s", left)
}

func cmdAsNobody(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "as-nobody STATUS PROGRAM ARG...")
	var out bytes.Buffer
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), &out, &out
	for _, kv := range state(ts).vars {
		k, _, _ := strings.Cut(kv, "=")
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	err := cmd.Run()
	ts.Logf("%s", &out)
	ts.Check(os.WriteFile(ts.MkAbs("output"), out.Bytes(), 0o644))
	checkStatus(ts, args[0], err)
}

// identity is what changes when a file is written or replaced.
func identity(ts *testscript.TestScript, file string) string {
	var st unix.Stat_t
	if err := unix.Lstat(ts.MkAbs(file), &st); err != nil {
		ts.Fatalf("%s: %v", file, err)
	}
	return fmt.Sprintf("inode %d, %d bytes, changed at %d.%09d", st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
}

func cmdKeep(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "keep NAME FILE")
	s := state(ts)
	if s.kept == nil {
		s.kept = map[string]string{}
	}
	s.kept[args[0]] = identity(ts, args[1])
}

func cmdKept(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "[!] kept NAME FILE")
	before, now := state(ts).kept[args[0]], identity(ts, args[1])
	if same := before == now; same == neg {
		ts.Fatalf("%s: it was %s, it is %s", args[1], before, now)
	}
}

func cmdClean(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) <= 2, "clean [NAME [TOKEN]]")
	s := state(ts)
	work := ts.Getenv("WORK")
	var problems problemList
	for _, dir := range []string{filepath.Join(ts.Getenv("OSBUILD_STAR_STORE"), "tmp"), filepath.Join(work, "var"), filepath.Join(work, "tmp")} {
		ents, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			ts.Fatalf("%v", err)
		}
		for _, e := range ents {
			problems.Errorf("%s is left", filepath.Join(dir, e.Name()))
		}
	}
	if len(args) > 0 {
		pid := s.started[args[0]].cmd.Process.Pid
		for _, p := range processesWith(fmt.Sprintf("osbuild-star-%d-", pid)) {
			problems.Errorf("process %s is left", p)
		}
		for _, g := range cgroupsWith(fmt.Sprintf("osbuild-star.%d.", pid)) {
			problems.Errorf("cgroup %s is left", g)
		}
	}
	if len(args) > 1 {
		for _, p := range processesWith(args[1]) {
			problems.Errorf("process %s is left", p)
		}
	}
	s.before.check(&problems, work)
	if len(problems) > 0 {
		ts.Fatalf("%s", strings.Join(problems, "\n"))
	}
}

func cmdTrace(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "trace FILE NAME...")
	var trace struct {
		TraceEvents []struct {
			Name, Ph, Cat string
			TS, Dur       *int64
			PID, TID      int
		}
	}
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &trace); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	seen := map[string]bool{}
	for i, e := range trace.TraceEvents {
		seen[e.Name] = true
		if e.Ph != "X" {
			continue
		}
		if e.TS == nil || e.Dur == nil || *e.TS < 0 || *e.Dur <= 0 || e.PID == 0 || e.TID == 0 {
			ts.Fatalf("%s has a span that is not complete: %+v", args[0], e)
		}
		for _, o := range trace.TraceEvents[:i] {
			if o.Ph == "X" && o.TID == e.TID && *e.TS < *o.TS+*o.Dur && *e.TS+*e.Dur > *o.TS+*o.Dur {
				ts.Fatalf("%s has spans that cross: %+v %+v", args[0], o, e)
			}
		}
	}
	for _, name := range args[1:] {
		if !seen[name] {
			ts.Fatalf("%s has no span %q: %v", args[0], name, seen)
		}
	}
}

func cmdJSONL(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 4, "jsonl FILE KEY VALUE NAME")
	found := false
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			ts.Fatalf("%s: %v in %s", args[0], err, line)
		}
		if e["time"] == nil || e["kind"] == nil {
			ts.Fatalf("%s: an event without time or kind: %s", args[0], line)
		}
		found = found || e[args[1]] == args[2] && e["name"] == args[3]
	}
	if !found {
		ts.Fatalf("%s has no event with %s %s and name %s", args[0], args[1], args[2], args[3])
	}
}

func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "flip NAME DIR")
	n := 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[1]), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != args[0] || !d.Type().IsRegular() {
			return err
		}
		n++
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		f, err := os.OpenFile(p, os.O_WRONLY, 0) // in place: it has other names
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt(b[len(b)/2:len(b)/2+1], int64(len(b)/2)); err != nil {
			return err
		}
		return os.Chtimes(p, st.ModTime(), st.ModTime())
	}))
	if n != 1 {
		ts.Fatalf("%d files have the name %s", n, args[0])
	}
}

// problemList collects what is wrong.
type problemList []string

func (p *problemList) Errorf(format string, args ...any) {
	*p = append(*p, fmt.Sprintf(format, args...))
}
