// Source files that stages read: whole when they are read, and not taken away before.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// sourceChecks remembers which source files were read and found whole, as they were
// then.
type sourceChecks struct {
	mu    sync.Mutex
	whole map[string]unix.Stat_t
}

// changed tells whether a file is perhaps another one than it was.
func changed(a, b unix.Stat_t) bool {
	return a.Dev != b.Dev || a.Ino != b.Ino || a.Size != b.Size || a.Mtim != b.Mtim || a.Ctim != b.Ctim
}

// readSources makes sure that the files of these checksums are whole, and calls use
// with the lock held that keeps others of this engine from touching them. One that is
// damaged is removed and fetched again.
func (b *build) readSources(ctx context.Context, span *monitor.Span, checksums []string, use func() error) error {
	c := &b.e.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	damaged, err := b.damagedSources(ctx, checksums)
	if err != nil {
		return err
	}
	dir := b.e.cfg.Store.SourcesDir()
	for _, sum := range damaged {
		span.Emit(monitor.Event{Kind: monitor.Warning, Text: fmt.Sprintf("source %s is damaged: it is fetched again", sum)})
		if err := os.Remove(sources.Path(dir, sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(damaged) > 0 {
		if err := b.fetchAgain(ctx, span, damaged); err != nil {
			return err
		}
		if damaged, err = b.damagedSources(ctx, damaged); err != nil {
			return err
		}
		if len(damaged) > 0 {
			return fmt.Errorf("source %s was damaged, and could not be fetched again", damaged[0])
		}
	}
	if err := use(); err != nil {
		return err
	}
	for _, sum := range checksums { // a link changes their times
		var st unix.Stat_t
		if unix.Lstat(sources.Path(dir, sum), &st) == nil {
			c.whole[sum] = st
		}
	}
	return nil
}

// damagedSources reads files, as far as that was not done, and returns the checksums of
// those that have not got it. One that is not there is not damaged: whoever reads it
// tells.
func (b *build) damagedSources(ctx context.Context, checksums []string) ([]string, error) {
	c := &b.e.checks
	if c.whole == nil {
		c.whole = map[string]unix.Stat_t{}
	}
	dir := b.e.cfg.Store.SourcesDir()
	var todo []string
	for _, sum := range checksums {
		var st unix.Stat_t
		if unix.Lstat(sources.Path(dir, sum), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || sources.CheckChecksum(sum) != nil {
			continue
		}
		if was, ok := c.whole[sum]; !ok || changed(was, st) {
			todo = append(todo, sum)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var damaged []string
	var failed error
	next := make(chan string)
	for range min(runtime.NumCPU(), len(todo)) {
		wg.Go(func() {
			for sum := range next {
				err := store.CheckSource(sources.Path(dir, sum), sum)
				mu.Lock()
				if errors.Is(err, store.ErrDamaged) || errors.Is(err, unix.EIO) {
					damaged = append(damaged, sum)
				} else if err != nil {
					failed = fmt.Errorf("reading a source: %w", err)
				}
				mu.Unlock()
			}
		})
	}
	for _, sum := range todo {
		if ctx.Err() != nil {
			break
		}
		next <- sum
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	slices.Sort(damaged)
	return damaged, failed
}

// fetchAgain fetches sources whose files were damaged.
func (b *build) fetchAgain(ctx context.Context, span *monitor.Span, checksums []string) error {
	if b.e.cfg.Fetch == nil {
		return nil
	}
	var mu sync.Mutex
	var first error
	err := b.e.cfg.Fetch(ctx, b.m, checksums, span, func(_ string, err error) {
		mu.Lock()
		defer mu.Unlock()
		first = cmp.Or(first, err)
	})
	return cmp.Or(first, err)
}

// fetch brings the sources that a build needs into the store, where nobody takes them
// away while it runs, and tells of each. Those that a read-only store has are taken from
// there.
func (b *build) fetch(ctx context.Context, checksums []string, done func(checksum string, err error)) error {
	b.e.cfg.Store.UseSources(checksums)
	if err := b.e.cfg.Store.Borrow(ctx, checksums); err != nil {
		return err
	}
	if b.e.cfg.Fetch == nil {
		return nil
	}
	return b.e.cfg.Fetch(ctx, b.m, checksums, b.span, done)
}

// checkRunner makes sure that the program of a user's own runner is whole.
func (b *build) checkRunner(ctx context.Context, pl *plan) error {
	if pl.custom == "" {
		return nil
	}
	return b.readSources(ctx, b.span, []string{pl.custom}, func() error { return nil })
}
