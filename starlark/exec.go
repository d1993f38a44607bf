// Running files: each once, what it loads first, as many at once as allowed.

package starlark

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// dialect is what rule files are written in; MODULE.star is all declaration.
var (
	dialect       = &syntax.FileOptions{Set: true, TopLevelControl: true}
	moduleDialect = &syntax.FileOptions{Set: true}
)

// A file says which file to run, and as what.
type file struct {
	name string // as in Position.File
	repo string
	pkg  string // which labels in it are relative to
	kind FileKind
}

// An entry is a file that is being run or was.
type entry struct {
	file
	done chan struct{} // closed when the fields below are final

	globals     starlark.StringDict
	pkg         *Package // of a BUILD.star
	err         error
	interrupted bool // by its context: says nothing about the file

	// While a builtin that the file called waits for another file, its place
	// among those that compute is free.
	waitMu  sync.Mutex
	waiting int
}

type runningKey struct{}

// running is the entry whose program called the builtin that has this context.
func running(ctx context.Context) *entry {
	e, _ := ctx.Value(runningKey{}).(*entry)
	return e
}

// get runs a file, or waits until somebody else did. The error is about waiting;
// what is wrong with the file is in the entry.
func (l *Loader) get(ctx context.Context, f file) (*entry, error) {
	if cur := running(ctx); cur != nil {
		if err := l.link(cur.name, f.name); err != nil {
			return nil, err
		}
		cur.pause(l)
		defer cur.resume(l)
		ctx = context.WithValue(ctx, runningKey{}, nil)
	}
	for {
		e := l.start(ctx, f)
		select {
		case <-e.done:
		case <-ctx.Done():
			why := l.contextStop(ctx, f.name)
			return nil, &Error{Msg: why.msg, Hint: why.hint, Err: why.err}
		}
		if e.interrupted && ctx.Err() == nil {
			continue // by the context of somebody else
		}
		return e, nil
	}
}

// start makes sure that the file is being run.
func (l *Loader) start(ctx context.Context, f file) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[f.name]
	if e == nil {
		e = &entry{file: f, done: make(chan struct{})}
		l.entries[f.name] = e
		go l.run(ctx, e)
	}
	return e
}

func (l *Loader) acquire(ctx context.Context) error {
	select {
	case l.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		why := l.contextStop(ctx, "loading")
		return &Error{Msg: why.msg, Hint: why.hint, Err: why.err}
	}
}

func (l *Loader) release() { <-l.sem }

func (e *entry) pause(l *Loader) {
	e.waitMu.Lock()
	defer e.waitMu.Unlock()
	if e.waiting++; e.waiting == 1 {
		l.release()
	}
}

func (e *entry) resume(l *Loader) {
	e.waitMu.Lock()
	defer e.waitMu.Unlock()
	if e.waiting--; e.waiting == 0 {
		l.sem <- struct{}{}
	}
}

func (l *Loader) run(ctx context.Context, e *entry) {
	defer close(e.done)
	e.err = l.runFile(ctx, e)
	if e.err != nil && ctx.Err() != nil {
		e.interrupted = true
		l.mu.Lock()
		delete(l.entries, e.name)
		delete(l.loads, e.name)
		l.mu.Unlock()
	}
}

// runFile reads, loads, and runs. It computes only while it holds a place in l.sem,
// and holds none while it waits for what it loads.
func (l *Loader) runFile(ctx context.Context, e *entry) error {
	tree, prog, err := l.compile(ctx, e)
	if err != nil {
		return err
	}
	loaded, err := l.loadAll(ctx, e, tree)
	if err != nil {
		return err
	}
	if err := l.acquire(ctx); err != nil {
		return err
	}
	defer l.release()

	s := &Scope{Repo: e.repo, Package: e.file.pkg, Kind: e.kind, Loader: l, File: labelOf(e.file)}
	if e.kind == BuildFile {
		s.declaring = &Package{Name: e.file.pkg, byName: map[string]Target{}}
	}
	r, end := l.begin(context.WithValue(ctx, runningKey{}, e), s, e.name)
	defer end()
	r.thread.Load = func(_ *starlark.Thread, module string) (starlark.StringDict, error) { return loaded[module], nil }
	globals, err := prog.Init(r.thread, l.predeclared(e.kind))
	s.closed.Store(true)
	globals.Freeze()
	if err != nil {
		return s.evalError(err, r.why.Load())
	}
	e.globals = globals
	if e.pkg = s.declaring; e.pkg != nil {
		e.pkg.Globals = globals
	}
	return nil
}

