// The screen: every byte that a person sees, and the one place where an error
// becomes text and an exit status.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/engine/vm"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"golang.org/x/term"
)

// Exit statuses, as tools of this field have them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitTests       = 3
	exitNoMatch     = 4
	exitRuleFile    = 6
	exitHost        = 36
	exitInterrupted = 130
)

type screen struct {
	stdout, stderr *os.File
	color          bool
	quiet, verbose bool
	json           bool
	plain          *monitor.Plain
	source         func(file string) ([]byte, error) // of rule files
}

func newScreen(stdout, stderr *os.File) *screen { return &screen{stdout: stdout, stderr: stderr} }

func (s *screen) configure(color string, quiet, verbose, json bool) {
	tty := term.IsTerminal(int(s.stderr.Fd()))
	s.color = color == "always" || color == "auto" && tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	s.quiet, s.verbose, s.json = quiet, verbose, json
}

// out prints to standard output.
func (s *screen) out(text string) { io.WriteString(s.stdout, text) }

// outJSON prints v as JSON to standard output.
func (s *screen) outJSON(v any) error {
	enc := json.NewEncoder(s.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	return nil
}

// note prints a line for the person to standard error.
func (s *screen) note(format string, args ...any) {
	if !s.quiet {
		fmt.Fprintf(s.stderr, format+"\n", args...)
	}
}

// ask prints a question, without an end of its line.
func (s *screen) ask(text string) { fmt.Fprint(s.stderr, text) }

func (s *screen) warn(format string, args ...any) {
	fmt.Fprintln(s.stderr, s.paint("33", "warning:")+" "+fmt.Sprintf(format, args...))
}

// progress makes the reader of events for this screen.
func (s *screen) progress() monitor.Reader {
	p := &monitor.Plain{W: s.stderr, Verbose: s.verbose, Quiet: s.quiet, Color: s.color}
	if fd := int(s.stderr.Fd()); !s.quiet && term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" {
		p.Status = func() int {
			w, _, err := term.GetSize(fd)
			if err != nil {
				return 80
			}
			return w
		}
	}
	s.plain = p
	return p
}

func (s *screen) endProgress() {
	if s.plain != nil {
		s.plain.Close()
		s.plain = nil
	}
}

func (s *screen) paint(code, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// testsFailed ends a test run in which some did not pass.
type testsFailed struct{ failed, total int }

func (e *testsFailed) Error() string { return fmt.Sprintf("%d of %d tests failed", e.failed, e.total) }

// reported is an error that was shown already, with its exit status.
type reported struct{ status int }

func (e *reported) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// missingError is what the host lacks, all of it.
type missingError struct{ missing []engine.Missing }

func (e *missingError) Error() string { return "this host lacks what the build needs" }

// finish shows an error and returns the exit status.
func (s *screen) finish(err error) int {
	s.endProgress()
	if err == nil {
		return exitOK
	}
	status := exitStatus(err)
	var rep *reported
	if errors.As(err, &rep) {
		return status
	}
	if s.json {
		s.outJSON(errorJSON(err, status))
	}
	s.show(err)
	return status
}

func exitStatus(err error) int {
	var (
		usage   *usageError
		tests   *testsFailed
		nomatch *rulefile.NoMatchError
		unknown *rulefile.UnknownLabelError
		rule    *rulefile.Error
		list    rulefile.ErrorList
		missing *missingError
		host    *engine.HostError
		vmhost  *vm.HostError
		rep     *reported
		none    *noTests
		param   *builtins.UnknownParamError
		env     *envError
		build   *engine.BuildError
	)
	switch {
	case errors.As(err, &rep):
		return rep.status
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, &build):
		return buildStatus(build)
	case errors.As(err, &usage), errors.As(err, &param), errors.As(err, &env):
		return exitUsage
	case errors.As(err, &tests):
		return exitTests
	case errors.As(err, &missing), errors.As(err, &host), errors.As(err, &vmhost):
		return exitHost
	case errors.As(err, &nomatch), errors.As(err, &none):
		return exitNoMatch
	case errors.As(err, &unknown) && !fromRuleFile(err):
		return exitNoMatch
	case errors.As(err, &rule), errors.As(err, &list):
		return exitRuleFile
	default:
		return exitFailed
	}
}

// fromRuleFile tells whether an error has a position in a rule file: a label that
// is unknown there is a mistake in the file, one of the command line is not.
func fromRuleFile(err error) bool {
	var rule *rulefile.Error
	return errors.As(err, &rule) && rule.Pos.IsValid()
}

