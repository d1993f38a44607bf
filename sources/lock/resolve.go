// The lock in front of a resolver: what it has is used, what it lacks is resolved
// and remembered.
package lock

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/sources/apt"
)

// Options say how the lock is used.
type Options struct {
	Locked bool // the file must have everything, and is not changed
	Update bool // what the file has is not looked at
	Prune  bool // entries that are not asked for are dropped; for an update of all targets

	// Place says where an archive that the resolver named stands; see
	// (*apt.Resolver).Place. Without it the place is taken from the URL, and the
	// suite is the first whose mirror fits.
	Place func(manifest.Package) (apt.Place, bool)
}

// Resolve answers requests from the lock, and those that it does not satisfy (and
// their bases) by resolve, all in one call; then it saves the file. mirror says
// where a repository is. Without anything to resolve neither resolve nor the network
// is used. The resolver is to know f.Lookup (apt.Resolver.Known).
//
// The answers are in the order of reqs, sorted by name and architecture.
func Resolve(ctx context.Context, f *File, opts Options,
	resolve func(context.Context, []*manifest.PackageRequest) ([][]manifest.Package, error),
	mirror func(manifest.DebRepo) (string, error),
	reqs []*manifest.PackageRequest,
) ([][]manifest.Package, error) {
	if opts.Locked && (opts.Update || opts.Prune) {
		return nil, &sources.Error{Msg: "the lock cannot be both kept and updated", Hint: "leave out --locked or --update"}
	}
	missing := f.missing(reqs, opts.Update)
	if len(missing) > 0 {
		if opts.Locked {
			return nil, f.lockedError(missing)
		}
		answers, err := resolve(ctx, missing)
		if err != nil {
			return nil, err
		}
		if len(answers) != len(missing) {
			return nil, fmt.Errorf("the resolver answered %d of %d requests", len(answers), len(missing))
		}
		for i, req := range missing {
			place := func(p manifest.Package) (apt.Place, bool) {
				if opts.Place != nil {
					if pl, ok := opts.Place(p); ok {
						return pl, true
					}
				}
				return placeOfURL(req, p.URL, mirror)
			}
			if err := f.Set(req, answers[i], place); err != nil {
				return nil, err
			}
		}
	}
	if opts.Prune {
		f.Keep(reqs)
	}
	if err := f.Save(); err != nil {
		return nil, err
	}
	out := make([][]manifest.Package, len(reqs))
	for i, req := range reqs {
		pkgs, ok, err := f.Packages(req, mirror)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%s was changed by another process: try again", f.path)
		}
		out[i] = pkgs
	}
	return out, nil
}

// missing lists the requests that have to be resolved, each once, bases before what
// is on top of them.
func (f *File) missing(reqs []*manifest.PackageRequest, all bool) []*manifest.PackageRequest {
	var out []*manifest.PackageRequest
	seen := map[string]bool{}
	var visit func(*manifest.PackageRequest)
	visit = func(req *manifest.PackageRequest) {
		if req == nil {
			return
		}
		key := apt.RequestKey(req)
		if seen[key] {
			return
		}
		seen[key] = true
		visit(req.Base)
		if all || f.find(req) == nil {
			out = append(out, req)
		}
	}
	for _, req := range reqs {
		visit(req)
	}
	return out
}

// lockedError names the requests that the file lacks.
func (f *File) lockedError(missing []*manifest.PackageRequest) error {
	var list []string
	for _, req := range missing[:min(len(missing), 5)] {
		words := strings.Fields(summary(req))
		if len(words) > 8 {
			words = append(words[:8:8], "…")
		}
		s := strings.Join(words, " ")
		if req.Origin.File != "" {
			s = fmt.Sprintf("%s:%d: %s", req.Origin.File, req.Origin.Line, s)
		}
		if f.groups[apt.RequestKey(req)] != nil {
			s += " (its base has changed)"
		}
		list = append(list, s)
	}
	if n := len(missing) - len(list); n > 0 {
		list = append(list, fmt.Sprintf("and %d more", n))
	}
	return &sources.Error{
		Msg:  fmt.Sprintf("%s lacks packages, and --locked keeps it as it is: %s", f.path, strings.Join(list, "; ")),
		Hint: "run `osbuild-star lock` and commit the file",
	}
}

// placeOfURL takes a URL apart into the mirror of one of the request's repositories
// and what comes behind it; the longest mirror that fits wins.
func placeOfURL(req *manifest.PackageRequest, u string, mirror func(manifest.DebRepo) (string, error)) (apt.Place, bool) {
	var best apt.Place
	for _, r := range req.Repos {
		m, err := mirror(r)
		if err != nil {
			continue
		}
		rest, ok := strings.CutPrefix(u, strings.TrimRight(m, "/")+"/")
		if !ok || len(m) <= len(best.Mirror) {
			continue
		}
		if p, err := url.PathUnescape(rest); err == nil {
			rest = p
		}
		cs := componentsOf(r)
		c := cs[0]
		if f := strings.SplitN(rest, "/", 3); len(f) == 3 && f[0] == "pool" && slices.Contains(cs, f[1]) {
			c = f[1]
		}
		best = apt.Place{Mirror: strings.TrimRight(m, "/"), Suite: r.Suite, Component: c, Path: rest}
	}
	return best, best.Mirror != ""
}
