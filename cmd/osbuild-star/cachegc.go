// cache gc and cache rm: making the store smaller.
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/sources/apt"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/osbuild-star/osbuild-star/store"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

var cacheGCCommand = &command{
	name: "cache gc", short: "remove what nobody needs, and what was used least recently",
	long: `Removes what no build needs any more and what killed builds have left. With
--older-than also what was not used for that long, and with --max-size what was used
least recently, until the rest fits. What the last build of each target needs stays,
unless --all is given, and what a build uses just now stays in any case.`,
	example: `osbuild-star cache gc
osbuild-star cache gc --max-size 20G --dry-run
osbuild-star cache gc --older-than 30d --all`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		fs.Var(&a.maxSize, "max-size", "`size` that layers and sources may have then: 500M, 20G")
		fs.Var(&a.cache.olderThan, "older-than", "remove what was not used for this `time`: 12h, 30d, 2w")
		fs.BoolVar(&a.cache.all, "all", false, "also what the last builds of targets need")
		fs.BoolVarP(&a.cache.dryRun, "dry-run", "n", false, "only tell what would be removed")
	},
	run: func(a *app, _ []string) error {
		s, err := a.openStore()
		if err != nil {
			return err
		}
		if wd, err := os.Getwd(); err == nil && !a.cache.dryRun {
			if _, err := rulefile.FindWorkspace(wd); err == nil {
				if ses, err := a.open(); err == nil {
					if err := ses.lapse(s); err != nil {
						return err
					}
				}
			}
		}
		return a.collect(s, store.GCOptions{MaxSize: a.maxSize.limit(), OlderThan: time.Duration(a.cache.olderThan), All: a.cache.all})
	},
}

// collect makes room, and tells of it.
func (a *app) collect(s *store.Store, opts store.GCOptions) error {
	opts.DryRun = a.cache.dryRun
	freed, err := s.GC(a.ctx, opts)
	if err != nil {
		return err
	}
	if !opts.DryRun { // what was not fetched to its end, and is not taken up any more
		stale := 24 * time.Hour
		if opts.All {
			stale = 0
		}
		n, err := sources.RemoveStaleParts(s.SourcesDir(), cmp.Or(opts.OlderThan, stale))
		freed.Bytes += n
		if err != nil {
			return err
		}
		indexes := time.Now().Add(-opts.OlderThan)
		if opts.OlderThan > 0 || opts.All && opts.MaxSize == 0 {
			if _, err := apt.Clean(filepath.Join(s.Dir, "apt"), indexes); err != nil {
				return err
			}
		}
	}
	if a.json {
		return a.screen.outJSON(freed)
	}
	verb := map[bool]string{true: "would free", false: "freed"}[opts.DryRun]
	a.screen.out(fmt.Sprintf("%s %s: %s, %s, %s; %s left\n", verb, monitor.Bytes(freed.Bytes),
		plural(freed.Objects, "object"), plural(freed.Layers, "layer"), plural(freed.Sources, "source"), monitor.Bytes(freed.Left)))
	if freed.Leftover > 0 {
		a.screen.note("%s of killed or older builds removed", plural(freed.Leftover, "leftover"))
	}
	if opts.MaxSize >= 0 && freed.Left > opts.MaxSize {
		a.screen.warn("that is more than %s: the last builds of targets need %s, and builds that run %s",
			monitor.Bytes(opts.MaxSize), monitor.Bytes(freed.Pinned), monitor.Bytes(freed.Used))
		if freed.Pinned > 0 {
			a.screen.hint("cache du shows what each target needs; cache rm LABEL lets go of one, and --all of every one")
		}
	}
	return nil
}

var cacheRmCommand = &command{
	name: "cache rm", args: "LABEL|ID...", short: "remove what a target needs, or objects and sources by their names",
	long: `Removes what the last build of a target of this workspace needs and no other
target does; or objects by the beginning of their key or of the ID of their stage,
and sources by that of their checksum; or, with --all, everything. What a build
uses just now stays.`,
	example: `osbuild-star cache rm //images:debian12
osbuild-star cache rm 3f29ab17
osbuild-star cache rm --all --yes`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		fs.BoolVar(&a.cache.all, "all", false, "remove everything")
		fs.BoolVarP(&a.cache.yes, "yes", "y", false, "do not ask")
		fs.BoolVarP(&a.cache.dryRun, "dry-run", "n", false, "only tell what would be removed")
	},
	run: runCacheRm,
}

