// Fetching many items at once: order, retries, mirrors, and the error that is told
// in the end.
package sources

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// Fetcher makes items present in a directory. Its fields are not changed while it
// works; the zero value of each but Dir is a good one. Several may work on the same
// directory at once, in this process and in others: each file is fetched by one.
type Fetcher struct {
	Dir     string        // STORE/sources/org.osbuild.files; made when it is missing
	Jobs    int           // files at once, 0: 8
	PerHost int           // files at once from one server, 0: 6
	Retries int           // attempts after the first that brought nothing, 0: 4, negative: none
	Backoff time.Duration // before the first retry, doubled for each; 0: half a second
	Stall   time.Duration // how long a server may send nothing, 0: 30 seconds
	Client  *http.Client  // nil: one that honours the proxies of the environment and of apt
	Span    *monitor.Span // gets the progress in bytes, and a span for each file

	KeepGoing bool         // the others are not given up when one fails
	Done      func(Result) // is told of each item at once; from several goroutines
}

// Result says what became of one item.
type Result struct {
	Checksum string
	Path     string // of the file, "" if it failed
	Cached   bool   // it was there
	From     string // the URL or path it came from, "" if it was cached or inline
	Err      error
}

// maxRounds bounds how often all mirrors of one file are gone through, even if each
// round brings a little.
const maxRounds = 50

// Fetch makes all items present and returns one result for each checksum, in the
// order in which they are first named, which is also that in which they are fetched;
// what comes from this machine waits for no server. The error is that of the first
// item that failed; unless KeepGoing is set the others are given up then, and what
// they have so far is kept for the next time. A file is never found under its checksum
// unless its content was verified.
func (f *Fetcher) Fetch(ctx context.Context, items []Item) ([]Result, error) {
	items = merge(items)
	results := make([]Result, len(items))
	var todo []int
	for i := range items {
		it := &items[i]
		if _, err := newHash(it.Checksum); err != nil {
			return nil, err
		}
		results[i].Checksum = it.Checksum
		if Have(f.Dir, it.Checksum, it.Size) {
			results[i].Path, results[i].Cached = Path(f.Dir, it.Checksum), true
			f.tell(results[i])
		} else {
			todo = append(todo, i)
		}
	}
	if len(todo) == 0 {
		return results, nil
	}
	if err := os.MkdirAll(f.Dir, 0o755); err != nil {
		return nil, localFailure(f.Dir, err)
	}
	r := newRun(f)
	defer r.close()
	var need int64
	for _, i := range todo {
		need += items[i].Size
		r.progress.grow(items[i].Size)
		if fi, err := os.Stat(path.Join(f.Dir, partPrefix+items[i].Checksum)); err == nil && items[i].Size > 0 {
			need -= min(fi.Size(), items[i].Size)
		}
	}
	if free := freeSpace(f.Dir); free >= 0 && need > free {
		return nil, spaceError(f.Dir, need)
	}

	parent := ctx
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var failed struct {
		sync.Once
		err error
	}
	fetch := func(i int) {
		if ctx.Err() != nil {
			results[i].Err = context.Cause(ctx)
			return
		}
		results[i] = r.item(ctx, &items[i])
		f.tell(results[i])
		if err := results[i].Err; err != nil {
			failed.Do(func() { failed.err = err })
			if !f.KeepGoing {
				cancel(errGivenUp)
			}
		}
	}
	var wg sync.WaitGroup
	jobs := orDefault(f.Jobs, 8)
	for _, local := range []bool{true, false} {
		queue := make(chan int, len(todo))
		for _, i := range todo {
			if items[i].local() == local {
				queue <- i
			}
		}
		close(queue)
		for range min(jobs, len(queue)) {
			wg.Go(func() {
				for i := range queue {
					fetch(i)
				}
			})
		}
	}
	wg.Wait()
	r.progress.flush()
	if parent.Err() != nil {
		return results, context.Cause(parent)
	}
	return results, failed.err
}

// tell passes on what became of an item.
func (f *Fetcher) tell(r Result) {
	if f.Done != nil {
		f.Done(r)
	}
}

// errGivenUp is the end of a file that another one's failure stopped.
var errGivenUp = errors.New("given up: another file failed")

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

// run is what one call of Fetch shares between its workers.
type run struct {
	f        *Fetcher
	clients  *clients
	progress *progress

	mu    sync.Mutex
	slots map[string]chan struct{} // by host: room for PerHost
	down  map[string]error         // hosts that no connection could be made to
}

