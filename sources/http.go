// One HTTP request: what is asked, resumed, counted and refused; and the clients
// that make it, with their proxies and certificates.
package sources

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/sources/aptconf"
)

// Environment variables of upstream osbuild that are honoured.
const (
	envProxy = "OSBUILD_SOURCES_CURL_PROXY"
	envKey   = "OSBUILD_SOURCES_CURL_SSL_CLIENT_KEY"
	envCert  = "OSBUILD_SOURCES_CURL_SSL_CLIENT_CERT"
	envCA    = "OSBUILD_SOURCES_CURL_SSL_CA_CERT"

	secretsMTLS = "org.osbuild.mtls"
)

// errRestart says that a part cannot be continued.
var errRestart = errors.New("the file has to be fetched from its start")

// parseURL accepts what can be fetched.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, &Error{Msg: fmt.Sprintf("%q is not a URL", s), Err: errors.Unwrap(err)}
	}
	switch {
	case u.Scheme == "file" && u.Path != "" && (u.Host == "" || u.Host == "localhost"):
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
	default:
		return nil, &Error{Msg: fmt.Sprintf("%s cannot be fetched", redact(u)), Hint: "use a URL that begins with https://, http:// or file:///"}
	}
	return u, nil
}

// get asks for what a part lacks and appends it. It returns nil when the server
// says that this is all, errRestart when the part is not the beginning of what it
// has, an attemptError, or an error of this machine.
func (r *run) get(ctx context.Context, it *Item, p *part, u *url.URL) error {
	stall := r.f.Stall
	if stall <= 0 {
		stall = 30 * time.Second
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer timer.Stop()
	if isDeb(u) {
		ctx = context.WithValue(ctx, debKey{}, true)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return permanent(err)
	}
	req.Header.Set("User-Agent", "osbuild-star")
	req.Header.Set("Accept-Encoding", "identity")
	if p.n > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", p.n))
		// Another mirror's bytes are as good: the checksum decides.
		if from, validator := p.origin(); from == u.String() && validator != "" {
			req.Header.Set("If-Range", validator)
		}
	}
	client, err := r.clients.get(it)
	if err != nil {
		return permanent(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return connectError(ctx, u, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		if p.n > 0 {
			if err := p.reset(); err != nil {
				return err
			}
		}
	case http.StatusPartialContent:
		var start int64
		if n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &start); n != 1 || start != p.n || p.n == 0 {
			if p.n == 0 {
				return permanent(fmt.Errorf("%s: the server sent a part of the file that was not asked for", redact(u)))
			}
			return errRestart
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if p.n > 0 {
			return errRestart
		}
		return statusError(u, resp)
	default:
		return statusError(u, resp)
	}
	if n := resp.ContentLength; n >= 0 {
		if it.Size > 0 && p.n+n != it.Size {
			return sizeError(u, p.n+n, it.Size)
		}
		if it.Size == 0 {
			r.progress.grow(n)
		}
	}
	p.setOrigin(u.String(), validator(resp.Header))
	err = copyBody(ctx, p, resp.Body, it.Size, func() { timer.Reset(stall) })
	var local *localError
	switch {
	case err == nil:
		if it.Size > 0 && p.n < it.Size {
			return temporary(fmt.Errorf("%s ended after %d of %d bytes", redact(u), p.n, it.Size))
		}
		return nil
	case errors.As(err, &local):
		return err
	case errors.Is(err, errTooLong):
		if err := p.reset(); err != nil {
			return err
		}
		return sizeError(u, -1, it.Size)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return temporary(fmt.Errorf("%s ended too early, after %d bytes", redact(u), p.n))
	}
	return connectError(ctx, u, err)
}

// sizeError says that a server has a file of another size.
func sizeError(u *url.URL, got, want int64) error {
	msg := fmt.Sprintf("%s has %d bytes, not %d", redact(u), got, want)
	if got < 0 {
		msg = fmt.Sprintf("%s has more than %d bytes", redact(u), want)
	}
	return permanent(&Error{Msg: msg, Hint: "the server has another file there; name another mirror, or try `osbuild-star lock --update`"})
}

// validator is what a server would know the same bytes by: a strong entity tag, or
// the time of the last change.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return h.Get("Last-Modified")
}

var errTooLong = errors.New("more data than the file has")

// copyBody appends to a part until the end. limit is the size of the whole file, or
// 0; alive is called whenever something came.
func copyBody(ctx context.Context, p *part, src io.Reader, limit int64, alive func()) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if alive != nil {
				alive()
			}
			if limit > 0 && p.n+int64(n) > limit {
				return errTooLong
			}
			if _, err := p.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// clients are the HTTP clients of one run: one for each way to look at certificates.
type clients struct {
	f      *Fetcher
	apt    func() aptconf.Config // of this machine, read when it is first needed
	mu     sync.Mutex
	known  map[clientKey]*http.Client
	opened []*http.Transport
}

type clientKey struct {
	insecure bool
	secrets  string
}

// debKey marks the context of a request for an archive that apt would fetch.
type debKey struct{}

func newClients(f *Fetcher) *clients {
	return &clients{f: f, known: map[clientKey]*http.Client{}, apt: sync.OnceValue(func() aptconf.Config {
		c, _ := aptconf.Host(context.Background(), "") // no apt, no proxies of it
		return c
	})}
}

func (c *clients) close() {
	for _, t := range c.opened {
		t.CloseIdleConnections()
	}
}

// get returns the client for an item.
func (c *clients) get(it *Item) (*http.Client, error) {
	key := clientKey{it.Insecure, it.Secrets}
	if c.f.Client != nil && key == (clientKey{}) {
		return c.f.Client, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cl := c.known[key]; cl != nil {
		return cl, nil
	}
	t := c.transport()
	if key != (clientKey{}) {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{}
		}
		t.TLSClientConfig.InsecureSkipVerify = key.insecure
		if key.secrets == secretsMTLS {
			if err := mtls(t.TLSClientConfig); err != nil {
				return nil, err
			}
		}
	}
	cl := &http.Client{Transport: t}
	if c.f.Client != nil {
		copied := *c.f.Client
		copied.Transport = t
		cl = &copied
	}
	c.known[key] = cl
	c.opened = append(c.opened, t)
	return cl, nil
}

// transport makes one like that of the fetcher's client.
func (c *clients) transport() *http.Transport {
	if c.f.Client != nil {
		if t, ok := c.f.Client.Transport.(*http.Transport); ok {
			return t.Clone()
		}
	}
	return &http.Transport{
		Proxy:                 c.proxy,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		MaxIdleConnsPerHost:   orDefault(c.f.PerHost, 6),
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true,
		ForceAttemptHTTP2:     true,
	}
}

// proxy is upstream osbuild's variable if it is set; for what apt would fetch the
// one that apt would use; else that of the environment.
func (c *clients) proxy(req *http.Request) (*url.URL, error) {
	if p := os.Getenv(envProxy); p != "" {
		return url.Parse(p)
	}
	if req.Context().Value(debKey{}) != nil {
		if p, ok, err := c.apt().Proxy(req.Context(), req.URL); ok || err != nil {
			return p, err
		}
	}
	return http.ProxyFromEnvironment(req)
}

// mtls takes the client's key and certificate from the files that the environment
// names.
func mtls(cfg *tls.Config) error {
	key, cert := os.Getenv(envKey), os.Getenv(envCert)
	if key == "" || cert == "" {
		return &Error{Msg: "a source wants a client certificate", Hint: "set " + envKey + " and " + envCert + " to the files of the key and the certificate"}
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return &Error{Msg: "the client certificate cannot be used", Hint: "check the files named by " + envKey + " and " + envCert, Err: err}
	}
	cfg.Certificates = []tls.Certificate{pair}
	if ca := os.Getenv(envCA); ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return &Error{Msg: "the certificate authority cannot be read", Hint: "check the file named by " + envCA, Err: err}
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return &Error{Msg: ca + " holds no certificate", Hint: "check the file named by " + envCA}
		}
	}
	return nil
}
