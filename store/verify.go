// Reading everything: what is damaged is found, and dropped with all that stands on
// it, so that the next build makes it again.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Problem is something that is damaged.
type Problem struct {
	Kind string   `json:"kind"` // source, layer, object
	Name string   `json:"name"` // checksum, name or key
	Path string   `json:"path,omitempty"`
	What string   `json:"what"`
	Lost []string `json:"lost,omitempty"` // keys of the objects that stand on it
}

// Verified is what [Store.Verify] found.
type Verified struct {
	Objects  int       `json:"objects"`
	Layers   int       `json:"layers"`
	Sources  int       `json:"sources"`
	Bytes    int64     `json:"bytes"`    // that were read
	New      int       `json:"new"`      // layers that had no sums: they have now
	Leftover int       `json:"leftover"` // things that nobody needs, of builds that were killed
	Problems []Problem `json:"problems"`
}

// VerifyOptions say how a store is verified.
type VerifyOptions struct {
	Keep     bool                    // only tell: nothing is dropped or cleaned up
	Jobs     int                     // files at once; 0: one for each CPU
	Progress func(done, total int64) // of bytes; may be nil
}

// Verify reads all sources, layers and objects and holds them against their
// checksums. What builds do meanwhile does not disturb it.
func (s *Store) Verify(ctx context.Context, opts VerifyOptions) (*Verified, error) {
	if opts.Jobs <= 0 {
		opts.Jobs = runtime.NumCPU()
	}
	c, err := s.scan()
	if err != nil {
		return nil, err
	}
	v := &verifier{s: s, c: c, opts: opts, res: &Verified{Objects: len(c.objects) + len(c.damaged), Problems: []Problem{}}}
	var untrusted []string // not found by any build, but no damage
	for _, key := range slices.Sorted(maps.Keys(c.damaged)) {
		v.problem(Problem{Kind: "object", Name: key, What: c.damaged[key], Lost: []string{key}})
	}
	state := map[string]string{} // of layers that trusted objects stand on
	for i := range c.objects {
		o := &c.objects[i]
		if s.stale(o) {
			untrusted = append(untrusted, o.Key)
			continue
		}
		for _, l := range o.Layers {
			if state[l] == "" {
				state[l] = s.layerState(l)
				if state[l] == "gone" {
					v.problem(Problem{Kind: "layer", Name: l, What: "it is gone", Lost: c.names[l]})
				}
			}
			if state[l] == "unreachable" {
				untrusted = append(untrusted, o.Key)
			}
		}
	}
	for _, src := range c.sources {
		v.total += src.Size
	}
	var layers []string
	for _, l := range c.layers {
		if state[l] == "here" {
			layers = append(layers, l)
		}
	}
	sizes, err := s.layerSizes(c)
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		v.total += sizes[l]
	}
	if err := v.sources(ctx); err != nil {
		return nil, err
	}
	if err := v.layers(ctx, layers); err != nil {
		return nil, err
	}
	v.res.Bytes, v.res.Sources, v.res.Layers = v.done.Load(), len(c.sources), len(layers)
	if opts.Keep {
		return v.res, nil
	}
	return v.res, v.drop(ctx, untrusted)
}

// layerState tells whether a layer is here, gone, elsewhere (in another store, which is
// to be verified itself) or, when that store is not there any more, unreachable.
func (s *Store) layerState(layer string) string {
	st, err := os.Lstat(s.layerDir(layer))
	switch {
	case err != nil:
		return "gone"
	case st.IsDir():
		return "here"
	case exists(filepath.Join(s.homeOf(layer), "layers", layer)):
		return "elsewhere"
	}
	return "unreachable"
}

// verifier is one call of Verify.
type verifier struct {
	s     *Store
	c     *contents
	opts  VerifyOptions
	done  atomic.Int64
	total int64

	mu  sync.Mutex
	res *Verified
}

func (v *verifier) problem(p Problem) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.res.Problems = append(v.res.Problems, p)
}

func (v *verifier) read(n int64) {
	done := v.done.Add(n)
	if v.opts.Progress != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.opts.Progress(done, max(done, v.total))
	}
}

// sources holds each source against its name.
func (v *verifier) sources(ctx context.Context) error {
	next := make(chan SourceInfo)
	var wg sync.WaitGroup
	for range v.opts.Jobs {
		wg.Go(func() {
			for src := range next {
				file := filepath.Join(v.s.SourcesDir(), src.Checksum)
				err := CheckSource(file, src.Checksum)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					what := "it cannot be read: " + err.Error()
					if errors.Is(err, ErrDamaged) {
						what = ErrDamaged.Error()
					}
					v.problem(Problem{Kind: "source", Name: src.Checksum, Path: file, What: what})
				}
				v.read(src.Size)
			}
		})
	}
	for _, src := range v.c.sources {
		if ctx.Err() != nil {
			break
		}
		next <- src
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// layers holds each layer against the list of its entries, or makes one.
func (v *verifier) layers(ctx context.Context, layers []string) error {
	for _, l := range layers {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		what, err := v.layer(ctx, l)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case what == "" && err == nil:
		case errors.Is(err, fs.ErrNotExist) && !exists(v.s.layerDir(l)):
			// Somebody has taken it away meanwhile.
		case err != nil:
			v.problem(Problem{Kind: "layer", Name: l, What: "it cannot be read: " + err.Error(), Lost: v.c.names[l]})
		default:
			v.problem(Problem{Kind: "layer", Name: l, What: what, Lost: v.c.names[l]})
		}
	}
	return nil
}

