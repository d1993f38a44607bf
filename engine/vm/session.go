// Waiting for what the console shows, logging in on it, running commands.

package vm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

const (
	pokeAfter   = 10 * time.Second // without a byte, a login prompt is asked for again by a newline
	lostAfter   = 30 * time.Second // without a password prompt, a login starts anew; a machine without KVM is slow
	settleQuiet = 300 * time.Millisecond
	settleMax   = 2 * time.Second
	chunk       = 400 // bytes of a command in one line typed: a terminal takes lines up to 4095
)

// loginRE is the prompt of getty and login: a host's name or none, before it.
var loginRE = regexp.MustCompile(`^(?:(\S+) )?login: ?`)

// WaitFor waits until a line of the console matches, and returns the match and
// its groups. Each line is looked at by itself, without escapes and line end,
// the unfinished one too, so that a prompt is found: mind that "$" also matches
// where a line is still being written. What one call has matched the next one
// does not see; the rest of that line counts as a line.
//
// It fails with a [*Failure] as soon as the console shows that the machine will
// not come up, when the machine ends, and when the deadline of ctx passes.
func (m *Machine) WaitFor(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	var found []string
	err := m.await(ctx, fmt.Sprintf("%q", re), 0, func() bool {
		got, ok := m.con.match(re)
		found = got
		return ok
	})
	return found, err
}

// WaitLogin waits for a login prompt. A console that has been quiet for long is
// sent a newline, on which a getty repeats its prompt: a kernel message may have
// come in the middle of the first.
func (m *Machine) WaitLogin(ctx context.Context) error {
	err := m.await(ctx, "a login prompt", pokeAfter, m.sawLogin)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.prompt = true
	m.mu.Unlock()
	return nil
}

func (m *Machine) sawLogin() bool {
	for {
		got, ok := m.con.match(loginRE)
		if !ok || got[1] != "Last" { // "Last login: Mon Jun …" greets one who is in
			return ok
		}
	}
}

// await waits until check says so. It is called after each change of the console,
// and ten times a second. poke > 0 sends a newline after that much quiet.
func (m *Machine) await(ctx context.Context, want string, poke time.Duration, check func() bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	poked := time.Now()
	for {
		failure, eof, last, changed := m.con.state()
		if check() {
			return nil
		}
		if failure != nil {
			m.settle(ctx)
			return m.fail(*failure, want)
		}
		if eof {
			return m.ended(want)
		}
		select {
		case <-changed:
		case <-tick.C:
			if poke > 0 && !last.IsZero() && time.Since(last) > poke && time.Since(poked) > poke {
				poked = time.Now()
				if err := m.send("\n"); err != nil && m.ctx.Err() == nil {
					return err
				}
			}
		case <-ctx.Done():
			return m.late(ctx, want)
		}
	}
}

// fail completes a failure with what is known of the machine.
func (m *Machine) fail(f Failure, want string) error {
	f.Want, f.Tail = want, m.con.story()
	return &f
}

// late says that a context ended the waiting.
func (m *Machine) late(ctx context.Context, want string) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("wait for %s: %w", want, ctx.Err())
	}
	kind := TimedOut
	if !m.con.sawSystem() {
		kind = Silent
	}
	return m.fail(Failure{Kind: kind, Err: ctx.Err()}, want)
}

// ended says why the machine is no more.
func (m *Machine) ended(want string) error {
	select {
	case <-m.exited:
	case <-time.After(termPatience): // it has closed its port, and still is there
	}
	if err := m.ctx.Err(); err != nil {
		return fmt.Errorf("wait for %s: the machine was ended: %w", want, err)
	}
	m.mu.Lock()
	reason, asked := m.reason, m.asked
	m.mu.Unlock()
	f := Failure{Kind: Crashed}
	switch {
	case reason == "guest-reset":
		f.Kind = Rebooted
	case reason == "guest-shutdown" || reason == "guest-panic":
		f.Kind = PoweredOff
	case asked:
		return fmt.Errorf("wait for %s: the machine was ended", want)
	default:
		select {
		case <-m.exited:
			f.Err = m.crash()
		default:
		}
	}
	return m.fail(f, want)
}

// settle waits until a failing guest has said its last words.
func (m *Machine) settle(ctx context.Context) {
	end := time.NewTimer(settleMax)
	defer end.Stop()
	for {
		_, eof, _, changed := m.con.state()
		if eof {
			return
		}
		quiet := time.NewTimer(settleQuiet)
		select {
		case <-changed:
			quiet.Stop()
		case <-quiet.C:
			return
		case <-end.C:
			quiet.Stop()
			return
		case <-ctx.Done():
			quiet.Stop()
			return
		}
	}
}

