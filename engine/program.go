// Programs: what runs a stage, and in which build root. A stage is part of the agent
// or an executable of a library directory, and so are the runner of its build root
// and the services that give it inputs, devices and mounts (service.go).
package engine

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/libdir"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/runners"
	"github.com/osbuild-star/osbuild-star/stages"
)

// Programs says where programs come from. Without a Dir there are those of
// osbuild-star alone.
type Programs struct {
	Dir    *libdir.Dir // executables of upstream osbuild's kind; may be nil
	Prefer bool        // take those of Dir also for what osbuild-star can do itself
}

// program is what runs a stage: one of the two.
type program struct {
	native *stages.Stage
	module *libdir.Module
}

// startsTree tells whether it may start programs of the tree that it works on: a
// program of a library directory does not say, and may.
func (p program) startsTree() bool {
	return p.module != nil || p.native != nil && p.native.Chroot
}

// stage finds the program of a stage. The assembler of a document of version 1 is
// among the assemblers of a library directory; here a stage of its name does the
// same.
func (p Programs) stage(s *manifest.Stage) (program, error) {
	kind := libdir.Stages
	if s.Assembler {
		kind = libdir.Assemblers
	}
	native := stages.Lookup(s.Type)
	if native != nil && !p.Prefer && !(s.Assembler && p.has(kind, s.Type)) {
		return program{native: native}, nil
	}
	m, err := p.Dir.Find(kind, s.Type)
	switch {
	case err != nil:
		return program{}, err
	case m != nil:
		return program{module: m}, nil
	case native != nil:
		return program{native: native}, nil
	}
	what := "stage"
	if s.Assembler {
		what = "assembler"
	}
	return program{}, fmt.Errorf("unknown %s %q", what, s.Type)
}

func (p Programs) has(kind libdir.Kind, name string) bool {
	m, err := p.Dir.Find(kind, name)
	return m != nil || err != nil
}

// service finds the program that serves a module of that kind, which is known here
// by itself or not; nil means that it is served here.
func (p Programs) service(kind libdir.Kind, name string, known bool) (*libdir.Module, error) {
	if known && !p.Prefer {
		return nil, nil
	}
	return p.Dir.Find(kind, name)
}

func (p Programs) input(in *manifest.Input) (*libdir.Module, error) {
	return p.service(libdir.Inputs, in.Type, in.Type == "org.osbuild.tree" || in.Type == "org.osbuild.files")
}

func (p Programs) device(d *manifest.Device) (*libdir.Module, error) {
	return p.service(libdir.Devices, d.Type, d.Type == "org.osbuild.loopback")
}

func (p Programs) mount(m *manifest.Mount) (*libdir.Module, error) {
	known := kernelName[m.Type] != "" || m.Type == "org.osbuild.noop" || m.Type == "org.osbuild.bind"
	return p.service(libdir.Mounts, m.Type, known)
}

// runner is what sets up a build root: a part of the agent, once for all that runs
// in it, or a program that every other one starts through. A program of the user's own
// is that of the build root itself, see buildroot.Config.
type runner struct {
	native  *runners.Runner
	program *libdir.Module // nil: native alone
	custom  string         // "sha256:…" of a user's own; nothing else is set then
}

// runner finds the runner of that name.
func (p Programs) runner(name string) (runner, error) {
	native, unknown := runners.Lookup(name)
	if unknown == nil && !p.Prefer {
		return runner{native: native}, nil
	}
	m, err := p.Dir.Runner(runners.FullName(name))
	switch {
	case err != nil:
		return runner{}, err
	case m != nil:
		return runner{native: native, program: m}, nil
	case unknown == nil:
		return runner{native: native}, nil
	}
	if p.Dir != nil {
		unknown = fmt.Errorf("%w; in %s there are %s", unknown, p.Dir.Path, strings.Join(p.Dir.RunnersOf(runners.FullName(name)), ", "))
	}
	return runner{}, unknown
}

// CheckRunner tells whether there is a runner of that name.
func (p Programs) CheckRunner(name string) error {
	_, err := p.runner(name)
	return err
}

// bare is the runner of build roots that a program sets up for itself: it makes
// little more than the accounts that every program can count on.
const bare = runners.Prefix + "linux"

// of tells how a build root is prepared for a program, or for any other than a stage,
// and the runner that it starts through. A stage of the agent does not start through a program: it
// is prepared for by the runner of that name in the agent, if there is one.
func (r runner) of(p program, name string) (prepared string, through *libdir.Module) {
	switch {
	case r.program == nil:
		return name, nil
	case p.native == nil:
		return bare, r.program
	case r.native != nil:
		return name, nil
	}
	return bare, nil
}

