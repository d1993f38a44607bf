// Package binfmt makes the kernel run programs of other architectures, by qemu-user
// and binfmt_misc, for as long as they are needed.
//
// A tour: [Use] looks whether programs of an architecture run in any root directory
// already: natively, or by an entry that somebody else made with the flag F ("fix
// binary": the kernel holds the interpreter open, so that it needs not be in the
// tree) and an interpreter that is static. If not, it makes an entry of this process,
// and removes it after the last Close. The table of the kernel is opened as a mount
// without a place (fs.go), so nothing of it is ever seen on the host. Whether it works
// is not assumed but tried: by starting the smallest program there is (elf.go).
//
// # Who removes an entry
//
// Each process makes entries of its own, which carry its number and its start:
// osbuild-star-ARCH-NAMESPACE-PID-START. So processes need not count each other, and
// none takes away what another one uses; where two have one for the same architecture
// the kernel takes the newer. A process that was killed leaves none since Linux 6.7,
// unless the host has binfmt_misc mounted: entries go with the last mount. Else the
// next start removes it ([Sweep]).
//
// # Which flags
//
//   - F: see above.
//   - P: programs see the name that they were called by (argv[0]). Shells and
//     programs with several names go by it.
//   - O: the program is handed to qemu open. It need not be readable by its user, nor
//     have a path (fexecve).
//   - not C: a setuid program gets no privileges by being emulated. An entry is seen
//     by the whole machine, and qemu is not made for running with more privileges
//     than its caller; in a build root nothing gains privileges anyway.
package binfmt

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Error is something about the host that keeps programs of an architecture from
// running.
type Error struct {
	Msg  string
	Hint string // what an administrator does about it, a command where possible
	Err  error  // may be nil
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Msg + ": " + e.Err.Error()
	}
	return e.Msg
}
func (e *Error) Unwrap() error { return e.Err }

// registerHint is what helps where this process may not change the table.
const registerHint = "let the host do it, outside of the container: apt-get install qemu-user-static, which registers it with the flag F, or systemctl restart systemd-binfmt"

func notPermitted(doing string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
		return &Error{Msg: doing + " is not permitted here", Hint: registerHint, Err: err}
	}
	return &Error{Msg: doing, Err: err}
}

// registry are the entries of this process.
type registry struct {
	dirs []string // where qemu is looked for
	mu   sync.Mutex
	own  map[string]*own // by architecture
}

// own is an entry that this process made, and how many use it.
type own struct {
	name  string
	table *table
	users int
}

// emulators are the places of qemu-user. Those of the first have a name by which
// Debian's build of it knows that the flag P is set.
var emulators = []string{"/usr/libexec/qemu-binfmt", "/usr/bin", "/usr/local/bin"}

var process = registry{dirs: emulators, own: map[string]*own{}}

// Handle keeps programs of an architecture running. Close it when they need not any
// more.
type Handle struct {
	once sync.Once
	r    *registry
	arch string
}

// Use makes sure that programs of an architecture run in any root directory, from now
// until the handle is closed. Errors about the host are [*Error].
func Use(arch string) (*Handle, error) { return process.use(arch) }

// Check tells what Use would fail of, without changing anything.
func Check(arch string) error { return process.check(arch) }

