// The private root: everything that apt would take from the host, made anew in a
// directory of the cache, one for each set of repositories and architecture.
package apt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/sources/aptconf"
)

// root is a private root. It is used by one process at a time.
type root struct {
	dir     string // CacheDir/KEY
	key     string
	arch    string   // Debian's name
	foreign []string // further architectures that names ask for, sorted
	repos   []rootRepo
	lock    *os.File
	keys    *scratch.Dir // where the keyrings are, if not in dir
	updated bool
	start   func(context.Context, Program) error // nil: on this machine
	reads   []string                             // files of this machine that apt reads
	names   *names                               // of all indexes, read once
	targets []target                             // the indexes, in the order of repos
}

// rootRepo is a repository with all that its request leaves open.
type rootRepo struct {
	repo     manifest.DebRepo
	mirror   string
	keyrings []string
}

// target is one index.
type target struct {
	file      string // as apt keeps it, perhaps compressed
	uri       string // of the repository, as apt writes it, with a slash at its end
	suite     string
	component string
	arch      string
	mirror    string
}

// rootFor returns the private root of a request.
func (r *Resolver) rootFor(req *manifest.PackageRequest) (*root, error) {
	rt := &root{start: r.Run}
	var err error
	if rt.arch, err = DebArch(req.Arch); err != nil {
		return nil, err
	}
	for _, n := range req.Names {
		if _, a, _ := splitName(n); a != "" && a != rt.arch && a != "all" && a != "any" && a != "native" && !slices.Contains(rt.foreign, a) {
			rt.foreign = append(rt.foreign, a)
		}
	}
	slices.Sort(rt.foreign)
	h := sha256.New()
	fmt.Fprintf(h, "apt root, 1\n%q %q\n", rt.arch, rt.foreign)
	for _, repo := range req.Repos {
		rr := rootRepo{repo: repo}
		if rr.mirror, err = r.Mirror(repo); err != nil {
			return nil, err
		}
		if rr.keyrings, err = r.keyrings(repo); err != nil {
			return nil, err
		}
		fmt.Fprintf(h, "%q %q %q", rr.mirror, repo.Suite, components(repo))
		if repo.Optional {
			fmt.Fprint(h, " optional")
		}
		for _, k := range rr.keyrings {
			b, err := os.ReadFile(k)
			if err != nil {
				return nil, fmt.Errorf("keyring: %w", err)
			}
			fmt.Fprintf(h, " %x", sha256.Sum256(b))
		}
		fmt.Fprintln(h)
		rt.repos = append(rt.repos, rr)
	}
	rt.key = hex.EncodeToString(h.Sum(nil)[:16])
	if old := r.roots[rt.key]; old != nil {
		return old, nil
	}
	cache, err := filepath.Abs(r.CacheDir)
	if err != nil {
		return nil, err
	}
	rt.dir = filepath.Join(cache, rt.key)
	if r.roots == nil {
		r.roots = map[string]*root{}
	}
	r.roots[rt.key] = rt
	return rt, nil
}

