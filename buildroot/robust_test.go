// What must hold of programs: at the same time, large ones, ones that leave things
// behind, ones that print without end.
package buildroot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/agent/wire"
	"github.com/osbuild-star/osbuild-star/stages"
	"golang.org/x/sys/unix"
)

func init() {
	stages.Register(&stages.Stage{Name: "org.osbuild-star.test.meta", Revision: 1, Run: func(c *stages.Context) error {
		sum := 0
		for _, b := range c.Options {
			sum += int(b)
		}
		return c.SetMeta(map[string]any{"length": len(c.Options), "sum": sum, "arch": c.Arch, "epoch": c.Meta.SourceEpoch})
	}})
	stages.Register(&stages.Stage{Name: "org.osbuild-star.test.hint", Revision: 1, Run: func(*stages.Context) error {
		return fmt.Errorf("wrapped: %w", &stages.Error{Msg: "it is wrong", Hint: "make it right"})
	}})
	stages.Register(&stages.Stage{Name: "org.osbuild-star.test.panic", Revision: 1, Run: func(*stages.Context) error {
		panic("out of its depth")
	}})
}

// helper is what the test program does when it is started by another name: it
// stands for programs of a tree, and for systemd-nspawn.
func helper(name string) bool {
	switch name {
	case "ldconfig":
		os.Stderr.WriteString("the linker is not happy\n")
		os.Exit(65)
	case "systemd-sysusers": // hangs, when the tree says so
		if _, err := os.Stat("/usr/hang"); err == nil {
			time.Sleep(time.Hour)
		}
	case "nspawn-hangs":
		time.Sleep(time.Hour)
	case "nspawn-fails":
		os.Stderr.WriteString("no room for a container\n")
		os.Exit(1)
	case "sitter":
		seat()
	case "keeper":
		keep()
	case "api-client":
		apiClient()
	case "holder":
		hold()
	default:
		return false
	}
	return true
}

// as makes the test program startable by another name.
func as(t testing.TB, path string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Link(self, path) == nil {
		return path
	}
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// processes lists the processes of a container, by what they are.
func processes(b *BuildRoot) []string {
	seen := map[string]bool{}
	for _, dir := range b.cg.dirs {
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				text, _ := os.ReadFile(p)
				for _, pid := range strings.Fields(string(text)) {
					comm, err := os.ReadFile("/proc/" + pid + "/comm")
					if err == nil {
						seen[pid+" "+strings.TrimSpace(string(comm))] = true
					}
				}
			}
			return nil
		})
	}
	var out []string
	for p := range seen {
		out = append(out, p)
	}
	return out
}

// strays lists the processes of a build root that are no part of it: neither the
// container nor the agent nor a worker that waits.
func strays(b *BuildRoot) []string {
	var out []string
	workers := 0
	for _, p := range processes(b) {
		switch _, name, _ := strings.Cut(p, " "); name {
		case "systemd-nspawn", "(sd-stubinit)", "osbuild-star-ag": // or a worker that is on its way
		case "exe":
			if workers++; workers > 2 {
				out = append(out, p)
			}
		default:
			out = append(out, p)
		}
	}
	return out
}

func TestTwoAtOnce(t *testing.T) { eachSandbox(t, testTwoAtOnce) }

