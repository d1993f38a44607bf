// Native programs in a tree of another architecture: scripts of packages start a shell,
// a Perl and small tools thousands of times, and each start that is emulated costs
// thirty times one that is not.
//
// The programs are taken from a tree of this machine's architecture, and only where
// it has them from the same package of the same release, so that they do the same.
// They are seen in place of the tree's while scripts run, and find their libraries,
// locales and modules below /run, which is empty in a jail otherwise: nothing is put
// anywhere in the tree that a script could notice. For that they are copied, and paths in
// the copies are replaced by others of the same length: /usr/lib/TRIPLET and
// /usr/lib/locale are below /run/lib, and the dynamic linker is in /run.
package deb

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// nativePrograms are programs in /usr/bin whose results do not depend on the
// architecture that they were made for, by package. What tells of the machine, as uname
// and arch do, or shows the order of bytes, as od, is not among them.
var nativePrograms = map[string][]string{
	"coreutils": {
		"basename", "cat", "chgrp", "chmod", "chown", "comm", "cp", "cut", "dirname", "echo", "env", "expr", "false", "head", "id", "install",
		"ln", "ls", "md5sum", "mkdir", "mktemp", "mv", "printf", "readlink", "realpath", "rm", "rmdir", "seq", "sha256sum", "sort",
		"stat", "sync", "tail", "tee", "test", "[", "touch", "tr", "true", "uniq", "wc",
	},
	"dash":      {"dash"},
	"findutils": {"find", "xargs"},
	"grep":      {"egrep", "fgrep", "grep"},
	"perl-base": {"perl"},
	"sed":       {"sed"},
}

// natives are such programs, ready to be seen in a tree.
type natives struct {
	tree    string            // that they are from
	triplet string            // of its libraries: "x86_64-linux-gnu"
	files   map[string]string // name in /usr/bin → copy
	libc    string            // a copy
	linker  string            // a copy
	at      string            // of the linker in /run
}

// revisions are the end of a version by which the architectures of one release can
// differ: updates of the stable release, which security support makes for some only, and
// packages that were only made again. They mend, and do not change what scripts get.
var revisions = lazyRegexp(`([+~]deb\d+u\d+)?(\+b\d+)?$`)

