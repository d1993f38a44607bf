// cache: what the store has, how much room it takes, whether it is whole, and making
// it smaller.
package main

import (
	"errors"
	"os"

	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/store"
	"github.com/spf13/pflag"
)

var cacheCommand = &command{
	name: "cache", args: "COMMAND", short: "look after the store",
	long: `Looks after the store: the trees that builds made, layer by layer, and the
sources that they fetched. All of it can be made again, so nothing is lost with it
but time. Builds can go on meanwhile.`,
	example: `osbuild-star cache du
osbuild-star cache gc --max-size 20G
osbuild-star cache verify`,
	run: func(*app, []string) error {
		return &usageError{msg: "cache needs a command", verb: "cache", hint: "see: osbuild-star cache --help"}
	},
	sub: []*command{cacheLsCommand, cacheDuCommand, cacheGCCommand, cacheRmCommand, cacheVerifyCommand},
}

// cacheFlags are the flags of the verbs below cache.
type cacheFlags struct {
	keep      bool
	all       bool
	yes       bool
	dryRun    bool
	sort      string
	olderThan age
}

var cacheVerifyCommand = &command{
	name: "cache verify", short: "read all of the store, and drop what is damaged",
	long: `Reads every source and every layer and holds them against their checksums. What
is damaged is dropped with all that stands on it, so that the next build makes or
fetches it again. Exit status 1: damage was found.`,
	example: `osbuild-star cache verify
osbuild-star cache verify --keep --json`,
	json: true,
	flags: func(a *app, fs *pflag.FlagSet) {
		fs.BoolVar(&a.cache.keep, "keep", false, "only report what is damaged, and leave it where it is")
		fs.IntVarP(&a.jobs, "jobs", "j", 0, "read `N` files at the same time (default: one for each CPU)")
	},
	run: runCacheVerify,
}

// openStore opens the store for a verb that works on no workspace; it has to be there.
func (a *app) openStore() (*store.Store, error) {
	dir, err := a.storeDir()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, &engine.HostError{Err: errors.New("there is no store at " + dir), Hint: "a build makes one; or name another: --store DIR"}
	}
	s, err := store.Open(dir)
	if err != nil {
		return nil, &engine.HostError{Err: err, Hint: "use a store that you may write to: --store DIR"}
	}
	return s, nil
}

func runCacheVerify(a *app, _ []string) error {
	s, err := a.openStore()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return &engine.HostError{Err: errors.New("only root can read all of a layer"), Hint: "run it as root: sudo osbuild-star cache verify"}
	}
	stream := monitor.New(a.screen.progress())
	span := stream.Start(nil, monitor.Event{Category: monitor.CatPhase, Name: "verify " + s.Dir})
	v, err := s.Verify(a.ctx, store.VerifyOptions{
		Keep: a.cache.keep, Jobs: a.jobs,
		Progress: func(done, total int64) { span.Progress(done, total, "bytes") },
	})
	span.End(err)
	a.screen.endProgress()
	if err != nil {
		return err
	}
	if a.json {
		if err := a.screen.outJSON(v); err != nil {
			return err
		}
	} else {
		for _, p := range v.Problems {
			a.screen.out(a.screen.paint("1;31", "damaged") + " " + p.Kind + " " + p.Name + ": " + p.What + "\n")
			if len(p.Lost) > 0 {
				a.screen.out("        " + plural(len(p.Lost), "object") + " " + map[bool]string{true: "on it stand", false: "dropped"}[a.cache.keep] + ": " + shortKeys(p.Lost) + "\n")
			}
		}
		a.screen.note("%s, %s, %s: %s read, %d damaged", plural(v.Sources, "source"), plural(v.Layers, "layer"), plural(v.Objects, "object"),
			monitor.Bytes(v.Bytes), len(v.Problems))
		if v.New > 0 {
			a.screen.note("%s had no checksums yet: they were made now", plural(v.New, "layer"))
		}
		if v.Leftover > 0 {
			a.screen.note("%s of killed or older builds removed", plural(v.Leftover, "leftover"))
		}
	}
	if len(v.Problems) > 0 {
		return &reported{exitFailed}
	}
	return nil
}

// shortKeys writes the beginnings of keys, not too many.
func shortKeys(keys []string) string {
	text := ""
	for i, k := range keys {
		if i == 4 {
			return text + ", …"
		}
		if i > 0 {
			text += ", "
		}
		text += k[:min(12, len(k))]
	}
	return text
}
