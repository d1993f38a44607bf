// Test: does an image come up, and do commands in it say what they should.

package vm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// TestRevision is raised when [Test] asks more of an image than it did before: what
// passed with another one has not passed.
const TestRevision = 1

// DefaultTimeout of a test: a full system under TCG on a busy machine takes a
// minute to come up.
const DefaultTimeout = 10 * time.Minute

// TestSpec says what to test.
type TestSpec struct {
	Config

	Login, Password string // who logs in on the console; without a Login only the login prompt is waited for
	OverSSH         bool   // log in by ssh instead: as Login, or root
	Identity        string // with OverSSH: a private key that the image knows; "" = one is made

	WaitRunning bool     // wait for systemctl is-system-running to say "running"
	Commands    []string // for /bin/sh, in turn; one that exits with another status than 0 fails the test, and is the last

	Timeout time.Duration // of all of it; 0 = DefaultTimeout
}

// CommandResult is what became of one command.
type CommandResult struct {
	Command  string
	Output   string
	Status   int
	Duration time.Duration
}

// TestResult says how a test ended.
type TestResult struct {
	Passed   bool
	Err      error         // why not: a *Failure, a *ConfigError, a *HostError, a *CheckError, or of a context
	Accel    string        // what ran the guest: "kvm" or "tcg"; "" when nothing was started
	Boot     time.Duration // from the start of QEMU to the login prompt or the ssh server; 0 = never
	Running  time.Duration // from the start of QEMU to the system being "running"; 0 = never
	Total    time.Duration
	Commands []CommandResult // those that were run
	Console  string          // the last lines of the console, and those before a failure
}

// A CheckError is a machine that came up and is not as it should be.
type CheckError struct {
	Msg    string
	Output string // what the guest says to it; may be empty
}

func (e *CheckError) Error() string { return e.Msg }

// Test boots an image without writing to it, waits for its login prompt (or its
// ssh server), checks what the spec asks for, and ends the machine. Lines of the
// console are Output events of the span, and about once a second a Progress
// event has the last of them as its text and the seconds since the start as
// Done, those of the timeout as Total. The span is not ended.
func Test(ctx context.Context, spec TestSpec, span *monitor.Span) TestResult {
	begin := time.Now()
	if spec.Timeout == 0 {
		spec.Timeout = DefaultTimeout
	}
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, spec.Timeout)
	defer cancel()
	spec.Span, spec.Persist, spec.Reboot = span, false, false
	var r TestResult
	r.Err = test(ctx, spec, &r)
	if r.Err != nil && parent.Err() != nil { // interrupted: no failure of the image
		r.Err = fmt.Errorf("test: %w", parent.Err())
	}
	r.Passed = r.Err == nil
	r.Total = time.Since(begin)
	return r
}

func test(ctx context.Context, spec TestSpec, r *TestResult) error {
	if (spec.WaitRunning || len(spec.Commands) > 0) && spec.Login == "" && !spec.OverSSH {
		return &ConfigError{Field: "Login", Msg: "commands need somebody who is logged in", Hint: "give the test a user and a password, or ssh"}
	}
	cfg := spec.Config
	user := spec.Login
	var key *sshKey
	if spec.OverSSH {
		cfg.SSH = true
		if user == "" {
			user = "root"
		}
		var err error
		if key, err = prepareKey(&cfg, user, spec.Identity); err != nil {
			return err
		}
		defer key.close()
	}
	cfg.unattended = true
	m, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		m.Close()
		r.Console = m.con.story()
	}()
	defer m.report(spec.Span, spec.Timeout)()
	r.Accel = m.Accel()

	var run func(ctx context.Context, command string) (string, int, error)
	if spec.OverSSH {
		if err := m.WaitSSH(ctx); err != nil {
			return err
		}
		r.Boot = time.Since(m.start)
		run = func(ctx context.Context, command string) (string, int, error) {
			return m.runGuarded(ctx, key, user, command)
		}
		out, status, err := run(ctx, "true")
		if err != nil {
			return err
		}
		if status != 0 {
			return &CheckError{Msg: fmt.Sprintf("could not log in by ssh as %s", user), Output: out}
		}
	} else {
		if err := m.WaitLogin(ctx); err != nil {
			return err
		}
		r.Boot = time.Since(m.start)
		if spec.Login == "" {
			return nil
		}
		if err := m.Login(ctx, spec.Login, spec.Password); err != nil {
			return err
		}
		run = m.Run
	}
	if spec.WaitRunning {
		if err := waitRunning(ctx, run); err != nil {
			return err
		}
		r.Running = time.Since(m.start)
	}
	for _, command := range spec.Commands {
		t := time.Now()
		out, status, err := run(ctx, command)
		r.Commands = append(r.Commands, CommandResult{command, out, status, time.Since(t)})
		if err != nil {
			return fmt.Errorf("run %q: %w", command, err)
		}
		if status != 0 {
			return &CheckError{Msg: fmt.Sprintf("%q ended with status %d", command, status), Output: out}
		}
	}
	return nil
}

