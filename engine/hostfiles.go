// Files of the host as part of cache keys: where the host is the build root, the
// programs that a stage starts and the files that it reads count by what is in them.
//
// A program counts with the shared libraries that it is linked with, and a script with
// its interpreter. The C library is left out: all programs have it, its updates are
// frequent, and what they change is not what programs write. Digests are remembered in
// the store for as long as the kernel says that a file is the same.
package engine

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/store"
	"golang.org/x/sys/unix"
)

// hostFiles remembers files of the host.
type hostFiles struct {
	store *store.Store // may be nil

	mu      sync.Mutex
	known   map[string]hostFile // by path, links followed
	changed bool
}

// hostFresh is how old what is remembered has to be: a file that was written just now can
// be written again within the same tick of the clock. A variable for the tests.
var hostFresh = 2 * time.Second

// hostMemo is their name in the store.
const hostMemo = "host-files"

// hostFile is what a file is.
type hostFile struct {
	Version string   `json:"version"` // as the kernel tells it: another one is another file
	Sum     string   `json:"sum"`     // digest of the content
	Machine string   `json:"machine,omitempty"`
	Needs   []string `json:"needs,omitempty"` // shared libraries, by their names
	Where   []string `json:"where,omitempty"` // that are looked for here first
	Script  string   `json:"script,omitempty"`
}

// hostRound asks for files of one tree, each once.
type hostRound struct {
	files *hostFiles
	root  string
	keys  map[string]string // by what was asked for
	libs  []string          // directories of shared libraries
	seen  map[string]identified
}

type identified struct {
	real string
	file hostFile
	err  error
}

func (h *hostFiles) round(root string) *hostRound {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known == nil {
		h.known = map[string]hostFile{}
		if h.store != nil {
			h.store.ReadMemo(hostMemo, &h.known)
		}
	}
	return &hostRound{files: h, root: root, keys: map[string]string{}, seen: map[string]identified{}}
}

// keep remembers what was found out. That it cannot be costs time, no more.
func (h *hostFiles) keep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.changed || h.store == nil {
		return
	}
	for name := range h.known {
		if _, err := os.Lstat(name); err != nil {
			delete(h.known, name) // a library of an older version, say
		}
	}
	if h.store.WriteMemo(hostMemo, h.known) == nil {
		h.changed = false
	}
}

// key stands for programs, by their names, and for files and directories.
func (r *hostRound) key(tools, reads []string) string {
	var all []string
	for _, t := range tools {
		all = append(all, r.once("program "+t, func() string { return r.program(t) }))
	}
	for _, f := range reads {
		all = append(all, r.once("file "+f, func() string {
			_, file, err := r.identify(f)
			return inKey(file, err)
		}))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}

func (r *hostRound) once(what string, find func() string) string {
	k, ok := r.keys[what]
	if !ok {
		k = what + " " + find()
		r.keys[what] = k
	}
	return k
}

// inKey is a file in a key. One that cannot be read stays the same as long as it cannot.
func inKey(f hostFile, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "absent"
	case err != nil:
		return "unreadable"
	}
	return "sha256:" + f.Sum
}

// program stands for the program of a name, or for all of its names ("a|b") that are
// there, and for the libraries that they need.
func (r *hostRound) program(tool string) string {
	seen := map[string]bool{}
	var out []string
	for name := range strings.SplitSeq(tool, "|") {
		if !path.IsAbs(name) {
			name = r.find(name)
		}
		real, f, err := r.identify(name)
		out = append(out, inKey(f, err))
		if err == nil {
			r.needed(real, f, seen)
		}
	}
	for lib := range seen {
		out = append(out, lib)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// find looks where programs of a build root are looked for.
func (r *hostRound) find(name string) string {
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"} {
		var st unix.Stat_t
		if fd, err := r.open(dir+name, unix.O_PATH); err == nil {
			err = unix.Fstat(fd, &st)
			unix.Close(fd)
			if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				return dir + name
			}
		}
	}
	return name
}

// needed adds the libraries of a program, and of those, and the interpreter of a script.
func (r *hostRound) needed(of string, f hostFile, seen map[string]bool) {
	add := func(what, real string, f hostFile, err error) {
		line := what + "=" + inKey(f, err)
		if !seen[line] {
			seen[line] = true
			if err == nil {
				r.needed(real, f, seen)
			}
		}
	}
	if f.Script != "" {
		name := f.Script
		if !path.IsAbs(name) {
			name = r.find(name)
		}
		real, interp, err := r.identify(name)
		add(f.Script, real, interp, err)
	}
	for _, lib := range f.Needs {
		if cLibrary(lib) {
			continue
		}
		real, found, err := r.library(lib, of, f)
		add(lib, real, found, err)
	}
}

