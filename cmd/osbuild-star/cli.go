// The command-line framework: one struct is a verb, one table has all of them.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/engine"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/spf13/pflag"
)

// command is one verb.
type command struct {
	name    string
	args    string // what stands behind the verb in the usage line
	short   string // one line
	long    string // paragraphs
	example string
	hidden  bool
	json    bool // it takes --json
	flags   func(a *app, fs *pflag.FlagSet)
	run     func(a *app, args []string) error
	sub     []*command // verbs below this one: "cache ls"
}

// below finds the verb that args name: c itself, or one below it.
func (c *command) below(args []string) (*command, []string, error) {
	if len(c.sub) == 0 || len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return c, args, nil
	}
	var names []string
	for _, s := range c.sub {
		name := strings.TrimPrefix(s.name, c.name+" ")
		if name == args[0] {
			return s, args[1:], nil
		}
		names = append(names, name)
	}
	e := &usageError{msg: fmt.Sprintf("unknown command \"%s %s\"", c.name, args[0]), hint: "see: osbuild-star " + c.name + " --help"}
	if s := rulefile.Suggest(args[0], names); s != "" {
		e.hint = fmt.Sprintf("did you mean %q?", c.name+" "+s)
	}
	return nil, nil, e
}

// commands returns all verbs, in the order in which help lists them.
func commands() []*command {
	return []*command{
		buildCommand, testCommand, bootCommand, shellCommand,
		queryCommand, manifestCommand, lockCommand, cacheCommand, referenceCommand,
		osbuildCommand, versionCommand,
	}
}

// app is one run of the command: its flags, and what verbs share.
type app struct {
	ctx    context.Context
	screen *screen

	// Flags of all verbs.
	dir     string
	store   string
	json    bool
	quiet   bool
	verbose bool
	color   string
	jobs    int
	defines []string
	profile string
	report  string
	events  string
	vardir  string
	sandbox string
	layers  string
	limit   time.Duration
	maxSize byteSize
	storeRO []string

	buildEnv string // as --build-env has it

	locked bool
	cfg    struct { // flags of single verbs
		update   bool
		output   string
		firmware string
		ssh      bool
		memory   int
		cpus     int
		rerun    bool
		accel    string
		timeout  time.Duration
		user     string
		stage    string

		keepGoing    bool
		bound        byteSize // of memory, for steps that run at the same time
		rebuildCheck bool
		keep         string
	}
	osb   osbuildFlags
	lib   libdirFlags
	cache cacheFlags

	session *session
}

// usageError is a mistake on the command line.
type usageError struct {
	msg  string
	verb string
	hint string
}

func (e *usageError) Error() string { return e.msg }

func usagef(verb, format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...), verb: verb}
}

func (a *app) globalFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&a.dir, "directory", "C", "", "work as if started in this `directory`")
	fs.StringVar(&a.store, "store", "", "`directory` of the store (default: $OSBUILD_STAR_STORE, else the machine's cache)")
	fs.BoolVarP(&a.quiet, "quiet", "q", false, "print warnings and errors only")
	fs.BoolVarP(&a.verbose, "verbose", "v", false, "print what stages print, and every phase")
	fs.StringVar(&a.color, "color", "auto", "`when` to use color: auto, always, never")
}

// workFlags are those of the verbs that build.
func (a *app) workFlags(fs *pflag.FlagSet) {
	fs.IntVarP(&a.jobs, "jobs", "j", 0, "run `N` stages at the same time (default: one for each CPU)")
	fs.StringVar(&a.profile, "profile", "", "write a trace of the build to this `file`; Perfetto and Chrome open it")
	fs.StringVar(&a.events, "events", "", "write every event as a line of JSON to this `file`")
	fs.StringVar(&a.vardir, "var-dir", "", "`directory` that backs /var of build roots (default /var/tmp)")
	fs.StringVar(&a.sandbox, "sandbox", "", "`kind` of sandbox: "+strings.Join(engine.Sandboxes(), ", ")+" (default: $"+sandboxEnv+", else auto)")
	fs.StringVar(&a.layers, "layers", "", "`way` to keep trees: "+strings.Join(engine.LayerKinds(), ", ")+" (default: $"+layersEnv+", else auto)")
	a.envFlag(fs)
	fs.StringArrayVar(&a.storeRO, "store-ro", nil, "`directory` of a second store, only read (default: $"+storeROEnv+")")
	fs.Var(&a.maxSize, "cache-max-size", "`size` that the store may have after it: 20G (default: $"+maxSizeEnv+")")
	a.limit = time.Hour
	fs.Var((*timeLimit)(&a.limit), "stage-timeout", "`time` that a stage may take: 90, 10m, 2h; 0 is no limit")
}

// What is chosen where no flag does.
const (
	sandboxEnv = "OSBUILD_STAR_SANDBOX"
	layersEnv  = "OSBUILD_STAR_LAYERS"
)

