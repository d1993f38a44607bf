package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/engine/vm"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/spf13/pflag"
)

// flagsOf are all flags of a verb.
func flagsOf(c *command) *pflag.FlagSet {
	a := &app{screen: newScreen(os.Stdout, os.Stderr)}
	fs := a.flagSet(c)
	a.globalFlags(fs)
	fs.BoolP("help", "h", false, "show this help")
	return fs
}

// TestHelp: the help of every verb says how it is called, has examples that can be
// typed, and explains every flag.
func TestHelp(t *testing.T) {
	main := mainHelp(commands())
	all := commands()
	for _, c := range commands() {
		all = append(all, c.sub...)
		main += commandHelp(c, flagsOf(c))
	}
	for _, c := range all {
		if !strings.Contains(main, "\n  "+c.name+" ") {
			t.Errorf("the main help does not have %s", c.name)
		}
		fs := flagsOf(c)
		help := commandHelp(c, fs)
		for _, want := range []string{"\nUsage:\n  osbuild-star " + c.name, "\nExample:\n  osbuild-star " + c.name, "\nFlags:\n", "--help"} {
			if !strings.Contains(help, want) {
				t.Errorf("%s: the help has no %q", c.name, want)
			}
		}
		for line := range strings.Lines(help) {
			if len(line) > 121 || strings.Contains(line, "\t") {
				t.Errorf("%s: a line that terminals break: %q", c.name, line)
			}
		}
		fs.VisitAll(func(f *pflag.Flag) {
			if strings.TrimSpace(f.Usage) == "" {
				t.Errorf("%s: --%s is not explained", c.name, f.Name)
			}
			if !strings.Contains(help, "--"+f.Name) {
				t.Errorf("%s: the help does not have --%s", c.name, f.Name)
			}
		})
		for line := range strings.Lines(c.example) {
			if err := parses(line); err != nil {
				t.Errorf("%s: example %s: %v", c.name, strings.TrimSpace(line), err)
			}
		}
	}
}

// parses tells whether a command line as it stands in the documentation has a verb
// and flags that there are.
func parses(line string) error {
	line, _, _ = strings.Cut(line, " #")
	line, _, _ = strings.Cut(line, " | ")
	line, _, _ = strings.Cut(line, " > ")
	args := strings.Fields(strings.NewReplacer(`'`, ``, `"`, ``).Replace(line))
	for len(args) > 0 && filepath.Base(args[0]) != "osbuild-star" {
		args = args[1:]
	}
	if len(args) == 0 {
		return nil
	}
	a := &app{screen: newScreen(os.Stdout, os.Stderr)}
	pre := pflag.NewFlagSet("", pflag.ContinueOnError)
	pre.SetInterspersed(false)
	pre.SetOutput(io.Discard)
	pre.Usage = func() {}
	a.globalFlags(pre)
	pre.BoolP("help", "h", false, "")
	pre.Bool("version", false, "")
	if err := pre.Parse(args[1:]); err != nil {
		return err
	}
	rest := pre.Args()
	if len(rest) == 0 || rest[0] == "help" {
		return nil
	}
	for _, c := range commands() {
		if c.name == rest[0] {
			c, rest, err := c.below(rest[1:])
			if err != nil {
				return err
			}
			fs := flagsOf(c)
			fs.SetOutput(io.Discard)
			return fs.Parse(hidePatterns(rest))
		}
	}
	return fmt.Errorf("there is no verb %q", rest[0])
}

// TestPatternsThatLookLikeFlags: -//x takes targets away, and what stands behind
// "--" is nobody's business.
func TestPatternsThatLookLikeFlags(t *testing.T) {
	args := []string{"//...", "-//a:b", "-:c", "-j4", "--", "-//d"}
	hiddenArgs := hidePatterns(args)
	if hiddenArgs[3] != "-j4" || hiddenArgs[5] != "-//d" || strings.HasPrefix(hiddenArgs[1], "-") {
		t.Errorf("got %q", hiddenArgs)
	}
	if diff := cmp.Diff(args, showPatterns(hiddenArgs)); diff != "" {
		t.Error(diff)
	}
}

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), 1},
		{&engine.StageError{}, 1},
		{&usageError{}, 2},
		{&testsFailed{}, 3},
		{&noTests{}, 4},
		{&rulefile.NoMatchError{}, 4},
		{&rulefile.Error{Msg: "x", Pos: rulefile.Position{File: "BUILD.star", Line: 1}}, 6},
		{&missingError{}, 36},
		{fmt.Errorf("x: %w", &engine.HostError{Err: errors.New("y")}), 36},
		{&vm.HostError{}, 36},
		{errInterrupted, 130},
		{&reported{7}, 7},
	} {
		if got := exitStatus(tt.err); got != tt.want {
			t.Errorf("%T %v: exit status %d, want %d", tt.err, tt.err, got, tt.want)
		}
	}
}

// TestShowMissing: everything that is missing is named at once, with one command
// that installs it.
func TestShowMissing(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := newScreen(w, w)
	status := s.finish(&missingError{[]engine.Missing{
		{What: "qemu-img", Why: "the host is the build root of org.osbuild.qemu", Package: "qemu-utils"},
		{What: "mkfs.ext4", Why: "the host is the build root of org.osbuild.mkfs.ext4", Package: "e2fsprogs"},
		{What: "tune2fs", Why: "the host is the build root of org.osbuild.mkfs.ext4", Package: "e2fsprogs"},
		{What: "root privileges", Why: "to start build roots", Hint: "start it as root: sudo osbuild-star …"},
	}})
	w.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `error: this host lacks what the build needs:
  - qemu-img, the host is the build root of org.osbuild.qemu
  - mkfs.ext4, the host is the build root of org.osbuild.mkfs.ext4
  - tune2fs, the host is the build root of org.osbuild.mkfs.ext4
  - root privileges, to start build roots
    start it as root: sudo osbuild-star …
 hint: apt-get install -y qemu-utils e2fsprogs
`
	if diff := cmp.Diff(want, string(got)); diff != "" || status != exitHost {
		t.Errorf("exit status %d (-want +got):\n%s", status, diff)
	}
}

// TestColor: color only where it is wanted.
func TestColor(t *testing.T) {
	for _, tt := range []struct {
		when string
		want bool
	}{{"always", true}, {"never", false}, {"auto", false}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		s := newScreen(w, w)
		s.configure(tt.when, false, false, false)
		s.show(&usageError{msg: "x", hint: "y"})
		w.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := ansi.Match(b); got != tt.want {
			t.Errorf("--color=%s: %q", tt.when, b)
		}
	}
}

var ansi = regexp.MustCompile("\x1b\\[")
