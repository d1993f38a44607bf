// cache ls and cache du: what the store has, and how much room it takes.
package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
	"github.com/spf13/pflag"
)

var cacheLsCommand = &command{
	name: "cache ls", args: "[objects|sources]", short: "list objects and sources",
	long: `Lists what the store has: objects, each the tree behind a stage, and sources.
The size of an object is that of what its stage changed. The last column says
which targets need it for their next build.`,
	example: `osbuild-star cache ls
osbuild-star cache ls --sort size sources
osbuild-star cache ls --json | jq -r '.objects[].key'`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		fs.StringVar(&a.cache.sort, "sort", "age", "`order`: age (used last first) or size (largest first)")
	},
	run: runCacheLs,
}

// listing is what cache ls --json prints.
type listing struct {
	Objects []listedObject `json:"objects"`
	Sources []listedSource `json:"sources"`
}

type listedObject struct {
	Key     string    `json:"key"`
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used"`
	Layers  []string  `json:"layers"`
	Labels  []string  `json:"labels"`
}

type listedSource struct {
	store.SourceInfo
	Labels []string `json:"labels"`
}

func runCacheLs(a *app, args []string) error {
	if len(args) > 1 || len(args) == 1 && args[0] != "objects" && args[0] != "sources" {
		return usagef("cache ls", "cache ls lists objects or sources, not %q", strings.Join(args, " "))
	}
	if a.cache.sort != "age" && a.cache.sort != "size" {
		return usagef("cache ls", "--sort takes age or size, not %q", a.cache.sort)
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	pins, err := s.Pins()
	if err != nil {
		return err
	}
	labels := map[string][]string{} // by key and checksum
	for _, p := range pins {
		for _, n := range append(p.Keys, p.Sources...) {
			labels[n] = append(labels[n], labelOf(pins, p))
		}
	}
	labelsOf := func(n string) []string { return append([]string{}, labels[n]...) }
	out := listing{Objects: []listedObject{}, Sources: []listedSource{}}
	if len(args) == 0 || args[0] == "objects" {
		objects, err := s.Objects()
		if err != nil {
			return err
		}
		for _, o := range objects {
			l := listedObject{o.Key, o.ID, o.Type, o.Size, o.Created, o.Used.UTC(), o.Layers, labelsOf(o.Key)}
			if o.Adopted {
				l.Size = 0
			}
			out.Objects = append(out.Objects, l)
		}
	}
	if len(args) == 0 || args[0] == "sources" {
		list, err := s.Sources()
		if err != nil {
			return err
		}
		for _, src := range list {
			src.Used = src.Used.UTC()
			out.Sources = append(out.Sources, listedSource{src, labelsOf(src.Checksum)})
		}
	}
	order := func(sizeA, sizeB int64, usedA, usedB time.Time, nameA, nameB string) int {
		byAge, bySize := usedB.Compare(usedA), cmp.Compare(sizeB, sizeA)
		if a.cache.sort == "size" {
			byAge, bySize = bySize, byAge
		}
		return cmp.Or(byAge, bySize, cmp.Compare(nameA, nameB))
	}
	slices.SortFunc(out.Objects, func(x, y listedObject) int { return order(x.Size, y.Size, x.Used, y.Used, x.Key, y.Key) })
	slices.SortFunc(out.Sources, func(x, y listedSource) int {
		return order(x.Size, y.Size, x.Used, y.Used, x.Checksum, y.Checksum)
	})
	if a.json {
		return a.screen.outJSON(out)
	}
	var b strings.Builder
	line := func(name, what string, size int64, used time.Time, labels []string) {
		fmt.Fprintf(&b, "%-12s  %-28s  %10s  %4s  %s\n", name, what, monitor.Bytes(size), ago(time.Since(used)), shortList(labels))
	}
	for _, o := range out.Objects {
		line(o.Key[:min(12, len(o.Key))], strings.TrimPrefix(o.Type, "org.osbuild."), o.Size, o.Used, o.Labels)
	}
	for _, src := range out.Sources {
		algo, digits, _ := strings.Cut(src.Checksum, ":")
		line(digits[:min(12, len(digits))], "source "+algo, src.Size, src.Used, src.Labels)
	}
	a.screen.out(b.String())
	return nil
}

// labelOf is how a person calls the target of a pin: by its label, and with its
// workspace where there are several.
func labelOf(pins []store.Pin, p store.Pin) string {
	for _, q := range pins {
		if q.Workspace != p.Workspace {
			return p.Label + " of " + p.Workspace
		}
	}
	return p.Label
}

func shortList(names []string) string {
	if len(names) > 2 {
		return strings.Join(names[:2], ", ") + fmt.Sprintf(" and %d more", len(names)-2)
	}
	return strings.Join(names, ", ")
}

var cacheDuCommand = &command{
	name: "cache du", short: "show how much room the store takes, and for what",
	long: `Adds up what the store takes on disk: by kind, and by the targets whose last
builds need it. What several targets need counts for each of them; "own" is what
would go with one alone.`,
	example: `osbuild-star cache du
osbuild-star cache du --json | jq .total`,
	json: true,
	run: func(a *app, _ []string) error {
		s, err := a.openStore()
		if err != nil {
			return err
		}
		u, err := s.DiskUse()
		if err != nil {
			return err
		}
		if a.json {
			return a.screen.outJSON(u)
		}
		var b strings.Builder
		line := func(n int64, what string) { fmt.Fprintf(&b, "%10s  %s\n", monitor.Bytes(n), what) }
		for _, o := range []struct {
			n    int64
			what string
		}{{u.Shared, "layers that several trees share"}, {u.Unshared, "layers of one tree"}, {u.Sources, plural(u.SourcesNo, "source")}, {u.Parts, "sources that are not complete"}, {u.Orphans, "layers that nobody needs (cache gc removes them)"}, {u.Tmp, "builds that run, or were killed"}, {u.Apt, "indexes of package repositories"}, {u.Notes, "notes: objects, checksums, pins"}} {
			if o.n > 0 {
				line(o.n, o.what)
			}
		}
		line(u.Total, "in "+s.Dir)
		if len(u.Targets) > 0 {
			b.WriteString("\n    layers     sources         own  target\n")
			for _, t := range u.Targets {
				fmt.Fprintf(&b, "%10s  %10s  %10s  %s of %s\n", monitor.Bytes(t.Layers), monitor.Bytes(t.Sources), monitor.Bytes(t.Own), t.Label, filepath.Base(t.Workspace))
			}
		}
		if u.Unpinned > 0 {
			fmt.Fprintf(&b, "%10s  layers and sources that no last build of a target needs\n", monitor.Bytes(u.Unpinned))
		}
		a.screen.out(b.String())
		return nil
	},
}