// makeNatives copies programs of a tree to dir, for a tree of Debian's architecture
// arch. versions says which version of a package that one has, or will have. nil is
// none of the same version.
func makeNatives(tree, dir, arch string, versions map[string]string) (*natives, error) {
	t, err := openTree(tree)
	if err != nil {
		return nil, err
	}
	defer t.close()
	db, err := readDatabase(t)
	if err != nil {
		return nil, fmt.Errorf("the tree of native programs: %w", err)
	}
	libc, _ := filepath.Glob(filepath.Join(tree, "usr/lib/*/libc.so.6"))
	if len(libc) != 1 {
		return nil, errors.New("the tree of native programs has no libc, or several")
	}
	n := &natives{tree: tree, triplet: filepath.Base(filepath.Dir(libc[0])), files: map[string]string{}}
	linker := ""
	for _, e := range db.entries {
		if !e.configured() || revisions().ReplaceAllString(e.version, "") != revisions().ReplaceAllString(versions[e.name], "") {
			continue
		}
		for _, name := range nativePrograms[e.name] {
			if name == "perl" && asksMachine(arch) {
				continue
			}
			b, err := os.ReadFile(filepath.Join(tree, "usr/bin", name))
			if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.HasPrefix(b, []byte("\x7fELF")) {
				continue
			}
			if err != nil {
				return nil, err
			}
			asks, err := n.patch(b)
			if err != nil {
				return nil, fmt.Errorf("%s of the tree of native programs: %w", name, err)
			}
			if asks == "" {
				continue
			}
			linker = asks
			n.files[name] = filepath.Join(dir, "native-"+name)
			if err := os.WriteFile(n.files[name], b, 0o755); err != nil {
				return nil, err
			}
		}
	}
	if len(n.files) == 0 {
		return nil, nil
	}
	n.at = runPath(linker)
	for _, c := range []struct {
		from string
		to   *string
	}{{libc[0], &n.libc}, {filepath.Join(tree, "usr/lib", n.triplet, filepath.Base(linker)), &n.linker}} {
		b, err := os.ReadFile(c.from)
		if err != nil {
			return nil, err
		}
		if _, err := n.patch(b); err != nil {
			return nil, err
		}
		*c.to = filepath.Join(dir, "native-"+filepath.Base(c.from))
		if err := os.WriteFile(*c.to, b, 0o755); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// makeNatives makes them ready, where they are given and of use.
func (in *installer) makeNatives(dir string) (err error) {
	if in.Native == "" || in.native == debArch() {
		return nil
	}
	versions := map[string]string{}
	for _, e := range in.db.entries {
		versions[e.name] = e.version
	}
	for _, j := range in.jobs {
		versions[j.name] = j.version
	}
	in.fast, err = makeNatives(in.Native, dir, in.native, versions)
	return err
}

// asksMachine tells for which architectures a script in Perl has another result where
// uname says another machine: linux-base calls the link to the kernel /vmlinux on these,
// and /vmlinuz on all others.
func asksMachine(arch string) bool {
	for _, family := range []string{"powerpc", "ppc", "mips", "parisc", "hppa"} {
		if strings.HasPrefix(arch, family) {
			return true
		}
	}
	return false
}

// debArch is Debian's name of this machine's architecture.
func debArch() string {
	switch runtime.GOARCH {
	case "386":
		return "i386"
	case "arm":
		return "armhf"
	case "ppc64le":
		return "ppc64el"
	}
	return runtime.GOARCH
}

// runPath is a path of the same length below /run: of the linker, "/lib/…" or
// "/lib64/…". "" is one that has none.
func runPath(linker string) string {
	if rest, ok := strings.CutPrefix(linker, "/lib64/"); ok {
		return "/run/n/" + rest
	}
	if rest, ok := strings.CutPrefix(linker, "/lib/"); ok {
		return "/run/" + rest
	}
	return ""
}

// patch replaces the paths in a program or library. It returns the linker that it
// asked for, "" if none or one for which there is no place.
func (n *natives) patch(b []byte) (linker string, err error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Off+p.Filesz > uint64(len(b)) || p.Filesz == 0 {
			continue
		}
		at := b[p.Off : p.Off+p.Filesz-1]
		linker = string(at)
		if runPath(linker) == "" {
			return "", nil
		}
		copy(at, runPath(linker))
	}
	for _, dir := range []string{n.triplet, "locale"} {
		from, to := []byte("/usr/lib/"+dir), []byte("/run/lib/"+dir)
		for i := 0; ; i += len(from) {
			j := bytes.Index(b[i:], from)
			if j < 0 {
				break
			}
			i += j
			copy(b[i:], to)
		}
	}
	return linker, nil
}

// mount shows the programs in a tree whose /run is an empty tmpfs at run. within finds
// a path of the tree.
func (n *natives) mount(run string, within func(string) (string, bool)) error {
	lib := filepath.Join(run, "lib")
	if err := os.Mkdir(lib, 0o755); err != nil {
		return err
	}
	if err := bindReadOnly(filepath.Join(n.tree, "usr/lib"), lib); err != nil {
		return fmt.Errorf("binding native libraries: %w", err)
	}
	if err := bindReadOnly(n.libc, filepath.Join(lib, n.triplet, "libc.so.6")); err != nil {
		return fmt.Errorf("binding the native libc: %w", err)
	}
	linker := filepath.Join(run, strings.TrimPrefix(n.at, "/run"))
	if err := os.MkdirAll(filepath.Dir(linker), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(linker, nil, 0o755); err != nil {
		return err
	}
	if err := bindReadOnly(n.linker, linker); err != nil {
		return fmt.Errorf("binding the native linker: %w", err)
	}
	for name, file := range n.files {
		full, ok := within("/usr/bin/" + name)
		if !ok || name == "perl" && hasModules(within) {
			continue
		}
		st, err := os.Lstat(full)
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		// Scripts look at the attributes of programs: dash gives its time to /bin/sh.
		if err := errors.Join(os.Chmod(file, st.Mode().Perm()), os.Chtimes(file, st.ModTime(), st.ModTime())); err != nil {
			return err
		}
		if err := bindReadOnly(file, full); err != nil {
			return fmt.Errorf("covering /usr/bin/%s: %w", name, err)
		}
	}
	return nil
}

// hasModules tells whether a tree has Perl modules of its architecture beside those
// of perl-base: the native Perl cannot load them.
func hasModules(within func(string) (string, bool)) bool {
	lib, ok := within("/usr/lib")
	if !ok {
		return true
	}
	for _, name := range []string{"perl", "perl5"} {
		if found, _ := filepath.Glob(filepath.Join(lib, "*", name)); len(found) > 0 {
			return true
		}
	}
	return false
}

// OpenNatives makes programs of a tree of this machine's architecture ready for a
// [Jail] of another tree, in a directory that the caller removes when the jail is not
// used any more. They are nil where the tree is of the same architecture, or the other
// one has nothing of the same release.
func OpenNatives(tree, native, dir string) (*natives, error) {
	t, err := openTree(tree)
	if err != nil {
		return nil, err
	}
	defer t.close()
	db, err := readDatabase(t)
	if err != nil {
		return nil, err
	}
	arch, err := nativeArch("", db, nil)
	if err != nil || arch == debArch() {
		return nil, err
	}
	versions := map[string]string{}
	for _, e := range db.entries {
		versions[e.name] = e.version
	}
	return makeNatives(native, dir, arch, versions)
}
