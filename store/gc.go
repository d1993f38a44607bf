// Making room: what was used least recently goes first, and what is pinned or in use
// stays.
package store

import (
	"cmp"
	"context"
	"os"
	"slices"
	"time"
)

// GCOptions say what is to go, beside what nobody needs.
type GCOptions struct {
	MaxSize   int64           // bytes that may remain; negative: any number
	OlderThan time.Duration   // what was not used for so long goes; 0: nothing for its age
	All       bool            // pins do not count
	Select    func(Item) bool // what goes in any case, unless it is in use; may be nil
	DryRun    bool
}

// Item is an object or a source, as [GCOptions] selects them.
type Item struct {
	Key      string // of an object
	ID       string // of its last stage
	Checksum string // of a source
}

// Freed is what a clean-up has done, or would do.
type Freed struct {
	Objects  int   `json:"objects"`
	Layers   int   `json:"layers"`
	Sources  int   `json:"sources"`
	Bytes    int64 `json:"bytes"`
	Left     int64 `json:"left"`     // bytes of layers and sources that remain
	Pinned   int64 `json:"pinned"`   // bytes of those that pins keep
	Used     int64 `json:"used"`     // bytes of those that builds use just now
	Leftover int   `json:"leftover"` // things that killed builds left
}

// GC removes what nobody needs, what is old, and then what was used least recently
// until the rest is small enough. What pins name stays, and what a running build uses.
//
// It is safe beside builds, and at whatever moment it is interrupted.
func (s *Store) GC(ctx context.Context, opts GCOptions) (*Freed, error) {
	release, err := s.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { release() }()
	g, err := s.newCollector(opts)
	if err != nil {
		return nil, err
	}
	g.choose()
	res, r := g.result()
	_, files, err := s.orphans(g.c, g.leased)
	if err != nil {
		return nil, err
	}
	if opts.DryRun {
		return res, nil
	}
	free, err := s.remove(r, g.leased)
	if free == nil {
		return nil, err
	}
	for _, f := range append(files, g.lapsed...) {
		os.Remove(f)
	}
	release()
	release = func() {}
	res.Leftover = s.clean()
	if ferr := free(); err == nil {
		err = ferr
	}
	return res, err
}

// unit is what is removed together: a layer with the objects that stand on it, or a
// source.
type unit struct {
	layer  string
	source string
	size   int64
	used   time.Time // the last time that anything of it was
	names  int       // objects that stand on the layer
}

// collector is one call of GC.
type collector struct {
	opts   GCOptions
	c      *contents
	lapsed []string // files of pins
	leased map[string]bool
	keep   map[string]bool // keys and checksums that pins name
	sizes  map[string]int64
	byKey  map[string]*ObjectInfo

	needs       map[string]int  // by layer: the objects that stand on it and stay
	gone        map[string]bool // keys
	goneLayers  map[string]bool
	goneSources map[string]bool
	left        int64 // bytes that remain
}

func (s *Store) newCollector(opts GCOptions) (g *collector, err error) {
	g = &collector{
		opts: opts, keep: map[string]bool{}, byKey: map[string]*ObjectInfo{}, needs: map[string]int{},
		gone: map[string]bool{}, goneLayers: map[string]bool{}, goneSources: map[string]bool{},
	}
	if g.c, err = s.scan(); err != nil {
		return nil, err
	}
	pins, lapsed, err := s.pins()
	if err != nil {
		return nil, err
	}
	g.lapsed = lapsed
	if !opts.All {
		for _, p := range pins {
			for _, k := range append(p.Keys, p.Sources...) {
				g.keep[k] = true
			}
		}
	}
	if g.leased, err = s.leases(); err != nil {
		return nil, err
	}
	if g.sizes, err = s.layerSizes(g.c); err != nil {
		return nil, err
	}
	for i := range g.c.objects {
		o := &g.c.objects[i]
		g.byKey[o.Key] = o
		for _, l := range o.Layers {
			g.needs[l]++
		}
	}
	for _, src := range g.c.sources {
		g.left += src.Size
	}
	for _, l := range g.c.layers {
		g.left += g.sizes[l]
		g.unneeded(l)
	}
	for key := range g.c.damaged {
		g.gone[key] = true
	}
	for _, o := range g.byKey {
		if s.stale(o) {
			g.drop(o)
		}
	}
	return g, nil
}