func newRun(f *Fetcher) *run {
	return &run{
		f: f, clients: newClients(f), progress: &progress{span: f.Span},
		slots: map[string]chan struct{}{}, down: map[string]error{},
	}
}

func (r *run) close() { r.clients.close() }

// enter waits for room at a host and returns what leaves it again.
func (r *run) enter(ctx context.Context, host string) (func(), error) {
	r.mu.Lock()
	if err := r.down[host]; err != nil {
		r.mu.Unlock()
		return nil, permanent(err)
	}
	c := r.slots[host]
	if c == nil {
		c = make(chan struct{}, orDefault(r.f.PerHost, 6))
		r.slots[host] = c
	}
	r.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// giveUp remembers that a host cannot be reached, so that the next file does not
// wait for it again.
func (r *run) giveUp(err error) {
	var a *attemptError
	if errors.As(err, &a) && a.unreached != "" {
		r.mu.Lock()
		r.down[a.unreached] = a.err
		r.mu.Unlock()
	}
}

// item makes one file present.
func (r *run) item(ctx context.Context, it *Item) (res Result) {
	res.Checksum = it.Checksum
	span := r.f.Span.Start(monitor.Event{Category: monitor.CatSource, Name: it.name(), ID: it.Checksum, Text: it.place(), Total: it.Size, Unit: "bytes"})
	p, err := openPart(ctx, r.f.Dir, it, r.progress.add)
	if errors.Is(err, errPresent) {
		r.progress.add(it.Size)
		res.Path, res.Cached = Path(r.f.Dir, it.Checksum), true
		span.EndCached()
		return res
	}
	if err == nil {
		if it.Size == 0 && p.n > 0 {
			r.progress.grow(p.n)
		}
		res.From, err = r.fill(ctx, it, p, span)
		if err != nil {
			p.close()
		} else {
			span.Emit(monitor.Event{Kind: monitor.Progress, Done: p.n, Unit: "bytes"})
		}
	}
	if err != nil {
		res.Err = err
	} else {
		res.Path = Path(r.f.Dir, it.Checksum)
	}
	span.End(err)
	return res
}

// place says where the item is when it is not downloaded.
func (it *Item) place() string {
	switch {
	case it.Inline != nil:
		return "the manifest"
	case it.Path != "":
		return "the workspace"
	}
	return ""
}

// name is what a person is told about the item.
func (it *Item) name() string {
	switch {
	case it.Inline != nil:
		return "inline"
	case it.Path != "":
		return path.Base(it.Path)
	}
	for _, s := range it.URLs {
		if u, err := url.Parse(s); err == nil && path.Base(u.Path) != "." && path.Base(u.Path) != "/" {
			return path.Base(u.Path)
		}
	}
	return it.Checksum
}

// fill completes a part from wherever its content is, and commits it.
func (r *run) fill(ctx context.Context, it *Item, p *part, span *monitor.Span) (from string, err error) {
	switch {
	case it.Inline != nil:
		return "", r.inline(ctx, it, p)
	case it.Path != "":
		return it.Path, r.copy(ctx, it.Path, p)
	}
	return r.download(ctx, it, p, span)
}

// inline writes the content that the manifest has.
func (r *run) inline(ctx context.Context, it *Item, p *part) error {
	if err := p.reset(); err != nil {
		return err
	}
	if it.Packed {
		cmd := exec.CommandContext(ctx, "xz", "-dc")
		cmd.Stdin, cmd.Stdout = strings.NewReader(string(it.Inline)), p
		var diag strings.Builder
		cmd.Stderr = &diag
		if err := cmd.Run(); err != nil {
			var local *localError
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.As(err, &local):
				return err
			case errors.Is(err, exec.ErrNotFound):
				return &Error{Msg: "inline data are packed, and there is no xz to unpack them", Hint: "install the package xz-utils"}
			}
			return fmt.Errorf("unpacking the inline data of %s: %w: %s", it.Checksum, err, strings.TrimSpace(diag.String()))
		}
	} else if _, err := p.Write(it.Inline); err != nil {
		return err
	}
	if err := p.commit("the inline data"); err != nil {
		p.reset()
		return withHint(err, "the manifest was changed by hand: its checksum has to be that of the data")
	}
	return nil
}

