// The installation as a whole: rounds of unpacking and configuring.
package deb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Config says what to install where.
type Config struct {
	Tree        string   // path of the tree
	Archives    []string // paths of the packages
	Arch        string   // Debian's name of the architecture; "" to take it from the packages
	Filters     []Filter // after those that the dpkg of the tree has in its configuration
	KeepFilters bool     // write the filters into the configuration of the dpkg of the tree
	Preseed     []string // lines for debconf-set-selections
	SplitUsr    bool     // do not make /bin, /sbin and /lib* links into /usr in an empty tree
	Unpack      bool     // leave the packages unpacked, without configuring them
	Native      string   // a tree of this machine's architecture, whose programs scripts of a foreign one start; or ""
	HostKeys    bool     // let openssh-server make the keys of the host
	Epoch       *int64   // SOURCE_DATE_EPOCH of scripts
	Log         io.Writer
}

// Result says what an installation did.
type Result struct {
	New       int // packages that were unpacked
	Present   int // packages that were there already
	Installed []Installed
}

// installer is an installation that is going on.
type installer struct {
	Config
	native string
	db     *database
	jobs   []*job
	covers map[string]string // of the programs that scripts must not run
	fast   *natives          // programs that scripts need not have emulated; or nil
	fresh  bool              // the tree had no packages
	seeded bool
	total  int

	mu   sync.Mutex
	done int
}

// Errors of sets of packages in which something is missing.
var (
	ErrNoDpkg    = errors.New("there is no dpkg in the tree")
	ErrNoDebconf = errors.New("there is no debconf in the tree")
)

// Install installs packages. The errors that a user can do something about are a
// [*ConflictError], a [*PackageError] or plain ones that name the archive.
func Install(ctx context.Context, c Config) (*Result, error) {
	in := &installer{Config: c}
	// Files are made with their modes by as few calls as possible, which depends on it.
	defer unix.Umask(unix.Umask(0o022))
	t, err := openTree(c.Tree)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if in.db, err = readDatabase(t); err != nil {
		return nil, err
	}
	all, err := openJobs(ctx, c.Archives)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, j := range all {
			j.close()
		}
	}()
	todo, skipped, err := classify(all, in.db)
	if err != nil {
		return nil, err
	}
	in.jobs, in.total = todo, len(todo)
	if in.native, err = nativeArch(c.Arch, in.db, all); err != nil && len(todo) > 0 {
		return nil, err
	}
	tmp, err := in.makeCovers()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := in.makeNatives(tmp); err != nil {
		return nil, err
	}

	in.fresh = true
	for _, e := range in.db.entries {
		in.fresh = in.fresh && !e.present()
	}
	had := t.exists("/etc/machine-id")
	rounds := makePlan(todo, in.db, in.fresh)
	for i, round := range rounds {
		if len(round) == 0 {
			continue
		}
		if err := in.round(ctx, round); err != nil {
			return nil, err
		}
		if err := in.seed(ctx); err != nil {
			return nil, err
		}
		if c.Unpack {
			continue
		}
		args, next := []string{"-a"}, []*job(nil)
		if i+1 < len(rounds) {
			next = rounds[i+1]
		}
		if i > 0 && len(next) > 0 {
			if args, err = in.before(next); err != nil {
				return nil, err
			}
		}
		if err := in.configure(ctx, args, next); err != nil {
			return nil, err
		}
	}
	if !c.Unpack && len(todo) == 0 && len(in.db.left()) > 0 {
		if err := in.configure(ctx, []string{"-a"}, nil); err != nil {
			return nil, err
		}
	}
	if len(todo) > 0 && len(c.Preseed) > 0 && !in.seeded {
		return nil, ErrNoDebconf
	}
	if err := in.finish(had); err != nil {
		return nil, err
	}
	return &Result{New: len(todo), Present: len(skipped), Installed: in.db.installed()}, nil
}

// openJobs opens archives, several at once.
func openJobs(ctx context.Context, paths []string) ([]*job, error) {
	jobs := make([]*job, len(paths))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, path := range paths {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			j, err := openJob(path)
			if err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(path), err)
			}
			jobs[i] = j
			return nil
		})
	}
	err := g.Wait()
	if err != nil {
		for _, j := range jobs {
			if j != nil {
				j.close()
			}
		}
		return nil, err
	}
	return jobs, nil
}

func (in *installer) logf(format string, args ...any) {
	if in.Log != nil {
		fmt.Fprintf(in.Log, format+"\n", args...)
	}
}

