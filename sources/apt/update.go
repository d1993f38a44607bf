// Updating the indexes of a private root, and telling what went wrong in words.
package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
)

// doneFile says that the indexes of a root have been complete once.
const doneFile = "done"

// update brings the indexes up to date; what is unchanged is not fetched again. A
// root that has never been complete is removed when it fails.
func (rt *root) update(ctx context.Context, span *monitor.Span) (err error) {
	if rt.updated {
		return nil
	}
	var suites []string
	for _, r := range rt.repos {
		suites = append(suites, r.repo.Suite)
	}
	span = span.Start(monitor.Event{Category: monitor.CatResolve, Name: fmt.Sprintf("package indexes of %s (%s)", strings.Join(suites, ", "), rt.arch)})
	defer func() { span.End(err) }()
	done := filepath.Join(rt.dir, doneFile)
	defer func() {
		if err == nil {
			return
		}
		if _, statErr := os.Stat(done); statErr != nil {
			os.RemoveAll(rt.dir)
			return
		}
		// What was refused must not be taken for the beginning of what is right.
		partial := filepath.Join(rt.dir, "state/lists/partial")
		ents, _ := os.ReadDir(partial)
		for _, e := range ents {
			os.Remove(filepath.Join(partial, e.Name()))
		}
	}()
	lines := &lineWriter{fn: func(s string) { span.Emit(monitor.Event{Kind: monitor.Output, Text: s}) }}
	_, stderr, err := rt.run(ctx, lines, "apt-get", "-q", "update")
	lines.flush()
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return rt.updateError(stderr, err)
	}
	if err := rt.readTargets(ctx, span); err != nil {
		return err
	}
	rt.updated = true
	if err := rt.sync(); err != nil {
		return fmt.Errorf("writing out the package indexes: %w", err)
	}
	return os.WriteFile(done, nil, 0o644)
}

// sync writes out the indexes: apt would not fetch those again that a machine which
// stops has cut short, since the repository has no newer ones.
func (rt *root) sync() error {
	files, err := filepath.Glob(filepath.Join(rt.dir, "state/lists/*"))
	for _, name := range files {
		f, oerr := os.Open(name)
		if oerr != nil {
			return oerr
		}
		err = errors.Join(err, f.Sync())
		f.Close()
	}
	return err
}

// lineWriter hands on whole lines.
type lineWriter struct {
	fn  func(string)
	buf []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.buf = append(w.buf, b...)
	for {
		i := bytes.IndexByte(w.buf, '\n')
		if i < 0 {
			return len(b), nil
		}
		w.fn(string(w.buf[:i]))
		w.buf = w.buf[i+1:]
	}
}

func (w *lineWriter) flush() {
	if len(w.buf) > 0 {
		w.fn(string(w.buf))
		w.buf = nil
	}
}

// readTargets lists the indexes, and checks that each component of each repository
// has one for the architecture. A repository without which one can do may have none.
func (rt *root) readTargets(ctx context.Context, span *monitor.Span) error {
	out, stderr, err := rt.run(ctx, nil, "apt-get", "indextargets", "--format",
		"$(FILENAME)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ARCHITECTURE)", "Created-By: Packages")
	if err != nil {
		return aptError("the package indexes cannot be listed", out, stderr, err)
	}
	var all []target
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) == 5 {
			all = append(all, target{file: f[0], uri: f[1], suite: f[2], component: f[3], arch: f[4]})
		}
	}
	rt.targets = nil
	for _, r := range rt.repos {
		if made := rt.architectures(r); len(made) > 0 && !slices.Contains(made, rt.arch) {
			if r.repo.Optional {
				span.Emit(monitor.Event{Kind: monitor.Note, Text: fmt.Sprintf("the suite %s at %s is not made for %s: doing without it", r.repo.Suite, r.mirror, rt.arch)})
				continue
			}
			return &sources.Error{
				Msg:  fmt.Sprintf("the suite %s at %s is not made for %s: it has %s", r.repo.Suite, r.mirror, rt.arch, strings.Join(made, ", ")),
				Hint: fmt.Sprintf("take one of these architectures, or a suite that has %s", rt.arch),
			}
		}
		want := components(r.repo)
		if want == nil {
			want = []string{""} // flat
		}
		for _, c := range want {
			found := false
			for _, t := range all {
				if t.component == c && sameSuite(t.suite, r.repo.Suite) && sameURI(t.uri, r.mirror) {
					t.suite, t.mirror = r.repo.Suite, r.mirror
					rt.targets = append(rt.targets, t)
					found = found || c == "" || t.arch == rt.arch || t.arch == "all"
				}
			}
			if !found {
				return &sources.Error{
					Msg:  fmt.Sprintf("the suite %s at %s has no component %q for %s", r.repo.Suite, r.mirror, c, rt.arch),
					Hint: "check the names of the components, and whether the suite was made for that architecture",
				}
			}
		}
	}
	return nil
}

// architectures are those that a repository says it is made for, in the Release file
// that apt has verified; none when it does not say.
func (rt *root) architectures(r rootRepo) []string {
	dir := filepath.Join(rt.dir, "state/lists")
	ents, _ := os.ReadDir(dir)
	// apt makes the name of a file of its URL.
	_, at, _ := strings.Cut(plainURI(r.mirror), ":")
	name := aptName(strings.TrimLeft(at, "/")) + "_dists_" + aptName(strings.Trim(r.repo.Suite, "/")) + "_"
	for _, e := range ents {
		have := strings.TrimLeft(unescape(e.Name()), "_")
		if have != name+"InRelease" && have != name+"Release" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil
		}
		for line := range bytes.Lines(b) {
			if list, ok := bytes.CutPrefix(line, []byte("Architectures:")); ok {
				return slices.DeleteFunc(strings.Fields(string(list)), func(a string) bool { return a == "all" })
			}
		}
	}
	return nil
}