func labelOf(f file) Label {
	name := f.name[strings.LastIndex(f.name, "/")+1:]
	return Label{Repo: f.repo, Package: f.pkg, Name: name}
}

// compile reads and compiles the file.
func (l *Loader) compile(ctx context.Context, e *entry) (*syntax.File, *starlark.Program, error) {
	if err := l.acquire(ctx); err != nil {
		return nil, nil, err
	}
	defer l.release()
	src, err := l.read(e.name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil, &missingFile{err}
	}
	if err != nil {
		return nil, nil, l.fileError(e.name, err)
	}
	l.mu.Lock()
	l.sources[e.name] = src
	l.mu.Unlock()

	opts := dialect
	if e.kind == ModuleFile {
		opts = moduleDialect
	}
	predeclared := l.predeclared(e.kind)
	tree, err := opts.Parse(e.name, src, 0)
	if err != nil {
		return nil, nil, l.staticError(err, nil, nil)
	}
	if len(src) > maxDepth && tooDeep(tree) {
		return nil, nil, &Error{Msg: "an expression is nested too deeply", Hint: "split it", Pos: Position{File: e.name}}
	}
	prog, err := starlark.FileProgram(tree, predeclared.Has)
	if err != nil {
		return nil, nil, l.staticError(err, tree, func() []string {
			return slices.Concat(globalNames(tree), predeclared.Keys(), starlark.Universe.Keys())
		})
	}
	return tree, prog, nil
}

// loadAll runs what the file loads, all at once, and checks that the names are
// there. The result is by the string in the load statement.
func (l *Loader) loadAll(ctx context.Context, e *entry, tree *syntax.File) (map[string]starlark.StringDict, error) {
	var stmts []*syntax.LoadStmt
	for _, s := range tree.Stmts {
		if load, ok := s.(*syntax.LoadStmt); ok {
			stmts = append(stmts, load)
		}
	}
	if len(stmts) == 0 {
		return nil, nil
	}
	var errs []error
	at := func(n syntax.Node, err error) {
		var own *Error
		if !errors.As(err, &own) {
			own = &Error{Msg: err.Error(), Err: err}
		}
		moved := *own
		start, end := n.Span()
		moved.Pos, moved.Width = position(start), max(1, end.Col-start.Col)
		moved.Line = l.line(moved.Pos)
		errs = append(errs, &moved)
	}
	files := map[string]file{}
	for _, s := range stmts {
		if e.kind == ModuleFile {
			at(s, &Error{Msg: moduleFile + " cannot load files"})
			continue
		}
		f, err := l.loadable(e, s.ModuleName())
		if err == nil {
			err = l.link(e.name, f.name)
		}
		if err != nil {
			at(s.Module, err)
			continue
		}
		files[s.ModuleName()] = f
	}
	if len(errs) > 0 {
		return nil, joinErrors(errs...)
	}
	for _, f := range files {
		l.start(ctx, f)
	}
	loaded := make(map[string]starlark.StringDict, len(files))
	for _, s := range stmts {
		f := files[s.ModuleName()]
		dep, err := l.get(ctx, f)
		switch {
		case err != nil:
			return nil, err
		case missing(dep.err):
			at(s.Module, l.missingLoad(f, dep.err))
			continue
		case dep.err != nil:
			errs = append(errs, dep.err)
			continue
		}
		loaded[s.ModuleName()] = dep.globals
		for _, from := range s.From {
			if _, ok := dep.globals[from.Name]; ok {
				continue
			}
			at(from, &Error{
				Msg:  fmt.Sprintf("%s defines no %s", labelOf(f), from.Name),
				Hint: didYouMean(Suggest(from.Name, public(dep.globals))),
			})
		}
	}
	return loaded, joinErrors(errs...)
}