// layer tells what is wrong with a layer; "": nothing is.
func (v *verifier) layer(ctx context.Context, l string) (string, error) {
	want, err := v.s.readSums(l)
	if err != nil {
		want = nil // none yet, or it cannot be read: it is made anew
	}
	got, err := listLayer(ctx, v.s.layerDir(l), v.opts.Jobs, v.read)
	if err != nil {
		return "", err
	}
	if _, err := v.s.links(l); err != nil {
		return "its links outside cannot be read", nil
	}
	if want == nil {
		v.res.New++
		if v.opts.Keep {
			return "", nil
		}
		return "", v.s.writeSums(l, got)
	}
	return difference(want, got), nil
}

// difference tells where two lists of the same layer differ, "" if they do not.
func difference(want, got []Entry) string {
	later := "" // a time says less than what was done at it
	have := map[string]*Entry{}
	for i := range got {
		have[got[i].Path] = &got[i]
	}
	for i := range want {
		w := &want[i]
		g := have[w.Path]
		if g == nil {
			return w.Path + " is gone"
		}
		delete(have, w.Path)
		for _, d := range []struct {
			differs bool
			what    string
		}{
			{w.Type != g.Type, "is a " + g.Type + ", not a " + w.Type},
			{w.Size != g.Size, fmt.Sprintf("has %d bytes, not %d", g.Size, w.Size)},
			{w.SHA256 != g.SHA256, "has another content"},
			{w.Target != g.Target, "links to something else"},
			{w.Device != g.Device, "is another device"},
			{w.Mode != g.Mode, fmt.Sprintf("has mode %04o, not %04o", g.Mode, w.Mode)},
			{w.UID != g.UID || w.GID != g.GID, fmt.Sprintf("belongs to %d:%d, not %d:%d", g.UID, g.GID, w.UID, w.GID)},
			{!maps.EqualFunc(w.Xattrs, g.Xattrs, bytes.Equal), "has other extended attributes"},
			{w.Link != g.Link, "is not the same file as before"},
		} {
			if d.differs {
				return w.Path + " " + d.what
			}
		}
		if w.MTime != g.MTime && later == "" {
			later = w.Path + " has another time"
		}
	}
	for _, p := range slices.Sorted(maps.Keys(have)) {
		return p + " was not there"
	}
	return later
}

// drop takes away what is damaged, what was not written out before the machine went
// down, and what killed builds left.
func (v *verifier) drop(ctx context.Context, untrusted []string) error {
	s := v.s
	release, err := s.alone(ctx)
	if err != nil {
		return err
	}
	defer func() { release() }()
	r := removal{objects: untrusted}
	for _, p := range v.res.Problems {
		r.objects = append(r.objects, p.Lost...)
		if p.Kind == "source" && CheckSource(p.Path, p.Name) != nil { // it may have been fetched again
			r.sources = append(r.sources, p.Name)
		}
	}
	// What builds have made since the first look is not lost, unless it stands on
	// something damaged.
	c, err := s.scan()
	if err != nil {
		return err
	}
	for _, p := range v.res.Problems {
		if p.Kind == "layer" {
			r.objects = append(r.objects, c.names[p.Name]...)
		}
	}
	slices.Sort(r.objects)
	r.objects = slices.Compact(r.objects)
	for l, keys := range c.names {
		c.names[l] = slices.DeleteFunc(keys, func(k string) bool {
			_, found := slices.BinarySearch(r.objects, k)
			return found
		})
	}
	leased, err := s.leases()
	if err != nil {
		return err
	}
	layers, files, err := s.orphans(c, leased)
	if err != nil {
		return err
	}
	r.layers = layers
	free, err := s.remove(r, leased)
	if err != nil {
		return err
	}
	for _, f := range files {
		os.Remove(f)
	}
	release()
	release = func() {}
	v.res.Leftover = v.leftover(layers, files) + s.clean()
	return free()
}

// leftover counts what of the orphans was there without any damage.
func (v *verifier) leftover(layers, files []string) int {
	n := len(files)
	for _, l := range layers {
		if len(v.c.names[l]) == 0 {
			n++
		}
	}
	return n
}