func aptName(path string) string { return strings.ReplaceAll(path, "/", "_") }

func sameSuite(a, b string) bool { return strings.TrimRight(a, "/") == strings.TrimRight(b, "/") }

// sameURI compares a URI of apt with a mirror: apt leaves the password out.
func sameURI(a, b string) bool { return plainURI(a) == plainURI(b) }

var userinfo = regexp.MustCompile(`^([a-z+]+://)[^/@]*@`)

func plainURI(s string) string {
	s = userinfo.ReplaceAllString(s, "$1")
	if rest, ok := strings.CutPrefix(s, "file://"); ok {
		s = "file:" + rest
	}
	return strings.TrimRight(unescape(s), "/")
}

// cat writes an index, unpacked, to fn's reader.
func (rt *root) cat(ctx context.Context, t target, fn func(io.Reader) error) error {
	pr, pw := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, stderr, err := rt.run(ctx, pw, "/usr/lib/apt/apt-helper", "cat-file", t.file)
		if err != nil && ctx.Err() == nil {
			err = aptError("the package index "+t.file+" cannot be read", "", stderr, err)
		}
		pw.CloseWithError(err)
		ended <- err
	}()
	err := fn(pr)
	pr.Close()
	cancel() // fn may have seen enough
	<-ended
	return err
}

// updateError explains a failure of apt-get update.
func (rt *root) updateError(stderr string, err error) error {
	text := strings.Join(strings.Fields(stderr), " ")
	for _, c := range updateCauses {
		m := c.re.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		msg := c.msg
		for i, s := range m {
			msg = strings.ReplaceAll(msg, fmt.Sprintf("$%d", i), s)
		}
		return &sources.Error{Msg: msg, Hint: c.hint}
	}
	return aptError("the package indexes cannot be updated", "", stderr, err)
}

// updateCauses are the messages of apt (LC_ALL=C, apt 2.0 to 3.0) that tell why.
// The first that matches is told.
var updateCauses = []struct {
	re        *regexp.Regexp
	msg, hint string
}{
	{
		regexp.MustCompile(`(?:Could not resolve|Temporary failure resolving|Something wicked happened resolving) '([^']*)'`),
		"the mirror cannot be reached: the name $1 is not known",
		"check the network and the mirror's name; " + EnvMirror + " names another one",
	},
	{
		regexp.MustCompile(`((?:Could not connect to|Cannot initiate the connection to|Unable to connect to|Connection timed out|Connection failed|Could not handshake)[^:]*(?::\S+ \([^)]*\))?[^.]*)`),
		"the mirror cannot be reached: $1",
		"check the network and the mirror; " + EnvMirror + " names another one, a proxy is taken from apt's configuration or http_proxy",
	},
	{
		regexp.MustCompile(`(NO_PUBKEY \S+|BADSIG [^.]*|EXPKEYSIG [^.]*|REVKEYSIG [^.]*|Sub-process \S+ returned an error code[^.]*|Missing key \S+|Bad PGP signature|No good signature|[^.:]*is not signed)`),
		"a repository is not signed by a key of its keyring: $1",
		"name the file with its keys, deb_repo(…, keyring = \"…\"); for Debian's archive update the package debian-archive-keyring",
	},
	{
		regexp.MustCompile(`Release file for (\S+) is (expired|not valid yet)`),
		"the index $1 is $2",
		"check this machine's clock; an expired one is that of a mirror that is no longer updated",
	},
	{
		regexp.MustCompile(`The repository '([^']*)' does not have a Release file|The repository '([^']*)' no longer has a Release file`),
		"no such suite: $1$2 is not there",
		"check the name of the suite, and that the mirror has it (deb_repo's mirror, " + EnvMirror + " or apt's configuration)",
	},
	{
		regexp.MustCompile(`(Hash Sum mismatch|File has unexpected size[^.]*)`),
		"the mirror is not consistent: $1",
		"it may be in the middle of an update: try again in a few minutes, or name another mirror",
	},
	{
		regexp.MustCompile(`(No space left on device|Write error - write \(28)`),
		"no space left on device for the package indexes", // the command tells where
		"",
	},
	{
		regexp.MustCompile(`Failed to fetch (\S+) (.*?)(?: [EW]: |$)`),
		"the mirror failed: $1: $2",
		"try again, or name another mirror with " + EnvMirror,
	},
}

// aptError is a failure that is told in apt's own words.
func aptError(msg, stdout, stderr string, err error) error {
	var said []string
	for line := range strings.Lines(stderr) {
		if l, ok := strings.CutPrefix(strings.TrimSpace(line), "E: "); ok {
			said = append(said, l)
		}
	}
	if len(said) == 0 {
		for line := range strings.Lines(stdout + stderr) {
			if l := strings.TrimSpace(line); l != "" {
				said = append(said, l)
			}
		}
	}
	if len(said) == 0 {
		return fmt.Errorf("%s: %w", msg, err)
	}
	return &sources.Error{Msg: msg + ": " + strings.Join(said[:min(len(said), 8)], "; ")}
}
