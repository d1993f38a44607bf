// Package apt turns the names of a package request into exact archives, by asking
// the real apt in a private root: with indexes, configuration and a list of
// installed packages of its own, never those of the host. What it takes from the
// host are the mirror and the keyring, where a request names none, and how servers
// are reached: proxies, time limits, and the checks of dates.
//
// Every size and checksum in an answer is read from an index that apt has verified
// by the signature of its repository.
package apt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/sources/aptconf"
)

// Resolver resolves requests. Its fields are not changed once it is used. It updates
// the indexes of a set of repositories once in its life. Mirror may be called by
// several goroutines, Resolve by one at a time; other processes may use the same
// CacheDir meanwhile.
type Resolver struct {
	CacheDir       string        // keeps indexes from one time to the next; made when missing
	Span           *monitor.Span // gets what is done
	HostAptDir     string        // "" is "/etc/apt"
	MirrorOverride string        // as EnvMirror; "" is what the environment says

	// Known says what a request is known to have resolved to (the lock). It is
	// asked about bases that are not to be resolved themselves, so that what goes
	// on top of one fits what it was. nil knows nothing.
	Known func(*manifest.PackageRequest) ([]manifest.Package, bool)

	// Run starts a program of apt and waits for it; nil starts it on this machine. It
	// fails with fs.ErrNotExist or exec.ErrNotFound when there is no such program.
	Run func(ctx context.Context, p Program) error

	hostOnce    sync.Once
	hostEntries []hostEntry
	roots       map[string]*root
	answers     map[string]*answer
	places      map[placeKey]Place
}

// Program is a program that resolving needs.
type Program struct {
	Argv           []string
	Env            []string // beyond what programs have
	Stdout, Stderr io.Writer
	Dirs           []string // directories that it works in, absolute
	Reads          []string // files and directories that it reads, absolute; they need not exist
}

// Place is where an archive stands in a repository.
type Place struct {
	Mirror    string // base URL, without a slash at its end
	Suite     string // as the request names it
	Component string // "" in a flat repository
	Path      string // relative to the mirror, "pool/main/…"
}

type placeKey struct{ url, sha256 string }

// Place returns where an archive of an answer of this resolver stands.
func (r *Resolver) Place(p manifest.Package) (Place, bool) {
	pl, ok := r.places[placeKey{p.URL, p.SHA256}]
	return pl, ok
}

// answer is what a request resolved to.
type answer struct {
	packages  []manifest.Package
	installed []installed // those, and what the base has
	known     bool        // from Known: not good for somebody who wants it resolved
}

// installed is a package that is in the way of what goes on top of it.
type installed struct {
	name, version, arch string
	stanza              []byte
}

// Resolve returns the archives of each request, in the order of requests, sorted by
// name and architecture, without what is in the request's base. Equal requests are
// resolved once.
//
// Errors are *RequestError where they belong to one request; what a person can do
// is in the *sources.Error in their chain.
func (r *Resolver) Resolve(ctx context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error) {
	if r.answers == nil {
		r.answers, r.places = map[string]*answer{}, map[placeKey]Place{}
	}
	own := map[string]bool{}
	for _, req := range reqs {
		if err := check(req); err != nil {
			return nil, &RequestError{req, err}
		}
		own[RequestKey(req)] = true
	}
	roots := map[string]*root{}
	for _, req := range reqs {
		for q := req; q != nil; q = q.Base {
			if r.answered(q, own) != nil {
				break
			}
			rt, err := r.rootFor(q)
			if err != nil {
				return nil, &RequestError{q, err}
			}
			roots[rt.key] = rt
		}
	}
	if err := r.prepare(ctx, roots); err != nil {
		return nil, err
	}
	defer func() {
		for _, rt := range roots {
			rt.release()
		}
	}()
	out := make([][]manifest.Package, len(reqs))
	for i, req := range reqs {
		a, err := r.resolve(ctx, req, own)
		if err != nil {
			return nil, err
		}
		out[i] = slices.Clone(a.packages)
	}
	return out, nil
}