func testTwoAtOnce(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	shared := t.TempDir()
	script := func(mine, other string) string {
		return "echo " + mine + " > /tmp/own; hostname " + mine + "; touch /run/osbuild/x/" + mine +
			"; while ! test -e /run/osbuild/x/" + other + "; do sleep 0.01; done; set -- /proc/[0-9]*; echo $# $(cat /tmp/own) $(ls /tmp)"
	}
	var wg sync.WaitGroup
	var out [2]string
	for i, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			res, err := b.Run(context.Background(), Job{
				Argv: []string{"/bin/sh", "-c", script(names[0], names[1])}, Limit: time.Minute,
				Mounts: []Mount{{Path: shared, Target: "/run/osbuild/x"}}, Line: func(s string) { out[i] += s + "\n" },
			})
			if err != nil || res.Status != 0 {
				t.Errorf("%s: %v %+v", names[0], err, res)
			}
		}()
	}
	wg.Wait()
	if diff := cmp.Diff([2]string{"2 a own\n", "2 b own\n"}, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// One program after another: the later one finds nothing of the earlier one.
func TestNothingStaysBehind(t *testing.T) { eachSandbox(t, testNothingStaysBehind) }

func testNothingStaysBehind(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dirs := "/dev /dev/shm /dev/mqueue /etc /var /var/tmp /tmp /run /run/osbuild"
	list := "for d in " + dirs + "; do echo $d: $(ls -A $d); done"
	before, _ := sh(t, b, list)
	out, _ := sh(t, b, "for d in "+dirs+"; do touch $d/left || echo cannot write $d; done; rm /dev/null; printf x > /dev/full; ls /dev/disk",
		Mount{Path: file, Target: "/dev/disk"})
	if !strings.Contains(out, "/dev/disk") || strings.Contains(out, "cannot write") {
		t.Errorf("output %q", out)
	}
	after, _ := sh(t, b, list)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	out, res := sh(t, b, "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c && echo y > /dev/ptmx; ls /dev/pts; test -c /dev/null && (: < /dev/tty) 2>&1 | grep -c 'No such device or address'")
	if out != "3\n2\nptmx\n1" {
		t.Errorf("nodes: %q %+v", out, res)
	}
}

// Device nodes can be made in s390x build roots only, and only of the devices that
// the program has.
func TestNodesOnS390x(t *testing.T) { eachSandbox(t, testNodesOnS390x) }

func testNodesOnS390x(t *testing.T, sandbox string) {
	space := newSpace(t)
	img := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(img, []byte("marker"+strings.Repeat("\x00", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLoop(LoopConfig{File: img})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mount := Mount{Path: l.Path, Target: l.Path, Device: [2]uint32{l.Major, l.Minor}}
	script := fmt.Sprintf("mknod /dev/mine b %d %d 2>/dev/null && head -c 6 /dev/mine || echo refused; mknod /dev/sda b 8 0 2>/dev/null || echo refused", l.Major, l.Minor)
	for arch, want := range map[string]string{"x86_64": "refused\nrefused", "s390x": "markerrefused"} {
		for _, bpf := range []bool{false, true} {
			b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: space, Tree: "/", Arch: arch, Runner: "org.osbuild.linux", Work: t.TempDir(), Var: t.TempDir(), BPF: bpf})
			if err != nil {
				t.Fatal(err)
			}
			if out, _ := sh(t, b, script, mount); out != want {
				t.Errorf("%s, BPF %t: %q, want %q", arch, bpf, out, want)
			}
			if out, _ := sh(t, b, script); out != "refused\nrefused" {
				t.Errorf("%s, BPF %t, without the device: %q", arch, bpf, out)
			}
			checkClosed(t, space, b)
		}
	}
}

func TestHowProgramsEnd(t *testing.T) { eachSandbox(t, testHowProgramsEnd) }

func testHowProgramsEnd(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	for _, c := range []struct {
		name   string
		job    Job
		status int
		signal string
		err    string
		hint   string
		out    string
	}{
		{name: "status", job: Job{Argv: []string{"/bin/sh", "-c", "exit 42"}}, status: 42},
		{name: "signal", job: Job{Argv: []string{"/bin/sh", "-c", "kill -9 $$"}}, status: 137, signal: "killed"},
		{name: "by PATH", job: Job{Argv: []string{"true"}}},
		{name: "not there", job: Job{Argv: []string{"no-such-program"}}, status: 1, err: "no-such-program is not in the build root", hint: "add the package that holds it"},
		{name: "no program", job: Job{}, status: 1, err: "no program"},
		{name: "stage not known", job: Job{Native: "org.osbuild.nothing"}, status: 1, err: `unknown stage "org.osbuild.nothing"`},
		{name: "a hint", job: Job{Native: "org.osbuild-star.test.hint", Arguments: json.RawMessage("{}")}, status: 1, err: "wrapped: it is wrong", hint: "make it right"},
		{name: "a stage that crashes", job: Job{Native: "org.osbuild-star.test.panic", Arguments: json.RawMessage("{}")}, status: 2, out: "panic: out of its depth"},
		{name: "nothing but standard files", job: Job{Argv: []string{"/bin/sh", "-c", "cd /proc/self/fd && echo *"}}, out: "0 1 2"},
		{name: "environment", job: Job{Argv: []string{"/usr/bin/env"}, Epoch: new(int64), Env: []string{"A=b=c"}}, out: "SOURCE_DATE_EPOCH=0"},
		{name: "modes", job: Job{Argv: []string{"/bin/sh", "-c", "stat -c %a / /etc /var /var/tmp /tmp /run /run/osbuild | tr '\\n' ' '; umask"}}, out: "755 755 755 1777 1777 755 755 0022"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out []string
			c.job.Line = func(s string) { out = append(out, s) }
			c.job.Limit = time.Minute
			res, err := b.Run(context.Background(), c.job)
			if err != nil {
				t.Fatal(err)
			}
			if res.Status != c.status || res.Signal != c.signal {
				t.Errorf("status %d, signal %q", res.Status, res.Signal)
			}
			if c.err == "" != (res.Err == nil) || res.Err != nil && res.Err.Error() != c.err {
				t.Errorf("error %v, want %q", res.Err, c.err)
			}
			var we *wire.Error
			if c.hint != "" && (!errors.As(res.Err, &we) || we.Hint != c.hint) {
				t.Errorf("hint: %+v", we)
			}
			if !strings.Contains(strings.Join(out, "\n"), c.out) {
				t.Errorf("output %q, want %q", out, c.out)
			}
		})
	}
}

// The caller's umask is for the caller's files.
func TestUmask(t *testing.T) { eachSandbox(t, testUmask) }

func testUmask(t *testing.T, sandbox string) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	_, b := openHost(t, sandbox)
	out, _ := sh(t, b, "stat -c '%a %n' / /etc /etc/passwd /var /var/tmp /tmp /run /run/osbuild; umask; touch /tmp/f; stat -c %a /tmp/f")
	want := "755 /\n755 /etc\n644 /etc/passwd\n755 /var\n1777 /var/tmp\n1777 /tmp\n755 /run\n755 /run/osbuild\n0022\n644"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMetadata(t *testing.T) { eachSandbox(t, testMetadata) }

func testMetadata(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	// 1 MiB of options.
	options := `{"text":"` + strings.Repeat("a", 1<<20) + `"}`
	sum := 0
	for _, c := range []byte(options) {
		sum += int(c)
	}
	epoch := int64(42)
	args, err := json.Marshal(map[string]any{"tree": "/run/osbuild/tree", "options": json.RawMessage(options), "meta": map[string]any{"id": "x", "source-epoch": epoch}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.Run(context.Background(), Job{Native: "org.osbuild-star.test.meta", Arguments: args, Arch: "s390x"})
	if err != nil || res.Err != nil {
		t.Fatal(err, res)
	}
	if got, want := string(res.Metadata), fmt.Sprintf(`{"arch":"s390x","epoch":42,"length":%d,"sum":%d}`, len(options), sum); got != want {
		t.Errorf("metadata %s, want %s", got, want)
	}
	if res.Wall <= 0 || res.MaxRSS <= 0 {
		t.Errorf("measured nothing: %+v", res)
	}
	for _, c := range []struct{ script, want string }{
		{`printf '{"a":1}' > /run/osbuild/meta`, `{"a":1}`},
		{`printf '{"a":' > /run/osbuild/meta`, ""},
		{"true", ""},
	} {
		if _, res := sh(t, b, c.script); string(res.Metadata) != c.want {
			t.Errorf("%s: metadata %q", c.script, res.Metadata)
		}
	}
	res, err = b.Run(context.Background(), Job{Argv: []string{"/bin/sh", "-c", `test $(wc -c < /run/osbuild/api/arguments) = ` + strconv.Itoa(len(args))}, Arguments: args})
	if err != nil || res.Status != 0 {
		t.Errorf("a program does not get its arguments whole: %v %+v", err, res)
	}
}

func TestManyMounts(t *testing.T) { eachSandbox(t, testManyMounts) }

func testManyMounts(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	dir := t.TempDir()
	var mounts []Mount
	for i := range 300 {
		d := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "n"), fmt.Appendf(nil, "%d\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
		mounts = append(mounts, Mount{Path: d, Target: fmt.Sprintf("/run/osbuild/inputs/%d", i), Readonly: i%2 == 0})
	}
	out, _ := sh(t, b, "cat /run/osbuild/inputs/*/n | sort -n | uniq | wc -l; for i in 0 1; do touch /run/osbuild/inputs/$i/new 2>/dev/null && echo $i; done", mounts[:240]...)
	if out != "240\n1" {
		t.Errorf("output %q", out)
	}
	// And the log and the API of the program.
	_, err := b.Run(context.Background(), Job{Argv: []string{"/bin/true"}, Mounts: mounts})
	if err == nil || !strings.Contains(err.Error(), "302 files") {
		t.Errorf("more than one message takes: %v", err)
	}
	_, err = b.Run(context.Background(), Job{Argv: []string{"/bin/true"}, Mounts: []Mount{{Path: filepath.Join(dir, "nothing"), Target: "/run/osbuild/x"}}})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a mount of nothing: %v", err)
	}
	if out, _ := sh(t, b, "echo fine"); out != "fine" {
		t.Errorf("afterwards: %q", out)
	}
}

func TestOrphansAreEnded(t *testing.T) { eachSandbox(t, testOrphansAreEnded) }

func testOrphansAreEnded(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	out, res := sh(t, b, "(setsid sh -c 'trap \"\" HUP TERM; sleep 1000' &) ; (setsid sleep 1001 >/dev/null 2>&1 &); echo done")
	if out != "done" || res.Status != 0 {
		t.Errorf("output %q, status %d", out, res.Status)
	}
	if left := strays(b); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

func TestOutput(t *testing.T) { eachSandbox(t, testOutput) }

func testOutput(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	var got []string
	res, err := b.Run(context.Background(), Job{
		Argv: []string{"/bin/sh", "-c", "printf 'a\\n\\nb\\r\\n'; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end"},
		Line: func(s string) { got = append(got, s) },
	})
	if err != nil || res.Status != 0 {
		t.Fatal(err, res)
	}
	want := []string{"a", "", "b\r", strings.Repeat("x", maxLine), strings.Repeat("x", maxLine), strings.Repeat("x", 40000-2*maxLine), "end"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%.500s", diff)
	}
	// A program that would print for ever.
	n := 0
	_, err = b.Run(context.Background(), Job{Argv: []string{"/bin/cat", "/dev/zero"}, Line: func(s string) { n += len(s) }})
	if !errors.Is(err, ErrOutput) || n > maxOutput {
		t.Errorf("error %v after %d bytes", err, n)
	}
	if out, _ := sh(t, b, "echo fine"); out != "fine" {
		t.Errorf("afterwards: %q", out)
	}
}

// A view of /var is given to the next program as long as nobody changed anything of
// it, and is removed with what is in it when somebody did.
func TestViewsOfVar(t *testing.T) { eachSandbox(t, testViewsOfVar) }

func testViewsOfVar(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	dirs := filepath.Join(b.vardir.Path, "stages")
	for range 20 {
		if _, res := sh(t, b, "ls -laR /var >/dev/null 2>&1; true"); res.Status != 0 {
			t.Fatal(res.Status)
		}
	}
	// Two that wait, the one that is given back, and one that was made meanwhile. Their
	// names count them.
	ents, err := os.ReadDir(dirs)
	if err != nil || len(ents) == 0 {
		t.Fatalf("%v %v", ents, err)
	}
	for _, ent := range ents {
		if n, err := strconv.Atoi(ent.Name()); err != nil || n > 4 {
			t.Errorf("view %s for programs that change nothing: %v", ent.Name(), err)
		}
	}
	for name, script := range map[string]string{
		"a file": "echo x >/var/tmp/left", "a file at the top": "echo x >/var/left", "one for a moment": "touch /var/x; rm /var/x",
		"the mode": "chmod 700 /var", "the owner": "chown 7:8 /var", "the time": "touch -d @5 /var",
		"less": "rmdir /var/tmp",
	} {
		before, _ := sh(t, b, "stat -c '%a %u %g %Y' /var; ls -A /var /var/tmp")
		if _, res := sh(t, b, script); res.Status != 0 {
			t.Fatalf("%s: status %d", name, res.Status)
		}
		for range 3 { // whichever view they get
			if after, _ := sh(t, b, "stat -c '%a %u %g %Y' /var; ls -A /var /var/tmp"); after != before {
				t.Errorf("%s: /var was %q and is %q", name, before, after)
			}
		}
	}
	sh(t, b, "head -c 1000000 /dev/zero >/var/tmp/large")
	for i := 0; ; i++ {
		found, _ := filepath.Glob(dirs + "/*/upper/tmp/large")
		if len(found) == 0 {
			break
		}
		if i == 100 {
			t.Errorf("left on disk: %v", found)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Programs with more or fewer privileges than most have exactly those, and those
// after them the usual ones.
func TestOtherPrivileges(t *testing.T) { eachSandbox(t, testOtherPrivileges) }

func testOtherPrivileges(t *testing.T, sandbox string) {
	_, b := openHost(t, sandbox)
	status := func(job Job) string {
		t.Helper()
		var out []string
		job.Argv, job.Line = []string{"/bin/sh", "-c", "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"}, func(s string) { out = append(out, strings.Join(strings.Fields(s), "")) }
		if res, err := b.Run(context.Background(), job); err != nil || res.Err != nil || res.Status != 0 {
			t.Fatalf("%v %+v", err, res)
		}
		return strings.Join(out, " ")
	}
	set := func(bits uint64, nnp int) string {
		return fmt.Sprintf("CapInh:%016x CapPrm:%016[2]x CapEff:%016[2]x CapBnd:%016[2]x CapAmb:%016[1]x NoNewPrivs:%[3]d", 0, bits, nnp)
	}
	var usual uint64
	if _, err := fmt.Sscanf(regexp.MustCompile("CapBnd:([0-9a-f]+)").FindStringSubmatch(status(Job{}))[1], "%x", &usual); err != nil {
		t.Fatal(err)
	}
	const ptrace = 1 << 19 // CAP_SYS_PTRACE
	for _, c := range []struct {
		job  Job
		want string
	}{
		{Job{}, set(usual, 1)},
		{Job{NewPrivs: true}, set(usual, 0)},
		{Job{}, set(usual, 1)},
		{Job{Caps: []string{"SYS_PTRACE"}}, set(usual|ptrace, 1)},
		{Job{Caps: []string{"SYS_PTRACE"}, NewPrivs: true}, set(usual|ptrace, 0)},
		{Job{}, set(usual, 1)},
	} {
		if got := status(c.job); got != c.want {
			t.Errorf("caps %v, new privileges %v:\n got %s\nwant %s", c.job.Caps, c.job.NewPrivs, got, c.want)
		}
	}
}
