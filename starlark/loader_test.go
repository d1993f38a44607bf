// Tests of running files: order, loads, cycles, limits, interruption, many at once.

package starlark

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLoad(t *testing.T) {
	prints := map[string]int{}
	l := newLoader(t, `
-- lib/a.star --
load(":b.star", by = "b")
load("@osbuild//deep/x.star", "x")
print("a runs")
a = "a" + by + x
-- lib/b.star --
b = "b"
_private = 1
-- lib/sub/d.star --
print("d runs")
d = "d"
-- @osbuild/deep/x.star --
load("//y.star", "y")
load(":z.star", "z")
x = y + z
-- @osbuild/y.star --
y = "y"
-- @osbuild/deep/z.star --
z = "z"
-- p/BUILD.star --
load("//lib:a.star", "a")
load("//lib/a.star", again = "a")
load("//lib:sub/d.star", "d")
load("//lib/sub:d.star", d2 = "d")
target(name = "t-" + a + d2)
for n in ["x", "y"]:
    if n != "y":
        target(name = n)
s = set([1])
-- q/BUILD.star --
load("//lib:a.star", "a")
`, func(o *Options) {
		o.Print = func(pos Position, msg string) { prints[pos.String()+" "+msg]++ }
	})
	got, err := expand(l, "", "//...")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"//p:t-abyzd", "//p:x"}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]int{"lib/a.star:3:6 a runs": 1, "lib/sub/d.star:1:6 d runs": 1}, prints); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"lib/a.star", "lib/b.star", "lib/sub/d.star", "p/BUILD.star", "q/BUILD.star"}, l.Files()); d != "" {
		t.Error(d)
	}
	p, err := l.Package(context.Background(), "p")
	if err != nil || p.Target("x") == nil || p.Target("y") != nil || p.Globals["s"] == nil {
		t.Errorf("package: %+v, %v", p, err)
	}
	if pos := p.Target("x").Pos().String(); pos != "p/BUILD.star:8:15" {
		t.Errorf("x is at %s", pos)
	}
	globals, err := l.File(context.Background(), Label{Package: "lib", Name: "b.star"})
	if err != nil || globals["b"] != starlark.String("b") {
		t.Errorf("File: %v, %v", globals, err)
	}
	if _, err := l.File(context.Background(), Label{Package: "lib", Name: "c.star"}); err == nil || !strings.Contains(err.Error(), "there is no file lib/c.star") {
		t.Errorf("File of none: %v", err)
	}
	if _, err := l.File(context.Background(), Label{Package: "p", Name: "BUILD.star"}); err == nil {
		t.Error("File of a BUILD.star is no error")
	}
}

func TestCycle(t *testing.T) {
	const text = `
-- a.star --
load("//sub:b.star", "b")
a = b
-- sub/b.star --
load("//:c.star", "c")
b = c
-- c.star --
load("//:a.star", "a")
c = a
-- p/BUILD.star --
load("//:a.star", "a")
-- q/BUILD.star --
load("//:c.star", "c")
`
	for range 50 {
		l := newLoader(t, text)
		_, err := expand(l, "", "//...")
		list := flatten(err)
		if len(list) == 0 {
			t.Fatal("no error")
		}
		// Which load closes the circle depends on who comes last.
		for _, err := range list {
			ok := false
			for _, want := range []string{
				"a.star:1:6: files load each other: a.star -> sub/b.star -> c.star -> a.star",
				"sub/b.star:1:6: files load each other: sub/b.star -> c.star -> a.star -> sub/b.star",
				"c.star:1:6: files load each other: c.star -> a.star -> sub/b.star -> c.star",
			} {
				ok = ok || err.Error() == want
			}
			if !ok {
				t.Fatal(err)
			}
		}
	}
	l := newLoader(t, "-- a/BUILD.star --\nx = pkg(\"b\")\n-- b/BUILD.star --\nx = pkg(\"a\")\n", func(o *Options) { o.Jobs = 1 })
	_, err := expand(l, "", "//...")
	if err == nil || !strings.Contains(err.Error(), "files load each other") {
		t.Errorf("packages that run each other: %v", err)
	}
	l = newLoader(t, "-- a/BUILD.star --\nn = pkg(\"b\")\n[target(name = \"t%d\" % i) for i in range(n)]\n-- b/BUILD.star --\ntarget(name = \"x\")\ntarget(name = \"y\")\n", func(o *Options) { o.Jobs = 1 })
	got, err := expand(l, "", "//a:all")
	if d := cmp.Diff([]string{"//a:t0", "//a:t1"}, got); d != "" || err != nil {
		t.Errorf("a package that runs another: %v %s", err, d)
	}
}