// checkChoices settles what flags that choose, and the environment, say.
func (a *app) checkChoices(verb string, fs *pflag.FlagSet) error {
	if err := checkChoice(verb, fs.Lookup("sandbox"), &a.sandbox, sandboxEnv, engine.Sandboxes()); err != nil {
		return err
	}
	return checkChoice(verb, fs.Lookup("layers"), &a.layers, layersEnv, engine.LayerKinds())
}

func checkChoice(verb string, f *pflag.Flag, value *string, env string, known []string) error {
	if f == nil {
		return nil
	}
	where := "--" + f.Name
	if !f.Changed {
		where, *value = "$"+env, cmp.Or(os.Getenv(env), "auto")
	}
	if slices.Contains(known, *value) {
		return nil
	}
	e := &usageError{msg: fmt.Sprintf("%s takes %s, not %q", where, strings.Join(known, " or "), *value), verb: verb}
	if s := rulefile.Suggest(*value, known); s != "" {
		e.hint = fmt.Sprintf("did you mean %q?", s)
	}
	return e
}

// timeLimit is a duration on the command line, in seconds where it has no unit, as
// upstream osbuild takes it.
type timeLimit time.Duration

func (s *timeLimit) String() string { return time.Duration(*s).String() }
func (s *timeLimit) Type() string   { return "string" }

func (s *timeLimit) Set(text string) error {
	if _, err := strconv.Atoi(text); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no time: write 90, 90s, 10m or 2h", text)
	}
	*s = timeLimit(d)
	return nil
}

// ruleFlags are those of the verbs that read rule files.
func (a *app) ruleFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&a.defines, "define", "D", nil, "give a parameter a value: `name=value`; may be repeated")
	fs.BoolVar(&a.locked, "locked", false, "refuse to change osbuild-star.lock")
	a.libdirFlags(fs, "")
}

func (a *app) dispatch(args []string) error {
	// Flags of all verbs may stand before the verb too.
	pre := pflag.NewFlagSet("osbuild-star", pflag.ContinueOnError)
	pre.SetInterspersed(false)
	pre.Usage = func() {}
	a.globalFlags(pre)
	help := pre.BoolP("help", "h", false, "")
	showVersion := pre.Bool("version", false, "")
	if err := pre.Parse(args); err != nil {
		return &usageError{msg: err.Error(), hint: "see: osbuild-star --help"}
	}
	rest := pre.Args()
	switch {
	case *showVersion:
		return versionCommand.run(a, nil)
	case *help || len(rest) == 0:
		a.screen.out(mainHelp(commands()))
		if len(rest) == 0 && !*help {
			return &usageError{}
		}
		return nil
	}
	if rest[0] == "help" {
		if len(rest) == 1 {
			a.screen.out(mainHelp(commands()))
			return nil
		}
		rest = append(rest[1:], "--help")
	}
	var cmd *command
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
		if c.name == rest[0] {
			cmd = c
		}
	}
	if cmd == nil {
		e := &usageError{msg: fmt.Sprintf("unknown command %q", rest[0]), hint: "see: osbuild-star --help"}
		if s := rulefile.Suggest(rest[0], names); s != "" {
			e.hint = fmt.Sprintf("did you mean %q?", s)
		}
		return e
	}
	cmd, rest, err := cmd.below(rest[1:])
	if err != nil {
		return err
	}
	return a.invoke(cmd, rest)
}

func (a *app) flagSet(cmd *command) *pflag.FlagSet {
	fs := pflag.NewFlagSet(cmd.name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	if cmd.flags != nil {
		cmd.flags(a, fs)
	}
	if cmd.json && fs.Lookup("json") == nil {
		fs.BoolVar(&a.json, "json", false, "print JSON")
	}
	return fs
}

func (a *app) invoke(cmd *command, args []string) error {
	fs := a.flagSet(cmd)
	// A flag before the verb keeps its value: the defaults are what is set now.
	dir, store, quiet, verbose, color := a.dir, a.store, a.quiet, a.verbose, a.color
	a.globalFlags(fs)
	a.dir, a.store, a.quiet, a.verbose, a.color = dir, store, quiet, verbose, color
	help := fs.BoolP("help", "h", false, "show this help")
	if err := fs.Parse(hidePatterns(args)); err != nil {
		e := &usageError{msg: err.Error(), verb: cmd.name, hint: "see: osbuild-star " + cmd.name + " --help"}
		if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
			var known []string
			fs.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
			if s := rulefile.Suggest(name, known); s != "" {
				e.hint = "did you mean --" + s + "?"
			}
		}
		return e
	}
	if *help {
		a.screen.out(commandHelp(cmd, fs))
		return nil
	}
	if !slices.Contains([]string{"auto", "always", "never"}, a.color) {
		return usagef(cmd.name, "--color takes auto, always or never, not %q", a.color)
	}
	if err := a.checkChoices(cmd.name, fs); err != nil {
		return err
	}
	if fs.Lookup("store-ro") != nil {
		if err := a.checkStore(cmd.name, fs.Changed); err != nil {
			return err
		}
	}
	if a.dir != "" {
		if err := os.Chdir(a.dir); err != nil {
			return usagef(cmd.name, "-C: %v", err)
		}
	}
	a.screen.configure(a.color, a.quiet, a.verbose, a.json)
	rest := showPatterns(fs.Args())
	if cmd.args == "" && len(rest) > 0 {
		return usagef(cmd.name, "%s takes no argument, and got %q", cmd.name, rest[0])
	}
	return cmd.run(a, rest)
}

