// Errors of fetching, each with what a person can do about it.
package sources

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Error is a failure that a person can do something about.
type Error struct {
	Msg  string
	Hint string // what to do, or ""
	Err  error  // the cause, or nil; its text is not part of Msg
}

// Error returns the message and the cause, without the hint.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ChecksumError says that the bytes that were found are not the ones asked for.
type ChecksumError struct {
	Want, Got string // "sha256:…"
	From      string // URL or path
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("%s has checksum %s, not %s", e.From, e.Got, e.Want)
}

// SpaceError says that a file system is full, or would be.
type SpaceError struct {
	Dir  string // the directory that was written to
	Free int64  // bytes that are left, -1 when not known
	Need int64  // bytes that are wanted at least, 0 when not known
}

func (e *SpaceError) Error() string {
	s := "no space left on the file system of " + e.Dir
	if e.Need > 0 {
		s = fmt.Sprintf("not enough space on the file system of %s: %s needed", e.Dir, size(e.Need))
	}
	if e.Free >= 0 {
		s += ", " + size(e.Free) + " free"
	}
	return s
}

// Unwrap makes it an ENOSPC.
func (e *SpaceError) Unwrap() error { return unix.ENOSPC }

// attemptError is the end of one attempt at one URL.
type attemptError struct {
	err       error
	temporary bool   // the same URL may work later
	unreached string // "host:port" that no connection could be made to
	after     int    // seconds that the server asks to wait
}

func (e *attemptError) Error() string { return e.err.Error() }
func (e *attemptError) Unwrap() error { return e.err }

func permanent(err error) *attemptError { return &attemptError{err: err} }
func temporary(err error) *attemptError { return &attemptError{err: err, temporary: true} }

var errStalled = errors.New("no data came for too long")

// connectError turns what the HTTP client says into an attemptError.
func connectError(ctx context.Context, u *url.URL, err error) *attemptError {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return temporary(fmt.Errorf("%s: %w", redact(u), errStalled))
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // it repeats the URL
	}
	a := temporary(fmt.Errorf("%s: %w", redact(u), err))
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		a.unreached = u.Host
		a.err = &Error{
			Msg:  fmt.Sprintf("%s: the name %s is not known", redact(u), dns.Name),
			Hint: "check the network and the name; OSBUILD_STAR_DEB_MIRROR names another package mirror, http_proxy and https_proxy a proxy",
		}
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		a.unreached = u.Host
		a.err = &Error{
			Msg:  fmt.Sprintf("%s cannot be reached", redact(u)),
			Hint: "check the network and the server; OSBUILD_STAR_DEB_MIRROR names another package mirror, http_proxy and https_proxy a proxy",
			Err:  err,
		}
	case strings.Contains(err.Error(), "x509:") || strings.Contains(err.Error(), "tls:"):
		a.temporary = false
		a.err = &Error{
			Msg:  fmt.Sprintf("%s: no secure connection", redact(u)),
			Hint: "check the clock and the certificates of this machine (package ca-certificates)",
			Err:  err,
		}
	}
	return a
}

// statusError turns a status that is not a success into an attemptError.
func statusError(u *url.URL, resp *http.Response) *attemptError {
	e := &Error{Msg: fmt.Sprintf("%s: the server answered %q", redact(u), resp.Status)}
	a := permanent(e)
	switch c := resp.StatusCode; {
	case c == http.StatusNotFound || c == http.StatusGone:
		e.Msg = fmt.Sprintf("%s: not found (%d)", redact(u), c)
		e.Hint = "check the URL in the rule file"
		if isPackage(u) {
			e.Hint = "the mirror has a newer version by now: `osbuild-star lock --update` resolves the packages again"
		}
	case c == http.StatusUnauthorized || c == http.StatusForbidden:
		e.Hint = "the server wants credentials, or does not know the file"
	case c == http.StatusProxyAuthRequired:
		e.Hint = "give the proxy as http://user:password@host:port"
	case c == http.StatusRequestTimeout, c == http.StatusTooEarly, c == http.StatusTooManyRequests, c >= 500 && c != http.StatusNotImplemented:
		a.temporary = true
		e.Hint = "the server has trouble: try again later, or name another mirror"
		fmt.Sscanf(resp.Header.Get("Retry-After"), "%d", &a.after)
	}
	return a
}

// isPackage says whether a URL is that of a package archive, the kind of file that
// a mirror replaces by a newer one.
func isPackage(u *url.URL) bool {
	switch path.Ext(u.Path) {
	case ".deb", ".udeb", ".ddeb", ".rpm":
		return true
	}
	return false
}

// isDeb says whether a URL is that of an archive that apt would fetch.
func isDeb(u *url.URL) bool { return isPackage(u) && path.Ext(u.Path) != ".rpm" }

// redact writes a URL without its password.
func redact(u *url.URL) string { return u.Redacted() }

// size writes a number of bytes for a person.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