// cLibrary tells whether a library is part of the C library.
func cLibrary(name string) bool {
	for _, p := range []string{"libc.", "libm.", "libpthread.", "libdl.", "librt.", "libutil.", "libresolv.", "ld-", "ld64.", "ld."} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// library finds a shared library as the loader would, without its cache.
func (r *hostRound) library(name, of string, f hostFile) (string, hostFile, error) {
	if r.libs == nil {
		for _, dir := range []string{"/lib", "/usr/lib"} {
			// Debian's, one for each architecture.
			triplets, _ := filepath.Glob(filepath.Join(r.root, dir, "*-linux-gnu*"))
			for _, t := range triplets {
				r.libs = append(r.libs, path.Join(dir, path.Base(t)))
			}
		}
		r.libs = append(r.libs, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	}
	origin := path.Dir("/" + strings.TrimPrefix(of, r.root))
	for _, dir := range append(slices.Clone(f.Where), r.libs...) {
		dir = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir)
		real, lib, err := r.identify(path.Join(dir, name))
		if err == nil && lib.Machine == f.Machine {
			return real, lib, nil
		}
	}
	return "", hostFile{}, fs.ErrNotExist
}

// open opens a path of the tree, in which links lead nowhere else.
func (r *hostRound) open(name string, flags uint64) (int, error) {
	dir, err := unix.Open(r.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return unix.Openat2(dir, strings.TrimPrefix(name, "/"), &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// identify tells what is in a file, or in all files of a directory, and its real path.
func (r *hostRound) identify(name string) (string, hostFile, error) {
	f, ok := r.seen[name]
	if !ok {
		f.real, f.file, f.err = r.look(name)
		r.seen[name] = f
	}
	return f.real, f.file, f.err
}

func (r *hostRound) look(name string) (string, hostFile, error) {
	fail := func(err error) (string, hostFile, error) {
		return "", hostFile{}, &os.PathError{Op: "reading", Path: name, Err: err}
	}
	fd, err := r.open(name, unix.O_PATH)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return fail(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	version, newest := versionOf(&st), time.Unix(st.Ctim.Unix())
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if dir {
		if version, newest, err = treeVersion(real); err != nil {
			return fail(err)
		}
	}
	h := r.files
	h.mu.Lock()
	f, ok := h.known[real]
	h.mu.Unlock()
	if ok && f.Version == version {
		return real, f, nil
	}
	if dir {
		f, err = readTree(real)
	} else {
		f, err = readFile(fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	if err != nil {
		return fail(err)
	}
	f.Version = version
	if time.Since(newest) > hostFresh {
		h.mu.Lock()
		h.known[real], h.changed = f, true
		h.mu.Unlock()
	}
	return real, f, nil
}

func versionOf(st *unix.Stat_t) string {
	return fmt.Sprintf("%x.%d %d %d %d", st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// treeVersion is the version of all that is in a directory.
func treeVersion(dir string) (version string, newest time.Time, err error) {
	h := sha256.New()
	err = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if c := time.Unix(st.Ctim.Unix()); c.After(newest) {
			newest = c
		}
		_, err = fmt.Fprintf(h, "%q %s\n", p, versionOf(&st))
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), newest, err
}

// readTree digests names and contents of all files of a directory.
func readTree(dir string) (hostFile, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		what := ""
		switch d.Type() {
		case 0:
			f, err := readFile(p)
			if err != nil {
				return err
			}
			what = f.Sum
		case fs.ModeSymlink:
			if what, err = os.Readlink(p); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(h, "%q %q\n", strings.TrimPrefix(p, dir), what)
		return err
	})
	return hostFile{Sum: hex.EncodeToString(h.Sum(nil))}, err
}

// readFile digests a file, and sees what it needs to run.
func readFile(p string) (hostFile, error) {
	f, err := os.Open(p)
	if err != nil {
		return hostFile{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return hostFile{}, err
	}
	out := hostFile{Sum: hex.EncodeToString(h.Sum(nil))}
	head := make([]byte, 256)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return hostFile{}, err
	}
	out.Script = interpreterOf(head[:n])
	if !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return out, nil
	}
	// A file that only begins like a program is one without libraries.
	if e, err := elf.NewFile(f); err == nil {
		out.Machine = fmt.Sprint(e.Class, " ", e.Machine)
		out.Needs, _ = e.ImportedLibraries()
		for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
			paths, _ := e.DynString(tag)
			for _, p := range paths {
				out.Where = append(out.Where, filepath.SplitList(p)...)
			}
		}
	}
	return out, nil
}

// HostFiles stands for files of this machine by what is in them; one that is not there
// counts as such.
func (e *Engine) HostFiles(paths ...string) string {
	defer e.files.keep()
	return e.files.round("/").key(nil, paths)
}
