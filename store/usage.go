// How much room everything takes.
package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// layerSizes are the bytes that layers take on disk. A layer of another store takes
// none here.
func (s *Store) layerSizes(c *contents) (map[string]int64, error) {
	known := map[string]int64{}
	for _, o := range c.objects {
		if n := len(o.Layers); n > 0 && !o.Adopted {
			known[o.Layers[n-1]] = o.Size
		}
	}
	for _, l := range c.layers {
		if s.homeOf(l) != s.Dir {
			known[l] = 0
			continue
		}
		if known[l] > 0 {
			continue
		}
		n, err := diskUsage(s.layerDir(l))
		if err != nil {
			return nil, err
		}
		known[l] = n
	}
	return known, nil
}

// diskUsage are the bytes that a tree takes on disk. What goes away meanwhile takes
// none, and neither does what a link points to.
func diskUsage(dir string) (size int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		u, ok := st.Sys().(*syscall.Stat_t)
		if !ok || u.Nlink > 1 && !d.IsDir() && seen[u.Ino] {
			return nil
		}
		seen[u.Ino] = u.Nlink > 1
		size += u.Blocks * 512
		return nil
	})
	return size, err
}

// below is diskUsage of what is in a directory.
func below(dir string) (size int64, err error) {
	ents, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return 0, err
	}
	for _, e := range ents {
		n, err := diskUsage(filepath.Join(dir, e.Name()))
		if err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}

// DiskUse is how much room a store takes, in bytes.
type DiskUse struct {
	Total     int64       `json:"total"`
	Sources   int64       `json:"sources"`
	Parts     int64       `json:"parts"`    // of sources that are being fetched, or were given up
	Shared    int64       `json:"shared"`   // layers that several chains have
	Unshared  int64       `json:"unshared"` // layers that one chain has
	Orphans   int64       `json:"orphans"`  // layers that no object needs
	Tmp       int64       `json:"tmp"`      // of builds under way, or killed
	Apt       int64       `json:"apt"`      // indexes of package repositories
	Notes     int64       `json:"notes"`    // objects, sums, pins, and all else
	Unpinned  int64       `json:"unpinned"` // layers and sources that no target needs
	Targets   []TargetUse `json:"targets"`
	Objects   int         `json:"objects"`
	Layers    int         `json:"layers"`
	SourcesNo int         `json:"sources_count"`
}

// TargetUse is what a pinned target needs.
type TargetUse struct {
	Workspace string `json:"workspace"`
	Label     string `json:"label"`
	Layers    int64  `json:"layers"`
	Sources   int64  `json:"sources"`
	Own       int64  `json:"own"` // of both, what no other target needs
}

// DiskUse measures the store.
func (s *Store) DiskUse() (*DiskUse, error) {
	c, err := s.scan()
	if err != nil {
		return nil, err
	}
	pins, err := s.Pins()
	if err != nil {
		return nil, err
	}
	u := &DiskUse{Objects: len(c.objects), Layers: len(c.layers), SourcesNo: len(c.sources), Targets: []TargetUse{}}
	sizes := map[string]int64{} // by layer and checksum
	leaves := s.chains(c)
	for _, l := range c.layers {
		if s.homeOf(l) != s.Dir {
			continue
		}
		n, err := diskUsage(s.layerDir(l))
		if err != nil {
			return nil, err
		}
		sizes[l] = n
		switch {
		case len(c.names[l]) == 0:
			u.Orphans += n
		case leaves[l] > 1:
			u.Shared += n
		default:
			u.Unshared += n
		}
	}
	all, err := below(s.SourcesDir())
	if err != nil {
		return nil, err
	}
	for _, src := range c.sources {
		st, err := os.Lstat(filepath.Join(s.SourcesDir(), src.Checksum))
		if err != nil {
			continue
		}
		if b, ok := st.Sys().(*syscall.Stat_t); ok {
			sizes[src.Checksum] = b.Blocks * 512
			u.Sources += b.Blocks * 512
		}
	}
	u.Parts = max(0, all-u.Sources)
	dirs, err := namesIn(s.Dir)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		to := &u.Notes
		switch dir {
		case "layers", "sources":
			continue
		case "tmp":
			to = &u.Tmp
		case "apt":
			to = &u.Apt
		}
		n, err := below(s.path(dir))
		if err != nil {
			return nil, err
		}
		*to += n
	}
	u.Total = u.Sources + u.Parts + u.Shared + u.Unshared + u.Orphans + u.Tmp + u.Apt + u.Notes
	s.targets(c, pins, sizes, u)
	return u, nil
}

// chains counts by layer the chains that have it and are no beginning of another.
func (s *Store) chains(c *contents) map[string]int {
	inner := map[string]bool{} // chains that another goes on from
	for _, o := range c.objects {
		at := ""
		for _, l := range o.Layers[:max(0, len(o.Layers)-1)] {
			at += "/" + l
			inner[at] = true
		}
	}
	out, seen := map[string]int{}, map[string]bool{}
	for _, o := range c.objects {
		at := ""
		for _, l := range o.Layers {
			at += "/" + l
		}
		if inner[at] || seen[at] {
			continue
		}
		seen[at] = true
		for _, l := range o.Layers {
			out[l]++
		}
	}
	return out
}

// targets adds up what the pinned targets need.
func (s *Store) targets(c *contents, pins []Pin, sizes map[string]int64, u *DiskUse) {
	byKey := map[string][]string{}
	for _, o := range c.objects {
		byKey[o.Key] = o.Layers
	}
	needs := make([]map[string]bool, len(pins))
	count := map[string]int{}
	for i, p := range pins {
		needs[i] = map[string]bool{}
		for _, key := range p.Keys {
			for _, l := range byKey[key] {
				needs[i][l] = true
			}
		}
		for _, sum := range p.Sources {
			needs[i][sum] = true
		}
		for name := range needs[i] {
			count[name]++
		}
	}
	isSource := map[string]bool{}
	for _, src := range c.sources {
		isSource[src.Checksum] = true
	}
	for i, p := range pins {
		t := TargetUse{Workspace: p.Workspace, Label: p.Label}
		for name := range needs[i] {
			if isSource[name] {
				t.Sources += sizes[name]
			} else {
				t.Layers += sizes[name]
			}
			if count[name] == 1 {
				t.Own += sizes[name]
			}
		}
		u.Targets = append(u.Targets, t)
	}
	for name, n := range sizes {
		if count[name] == 0 {
			u.Unpinned += n
		}
	}
}
