// Which mirror a repository without one means: what the host's apt is configured
// with, read from its files.
package apt

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources"
)

// EnvMirror is the environment variable that names the mirror of repositories that
// name none: a URL for all suites ("http://mirror.example/debian"; a security suite
// is then looked for below ".../debian-security"), or words SUITE=URL, or both,
// separated by blanks.
const EnvMirror = "OSBUILD_STAR_DEB_MIRROR"

// hostEntry is a line of sources.list, or as much of a stanza of a .sources file.
type hostEntry struct {
	uri      string
	suite    string
	keyrings []string // files of Signed-By
}

// hostSources reads all sources of binary packages that are enabled below an apt
// directory. What cannot be read is passed over: it only means fewer mirrors.
func hostSources(dir string) []hostEntry {
	var all []hostEntry
	if b, err := os.ReadFile(filepath.Join(dir, "sources.list")); err == nil {
		all = append(all, parseList(b)...)
	}
	ents, _ := os.ReadDir(filepath.Join(dir, "sources.list.d"))
	for _, e := range ents {
		var parse func([]byte) []hostEntry
		switch filepath.Ext(e.Name()) {
		case ".list":
			parse = parseList
		case ".sources":
			parse = parseDeb822
		default:
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, "sources.list.d", e.Name())); err == nil {
			all = append(all, parse(b)...)
		}
	}
	return all
}

// listLine is "deb [options] uri suite components".
var listLine = regexp.MustCompile(`^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)`)

// parseList reads the one-line style.
func parseList(b []byte) []hostEntry {
	var out []hostEntry
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		m := listLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		e := hostEntry{uri: m[2], suite: m[3]}
		for _, o := range strings.Fields(m[1]) {
			if k, v, _ := strings.Cut(o, "="); strings.EqualFold(k, "signed-by") {
				e.keyrings = keyringFiles(strings.Split(v, ","))
			}
		}
		out = append(out, e)
	}
	return out
}

// parseDeb822 reads the style of .sources files.
func parseDeb822(b []byte) []hostEntry {
	var out []hostEntry
	fields := map[string]string{}
	last := ""
	flush := func() {
		defer func() { fields, last = map[string]string{}, "" }()
		switch strings.ToLower(strings.TrimSpace(fields["enabled"])) {
		case "no", "false", "without", "off", "disable", "0":
			return
		}
		if !slices.Contains(strings.Fields(fields["types"]), "deb") {
			return
		}
		keyrings := keyringFiles(strings.Fields(fields["signed-by"]))
		for _, uri := range strings.Fields(fields["uris"]) {
			for _, suite := range strings.Fields(fields["suites"]) {
				out = append(out, hostEntry{uri: uri, suite: suite, keyrings: keyrings})
			}
		}
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += " " + strings.TrimSpace(line)
		default:
			k, v, ok := strings.Cut(line, ":")
			if ok {
				last = strings.ToLower(strings.TrimSpace(k))
				fields[last] = strings.TrimSpace(v)
			}
		}
	}
	flush()
	return out
}

// keyringFiles keeps the values of Signed-By that are files, not fingerprints or
// whole keys.
func keyringFiles(values []string) []string {
	var out []string
	for _, v := range values {
		if filepath.IsAbs(v) {
			out = append(out, v)
		}
	}
	return out
}

func (e hostEntry) security() bool { return isSecurity(e.suite) || strings.Contains(e.uri, "security") }

func isSecurity(suite string) bool {
	return strings.HasSuffix(suite, "-security") || strings.HasSuffix(suite, "/updates")
}

// usable says whether the mirror of an entry can be used by everybody: the package
// manager's own ways of access (cdrom:, mirror:) cannot.
func (e hostEntry) usable() bool {
	for _, s := range []string{"http://", "https://", "file:/"} {
		if strings.HasPrefix(e.uri, s) {
			return true
		}
	}
	return false
}

// debianSuite is the form of the names of Debian's suites.
var debianSuite = regexp.MustCompile(`^(buster|bullseye|bookworm|trixie|forky|duke|sid|stable|oldstable|oldoldstable|testing|unstable|experimental)(-(updates|security|proposed-updates|backports|backports-sloppy)|/updates)?$`)

// debian says whether an entry is one of Debian's archive.
func (e hostEntry) debian() bool { return debianSuite.MatchString(e.suite) }

// pick finds the entry whose mirror has a suite: one that names it, else one of
// Debian's archive of the same kind.
func pick(entries []hostEntry, suite string) (hostEntry, bool) {
	for _, e := range entries {
		if e.suite == suite && e.usable() {
			return e, true
		}
	}
	for _, e := range entries {
		if e.usable() && e.debian() && e.security() == isSecurity(suite) && !strings.HasSuffix(suite, "/") {
			return e, true
		}
	}
	return hostEntry{}, false
}