func (r *registry) use(arch string) (*Handle, error) {
	if arch == Host() {
		return &Handle{}, nil
	}
	m := lookup(arch)
	if m == nil {
		return nil, &Error{Msg: fmt.Sprintf("programs of architecture %q cannot be run", arch), Hint: "no qemu-user is known for it"}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.own[m.name]; o != nil {
		o.users++
		return &Handle{r: r, arch: m.name}, nil
	}
	t, works, err := look(m)
	if works || err != nil {
		return &Handle{}, errors.Join(err, t.closeIf())
	}
	o := &own{name: entryName(m.name), table: t, users: 1}
	if err := r.register(o, m); err != nil {
		return nil, errors.Join(err, t.close())
	}
	r.own[m.name] = o
	return &Handle{r: r, arch: m.name}, nil
}

func (t *table) closeIf() error {
	if t == nil {
		return nil
	}
	return t.close()
}

// look finds out whether programs of m run already. The table is open where they do
// not, and where it was needed to find out.
func look(m *machine) (t *table, works bool, err error) {
	if t, err = openTable(); err != nil {
		// Without a table what runs is native: i686 on x86_64.
		if run(m) == nil {
			return nil, true, nil
		}
		return nil, false, err
	}
	sweep(t)
	if !t.enabled() {
		if run(m) == nil {
			return t, true, nil
		}
		return t, false, &Error{Msg: "binfmt_misc is switched off", Hint: "switch it on: echo 1 > /proc/sys/fs/binfmt_misc/status"}
	}
	all, err := t.entries()
	if err != nil {
		return t, false, notPermitted("reading binfmt_misc", err)
	}
	header, _ := m.magic()
	good, bad := 0, 0
	for _, e := range all {
		switch {
		case strings.HasPrefix(e.name, prefix) || !e.matches(header):
			// An entry of another process like this one can go at any time.
		case e.everywhere():
			good++
		default:
			bad++
		}
	}
	// Which of several the kernel takes cannot be seen: where one is unfit, an entry
	// of our own comes first.
	switch {
	case bad > 0:
		return t, false, nil
	case good > 0:
		return t, run(m) == nil, nil
	case hasOwnFor(all, header):
		return t, false, nil // what runs may be emulated by an entry of another process
	}
	return t, run(m) == nil, nil
}

func hasOwnFor(all []entry, header []byte) bool {
	for _, e := range all {
		if strings.HasPrefix(e.name, prefix) && e.matches(header) {
			return true
		}
	}
	return false
}

// register makes the entry, and tries it.
func (r *registry) register(o *own, m *machine) error {
	qemu, err := r.emulator(m)
	if err != nil {
		return err
	}
	if err := o.table.register(o.name, m, qemu, "OPF"); err != nil {
		return notPermitted("registering "+qemu+" in binfmt_misc", err)
	}
	if err := run(m); err != nil {
		return errors.Join(&Error{Msg: "programs of " + m.name + " do not run by " + qemu, Hint: "is it whole? apt-get install --reinstall qemu-user-static", Err: err}, o.table.remove(o.name))
	}
	return nil
}

// emulator finds a static qemu-user.
func (r *registry) emulator(m *machine) (string, error) {
	dynamic := ""
	for _, dir := range r.dirs {
		for _, name := range []string{m.qemu + "-binfmt-P", "qemu-" + m.qemu + "-static", "qemu-" + m.qemu} {
			path := filepath.Join(dir, name)
			st, err := os.Stat(path)
			if err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0 || strings.ContainsAny(path, ":\\") {
				continue
			}
			if static(path) {
				return path, nil
			}
			dynamic = path
		}
	}
	if dynamic != "" {
		return "", &Error{Msg: dynamic + " is not static, so it cannot run programs of " + m.name + " in another root directory", Hint: "apt-get install qemu-user-static"}
	}
	return "", &Error{Msg: "this machine cannot run programs of " + m.name + ": qemu-user is not installed", Hint: "apt-get install qemu-user-static"}
}

func (r *registry) check(arch string) error {
	if arch == Host() {
		return nil
	}
	m := lookup(arch)
	if m == nil {
		_, err := r.use(arch)
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own[m.name] != nil {
		return nil
	}
	t, works, err := look(m)
	defer t.closeIf()
	if works || err != nil {
		return err
	}
	if _, err := r.emulator(m); err != nil {
		return err
	}
	f, err := t.file("register", unix.O_WRONLY)
	if err != nil {
		return notPermitted("registering qemu-user in binfmt_misc", err)
	}
	return f.Close()
}

// Close lets go of the architecture; the last one to do so removes the entry that
// this process made.
func (h *Handle) Close() (err error) {
	if h == nil || h.r == nil {
		return nil
	}
	h.once.Do(func() {
		h.r.mu.Lock()
		defer h.r.mu.Unlock()
		o := h.r.own[h.arch]
		if o.users--; o.users > 0 {
			return
		}
		delete(h.r.own, h.arch)
		err = errors.Join(o.table.remove(o.name), o.table.close())
	})
	return err
}

// run starts the probe of m: nil when programs of m run here.
func run(m *machine) error {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "probe")
	defer f.Close()
	if _, err := f.Write(m.probe()); err != nil {
		return err
	}
	// The kernel refuses to start a file that is open for writing.
	r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err
	}
	defer r.Close()
	f.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{r}
	cmd.Env = []string{}
	err = cmd.Run()
	var ee *exec.ExitError
	if errors.As(err, &ee) && ee.ExitCode() == probeStatus {
		return nil
	}
	if err == nil {
		err = errors.New("exit status 0")
	}
	return err
}

const prefix = "osbuild-star-"

// entryName is the name of an entry of this process.
func entryName(arch string) string {
	pid := os.Getpid()
	return fmt.Sprintf("%s%s-%s-%d-%s", prefix, arch, pidNamespace(), pid, startOf(pid))
}

// pidNamespace is the number of the namespace that process numbers are of: of
// another one's processes nothing can be told.
func pidNamespace() string {
	s, _ := os.Readlink("/proc/self/ns/pid")
	return strings.Trim(strings.TrimPrefix(s, "pid:"), "[]")
}

// startOf is when a process started, in ticks since the machine did; "" when there is
// none of that number.
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the name in brackets, which can have anything in it.
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	const start = 22 - 3 // the first of f is the third
	if len(f) <= start || f[0] == "Z" || f[0] == "X" {
		return ""
	}
	return f[start]
}

// Sweep removes the entries of processes that are gone.
func Sweep() error {
	t, err := openTable()
	if err != nil {
		return err
	}
	sweep(t)
	return t.close()
}

func sweep(t *table) {
	names, _ := t.names()
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, prefix)
		f := strings.Split(rest, "-")
		if !ok || len(f) != 4 || f[1] != pidNamespace() {
			continue
		}
		if pid, err := strconv.Atoi(f[2]); err == nil && startOf(pid) != f[3] {
			_ = t.remove(name)
		}
	}
}