// A pattern that takes targets away, "-//images:x" or "-:x", looks like a flag:
// hidePatterns marks those among the arguments, and showPatterns takes the mark
// away again. What stands behind "--" is left as it is.
func hidePatterns(args []string) []string {
	out := slices.Clone(args)
	for i, arg := range out {
		if arg == "--" {
			break
		}
		for _, sign := range []string{"-//", "-:", "-@"} {
			if strings.HasPrefix(arg, sign) {
				out[i] = hidden + arg
			}
		}
	}
	return out
}

func showPatterns(args []string) []string {
	out := slices.Clone(args)
	for i, arg := range out {
		out[i] = strings.TrimPrefix(arg, hidden)
	}
	return out
}

// hidden cannot be in an argument that the system passes on.
const hidden = "\x00"

// storeDir is where the store is.
func (a *app) storeDir() (string, error) {
	if a.store != "" {
		return filepath.Abs(a.store)
	}
	if d := os.Getenv("OSBUILD_STAR_STORE"); d != "" {
		return filepath.Abs(d)
	}
	if os.Geteuid() == 0 {
		return "/var/cache/osbuild-star", nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for the store: %w", err)
	}
	return filepath.Join(d, "osbuild-star"), nil
}

// definitions are the parameters of -D.
func (a *app) definitions() (map[string]string, error) {
	out := map[string]string{}
	for _, d := range a.defines {
		k, v, ok := strings.Cut(d, "=")
		if !ok || k == "" {
			return nil, usagef("", "-D takes name=value, not %q", d)
		}
		out[k] = v
	}
	return out, nil
}

func mainHelp(cmds []*command) string {
	var b strings.Builder
	b.WriteString(`osbuild-star builds operating system images from rule files.

Usage:
  osbuild-star COMMAND [FLAGS] [LABELS]

Commands:
`)
	for _, c := range cmds {
		if !c.hidden {
			fmt.Fprintf(&b, "  %-10s %s\n", c.name, c.short)
		}
	}
	b.WriteString(`
Labels name targets: //images:debian12, :debian12, //images/..., //...

Example:
  osbuild-star build //images:debian12
  osbuild-star boot //images:debian12

Use "osbuild-star COMMAND --help" for the flags of a command.
Exit status: 0 ok, 1 build failed, 2 command line, 3 tests failed, 4 nothing
matched, 6 rule file error, 36 the host lacks something, 130 interrupted.
`)
	return b.String()
}

func commandHelp(c *command, fs *pflag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n  osbuild-star %s\n", upperFirst(c.short)+".", strings.TrimSpace(c.name+" [FLAGS] "+c.args))
	if c.long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.long))
	}
	if len(c.sub) > 0 {
		b.WriteString("\nCommands:\n")
		for _, s := range c.sub {
			fmt.Fprintf(&b, "  %-14s %s\n", s.name, s.short)
		}
	}
	fmt.Fprintf(&b, "\nExample:\n")
	for line := range strings.Lines(strings.TrimSpace(c.example) + "\n") {
		b.WriteString("  " + line)
	}
	fmt.Fprintf(&b, "\nFlags:\n%s", flagHelp(fs))
	return b.String()
}

// flagHelp lists flags. Unlike pflag's own list it does not write "[=true|false]"
// behind each switch.
func flagHelp(fs *pflag.FlagSet) string {
	var left, right []string
	width := 0
	fs.VisitAll(func(f *pflag.Flag) {
		name := "      --" + f.Name
		if f.Shorthand != "" {
			name = "  -" + f.Shorthand + ", --" + f.Name
		}
		value, text := pflag.UnquoteUsage(f)
		if value != "" && f.Value.Type() != "bool" {
			name += " " + value
		}
		if f.DefValue != "" && f.Value.Type() == "string" {
			text += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		left, right = append(left, name), append(right, text)
		width = max(width, len(name))
	})
	var b strings.Builder
	for i := range left {
		fmt.Fprintf(&b, "%-*s   %s\n", width, left[i], right[i])
	}
	return b.String()
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