var (
	passwordRE = regexp.MustCompile(`[^\s\]]\s*: ?$`) // in any language, at the end of an unfinished line
	passwordEN = regexp.MustCompile(`^Password: `)    // with something after it that came in between
	autoRE     = regexp.MustCompile(`\(automatic login\)`)
	shellRE    = regexp.MustCompile(`[#$%>] ?$`)
)

// What login says to those it does not let in, each a group.
const (
	refusedExpr = `((?i:login incorrect|authentication failure|account is currently not available|account has expired|too many logins|system is going down))`
	changeExpr  = `((?i:you are required to change your password|your password has expired|new password:))`
)

// Login logs in at the prompt, waiting for it if need be, and opens a session
// for [Machine.Run]: the user's shell is replaced by /bin/sh, which reads
// commands without echo and prompt. As root it also keeps kernel messages (but
// for those of level EMERG) and the status lines of systemd off the console.
func (m *Machine) Login(ctx context.Context, user, password string) error {
	if strings.ContainsAny(user+password, "\n\r\x00") || user == "" {
		return &ConfigError{Field: "Login", Msg: fmt.Sprintf("cannot type the user name %q or its password", user)}
	}
	for try := 1; ; try++ {
		m.mu.Lock()
		there := m.prompt
		m.prompt = false
		m.mu.Unlock()
		if !there {
			if err := m.WaitLogin(ctx); err != nil {
				return err
			}
			m.mu.Lock()
			m.prompt = false
			m.mu.Unlock()
		}
		again, err := m.tryLogin(ctx, user, password)
		if err == nil || !again || try == 3 {
			return err
		}
	}
}

// tryLogin types name and password; again says that the dialogue got lost
// (something was printed into it), and that it is worth another try.
func (m *Machine) tryLogin(ctx context.Context, user, password string) (again bool, err error) {
	m.settle(ctx) // what getty says about an automatic login comes right after its prompt
	if _, auto := m.con.match(autoRE); auto {
		return false, m.open(ctx, user)
	}
	m.con.skip()
	if err := m.send(user + "\n"); err != nil {
		return false, err
	}
	start := time.Now()
	var asked, shell, lost bool
	err = m.await(ctx, "a password prompt", 0, func() bool {
		p := m.con.partial()
		_, en := m.con.match(passwordEN)
		switch {
		case en || !loginRE.MatchString(p) && passwordRE.MatchString(p):
			asked = true
		case !loginRE.MatchString(p) && shellRE.MatchString(p) && m.con.quietFor(settleQuiet):
			shell = true // a user without a password
		case time.Since(start) > lostAfter:
			lost = true
		}
		return asked || shell || lost
	})
	if err != nil {
		return false, err
	}
	if lost {
		if err := m.send("\n"); err != nil {
			return false, err
		}
		return true, fmt.Errorf("log in as %s: no password was asked for; the console ends with %q", user, m.con.tail(3))
	}
	if asked {
		m.con.skip()
		if err := m.send(password + "\n"); err != nil {
			return false, err
		}
	}
	return false, m.open(ctx, user)
}

// open replaces the login shell by one that reads commands for Run.
func (m *Machine) open(ctx context.Context, user string) error {
	const resend, maxTyped = 8 * time.Second, 4
	begin, sent, typed := time.Now(), time.Time{}, 0
	var refused, change string
	nonce := newNonce()
	said := regexp.MustCompile(`(` + nonce + `:R` + nonce + `)|` + refusedExpr + `|` + changeExpr)
	err := m.await(ctx, "a shell of "+user, 0, func() bool {
		if got, ok := m.con.match(said); ok {
			switch {
			case got[1] != "":
				return true
			case got[2] != "":
				refused = got[0]
			default:
				change = got[0]
			}
			return true
		}
		p := m.con.partial()
		if loginRE.MatchString(p) && !strings.HasPrefix(p, "Last ") {
			refused = "the login prompt came again"
			return true
		}
		// A prompt is not known for sure: what looks like one, or some silence, or
		// some time on a console that is never silent.
		due := shellRE.MatchString(p) && m.con.quietFor(settleQuiet) || m.con.quietFor(4*time.Second) || time.Since(begin) > resend
		if typed == 0 && due || typed > 0 && time.Since(sent) > resend {
			if typed++; typed > maxTyped {
				return true
			}
			sent = time.Now()
			m.send(sessionScript(nonce) + "\n") // a failure shows as silence
		}
		return false
	})
	switch {
	case err != nil:
		return err
	case refused != "":
		return fmt.Errorf("log in as %s: the guest refused: %s", user, refused)
	case change != "":
		return fmt.Errorf("log in as %s: the guest wants a new password first: %s", user, change)
	}
	if typed > maxTyped {
		return fmt.Errorf("log in as %s: no shell answered; the console ends with %q", user, m.con.tail(3))
	}
	m.con.setQuiet()
	m.mu.Lock()
	m.shell = true
	m.mu.Unlock()
	return nil
}

