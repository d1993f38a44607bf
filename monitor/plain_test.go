// What a person sees: lines of the log, the status line, and nothing that a program
// printed to move the cursor.
package monitor

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// story tells a small build to a stream: two stages, one of which fails.
func story(s *Stream) {
	build := s.Start(nil, Event{Category: CatBuild, Name: "build"})
	build.Progress(0, 2, "stages")
	res := build.Start(Event{Category: CatResolve, Name: "resolve 2 package sets"})
	time.Sleep(2500 * time.Millisecond)
	res.End(nil)
	a := build.Start(Event{Category: CatStage, Name: "org.osbuild.hostname", Text: "os", Target: "//:web"})
	run := a.Start(Event{Category: CatPhase, Name: "run"})
	a.Emit(Event{Kind: Output, Text: "setting \x1b[1mthe\x1b[0m name"})
	time.Sleep(time.Second)
	run.End(nil)
	a.End(nil)
	build.Progress(1, 2, "stages")
	build.Emit(Event{Kind: Note, Text: "a note"})
	s.Emit(Event{Kind: Warning, Text: "watch out"})
	b := build.Start(Event{Category: CatStage, Name: "org.osbuild-star.deb", Text: "os"})
	time.Sleep(100 * time.Second)
	b.End(errors.New("no"))
	build.End(errors.New("no"))
}