// override finds the mirror of a suite in the value of EnvMirror.
func override(value, suite string) string {
	general := ""
	for _, w := range strings.Fields(value) {
		s, u, ok := strings.Cut(w, "=")
		switch {
		case ok && s == suite:
			return u
		case !ok || strings.Contains(s, "/"):
			general = w
		}
	}
	if isSecurity(suite) && strings.HasSuffix(strings.TrimRight(general, "/"), "/debian") {
		return strings.TrimRight(general, "/") + "-security"
	}
	return general
}

// Mirror returns the base URL of a repository, without a slash at its end: its own,
// that of MirrorOverride or the environment (EnvMirror), or the one that the host's
// apt is configured with. It starts no program and is fast.
func (r *Resolver) Mirror(repo manifest.DebRepo) (string, error) {
	m := repo.Mirror
	if m == "" {
		m = override(r.mirrorOverride(), repo.Suite)
	}
	if m == "" {
		e, ok := pick(r.hostSources(), repo.Suite)
		if !ok {
			return "", &sources.Error{
				Msg:  fmt.Sprintf("no mirror is known for the suite %q: %s names none", repo.Suite, r.hostAptDir()),
				Hint: fmt.Sprintf("give one in the rule file, deb_repo(%q, mirror = \"http://…\"), or set %s", repo.Suite, EnvMirror),
			}
		}
		m = e.uri
		if rest, ok := strings.CutPrefix(m, "file:"); ok && !strings.HasPrefix(rest, "//") {
			m = "file://" + rest
		}
	}
	u, err := url.Parse(m)
	if err != nil || u.Scheme != "file" && u.Host == "" || !slices.Contains([]string{"http", "https", "file"}, u.Scheme) || strings.ContainsAny(m, " \t\n[]\"") {
		return "", &sources.Error{
			Msg:  fmt.Sprintf("the mirror %q of the suite %q cannot be used", m, repo.Suite),
			Hint: "write http://, https:// or file:///, a host and a path",
		}
	}
	return strings.TrimRight(m, "/"), nil
}

func (r *Resolver) mirrorOverride() string {
	if r.MirrorOverride != "" {
		return r.MirrorOverride
	}
	return os.Getenv(EnvMirror)
}

func (r *Resolver) hostAptDir() string {
	if r.HostAptDir != "" {
		return r.HostAptDir
	}
	return "/etc/apt"
}

func (r *Resolver) hostSources() []hostEntry {
	r.hostOnce.Do(func() { r.hostEntries = hostSources(r.hostAptDir()) })
	return r.hostEntries
}

// keyrings returns the files whose keys may sign a repository.
func (r *Resolver) keyrings(repo manifest.DebRepo) ([]string, error) {
	if repo.Keyring != "" {
		return []string{repo.Keyring}, readable(repo.Keyring)
	}
	for _, name := range []string{
		"/usr/share/keyrings/debian-archive-keyring.gpg",
		"/usr/share/keyrings/debian-archive-keyring.pgp",
	} {
		if readable(name) == nil {
			return []string{name}, nil
		}
	}
	if repo.Mirror == "" {
		if e, ok := pick(r.hostSources(), repo.Suite); ok && len(e.keyrings) > 0 {
			for _, k := range e.keyrings {
				if err := readable(k); err != nil {
					return nil, err
				}
			}
			return e.keyrings, nil
		}
	}
	var files []string
	for _, pattern := range []string{"debian-archive-*.gpg", "debian-archive-*.asc", "debian-archive-*.pgp"} {
		m, _ := filepath.Glob(filepath.Join(r.hostAptDir(), "trusted.gpg.d", pattern))
		files = append(files, m...)
	}
	if len(files) > 0 {
		return files, nil
	}
	return nil, &sources.Error{
		Msg:  "the keyring of the Debian archive is not on this machine",
		Hint: "apt-get install debian-archive-keyring, or name a keyring in deb_repo()",
	}
}

func readable(name string) error {
	fi, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &sources.Error{Msg: fmt.Sprintf("the keyring %s does not exist", name), Hint: "install the package that has it, or correct the name in deb_repo()"}
	}
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() == 0 {
		return &sources.Error{Msg: fmt.Sprintf("the keyring %s is no file, or empty", name), Hint: "correct the name in deb_repo()"}
	}
	return nil
}

// URL is where a file of a mirror is; path is relative to it ("pool/main/…").
func URL(mirror, path string) string {
	const plain = "-._~/:@!$&'()*,;=" // what a path may hold as it is; "+" is not, as some servers read it as a blank
	var b strings.Builder
	b.WriteString(strings.TrimRight(mirror, "/"))
	b.WriteByte('/')
	for i := range len(path) {
		c := path[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}