// copy takes the content from a file of this machine.
func (r *run) copy(ctx context.Context, name string, p *part) error {
	if err := p.reset(); err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return withHint(fmt.Errorf("a source cannot be read: %w", err), "check the path in the rule file")
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return fmt.Errorf("a source cannot be read: %s is not a regular file", name)
	}
	if err := copyBody(ctx, p, f, 0, nil); err != nil {
		return err
	}
	if err := p.commit(name); err != nil {
		p.reset()
		return withHint(err, "the file was changed since its checksum was taken")
	}
	return nil
}

// withHint adds a hint to an error of the checksum; others pass.
func withHint(err error, hint string) error {
	var local *localError
	if errors.As(err, &local) {
		return err
	}
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	return &Error{Msg: "bad source", Hint: hint, Err: err}
}

// download goes through the mirrors of an item, again and again while there is hope.
func (r *run) download(ctx context.Context, it *Item, p *part, span *monitor.Span) (string, error) {
	type mirror struct {
		u    *url.URL
		err  error
		dead bool
	}
	var mirrors []*mirror
	for _, s := range it.URLs {
		u, err := parseURL(s)
		if err != nil {
			return "", err
		}
		mirrors = append(mirrors, &mirror{u: u})
	}
	if len(mirrors) == 0 {
		return "", &Error{Msg: fmt.Sprintf("nothing says where %s can be fetched", it.Checksum), Hint: "give it a URL in the rule file"}
	}
	retries := r.f.Retries
	if retries == 0 {
		retries = 4
	}
	pause := r.f.Backoff
	if pause <= 0 {
		pause = 500 * time.Millisecond
	}
	for round, empty := 0, 0; ; round++ {
		hope, before, wait := false, p.n, 0
		for _, m := range mirrors {
			if m.dead {
				continue
			}
			err := r.attempt(ctx, it, p, m.u)
			if err == nil {
				return m.u.String(), nil
			}
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			var a *attemptError
			if !errors.As(err, &a) {
				return "", err // of this machine
			}
			m.err, m.dead = a, !a.temporary
			hope = hope || a.temporary
			wait = max(wait, a.after)
		}
		if p.n <= before {
			empty++
		}
		if !hope || empty > retries || round >= maxRounds {
			break
		}
		delay := max(pause<<min(max(empty-1, 0), 6), time.Duration(min(wait, 60))*time.Second)
		delay += time.Duration(rand.Int64N(int64(delay)/4 + 1))
		for _, m := range mirrors {
			if !m.dead {
				span.Emit(monitor.Event{Kind: monitor.Note, Text: fmt.Sprintf("trying again: %v", m.err)})
			}
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(delay):
		}
	}
	var first *mirror
	var others []string
	for _, m := range mirrors {
		r.giveUp(m.err)
		if first == nil {
			first = m
		} else {
			others = append(others, m.err.Error())
		}
	}
	var a *attemptError
	errors.As(first.err, &a)
	err := a.err
	if len(others) > 0 {
		e := &Error{Msg: "no mirror has the file", Err: fmt.Errorf("%w; %s", err, strings.Join(others, "; "))}
		var own *Error
		if errors.As(err, &own) {
			e.Hint = own.Hint
		}
		return "", e
	}
	return "", err
}

// attempt tries one URL once; a second time from the start when what an earlier
// attempt left turns out to be something else.
func (r *run) attempt(ctx context.Context, it *Item, p *part, u *url.URL) error {
	if u.Scheme == "file" {
		err := r.copy(ctx, u.Path, p)
		var local *localError
		if err == nil || errors.As(err, &local) || ctx.Err() != nil {
			return err
		}
		return permanent(err)
	}
	leave, err := r.enter(ctx, u.Host)
	if err != nil {
		return err
	}
	defer leave()
	for {
		resumed := p.old || p.n > 0
		if it.Size == 0 || p.n < it.Size {
			err = r.get(ctx, it, p, u)
		}
		if err == nil {
			err = p.commit(redact(u))
		}
		if err == nil {
			return nil
		}
		var bad *ChecksumError
		if !errors.As(err, &bad) && !errors.Is(err, errRestart) {
			return err
		}
		if err2 := p.reset(); err2 != nil {
			return err2
		}
		if !resumed {
			hint := "somebody changed the file, or the checksum in the rule file is another's; the file was not used"
			if isPackage(u) {
				hint = "the mirror is being updated, or broken: try again later or name another one; the file was not used"
			}
			return permanent(&Error{Msg: "bad checksum", Hint: hint, Err: err})
		}
	}
}