// runGuarded runs a command by ssh and gives up when the console shows that the
// machine is lost.
func (m *Machine) runGuarded(ctx context.Context, key *sshKey, user, command string) (out string, status int, err error) {
	m.con.setQuiet()
	ctx2, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		out, status, err = m.runSSHCommand(ctx2, key, user, command)
	}()
	werr := m.await(ctx, "the end of a command", 0, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	cancel()
	<-ended
	if werr != nil {
		return out, 0, werr
	}
	return out, status, err
}

// waitRunning waits until systemd has finished starting, and wants no unit failed.
func waitRunning(ctx context.Context, run func(context.Context, string) (string, int, error)) error {
	out, status, err := run(ctx, "systemctl is-system-running --wait")
	if err != nil {
		return fmt.Errorf("wait for the system to run: %w", err)
	}
	lines := strings.Fields(out)
	state := ""
	if len(lines) > 0 {
		state = lines[len(lines)-1]
	}
	switch {
	case state == "running":
		return nil
	case status == 127:
		return &CheckError{Msg: "the image has no systemctl to ask if it is running", Output: out}
	case state == "degraded":
		units, _, err := run(ctx, "systemctl list-units --state=failed --no-legend --no-pager --plain --full")
		if err != nil {
			return fmt.Errorf("list failed units: %w", err)
		}
		var failed []string
		for _, l := range strings.Split(units, "\n") {
			if f := strings.Fields(l); len(f) > 0 {
				failed = append(failed, f[0])
			}
		}
		msg := "the system is degraded"
		if len(failed) > 0 {
			msg += ": failed " + strings.Join(failed, ", ")
			// What they said; that it cannot be had changes nothing.
			logs, _, err := run(ctx, "systemctl status --no-pager --full --lines=10 -- "+quoteAll(failed))
			if err != nil {
				return fmt.Errorf("ask for the failed units: %w", err)
			}
			units += "\n" + logs
		}
		return &CheckError{Msg: msg, Output: units}
	default:
		return &CheckError{Msg: fmt.Sprintf("the system is %q, not running", state), Output: out}
	}
}

func quoteAll(words []string) string {
	var q []string
	for _, w := range words {
		q = append(q, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
	}
	return strings.Join(q, " ")
}

// report sends progress until the returned function is called.
func (m *Machine) report(span *monitor.Span, timeout time.Duration) (stop func()) {
	if span == nil {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				span.Emit(monitor.Event{
					Kind: monitor.Progress, Text: m.Tail(1), Unit: "seconds",
					Done: int64(time.Since(m.start).Seconds()), Total: int64(timeout.Seconds()),
				})
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// IsFailure tells if a test ended because of the image, and not because of this
// host, the spec or an interruption.
func (r TestResult) IsFailure() bool {
	var f *Failure
	var c *CheckError
	return errors.As(r.Err, &f) || errors.As(r.Err, &c)
}