// openingWords begin the line that opens a session.
const openingWords = ` exec env TERM=dumb PAGER=cat SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 /bin/sh -c `

// sessionScript is the line that is typed to open a session. R runs the command
// in $c, and gives each line of its output the prefix $1; the last line is the
// mark with the status. See demux. That the session is open shows as the nonce, a
// colon, R and the nonce.
func sessionScript(nonce string) string {
	script := []string{
		`stty -echo -opost 2>/dev/null`,
		`[ -w /proc/sys/kernel/printk ] && echo 1 >/proc/sys/kernel/printk`,
		`[ -d /run/systemd/system ] && kill -55 1 2>/dev/null`, // SIGRTMIN+21: no status lines
		`P() { if command -v sed >/dev/null; then sed -e "s/^/$1:/" -e "/^$1:E$1 /q"; ` +
			`else while IFS= read -r x; do printf "%s:%s\n" "$1" "$x"; case $x in "E$1 "*) break;; esac; done; fi; }`,
		`R() { printf "\n"; { (eval "$c") </dev/null 2>&1; printf "\nE%s %d\n" "$1" $?; } | P "$1"; }`,
		`printf "\n%s:%s\n" ` + nonce + ` R` + nonce,
		`while IFS= read -r l; do eval "$l"; done`,
	}
	return openingWords + `'` + strings.Join(script, "; ") + `'`
}

// Run runs a command of /bin/sh in the session that [Machine.Login] opened, its
// standard input empty, and returns what it wrote to standard output and error
// together (line ends as "\n", at most 4 MiB) and its exit status. When ctx ends
// before the command does, the output until then is returned with the error,
// and the session is lost.
func (m *Machine) Run(ctx context.Context, command string) (output string, status int, err error) {
	m.mu.Lock()
	open := m.shell
	m.shell = false // until the command has ended
	m.mu.Unlock()
	if !open {
		return "", 0, errors.New("run a command: nobody is logged in on the console, or an earlier command has not ended")
	}
	if strings.ContainsRune(command, 0) {
		return "", 0, &ConfigError{Field: "Commands", Msg: "a command has a null character in it"}
	}
	nonce := newNonce()
	d := newDemux(nonce)
	from := m.con.offset()
	// until feeds the demultiplexer until ok.
	until := func(ok func() bool) error {
		for !ok() {
			f, eof, _, _ := m.con.state()
			if f != nil {
				m.settle(ctx)
				return m.fail(*f, "the end of a command")
			}
			if eof {
				return m.ended("the end of a command")
			}
			step, cancel := context.WithTimeout(ctx, time.Second)
			p, next, lost, err := m.con.read(step, from)
			cancel()
			if err != nil && ctx.Err() != nil {
				return m.late(ctx, "the end of a command")
			}
			if lost {
				d.over = true
			}
			from = next
			d.Write(p)
		}
		return nil
	}
	if err := m.send("c=\n"); err != nil {
		return "", 0, err
	}
	for i, part := range shellChunks(command, chunk) {
		// The dot keeps newlines at the end, which $() would cut off.
		line := fmt.Sprintf(`c=$c$(printf '%s.');c=${c%%.};printf '\n%s:A%s %d\n'`, part, nonce, nonce, i)
		if err := m.send(line + "\n"); err != nil {
			return "", 0, err
		}
		if err := until(func() bool { return d.acked > i }); err != nil {
			return "", 0, err
		}
	}
	if err := m.send("R " + nonce + "\n"); err != nil {
		return "", 0, err
	}
	if err := until(func() bool { return d.done }); err != nil {
		return d.output(), 0, err
	}
	m.con.skip()
	m.mu.Lock()
	m.shell = true
	m.mu.Unlock()
	return d.output(), d.status, nil
}

// shellChunks cuts a text into formats for printf(1) of about n characters,
// which can stand between single quotes and hold nothing a terminal acts on.
func shellChunks(s string, n int) []string {
	var out []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			b.WriteString("%%")
		case c < 0x20 || c >= 0x7f || c == '\'' || c == '\\' || c == '-' && b.Len() == 0: // no option
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
		if b.Len() >= n {
			out = append(out, b.String())
			b.Reset()
		}
	}
	return append(out, b.String())
}

// newNonce is a word that nothing else prints; see protocolRE.
func newNonce() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return "=" + hex.EncodeToString(b[:]) + "="
}