func (s *screen) show(err error) {
	w := s.stderr
	var (
		usage   *usageError
		stage   *engine.StageError
		missing *missingError
		tests   *testsFailed
		invalid *manifest.ValidationError
		build   *engine.BuildError
		part    *partlyBuilt
	)
	switch {
	case errors.Is(err, errInterrupted):
		fmt.Fprintln(w, "interrupted")
	case errors.As(err, &build):
		errors.As(err, &part)
		s.showBuild(build, part)
	case errors.As(err, &usage):
		if usage.msg != "" {
			s.headline(usage.msg, usage.hint)
		}
	case errors.As(err, &stage):
		s.showStage(stage)
	case errors.As(err, &missing):
		s.showMissing(missing)
	case errors.As(err, &tests):
		fmt.Fprintf(w, "%s %v\n", s.paint("1;31", "FAILED"), err)
	case errors.As(err, &invalid):
		s.headline("the manifest is not valid", "")
		for _, e := range invalid.Errors {
			fmt.Fprintf(w, "  %s: %s\n", pathText(e.Path), e.Message)
		}
	case isRuleError(err):
		rulefile.Format(w, err, rulefile.FormatOptions{Color: s.color, Traceback: s.verbose, Source: s.source})
	default:
		s.headline(err.Error(), hintOf(err))
	}
}

func isRuleError(err error) bool {
	var rule *rulefile.Error
	var list rulefile.ErrorList
	return errors.As(err, &rule) || errors.As(err, &list)
}

func (s *screen) headline(msg, hint string) {
	fmt.Fprintf(s.stderr, "%s %s\n", s.paint("1;31", "error:"), msg)
	s.hint(hint)
}

func (s *screen) hint(text string) {
	if text != "" {
		fmt.Fprintf(s.stderr, "%s %s\n", s.paint("36", " hint:"), text)
	}
}

// hintOf finds what an error says can be done.
func hintOf(err error) string {
	var (
		host    *engine.HostError
		stage   *engine.StageError
		fetch   *sources.Error
		vmconf  *vm.ConfigError
		nomatch *rulefile.NoMatchError
		plan    *manifest.Error
		hinted  interface{ Hint() string }
		space   *engine.SpaceError
	)
	switch {
	case errors.As(err, &space):
		return space.Hint()
	case errors.As(err, &host):
		return host.Hint
	case errors.As(err, &stage):
		return stage.Hint
	case errors.As(err, &fetch):
		return fetch.Hint
	case errors.As(err, &vmconf):
		return vmconf.Hint
	case errors.As(err, &nomatch):
		return nomatch.Hint
	case errors.As(err, &plan):
		return plan.Hint
	case errors.As(err, &hinted):
		return hinted.Hint()
	}
	return ""
}

// showStage tells of a stage that failed: what, where it was written, the end of
// what it printed, and how to go on.
func (s *screen) showStage(e *engine.StageError) {
	w := s.stderr
	s.headline(e.Error(), e.Hint)
	if e.Origin.File != "" {
		fmt.Fprintf(w, "  --> %s:%d:%d\n", e.Origin.File, e.Origin.Line, e.Origin.Col)
	}
	if e.Target != "" {
		fmt.Fprintf(w, "   = in %s, stage %s\n", e.Target, e.ID[:min(12, len(e.ID))])
	}
	if lines := lastLines(e.Output, 20); len(lines) > 0 {
		fmt.Fprintln(w, "   = the end of its output:")
		for _, l := range lines {
			fmt.Fprintln(w, "     | "+l)
		}
	}
	if e.Target != "" {
		fmt.Fprintf(w, "   = to run it again:        osbuild-star build -v %s\n", e.Target)
		fmt.Fprintf(w, "   = for a shell before it:  osbuild-star shell --stage %s %s\n", e.ID[:min(12, len(e.ID))], e.Target)
	}
}

// showMissing names all that is missing, and one command that installs it.
func (s *screen) showMissing(e *missingError) {
	s.headline(e.Error()+":", "")
	var pkgs []string
	seen := map[string]bool{}
	for _, m := range e.missing {
		fmt.Fprintf(s.stderr, "  - %s, %s\n", m.What, m.Why)
		if m.Hint != "" {
			fmt.Fprintf(s.stderr, "    %s\n", m.Hint)
		}
		if m.Package != "" && !seen[m.Package] {
			seen[m.Package] = true
			pkgs = append(pkgs, m.Package)
		}
	}
	if len(pkgs) > 0 {
		fmt.Fprintf(s.stderr, "%s apt-get install -y %s\n", s.paint("36", " hint:"), strings.Join(pkgs, " "))
	}
}

func lastLines(text string, n int) []string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}

func pathText(path []any) string {
	var b strings.Builder
	for _, p := range path {
		switch v := p.(type) {
		case string:
			b.WriteString("." + v)
		default:
			fmt.Fprintf(&b, "[%v]", v)
		}
	}
	return strings.TrimPrefix(b.String(), ".")
}

// errorJSON is an error as data.
func errorJSON(err error, status int) any {
	if isRuleError(err) {
		var b strings.Builder
		if rulefile.FormatJSON(&b, err) == nil {
			return map[string]any{"success": false, "status": status, "errors": json.RawMessage(b.String())}
		}
	}
	var build *engine.BuildError
	if errors.As(err, &build) {
		return buildErrorJSON(err, build, status)
	}
	return map[string]any{"success": false, "status": status, "error": errorFields(err)}
}