func TestLimits(t *testing.T) {
	endless := "-- BUILD.star --\ndef f():\n    for a in range(1000000000):\n        for b in range(1000000000):\n            pass\n\nf()\n"
	l := newLoader(t, endless, func(o *Options) { o.MaxSteps = 100_000 })
	_, err := expand(l, "", "//...")
	var e *Error
	if !errors.Is(err, ErrSteps) || !errors.As(err, &e) || e.Pos.Line < 3 || e.Msg != "BUILD.star ran for more than 100000 steps" {
		t.Errorf("steps: %v", err)
	}
	l = newLoader(t, endless, func(o *Options) { o.MaxSteps, o.Timeout = 1<<60, 30*time.Millisecond })
	_, err = expand(l, "", "//...")
	if !errors.Is(err, ErrTimeout) || !errors.As(err, &e) || e.Pos.Line < 3 || e.Msg != "BUILD.star ran for more than 30ms" {
		t.Errorf("time: %v", err)
	}
	// A package that was too slow stays so.
	if _, err := expand(l, "", "//..."); !errors.Is(err, ErrTimeout) {
		t.Errorf("second time: %v", err)
	}

	big := newLoader(t, "-- BUILD.star --\n")
	if err := os.Truncate(filepath.Join(big.w.Root, "BUILD.star"), MaxFileSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := expand(big, "", "//..."); err == nil || !strings.Contains(err.Error(), "BUILD.star is larger than 16 MiB") {
		t.Errorf("size: %v", err)
	}
	for _, chain := range []string{strings.Repeat("1+", 200_000) + "1", "f" + strings.Repeat("()", 200_000), "f" + strings.Repeat(".a", 200_000)} {
		deep := newLoader(t, "-- BUILD.star --\ndef f(): pass\nx = "+chain+"\n")
		if _, err := expand(deep, "", "//..."); err == nil || !strings.Contains(err.Error(), "nested too deeply") {
			t.Errorf("depth: %.200v", err)
		}
	}
}

func TestInterrupt(t *testing.T) {
	endless := "-- a/BUILD.star --\nload(\"//:lib.star\", \"x\")\n-- lib.star --\nx = len([0 for a in range(100000) for b in range(100000)])\n"
	l := newLoader(t, endless, func(o *Options) { o.MaxSteps = 1 << 60 })
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := l.Package(ctx, "a")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}

	// Who waits with a context of its own is not disturbed.
	l = newLoader(t, "-- a/BUILD.star --\nload(\"//:lib.star\", \"x\")\ntarget(name = x)\n-- lib.star --\ny = [0 for a in range(1000) for b in range(1000)]\nx = \"x\"\n")
	ctx, cancel = context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { l.Package(ctx, "a") }) //nolint:errcheck // may or may not be in time
	time.Sleep(5 * time.Millisecond)
	wg.Go(func() {
		p, err := l.Package(context.Background(), "a")
		if err != nil || p.Target("x") == nil {
			t.Errorf("other waiter: %v", err)
		}
	})
	time.Sleep(5 * time.Millisecond)
	cancel()
	wg.Wait()
}