func runCacheRm(a *app, args []string) error {
	if a.cache.all == (len(args) > 0) {
		return &usageError{msg: "cache rm needs labels, keys or checksums, or else --all", verb: "cache rm", hint: "osbuild-star cache ls shows what there is"}
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	opts := store.GCOptions{MaxSize: -1}
	if a.cache.all {
		if err := a.confirm("remove all of " + s.Dir + "?"); err != nil {
			return err
		}
		pins, err := s.Pins()
		if err != nil {
			return err
		}
		opts.All, opts.MaxSize = true, 0
		if err := a.collect(s, opts); err != nil || a.cache.dryRun {
			return err
		}
		for _, p := range pins {
			if err := s.Unpin(p.Workspace, p.Label); err != nil {
				return err
			}
		}
		return nil
	}
	r := &removing{names: map[string]bool{}}
	for _, arg := range args {
		if err := r.add(a, s, arg); err != nil {
			return err
		}
	}
	if !a.cache.dryRun {
		for _, p := range r.pins {
			if err := s.Unpin(p.Workspace, p.Label); err != nil {
				return err
			}
		}
	}
	opts.Select = func(i store.Item) bool { return r.names[i.Key] || r.names[i.Checksum] }
	return a.collect(s, opts)
}

// removing is what cache rm is to remove.
type removing struct {
	names map[string]bool // keys and checksums
	pins  []store.Pin
}

// add finds what an argument names.
func (r *removing) add(a *app, s *store.Store, arg string) error {
	if strings.ContainsAny(arg, "/@") || strings.HasPrefix(arg, ":") {
		return r.addTarget(s, arg)
	}
	none := &usageError{msg: "nothing in the store has the name " + arg, verb: "cache rm", hint: "osbuild-star cache ls shows what there is"}
	if len(arg) < 4 {
		none.msg = fmt.Sprintf("%q is too short to name something", arg)
		return none
	}
	objects, err := s.Objects()
	if err != nil {
		return err
	}
	found := false
	for _, o := range objects {
		if strings.HasPrefix(o.Key, arg) || strings.HasPrefix(o.ID, arg) {
			r.names[o.Key], found = true, true
		}
	}
	list, err := s.Sources()
	if err != nil {
		return err
	}
	for _, src := range list {
		_, digits, _ := strings.Cut(src.Checksum, ":")
		if strings.HasPrefix(src.Checksum, arg) || strings.HasPrefix(digits, arg) {
			r.names[src.Checksum], found = true, true
		}
	}
	if !found {
		return none
	}
	return nil
}

// addTarget finds what a target of this workspace needs and no other target does.
func (r *removing) addTarget(s *store.Store, arg string) error {
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	ws, err := rulefile.FindWorkspace(wd)
	if err != nil {
		return err
	}
	pkg, err := ws.PackageOf(wd)
	if err != nil {
		return err
	}
	label, err := rulefile.ParseLabel(arg, pkg)
	if err != nil {
		return err
	}
	pins, err := s.Pins()
	if err != nil {
		return err
	}
	mine := func(p store.Pin) bool {
		base, _, _ := strings.Cut(p.Label, "@")
		return p.Workspace == ws.Root && (p.Label == label.String() || label.Variant == "" && base == label.String())
	}
	others, found := map[string]bool{}, false
	for _, p := range pins {
		if !mine(p) {
			for _, n := range append(p.Keys, p.Sources...) {
				others[n] = true
			}
		}
	}
	for _, p := range pins {
		if !mine(p) {
			continue
		}
		found = true
		r.pins = append(r.pins, p)
		for _, n := range append(p.Keys, p.Sources...) {
			if !others[n] {
				r.names[n] = true
			}
		}
	}
	if !found {
		return &usageError{
			msg:  fmt.Sprintf("no build of %s of %s is known to the store", label, filepath.Base(ws.Root)),
			verb: "cache rm", hint: "osbuild-star cache du lists the targets that it knows",
		}
	}
	return nil
}

// confirm asks the person, unless --yes is given.
func (a *app) confirm(question string) error {
	if a.cache.yes || a.cache.dryRun {
		return nil
	}
	refused := &usageError{msg: "not removed without your word", verb: "cache rm", hint: "--yes says it beforehand"}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return refused
	}
	a.screen.ask(question + " [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case text := <-answer:
		if text == "y" || text == "yes" {
			return nil
		}
		return refused
	case <-a.ctx.Done():
		return errInterrupted
	}
}