func TestPlainLog(t *testing.T) {
	for _, c := range []struct {
		name string
		p    *Plain
		want []string
	}{
		{"normal", &Plain{}, []string{
			"   2.5s   resolve 2 package sets",
			"   1.0s   //:web os hostname",
			"a note", "warning: watch out",
			" 100.0s ✗ os deb",
		}},
		{"verbose", &Plain{Verbose: true}, []string{
			"   2.5s   resolve 2 package sets",
			"  hostname | setting the name",
			"   1.0s     run",
			"   1.0s   //:web os hostname",
			"a note", "warning: watch out",
			" 100.0s ✗ os deb",
		}},
		{"quiet", &Plain{Quiet: true}, []string{"warning: watch out"}},
		{"color", &Plain{Color: true}, []string{
			"\x1b[2m   2.5s\x1b[0m   resolve 2 package sets",
			"\x1b[2m   1.0s\x1b[0m   \x1b[2m//:web os\x1b[0m hostname",
			"a note", "\x1b[33mwarning:\x1b[0m watch out",
			"\x1b[2m 100.0s\x1b[0m \x1b[31m✗\x1b[0m \x1b[2mos\x1b[0m deb",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var buf bytes.Buffer
				c.p.W = &buf
				story(New(c.p))
				c.p.Close()
				if diff := cmp.Diff(c.want, strings.Split(strings.TrimSuffix(buf.String(), "\n"), "\n")); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// screen is what a terminal shows after these bytes: the lines above and the last
// line, where "\r\x1b[K" starts the last one again.
func screen(t *testing.T, out string) (above []string, last string) {
	t.Helper()
	lines := strings.Split(out, "\n")
	for i, l := range lines {
		if j := strings.LastIndex(l, "\r\x1b[K"); j >= 0 {
			l = l[j+len("\r\x1b[K"):]
		}
		if strings.ContainsAny(l, "\r\x1b") {
			t.Errorf("a line with control characters: %q", l)
		}
		lines[i] = l
	}
	return lines[:len(lines)-1], lines[len(lines)-1]
}

func TestStatusLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		width := 60
		p := &Plain{W: &buf, Status: func() int { return width }}
		s := New(p)
		expect := func(last string, above ...string) {
			t.Helper()
			time.Sleep(150 * time.Millisecond) // one more tick of the clock
			synctest.Wait()
			gotAbove, got := screen(t, buf.String())
			if got != last {
				t.Errorf("status line %q, want %q", got, last)
			}
			if diff := cmp.Diff(above, gotAbove); diff != "" && len(above)+len(gotAbove) > 0 {
				t.Errorf("above (-want +got):\n%s", diff)
			}
		}
		build := s.Start(nil, Event{Category: CatBuild, Name: "build"})
		build.Progress(0, 3, "stages")
		expect("")
		a := build.Start(Event{Category: CatStage, Name: "org.osbuild.copy", Text: "os"})
		phase := a.Start(Event{Category: CatPhase, Name: "run"})
		time.Sleep(64 * time.Second)
		expect("[0/3] copy 64s")
		a.Emit(Event{Kind: Output, Text: "copying \x1b[31mthis\x1b[0m\tand\x07 that\r\n"})
		expect("[0/3] copy: copying this and that 64s")
		src := build.Start(Event{Category: CatSource, Name: "linux.deb"})
		expect("[0/3] copy: copying this and that 64s")
		src.Progress(512<<10, 3<<20, "bytes")
		expect("[0/3] linux.deb 512.0 KiB of 3.0 MiB 0s · copy: copying th…")
		width = 20
		expect("[0/3] linux.deb 51…")
		width = 0 // not known
		expect("[0/3] linux.deb 512.0 KiB of 3.0 MiB 1s · copy: copying this and that 65s")
		width = 60
		src.End(nil)
		const srcLine = "   0.6s   linux.deb (3.0 MiB)"
		s.Emit(Event{Kind: Note, Text: "a note"})
		expect("[0/3] copy: copying this and that 65s", srcLine, "a note")
		phase.End(nil)
		a.End(nil)
		build.Progress(1, 3, "stages")
		expect("", srcLine, "a note", "  65.0s   os copy")
		b := build.Start(Event{Category: CatStage, Name: "org.osbuild.noop", Text: "os"})
		expect("[1/3] noop 0s", srcLine, "a note", "  65.0s   os copy")
		p.Close()
		_, last := screen(t, buf.String())
		if last != "" {
			t.Errorf("after Close the status line is left: %q", last)
		}
		n := buf.Len()
		b.End(nil)
		time.Sleep(time.Second)
		if got := buf.String()[n:]; got != "   0.1s   os noop\n" {
			t.Errorf("after Close: %q", got)
		}
		p.Close() // no harm
	})
}

// Of many things at once the downloads are told, what began last, and how many there
// are besides.
func TestStatusLineOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		p := &Plain{W: &buf, Status: func() int { return 100 }}
		s := New(p)
		build := s.Start(nil, Event{Category: CatBuild, Name: "build"})
		build.Progress(2, 9, "stages")
		src := build.Start(Event{Category: CatSource, Name: "fetch sources"})
		file := src.Start(Event{Category: CatSource, Name: "linux.deb", Total: 5 << 20})
		src.Progress(1<<20, 8<<20, "bytes")
		var stages []*Span
		for _, name := range []string{"org.osbuild.tar", "org.osbuild.copy", "org.osbuild.qemu", "org.osbuild.xz"} {
			stages = append(stages, build.Start(Event{Category: CatStage, Name: name, Text: "os"}))
		}
		expect := func(want string) {
			t.Helper()
			time.Sleep(150 * time.Millisecond)
			synctest.Wait()
			if _, got := screen(t, buf.String()); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		}
		expect("[2/9] fetch sources 1.0 MiB of 8.0 MiB 0s · xz 0s · qemu 0s · and 2 more")
		stages[3].End(nil)
		stages[2].End(nil)
		expect("[2/9] fetch sources 1.0 MiB of 8.0 MiB 0s · copy 0s · tar 0s")
		file.End(nil)
		src.End(nil)
		expect("[2/9] copy 0s · tar 0s")
		stages[1].End(nil)
		build.Start(Event{Category: CatStage, Name: "org.osbuild.xz", Text: "a", Target: "//:web@a"})
		build.Start(Event{Category: CatStage, Name: "org.osbuild.xz", Text: "b", Target: "//:web@b"})
		expect("[2/9] xz of //:web@b 0s · xz of //:web@a 0s · tar 1s")
		p.Close()
	})
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "hello, wörld ✓", "hello, wörld ✓"},
		{"colour", "\x1b[1;31mred\x1b[0m", "red"},
		{"cursor", "\x1b[2J\x1b[10;20Hx\x1b[?25ly", "xy"},
		{"title", "\x1b]0;evil title\x07after", "after"},
		{"title ended by ST", "\x1b]8;;file:///x\x1b\\link\x1b]8;;\x1b\\", "link"},
		{"character set", "\x1b(Bx\x1b=y\x1bcz", "xyz"},
		{"one byte CSI", "\u009b31mred", "red"},
		{"other C1", "a\u0085b\u008dc", "abc"},
		{"device control", "\x1bPq#0\x1b\\x", "x"},
		{"unfinished", "x\x1b[31", "x"},
		{"escape at the end", "x\x1b", "x"},
		{"tab", "a\tb", "a b"},
		{"progress that is written over", " 10%\r 20%\r100%\r\n", "100%"},
		{"backspace and bell", "a\bb\x07", "ab"},
		{"no text", "", ""},
		{"not UTF-8", "a\xffb\x9bc", "a\ufffdb\ufffdc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := clean(c.in); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"\x1b[31mx", "\x1b]0;t\x07", "\x9b1m", "\u009b", "a\rb", "\x1bP\x1b\\", "\xff\x1b["} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		for _, r := range got {
			if r < 0x20 || r >= 0x7f && r < 0xa0 {
				t.Errorf("%q became %q, with %U", s, got, r)
			}
		}
		if again := clean(got); again != got {
			t.Errorf("cleaning %q again gives %q", got, again)
		}
	})
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5<<20 + 1<<19: "5.5 MiB", 3 << 30: "3.00 GiB",
		1<<20 - 1: "1.0 MiB", 1<<30 - 1: "1.00 GiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