func TestCall(t *testing.T) {
	l := newLoader(t, `
-- lib.star --
def cell(arch, size = 1):
    if arch == "bad":
        return target(name = "x")
    return value(arch = arch, sizze = size)
def slow():
    for i in range(1000000000):
        pass
-- p/BUILD.star --
load("//:lib.star", "cell", "slow")
f = cell
g = slow
`, func(o *Options) { o.MaxSteps = 10_000 })
	p, err := l.Package(context.Background(), "p")
	if err != nil {
		t.Fatal(err)
	}
	s := &Scope{Package: "p", File: Label{Package: "p", Name: "BUILD.star"}, Loader: l}
	arg := func(a string) starlark.Tuple { return starlark.Tuple{starlark.String(a)} }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			v, err := s.Call(context.Background(), "image //p:x", p.Globals["f"], arg("arm"), nil)
			if err != nil || v.String() != `{"arch": "arm", "sizze": 1}` {
				t.Errorf("got %v, %v", v, err)
			}
		})
	}
	wg.Wait()
	var e *Error
	_, err = s.Call(context.Background(), "image //p:x@bad", p.Globals["f"], arg("bad"), nil)
	if !errors.As(err, &e) || e.In != "image //p:x@bad" || e.Pos.String() != "lib.star:3:16" || !strings.Contains(e.Msg, "only while") {
		t.Errorf("declaring in a call: %#v", err)
	}
	_, err = s.Call(context.Background(), "image //p:x", p.Globals["f"], nil, []starlark.Tuple{{starlark.String("arhc"), starlark.None}})
	if !errors.As(err, &e) || e.Hint != `did you mean "arch"?` || e.In != "image //p:x" {
		t.Errorf("bad argument: %#v", err)
	}
	if _, err = s.Call(context.Background(), "", p.Globals["g"], nil, nil); !errors.Is(err, ErrSteps) {
		t.Errorf("endless: %v", err)
	}
	if FromThread(new(starlark.Thread)) != nil {
		t.Error("a thread of somebody else has a scope")
	}
	if err := Errorf(new(starlark.Thread), "x: %w", ErrSteps); err.Pos.IsValid() || !errors.Is(err, ErrSteps) {
		t.Errorf("error of such a thread: %#v", err)
	}
}

func TestReadAndGlob(t *testing.T) {
	l := newLoader(t, `
-- p/motd --
hello
-- p/getty@tty1.service --
-- p/conf/a.conf --
-- p/conf/b.conf --
-- p/conf/.hidden.conf --
-- p/conf/deep/c.conf --
-- p/.git/x.conf --
-- p/sub/BUILD.star --
-- p/sub/s.conf --
-- p/inner/MODULE.star --
-- p/inner/i.conf --
-- p/BUILD.star --
-- out/x.conf --
-- x.conf --
-- @osbuild/files/issue --
issue
`)
	root := l.w.Root
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Dir(secret)
	for name, to := range map[string]string{
		"p/leak": secret, "p/leakdir": outside, "p/up": "../../../../../../etc/passwd", "p/ok": "motd", "p/okdir": "conf", "p/loop": "loop",
	} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "p/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &Scope{Package: "p", Loader: l, Ctx: context.Background()}
	for _, tt := range []struct{ label, path, data, err string }{
		{"motd", "p/motd", "hello\n", ""},
		{":motd", "p/motd", "hello\n", ""},
		{"//p:motd", "p/motd", "hello\n", ""},
		{"getty@tty1.service", "p/getty@tty1.service", "", ""},
		{"conf/a.conf", "p/conf/a.conf", "", ""},
		{"ok", "p/ok", "hello\n", ""},
		{"//p/sub:s.conf", "p/sub/s.conf", "", ""},
		{"@osbuild//files:issue", "@osbuild//files/issue", "issue\n", ""},
		{"leak", "", "", "leads out of the workspace"},
		{"leakdir/secret", "", "", "leads out of the workspace"},
		{"up", "", "", "leads out of the workspace"},
		{"loop", "", "", "cannot read p/loop"},
		{"pipe", "", "", "not a regular file"},
		{"conf", "", "", "is a folder"},
		{"motd/x", "", "", "there is no file p/motd/x"},
		{"../x.conf", "", "", `".." is not allowed`},
		{"//p:../x.conf", "", "", `".." is not allowed`},
		{"/etc/passwd", "", "", "not from the root of this machine"},
		{"sub/s.conf", "", "", "a package of its own"},
		{"//p/inner:i.conf", "", "", "a workspace of its own"},
		{"a\x00b", "", "", "is not a path"},
		{"", "", "", "it names no file"},
		{"@osbuild//files:isue", "", "", "there is no file @osbuild//files/isue"},
	} {
		p, data, err := s.ReadFile(tt.label)
		if tt.err != "" {
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.err) || data != nil {
				t.Errorf("%q: %q, %v; want %s", tt.label, data, err, tt.err)
			}
			continue
		}
		if err != nil || p != tt.path || string(data) != tt.data {
			t.Errorf("%q: %s, %q, %v", tt.label, p, data, err)
		}
	}
	if p, f, err := s.OpenFile("motd"); err != nil || p != "p/motd" {
		t.Errorf("OpenFile: %v", err)
	} else if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := s.OpenFile("leak"); err == nil {
		t.Error("OpenFile follows a link out of the workspace")
	}

	for _, tt := range []struct {
		include, exclude string
		empty            bool
		want, err        string
	}{
		{"conf/*.conf", "", false, "conf/a.conf conf/b.conf", ""},
		{"conf/*.conf", "**/b.*", false, "conf/a.conf", ""},
		{"**/*.conf", "", false, "conf/a.conf conf/b.conf conf/deep/c.conf", ""},
		{"**", "conf/**", false, "BUILD.star getty@tty1.service motd ok", "leads out"},
		{"conf/**", "", false, "conf/a.conf conf/b.conf conf/deep/c.conf", ""},
		{"conf/**/**/?.conf", "", false, "conf/a.conf conf/b.conf conf/deep/c.conf", ""},
		{"conf/.*", "", false, "conf/.hidden.conf", ""},
		{"conf/[ab].conf conf/a*", "", false, "conf/a.conf conf/b.conf", ""},
		{"conf/**/.hidden.conf", "", false, "conf/.hidden.conf", ""},
		{"o*", "", false, "ok", ""},
		{"okdir/*", "", false, "", "no file in //p matches"},
		{"sub/*", "", false, "", "no file in //p matches"},
		{"motd *.none", "", false, "", `matches "*.none"`},
		{"*.none", "", true, "", ""},
		{"motd", "m*", false, "", "is excluded"},
		{"motd", "m*", true, "", ""},
		{"", "", false, "", "there is no pattern"},
		{"/etc/*", "", false, "", "bad pattern"},
		{"leak", "", false, "", "leads out of the workspace"},
		{"pipe", "", true, "", ""},
	} {
		got, err := s.Glob(strings.Fields(tt.include), strings.Fields(tt.exclude), tt.empty)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("glob %q: %v, %v; want %s", tt.include, got, err, tt.err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" || err != nil {
			t.Errorf("glob %q: %v %s", tt.include, err, d)
		}
	}
	top := &Scope{Loader: l, Ctx: context.Background()}
	if got, err := top.Glob([]string{"**/*.conf"}, nil, false); err != nil || strings.Join(got, " ") != "x.conf" {
		t.Errorf("glob of the root: %v, %v", got, err)
	}
}