// loadable says which file a load statement names.
func (l *Loader) loadable(e *entry, module string) (file, error) {
	label, err := ParseLabel(module, e.file.pkg)
	if err != nil {
		return file{}, err
	}
	if !strings.HasPrefix(module, "@") {
		label.Repo = e.repo // the library's "//" is the library
	}
	f, err := l.fileOf(label)
	if err == nil && f.kind == TestFile {
		err = &Error{
			Msg:  fmt.Sprintf("%s cannot be loaded: it is a test", f.name),
			Hint: "move what is shared into a file whose name does not end in " + testSuffix,
		}
	}
	return f, err
}

func (l *Loader) missingLoad(f file, err error) *Error {
	e := l.fileError(f.name, err.(*missingFile).err)
	e.Hint = ""
	label := labelOf(f)
	var names []string
	for _, entry := range l.readDir(f.name[:len(f.name)-len(label.Name)]) {
		if n := entry.Name(); !entry.IsDir() && strings.HasSuffix(n, starExt) && n != buildFile && n != moduleFile {
			names = append(names, n)
		}
	}
	if near := Suggest(label.Name, names); near != "" {
		label.Name = near
		e.Hint = didYouMean(label.String())
	} else if len(names) == 0 && label.Repo == "" {
		e.Hint = fmt.Sprintf("no rule file is in the folder %q", "/"+label.Package)
	}
	return e
}

// public lists the names that can be loaded.
func public(d starlark.StringDict) []string {
	return slices.DeleteFunc(d.Keys(), func(n string) bool { return strings.HasPrefix(n, "_") })
}

// link notes that one file waits for another, unless that one waits for it.
func (l *Loader) link(from, to string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	var path []string
	var find func(at string) bool
	find = func(at string) bool {
		path = append(path, at)
		if at == from {
			return true
		}
		if !seen[at] {
			seen[at] = true
			if slices.ContainsFunc(l.loads[at], find) {
				return true
			}
		}
		path = path[:len(path)-1]
		return false
	}
	if find(to) {
		return &Error{
			Msg:  "files load each other: " + strings.Join(append([]string{from}, path...), " -> "),
			Hint: "move what both need into a third file",
		}
	}
	if !slices.Contains(l.loads[from], to) {
		l.loads[from] = append(l.loads[from], to)
	}
	return nil
}

// A run is one thread with its limits.
type run struct {
	thread *starlark.Thread
	why    atomic.Pointer[stop] // set before the thread is cancelled
}

func (r *run) stop(why *stop) {
	if r.why.CompareAndSwap(nil, why) {
		r.thread.Cancel(why.msg)
	}
}

// begin makes a thread that ends when the context does, or a limit is reached.
// what names it in messages. The function returned must be called at the end.
func (l *Loader) begin(ctx context.Context, s *Scope, what string) (*run, func()) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.o.Timeout, ErrTimeout)
	s.Ctx = ctx
	r := &run{thread: &starlark.Thread{Name: what}}
	r.thread.SetLocal(scopeKey, s)
	r.thread.Print = l.print
	r.thread.SetMaxExecutionSteps(l.o.MaxSteps)
	r.thread.OnMaxSteps = func(*starlark.Thread) {
		r.stop(&stop{
			msg:  fmt.Sprintf("%s ran for more than %d steps", what, l.o.MaxSteps),
			hint: "a loop here takes too long; --max-steps sets the limit",
			err:  ErrSteps,
		})
	}
	unhook := context.AfterFunc(ctx, func() { r.stop(l.contextStop(ctx, what)) })
	return r, func() {
		unhook()
		cancel()
	}
}

func (l *Loader) print(t *starlark.Thread, msg string) {
	if l.o.Print == nil {
		return
	}
	pos := CallerPos(t)
	l.printMu.Lock()
	defer l.printMu.Unlock()
	l.o.Print(pos, msg)
}