// acquire waits until no other process uses the root. Programs that are started in
// it inherit the lock: one that outlives this process keeps others out.
func (rt *root) acquire(ctx context.Context, span *monitor.Span) error {
	if err := os.MkdirAll(filepath.Dir(rt.dir), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(rt.dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	for told := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			rt.lock = f
			return nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		if !told {
			told = true
			span.Emit(monitor.Event{Kind: monitor.Note, Text: "waiting for another process that resolves packages"})
		}
		select {
		case <-ctx.Done():
			f.Close()
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (rt *root) release() {
	if rt.lock != nil {
		rt.lock.Close()
		rt.lock = nil
	}
	if rt.keys != nil {
		rt.keys.Close()
		rt.keys = nil
	}
}

// write makes the directories and the configuration of the root. host is apt's
// configuration of this machine; only what says how mirrors are reached is taken
// from it.
func (rt *root) write(host aptconf.Config) error {
	if strings.ContainsAny(rt.dir, "\"\n\r") {
		return &sources.Error{Msg: fmt.Sprintf("apt cannot work in the directory %q", rt.dir), Hint: "use a store whose path has no quotes or line feeds"}
	}
	for _, d := range []string{
		"etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "etc/trusted.gpg.d", "etc/keyrings", "etc/auth.conf.d",
		"state/lists/partial", "cache/archives/partial", "log",
	} {
		if err := os.MkdirAll(filepath.Join(rt.dir, d), 0o755); err != nil {
			return err
		}
	}
	keyDir, err := rt.keyDir()
	if err != nil {
		return err
	}
	var list, conf bytes.Buffer
	for i, r := range rt.repos {
		var signed []string
		for j, k := range r.keyrings {
			b, err := os.ReadFile(k)
			if err != nil {
				return fmt.Errorf("keyring: %w", err)
			}
			ext := "gpg" // apt goes by the name
			if bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN PGP")) {
				ext = "asc"
			}
			name := filepath.Join(keyDir, fmt.Sprintf("%d-%d.%s", i, j, ext))
			if err := replaceFile(name, b); err != nil {
				return err
			}
			signed = append(signed, name)
		}
		arches := strings.Join(append([]string{rt.arch}, rt.foreign...), ",")
		fmt.Fprintf(&list, "deb [arch=%s signed-by=%s] %s/ %s %s\n", arches, strings.Join(signed, ","),
			escapeWord(r.mirror), r.repo.Suite, strings.Join(components(r.repo), " "))
	}
	set := func(name, value string) { fmt.Fprintf(&conf, "%s %s;\n", name, aptconf.Quote(value)) }
	set("Acquire::Retries", "2")
	rt.reads = []string{"/etc/apt/auth.conf", "/etc/apt/auth.conf.d"}
	for _, r := range rt.repos {
		if at, ok := strings.CutPrefix(r.mirror, "file://"); ok {
			rt.reads = append(rt.reads, unescape(at))
		}
	}
	for _, o := range host.Below("Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::ForceIPv4", "Acquire::ForceIPv6",
		"Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::Max-ValidTime", "Acquire::Min-ValidTime") {
		if rt.start != nil && filepath.IsAbs(o.Value) { // a certificate, a key, a program
			if real, err := filepath.EvalSymlinks(o.Value); err == nil {
				o.Value = real
				rt.reads = append(rt.reads, real)
			}
		}
		set(o.Name, o.Value)
	}
	set("Dir", rt.dir+"/")
	set("Dir::Etc", "etc")
	set("Dir::State", "state")
	set("Dir::State::status", filepath.Join(rt.dir, "status"))
	set("Dir::Cache", "cache")
	set("Dir::Cache::pkgcache", "") // depends on the status file
	set("Dir::Log", "log")
	set("APT::Architecture", rt.arch)
	fmt.Fprintf(&conf, "APT::Architectures { \"%s\"; };\n", strings.Join(append([]string{rt.arch}, rt.foreign...), `"; "`))
	user := sandboxUser(rt.dir)
	if rt.start != nil {
		user = "root" // it is in a sandbox, whose users are others
	}
	set("APT::Sandbox::User", user)
	set("APT::Install-Suggests", "false")
	set("APT::Update::Error-Mode", "any")
	set("APT::Get::List-Cleanup", "true")
	set("Acquire::Languages", "none")
	set("Acquire::PDiffs", "false")
	set("Acquire::GzipIndexes", "true")
	set("Acquire::AllowInsecureRepositories", "false")
	set("Acquire::AllowDowngradeToInsecureRepositories", "false")
	if err := replaceFile(filepath.Join(rt.dir, "etc/sources.list"), list.Bytes()); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(rt.dir, "status"), nil); err != nil {
		return err
	}
	return replaceFile(rt.conf(), conf.Bytes())
}

// keyDir is where the keyrings of the root are written: in it, unless its path has
// what apt cannot have in the name of a keyring.
func (rt *root) keyDir() (string, error) {
	dir := filepath.Join(rt.dir, "etc/keyrings")
	if plainPath.MatchString(dir) {
		return dir, nil
	}
	if !plainPath.MatchString(os.TempDir()) {
		return "", &sources.Error{
			Msg:  fmt.Sprintf("apt cannot read keyrings below %q", os.TempDir()),
			Hint: "set TMPDIR to a directory whose path has letters, digits and ._/+- only",
		}
	}
	if rt.keys == nil {
		var err error
		if rt.keys, err = scratch.New(os.TempDir(), "osbuild-star-keys-"); err != nil {
			return "", err
		}
		if err := os.Chmod(rt.keys.Path, 0o755); err != nil { // apt reads them as a user of its own
			return "", err
		}
	}
	return rt.keys.Path, nil
}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9._/+~-]*$`)

func (rt *root) conf() string { return filepath.Join(rt.dir, "apt.conf") }

// escapeWord writes a word of sources.list: apt reads %XX there.
func escapeWord(s string) string {
	return strings.NewReplacer("%", "%25", " ", "%20", "\t", "%09", "[", "%5b", "]", "%5d").Replace(s)
}

// sandboxUser is the user that apt fetches as: its own if that one can get to the
// directory, else ours.
func sandboxUser(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		fi, err := os.Stat(d)
		if err != nil || fi.Mode().Perm()&0o001 == 0 {
			return "root" // apt's word for: do not change
		}
		if d == filepath.Dir(d) {
			return "_apt"
		}
	}
}

// replaceFile writes a small file, leaving alone one that has that content.
func replaceFile(name string, b []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, b) {
		return nil
	}
	tmp := name + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// run starts one of apt's programs in the root. out gets its output, if not nil;
// what is returned is that too, and what it says on standard error.
func (rt *root) run(ctx context.Context, out io.Writer, argv ...string) (stdout, stderr string, err error) {
	var o, e bytes.Buffer
	var to io.Writer = &o
	if out != nil {
		to = out
	}
	if rt.start != nil {
		err = rt.start(ctx, Program{
			Argv: argv, Env: append(proxyEnv(os.Environ()), "APT_CONFIG="+rt.conf(), "LC_ALL=C"), Stdout: to, Stderr: &e,
			Dirs: rt.dirs(), Reads: rt.reads,
		})
	} else {
		err = rt.runHere(ctx, to, &e, argv)
	}
	if ctx.Err() != nil {
		return "", "", context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) || rt.start == nil && errors.Is(err, fs.ErrNotExist) {
		return "", "", &sources.Error{
			Msg:  fmt.Sprintf("%s is not on this machine", filepath.Base(argv[0])),
			Hint: "packages are resolved by apt: install it (package apt; Debian and Fedora have it), or use an osbuild-star.lock made on a machine that has it",
		}
	}
	return o.String(), e.String(), err
}

// runHere starts a program on this machine.
func (rt *root) runHere(ctx context.Context, stdout, stderr io.Writer, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(cleanEnv(os.Environ()), "APT_CONFIG="+rt.conf(), "LC_ALL=C")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{rt.lock}
	// Fetching is done by children of apt: the signal has to reach them too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd.Run()
}

// dirs are the directories that apt works in.
func (rt *root) dirs() []string {
	if rt.keys != nil {
		return []string{rt.dir, rt.keys.Path}
	}
	return []string{rt.dir}
}

// proxyEnv keeps of an environment what says how the network is reached.
func proxyEnv(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(s string) bool {
		name, _, _ := strings.Cut(strings.ToLower(s), "=")
		return !slices.Contains([]string{"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"}, name)
	})
}

// cleanEnv drops what would lead apt elsewhere or change its language.
func cleanEnv(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(s string) bool {
		for _, p := range []string{"APT_CONFIG=", "LC_", "LANG=", "LANGUAGE=", "DPKG_", "DEBIAN_FRONTEND="} {
			if strings.HasPrefix(s, p) {
				return true
			}
		}
		return false
	})
}