// Many callers at once get the same values, and each file runs once.
func TestConcurrent(t *testing.T) {
	var text strings.Builder
	for i := range 30 {
		fmt.Fprintf(&text, "-- lib/l%d.star --\n", i)
		for j := i + 1; j < min(i+4, 30); j++ {
			fmt.Fprintf(&text, "load(\":l%d.star\", x%d = \"x\")\n", j, j)
		}
		fmt.Fprintf(&text, "print(\"l%d\")\nx = %d\n", i, i)
		fmt.Fprintf(&text, "-- p%d/BUILD.star --\nload(\"//lib:l%d.star\", \"x\")\ntarget(name = \"t%%d\" %% x)\n", i, i)
	}
	for _, jobs := range []int{1, 2, 8} {
		runs := map[string]int{}
		l := newLoader(t, text.String(), func(o *Options) {
			o.Jobs = jobs
			o.Print = func(_ Position, msg string) { runs[msg]++ }
		})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				got, err := expand(l, "", fmt.Sprintf("//p%d:all", i), "//...")
				if err != nil || len(got) != 30 || got[0] != fmt.Sprintf("//p%d:t%d", i, i) {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
		wg.Wait()
		for name, n := range runs {
			if n != 1 {
				t.Errorf("%s ran %d times", name, n)
			}
		}
		if len(runs) != 30 {
			t.Errorf("%d files ran", len(runs))
		}
	}
}

func BenchmarkLoad1000Packages(b *testing.B) {
	var text strings.Builder
	text.WriteString("-- lib.star --\ndef rule(name, **kw):\n    target(name = name, **kw)\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "-- d%d/p%d/BUILD.star --\nload(\"//:lib.star\", \"rule\")\n", i%30, i)
		for j := range 20 {
			fmt.Fprintf(&text, "rule(\n    name = \"image%d\",\n    hostname = \"host%d\",\n    size = %d,\n)\n", j, j, j)
		}
	}
	first := newLoader(b, text.String())
	for b.Loop() {
		l := NewLoader(first.w, first.o)
		got, err := expand(l, "", "//...")
		if err != nil || len(got) != 20_000 {
			b.Fatal(len(got), err)
		}
		l.Close() //nolint:errcheck // read only
	}
}
