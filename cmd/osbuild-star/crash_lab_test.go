// What the tests of crashes share: a workspace, an archive of a few real packages on
// a slow server, stores to begin with, and what a build has to come to.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/osbuild-star/osbuild-star/internal/testenv"
)

// crashLab is what all trials begin with.
type crashLab struct {
	t        testing.TB
	dir      string // on a disk, with a short name
	url      string // of the server
	keyring  string
	caches   bool                         // there is `cache verify`
	want     map[string]map[string]string // by hostname: file of out/ → sha256
	before   *leftovers
	measured map[string]measure // by the store that a build begins with
}

// measure is how long a build takes that nobody ends, in time and in events.
type measure struct {
	took   time.Duration
	events int
}

// What a trial begins with: nothing; sources; the tree of the system; everything.
var startings = []string{"nothing", "sources", "part", "all"}

// changing are files of out/ with times in them: those of a file system that was
// mounted. Its checker tells whether they are whole.
var changing = map[string]bool{"mounted/fs.raw": true}

func newCrashLab(t *testing.T) *crashLab {
	t.Helper()
	needBuild(t)
	if testing.Short() || runtime.GOARCH != "amd64" {
		t.Skip("fetches packages, those of amd64")
	}
	dir, err := os.MkdirTemp("", "crash-")
	if err != nil {
		t.Fatal(err)
	}
	l := &crashLab{t: t, dir: dir, want: map[string]map[string]string{}, measured: map[string]measure{}, before: snapshot()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was found is in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	l.caches = exec.Command("osbuild-star", "cache", "verify", "--help").Run() == nil
	l.fetch()
	l.reference()
	return l
}

// run runs a program, in the lab's environment.
func (l *crashLab) run(dir string, argv ...string) []byte {
	l.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, l.env(filepath.Join(l.dir, "tmp"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// env is the environment of builds. The server is on this machine, whatever proxies
// there are.
func (l *crashLab) env(tmp string) []string {
	env := append(os.Environ(), testenv.Env()...)
	return append(env, "TMPDIR="+tmp, "NO_COLOR=1", "no_proxy=127.0.0.1", "APT_CONFIG="+filepath.Join(l.dir, "apt.conf"))
}

func (l *crashLab) write(name, text string) {
	l.t.Helper()
	name = filepath.Join(l.dir, name)
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(text), 0o644)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// fetch gets the packages from Debian's archive, once, and makes an archive of them,
// signed with a key of its own.
func (l *crashLab) fetch() {
	l.write("apt.conf", `Acquire::http::Proxy::127.0.0.1 "DIRECT";`+"\n")
	l.write("tmp/.keep", "")
	seed := filepath.Join(l.dir, "seed")
	l.run(".", "cp", "-r", "testdata/crash", seed)
	l.run(seed, "osbuild-star", "build", "--store="+seed+"/store", "--var-dir="+l.dir, "//:all")
	fetched, err := filepath.Glob(filepath.Join(seed, "store/sources/org.osbuild.files/sha256:*"))
	if err != nil {
		l.t.Fatal(err)
	}
	archive := filepath.Join(l.dir, "archive")
	n := 0
	for _, f := range fetched {
		b, err := os.ReadFile(f)
		if err != nil {
			l.t.Fatal(err)
		}
		if bytes.HasPrefix(b, []byte("!<arch>\n")) {
			n++
			l.write(fmt.Sprintf("archive/pool/%d.deb", n), string(b))
		}
	}
	l.write("archive/dists/crash/main/binary-amd64/Packages", string(l.run(archive, "apt-ftparchive", "packages", "pool")))
	release := l.run(archive, "apt-ftparchive", "-o=APT::FTPArchive::Release::Codename=crash", "-o=APT::FTPArchive::Release::Suite=crash",
		"-o=APT::FTPArchive::Release::Components=main", "-o=APT::FTPArchive::Release::Architectures=amd64", "release", "dists/crash")
	l.write("archive/dists/crash/Release", string(release))
	home := filepath.Join(l.dir, "gpg")
	if err := os.Mkdir(home, 0o700); err != nil {
		l.t.Fatal(err)
	}
	gpg := []string{"gpg", "--homedir", home, "--batch", "--quiet", "--yes"}
	l.keyring = filepath.Join(l.dir, "crash.gpg")
	l.run(l.dir, append(gpg, "--passphrase", "", "--quick-gen-key", "crash@example.org", "ed25519", "sign", "never")...)
	l.run(l.dir, append(gpg, "--output", l.keyring, "--export", "crash@example.org")...)
	l.run(archive+"/dists/crash", append(gpg, "--output", "InRelease", "--clearsign", "Release")...)
	l.run(l.dir, "gpgconf", "--homedir", home, "--kill", "all")
	files := http.FileServer(http.Dir(archive))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files.ServeHTTP(&slowWriter{w}, r)
	}))
	l.t.Cleanup(srv.Close)
	l.url = srv.URL
}

// slowWriter is a line of some megabytes in a second.
type slowWriter struct{ http.ResponseWriter }

func (w *slowWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(b[:min(len(b), 16<<10)])
		n, b = n+m, b[m:]
		time.Sleep(2 * time.Millisecond)
	}
	return n, err
}