// key is what of the runner goes into the cache key of what a program makes.
func (r runner) key(p program) (string, error) {
	if r.custom != "" {
		return "program " + r.custom, nil // by its content, and not by its name
	}
	if r.program != nil && (p.module != nil || r.native == nil) {
		return programKey(r.program)
	}
	return fmt.Sprintf("%s %d", r.native.Name, r.native.Revision), nil
}

// key is what of the program goes into the cache key of what it makes.
func (p program) key() (string, error) {
	if p.native != nil {
		return fmt.Sprintf("%s %d", p.native.Name, p.native.Revision), nil
	}
	return programKey(p.module)
}

func programKey(m *libdir.Module) (string, error) {
	sum, err := m.Digest()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/%s sha256:%s %v", m.Kind, m.Name, sum, m.Capabilities), nil
}

func (p program) capabilities() []string {
	if p.native != nil {
		return p.native.Capabilities
	}
	return p.module.Capabilities
}

// inPlace tells that a stage changes a large file where it is; what is known of the
// stage here holds for a program of its name too.
func (p program) inPlace(name string) bool {
	s := p.native
	if s == nil {
		s = stages.Lookup(name)
	}
	return s != nil && s.InPlace
}

// executables are the programs of the library directory that take part in a stage:
// its own, and those of its inputs, devices and mounts.
func (p Programs) executables(s *manifest.Stage, of program) ([]*libdir.Module, error) {
	var out []*libdir.Module
	var errs []error
	add := func(m *libdir.Module, err error) {
		if m != nil && !slices.Contains(out, m) {
			out = append(out, m)
		}
		errs = append(errs, err)
	}
	if of.module != nil {
		add(of.module, nil)
	}
	for _, name := range names(s.Inputs) {
		add(p.input(s.Inputs[name]))
	}
	for _, name := range names(s.Devices) {
		add(p.device(s.Devices[name]))
	}
	for _, m := range s.Mounts {
		add(p.mount(m))
	}
	return out, errors.Join(errs...)
}

func names[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// servicesKey is what of the services of a stage goes into its cache key: "" when
// there are none. The library that programs import is part of each of them.
func (p Programs) servicesKey(s *manifest.Stage, of program) (string, error) {
	all, err := p.executables(s, of)
	if err != nil || len(all) == 0 {
		return "", err
	}
	var keys []string
	for _, m := range all {
		k, err := programKey(m)
		if err != nil {
			return "", err
		}
		keys = append(keys, k)
	}
	slices.Sort(keys)
	lib, err := p.Dir.LibraryDigest()
	return strings.Join(append(keys, "library "+lib), "\n"), err
}

// job makes the parts of a job that are about programs: what to start, through what,
// and the library that both of them see.
func (e *Engine) job(of program, through *libdir.Module) (buildroot.Job, error) {
	j := buildroot.Job{Caps: of.capabilities()}
	if of.native != nil {
		j.Native = of.native.Name
		return j, nil
	}
	j.Program = of.module.Path
	return j, e.library(&j, through)
}

// library adds the library directory to a job, and the runner that it starts
// through; nil is none.
func (e *Engine) library(j *buildroot.Job, through *libdir.Module) (err error) {
	if e.cfg.Programs.Dir == nil {
		return nil
	}
	if through != nil {
		j.Runner = through.Path
	}
	j.Libdir, err = e.libraryView()
	return err
}

// libraryView is the path in the Space of the library directory: where that has no
// Python package of its own, the installed one is shown in it.
func (e *Engine) libraryView() (string, error) {
	d := e.cfg.Programs.Dir
	python, err := d.Python()
	if err != nil || python == "" {
		return d.Path, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lib != "" {
		return e.lib, nil
	}
	at := filepath.Join(e.work.Path, "lib")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return "", err
	}
	err = e.space.Do(func() error {
		if err := buildroot.Bind(d.Path, at, true); err != nil {
			return err
		}
		return buildroot.Bind(python, filepath.Join(at, "osbuild"), true)
	})
	if err == nil {
		e.lib = at
	}
	return at, err
}

// interpreter is the program that the first line of an executable names, "" when it
// names none.
func interpreter(m *libdir.Module) string {
	f, err := os.Open(m.Path)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReader(f).ReadBytes('\n')
	return interpreterOf(line)
}

// interpreterOf is the program that a text names in its first line.
func interpreterOf(text []byte) string {
	line, _, _ := strings.Cut(string(text), "\n")
	rest, ok := strings.CutPrefix(line, "#!")
	if words := strings.Fields(rest); ok && len(words) > 0 {
		if path.Base(words[0]) == "env" && len(words) > 1 {
			return words[len(words)-1]
		}
		return words[0]
	}
	return ""
}