// makeCovers writes a program that does nothing, and says what it covers: programs
// that must not start services, and those whose work is done once by a later stage.
func (in *installer) makeCovers() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "osbuild-star-deb-"); err != nil {
		return "", err
	}
	noop := filepath.Join(dir, "noop")
	if err := os.WriteFile(noop, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	deny := filepath.Join(dir, "policy-rc.d")
	if err := os.WriteFile(deny, []byte(denyServices), 0o755); err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	in.covers = map[string]string{
		"/usr/sbin/update-initramfs": noop,
		"/sbin/start-stop-daemon":    noop,
		policyFile:                   deny,
	}
	if !in.HostKeys {
		in.covers["/usr/bin/ssh-keygen"] = noop
	}
	return dir, nil
}

const (
	policyFile   = "/usr/sbin/policy-rc.d"
	denyServices = "#!/bin/sh\nexit 101\n"
)

// round unpacks the packages of a round, and runs their preinst scripts.
func (in *installer) round(ctx context.Context, jobs []*job) error {
	var fast, byDpkg []*job
	for _, j := range jobs {
		if j.byDpkg {
			byDpkg = append(byDpkg, j)
		} else {
			fast = append(fast, j)
		}
	}
	bootstrap := jobs[0].round == 0
	if !bootstrap {
		if err := in.preinsts(ctx, fast); err != nil {
			return err
		}
	}
	if len(fast) > 0 {
		if err := in.unpackAll(ctx, fast, bootstrap); err != nil {
			return err
		}
	}
	if bootstrap {
		if err := in.preinsts(ctx, fast); err != nil {
			return err
		}
	}
	if len(byDpkg) > 0 {
		return in.dpkgUnpack(ctx, byDpkg)
	}
	return nil
}

// preinsts runs the preinst scripts of packages, in their order.
func (in *installer) preinsts(ctx context.Context, jobs []*job) error {
	var todo []*job
	for _, j := range jobs {
		if j.needsPreinst() {
			todo = append(todo, j)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	// The accounts come first: other scripts need them.
	slices.SortStableFunc(todo, func(a, b *job) int {
		return -cmp.Compare(btoi(a.name == "base-passwd"), btoi(b.name == "base-passwd"))
	})
	t, err := openTree(in.Tree)
	if err != nil {
		return err
	}
	defer t.close()
	for _, j := range todo {
		if err := in.runPreinst(ctx, t, j); err != nil {
			return err
		}
	}
	return nil
}

// progress writes a line each time a quarter of the packages has been unpacked.
func (in *installer) progress() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.done++
	if step := (in.total + 3) / 4; in.done == in.total || in.done%step == 0 {
		in.logf("unpacking %d/%d", in.done, in.total)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// unpackAll unpacks packages, as many at once as there are processors.
func (in *installer) unpackAll(ctx context.Context, jobs []*job, bootstrap bool) error {
	t, err := openTree(in.Tree)
	if err != nil {
		return err
	}
	defer t.close()
	if in.fresh && !in.SplitUsr {
		t.merge = map[string]bool{}
		for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"} {
			t.merge[name] = true
		}
	}
	if in.db, err = readDatabase(t); err != nil {
		return err
	}
	if err := in.db.loadOwners(t); err != nil {
		return err
	}
	u := &unpacker{t: t, db: in.db, interests: map[string]bool{}}
	if u.ids, err = readIDs(t); err != nil {
		return err
	}
	if u.filters, err = in.readFilters(t); err != nil {
		return err
	}
	for _, f := range in.db.files {
		u.interests[f.path] = true
	}

	// The longest first, so that no worker is left with a large one at the end. The
	// instances of one package for several architectures share files, and go one after
	// the other.
	groups := map[string][]*job{}
	size := map[string]int64{}
	for _, j := range jobs {
		groups[j.name] = append(groups[j.name], j)
		size[j.name] += j.archive.data.size
	}
	names := slices.SortedFunc(maps.Keys(groups), func(a, b string) int {
		return cmp.Or(cmp.Compare(size[b], size[a]), strings.Compare(a, b))
	})
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, name := range names {
		g.Go(func() error {
			for _, j := range groups[name] {
				if gctx.Err() != nil {
					return gctx.Err()
				}
				if err := u.unpack(j); err != nil {
					return &PackageError{Package: j.String(), Doing: "unpacking", Err: err}
				}
				in.progress()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := u.makeLinks(jobs); err != nil {
		return err
	}
	if d, err := t.lookup("/run", false); bootstrap && err == nil && d.path == "run" {
		// What base-files makes when it is configured, when a tmpfs is there.
		if err := t.makeDir("/run/lock", attr{mode: 0o1777, mtime: unix.UTIME_OMIT}, jobs[0].rank); err != nil {
			return err
		}
	}
	if err := t.finish(); err != nil {
		return err
	}
	if err := in.writeFilters(t); err != nil {
		return err
	}
	return in.db.record(t, jobs, in.native)
}