// reference builds what all trials have to come to, and the stores that they begin
// with.
func (l *crashLab) reference() {
	w, err := newCrashWorld(l)
	if err != nil {
		l.t.Fatal(err)
	}
	defer w.close()
	w.do(func() {
		// Each takes the store that the one before it left, as far as it got.
		steps := []struct{ from, keep, hostname, label string }{
			{"nothing", "", "box", "//:all"},
			{"sources", "part", "box", "//:files"},
			{"part", "all", "box", "//:all"},
			{"all", "", "other", "//:all"},
		}
		l.write("start/nothing/store/.keep", "")
		for _, s := range steps {
			tr := w.trial("reference-"+s.from, crashPlan{from: s.from, hostname: s.hostname, sandbox: "auto"})
			tr.label = s.label
			r := tr.start(tr.out, nil)
			r.end()
			if r.status() != 0 {
				l.t.Fatalf("the reference build fails:\n%s", r.said())
			}
			l.measured[s.from] = measure{r.took, r.events()}
			sums, _, err := fileSums(tr.out)
			if err != nil {
				l.t.Fatal(err)
			}
			if s.label == "//:all" {
				if old := l.want[s.hostname]; old != nil {
					for f, sum := range old {
						if sums[f] != sum {
							l.t.Fatalf("two builds differ: %s", f)
						}
					}
				}
				l.want[s.hostname] = sums
			}
			if s.from == "nothing" {
				l.run(l.dir, "mkdir", "-p", "start/sources/store")
				l.run(l.dir, "cp", "-a", tr.dir+"/store/sources", tr.dir+"/store/apt", "start/sources/store")
				l.run(l.dir, "cp", "-a", tr.dir+"/ws/osbuild-star.lock", "lock")
			}
			if s.keep != "" {
				l.run(l.dir, "mkdir", "-p", "start/"+s.keep)
				l.run(l.dir, "cp", "-a", tr.dir+"/store", tr.dir+"/ws/out", "start/"+s.keep)
			}
			tr.remove()
		}
		l.t.Logf("builds take %v", l.measured)
	})
}

// fileSums are the checksums of the files below a directory, and which of its entries
// are on their way to another name.
func fileSums(dir string) (map[string]string, []string, error) {
	out, temporary := map[string]string{}, []string(nil)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if strings.HasPrefix(d.Name(), ".") && rel != "." {
			temporary = append(temporary, p)
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		if out[rel] = hex.EncodeToString(sum[:]); changing[rel] {
			out[rel] = "changing"
			if msg, err := exec.Command("e2fsck", "-fn", p).CombinedOutput(); err != nil {
				out[rel] = fmt.Sprintf("e2fsck: %v: %s", err, msg)
			}
		}
		return nil
	})
	return out, temporary, err
}
