// The dpkg of the tree: configuring packages, and unpacking those that need it.
package deb

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
)

// dpkgArgs start dpkg so that it asks nothing, keeps files of the configuration that
// are in the tree already, waits for no disk and writes no log.
var dpkgArgs = []string{
	"/usr/bin/dpkg", "--force-confdef", "--force-confold", "--force-unsafe-io", "--log=/dev/null",
}

// configure runs dpkg --configure in the tree. Meanwhile, packages of the next round
// are decompressed ahead.
func (in *installer) configure(ctx context.Context, args []string, next []*job) (err error) {
	if len(args) == 0 {
		return nil
	}
	t, err := openTree(in.Tree)
	if err != nil {
		return err
	}
	defer t.close()
	if !t.exists(dpkgArgs[0]) {
		return ErrNoDpkg
	}
	if !t.exists(policyFile) {
		// A mount needs something to cover, and here is nothing.
		if err := t.write(policyFile, []byte(denyServices), 0o755); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.remove(policyFile)) }()
	}
	stop := in.prefetch(next)
	defer stop()
	in.logf("configuring")
	tail := &Tail{To: in.Log}
	jail := &Jail{Tree: in.Tree, Env: ScriptEnv(in.Epoch), Output: tail, Covers: in.covers, Native: in.fast}
	if err := jail.Run(ctx, slices.Concat(dpkgArgs, []string{"--configure"}, args)...); err != nil {
		return dpkgError("configuring", err, tail)
	}
	stop()
	return in.check(args)
}

// check makes sure that nothing is left to configure after a run for all packages.
func (in *installer) check(args []string) error {
	t, err := openTree(in.Tree)
	if err != nil {
		return err
	}
	defer t.close()
	if in.db, err = readDatabase(t); err != nil || args[0] != "-a" {
		return err
	}
	left := in.db.left()
	if len(left) > 0 {
		return fmt.Errorf("dpkg left packages unconfigured: %s", strings.Join(left, ", "))
	}
	return nil
}

// dpkgUnpack unpacks packages by dpkg: replacing other versions, and taking files or
// the place of installed packages.
func (in *installer) dpkgUnpack(ctx context.Context, jobs []*job) error {
	t, err := openTree(in.Tree)
	if err != nil {
		return err
	}
	defer t.close()
	if !t.exists(dpkgArgs[0]) {
		return ErrNoDpkg
	}
	if err := in.db.recordArchs(t, jobs, in.native); err != nil {
		return err
	}
	if err := in.writeFilters(t); err != nil {
		return err
	}
	binds := map[string]string{}
	args := slices.Concat(dpkgArgs, []string{"--unpack"})
	for _, j := range jobs {
		dir, err := filepath.Abs(filepath.Dir(j.path))
		if err != nil {
			return err
		}
		name := ""
		for n, d := range binds {
			if d == dir {
				name = n
			}
		}
		if name == "" {
			name = fmt.Sprintf("osbuild-star-packages-%d", len(binds))
			binds[name] = dir
		}
		args = append(args, "/tmp/"+name+"/"+filepath.Base(j.path))
	}
	tail := &Tail{To: in.Log}
	// dpkg may have to replace a program that would be covered: nothing is.
	jail := &Jail{Tree: in.Tree, Env: ScriptEnv(in.Epoch), Output: tail, Binds: binds}
	if err := jail.Run(ctx, args...); err != nil {
		return dpkgError("unpacking", err, tail)
	}
	for range jobs {
		in.progress()
	}
	return nil
}

// dpkgError makes an error of dpkg's output, which names the package that failed first
// and has what its script printed last.
func dpkgError(doing string, err error, tail *Tail) error {
	lines := tail.Last(tailLines)
	begun := 0
	for i, line := range lines {
		if strings.HasPrefix(line, "Setting up ") || strings.HasPrefix(line, "Preparing to unpack ") ||
			strings.HasPrefix(line, "Processing triggers for ") {
			begun = i
		}
		_, rest, ok := strings.Cut(line, "dpkg: error processing ")
		if !ok {
			continue
		}
		_, rest, _ = strings.Cut(rest, " ") // "package NAME (--configure):" or "archive FILE (--unpack):"
		name, _, _ := strings.Cut(rest, " (")
		reason := err
		if i+1 < len(lines) {
			reason = errors.New(strings.TrimSpace(lines[i+1]))
		}
		return &PackageError{Package: name, Doing: doing, Err: reason, Output: lines[max(begun, i-20):i]}
	}
	return &PackageError{Package: "packages", Doing: doing, Err: err, Output: lines[max(0, len(lines)-20):]}
}

// seed gives the answers to questions of packages to debconf, once it is there.
func (in *installer) seed(ctx context.Context) error {
	const program = "/usr/bin/debconf-set-selections"
	if in.seeded || len(in.Preseed) == 0 {
		return nil
	}
	t, err := openTree(in.Tree)
	if err != nil {
		return err
	}
	defer t.close()
	if !t.exists(program) {
		return nil
	}
	tail := &Tail{To: in.Log}
	jail := &Jail{
		Tree: in.Tree, Env: ScriptEnv(in.Epoch), Output: tail,
		Stdin: strings.NewReader(strings.Join(in.Preseed, "\n") + "\n"),
	}
	if err := jail.Run(ctx, program); err != nil {
		return &PackageError{Package: "debconf", Doing: "answering questions of packages by", Err: err, Output: tail.Last(20)}
	}
	in.seeded = true
	return nil
}

// prefetchBytes is how much may be decompressed ahead.
const prefetchBytes = 96 << 20

// prefetch decompresses packages into memory until stop is called, on all processors
// but one, since scripts of packages run one after the other.
func (in *installer) prefetch(jobs []*job) (stop func()) {
	var queue []*job
	for _, j := range jobs {
		if !j.byDpkg {
			queue = append(queue, j)
		}
	}
	slices.SortFunc(queue, func(a, b *job) int { return int(b.archive.data.size - a.archive.data.size) })
	var next, budget atomic.Int64
	var stopped atomic.Bool
	workers := min(runtime.GOMAXPROCS(0)-1, len(queue))
	done := make(chan bool, workers)
	for range workers {
		go func() {
			defer func() { done <- true }()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(queue) || stopped.Load() || budget.Load() >= prefetchBytes {
					return
				}
				queue[i].prefetch(&budget, &stopped)
			}
		}()
	}
	return func() {
		stopped.Store(true)
		for ; workers > 0; workers-- {
			<-done
		}
	}
}

// prefetch decompresses the beginning of a package. What fails here fails again when
// the package is unpacked, and is told then.
func (j *job) prefetch(budget *atomic.Int64, stopped *atomic.Bool) {
	src, release, err := openMember(j.archive, j.archive.data)
	if err != nil {
		return
	}
	ahead := &prefetched{src: src}
	for !stopped.Load() && budget.Load() < prefetchBytes {
		p, err := src.Next()
		if err != nil {
			break // it is kept by the source
		}
		ahead.pieces = append(ahead.pieces, slices.Clone(p))
		budget.Add(int64(len(p)))
	}
	j.ahead, j.free = ahead, release
}