// drop decides that an object goes, and with it the layers that no other needs.
func (g *collector) drop(o *ObjectInfo) {
	if g.gone[o.Key] {
		return
	}
	g.gone[o.Key] = true
	for _, l := range o.Layers {
		g.needs[l]--
		g.unneeded(l)
	}
}

func (g *collector) unneeded(layer string) {
	if g.needs[layer] == 0 && !g.leased[leaseLayer+layer] && !g.goneLayers[layer] {
		g.goneLayers[layer] = true
		g.left -= g.sizes[layer]
	}
}

func (g *collector) dropSource(src string, size int64) {
	if !g.goneSources[src] {
		g.goneSources[src] = true
		g.left -= size
	}
}

// stays tells whether an object may not go.
func (g *collector) stays(o *ObjectInfo) bool { return g.keep[o.Key] || g.leased[leaseObject+o.Key] }

// choose decides what goes.
func (g *collector) choose() {
	limit := time.Now().Add(-g.opts.OlderThan)
	old := func(used time.Time) bool { return g.opts.OlderThan > 0 && used.Before(limit) }
	selected := func(i Item) bool { return g.opts.Select != nil && g.opts.Select(i) }
	for i := range g.c.objects {
		o := &g.c.objects[i]
		if !g.leased[leaseObject+o.Key] && (selected(Item{Key: o.Key, ID: o.ID}) || !g.keep[o.Key] && old(o.Used)) {
			g.drop(o)
		}
	}
	for _, src := range g.c.sources {
		if !g.leased[leaseSource+src.Checksum] && (selected(Item{Checksum: src.Checksum}) || !g.keep[src.Checksum] && old(src.Used)) {
			g.dropSource(src.Checksum, src.Size)
		}
	}
	if g.opts.MaxSize < 0 {
		return
	}
	for _, u := range g.units() {
		if g.left <= g.opts.MaxSize {
			return
		}
		if u.source != "" {
			g.dropSource(u.source, u.size)
		}
		for _, key := range g.c.names[u.layer] {
			g.drop(g.byKey[key])
		}
	}
}

// units are what can go, least recently used first. Of layers that were used at the
// same time the one that less stands on goes first: the last of a chain.
func (g *collector) units() []unit {
	var out []unit
	for _, l := range g.c.layers {
		if g.goneLayers[l] || g.leased[leaseLayer+l] {
			continue
		}
		u := unit{layer: l, size: g.sizes[l], names: len(g.c.names[l])}
		stays := false
		for _, key := range g.c.names[l] {
			o := g.byKey[key]
			stays = stays || g.stays(o)
			if o.Used.After(u.used) {
				u.used = o.Used
			}
		}
		if !stays {
			out = append(out, u)
		}
	}
	for _, src := range g.c.sources {
		if !g.goneSources[src.Checksum] && !g.keep[src.Checksum] && !g.leased[leaseSource+src.Checksum] {
			out = append(out, unit{source: src.Checksum, size: src.Size, used: src.Used})
		}
	}
	slices.SortFunc(out, func(a, b unit) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.names, b.names), cmp.Compare(a.layer, b.layer), cmp.Compare(a.source, b.source))
	})
	return out
}

// result counts what goes and what stays, and lists what is to be removed.
func (g *collector) result() (*Freed, removal) {
	res, r := &Freed{Left: g.left}, removal{}
	for key := range g.gone {
		r.objects = append(r.objects, key)
	}
	pinned, used := map[string]bool{}, map[string]bool{}
	for _, o := range g.c.objects {
		for _, l := range o.Layers {
			pinned[l] = pinned[l] || g.keep[o.Key] && !g.gone[o.Key]
		}
	}
	for _, l := range g.c.layers {
		used[l] = g.leased[leaseLayer+l]
		switch {
		case g.goneLayers[l]:
			r.layers = append(r.layers, l)
			res.Bytes += g.sizes[l]
		case pinned[l]:
			res.Pinned += g.sizes[l]
		case used[l]:
			res.Used += g.sizes[l]
		}
	}
	for _, src := range g.c.sources {
		switch {
		case g.goneSources[src.Checksum]:
			r.sources = append(r.sources, src.Checksum)
			res.Bytes += src.Size
		case g.keep[src.Checksum]:
			res.Pinned += src.Size
		case g.leased[leaseSource+src.Checksum]:
			res.Used += src.Size
		}
	}
	slices.Sort(r.objects)
	res.Objects, res.Layers, res.Sources = len(r.objects), len(r.layers), len(r.sources)
	return res, r
}