// prepare locks roots, makes them, and updates their indexes.
func (r *Resolver) prepare(ctx context.Context, roots map[string]*root) (err error) {
	if len(roots) == 0 {
		return nil
	}
	host, err := aptconf.Host(ctx, r.HostAptDir)
	if err != nil && !errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("the configuration of this machine's apt cannot be read: %w", err)
	}
	defer func() {
		if err != nil {
			for _, rt := range roots {
				rt.release()
			}
		}
	}()
	// In one order everywhere, so that two processes cannot wait for each other.
	keys := slices.Sorted(maps.Keys(roots))
	for _, k := range keys {
		if err := roots[k].acquire(ctx, r.Span); err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(roots[k].dir, doneFile)); err != nil {
			roots[k].updated = false // Clean was here
		}
	}
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	slots := make(chan bool, 3)
	for i, k := range keys {
		wg.Go(func() {
			slots <- true
			defer func() { <-slots }()
			if errs[i] = roots[k].write(host); errs[i] == nil {
				errs[i] = roots[k].update(ctx, r.Span)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// answered returns the answer that a request has already, or nil. own are the keys
// of the requests that are to be resolved.
func (r *Resolver) answered(req *manifest.PackageRequest, own map[string]bool) *answer {
	key := RequestKey(req)
	if a := r.answers[key]; a != nil && !(a.known && own[key]) {
		return a
	}
	return nil
}

// resolve answers one request, its base first.
func (r *Resolver) resolve(ctx context.Context, req *manifest.PackageRequest, own map[string]bool) (_ *answer, err error) {
	if a := r.answered(req, own); a != nil {
		return a, nil
	}
	key := RequestKey(req)
	var base []installed
	if req.Base != nil {
		b, err := r.resolve(ctx, req.Base, own)
		if err != nil {
			return nil, err
		}
		base = b.installed
	}
	rt, err := r.rootFor(req)
	if err != nil {
		return nil, &RequestError{req, err}
	}
	var a *answer
	if r.Known != nil && !own[key] {
		if pkgs, ok := r.Known(req); ok {
			if a, err = rt.known(ctx, pkgs, base); err != nil {
				return nil, &RequestError{req, err}
			}
		}
	}
	if a == nil {
		span := r.Span.Start(monitor.Event{Category: monitor.CatResolve, Name: "packages", ID: key})
		var places []Place
		a, places, err = rt.solve(ctx, req, base)
		span.End(err)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			return nil, &RequestError{req, err}
		}
		for i, p := range a.packages {
			r.places[placeKey{p.URL, p.SHA256}] = places[i]
		}
	}
	r.answers[key] = a
	return a, nil
}

// known makes an answer of packages that were resolved earlier: apt needs to know
// what they depend on, which only the index says.
func (rt *root) known(ctx context.Context, pkgs []manifest.Package, base []installed) (*answer, error) {
	a := &answer{packages: pkgs, installed: slices.Clone(base), known: true}
	type id struct{ name, version, arch string }
	want := map[id]bool{}
	for _, p := range pkgs {
		want[id{p.Name, p.Version, p.Arch}] = true
	}
	err := rt.scan(ctx, func(_ target, stanza []byte) bool {
		f := parseStanza(stanza)
		i := id{string(f.name), string(f.version), string(f.arch)}
		if want[i] {
			delete(want, i)
			a.installed = append(a.installed, installed{i.name, i.version, i.arch, installedStanza(stanza)})
		}
		return len(want) > 0
	})
	if err != nil {
		return nil, err
	}
	for _, p := range pkgs {
		if want[id{p.Name, p.Version, p.Arch}] {
			return nil, &sources.Error{
				Msg:  fmt.Sprintf("%d packages of the lock are no longer in the repositories (%s %s is one), and something new is asked for on top of them", len(want), p.Name, p.Version),
				Hint: "`osbuild-star lock --update` resolves all of it again",
			}
		}
	}
	return a, nil
}

// Clean removes the indexes below a CacheDir that were last brought up to date
// before a time and that no process is at. It returns how many sets it removed.
func Clean(cacheDir string, before time.Time) (int, error) {
	ents, err := os.ReadDir(cacheDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	n := 0
	for _, e := range ents {
		dir := filepath.Join(cacheDir, e.Name())
		fi, err := os.Stat(filepath.Join(dir, doneFile))
		if err != nil || !fi.ModTime().Before(before) {
			continue
		}
		f, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return n, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			if err = os.RemoveAll(dir); err == nil {
				n++
			}
		}
		f.Close()
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
