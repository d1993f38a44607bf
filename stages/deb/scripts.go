// The maintainer scripts that run before a package is unpacked.
package deb

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// doesNothing reports whether a preinst script does nothing when a package is
// installed for the first time. Most do: debhelper writes them for the upgrades from
// versions of long ago. Only scripts made of lines that are known, and whose every
// action depends on an old version, are recognized; starting a shell for each of the
// others' lines takes a third of a second for a small system.
func doesNothing(script string) bool {
	first, rest, ok := strings.Cut(script, "\n")
	if !ok || !shebang().MatchString(first) {
		return false
	}
	inIf := false
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line[0] == '#', line == "set -e", line == "set -eu", line == "exit 0" && !inIf:
		case !inIf && helperLine().MatchString(line):
		case !inIf && oldVersionIf().MatchString(line):
			inIf = true
		case inIf && line == "fi":
			inIf = false
		case inIf && chmodLine().MatchString(line):
		default:
			return false
		}
	}
	return !inIf
}

var (
	shebang = lazyRegexp(`^#! ?/bin/(da|ba)?sh( -eu?)?$`)
	// Each of these commands of dpkg-maintscript-helper(1) does nothing in a preinst
	// without an old version.
	helperLine   = lazyRegexp(`^dpkg-maintscript-helper (rm_conffile|mv_conffile|symlink_to_dir|dir_to_symlink) [^;&|<>()$` + "`" + `]* -- "\$@"$`)
	oldVersionIf = lazyRegexp(`^if \[ "\$1" = "install" \] && \[ -n "\$2" \] && \[ -e "[^"$` + "`" + `]*" \] *; then$`)
	chmodLine    = lazyRegexp(`^chmod \+x "[^"$` + "`" + `]*" >/dev/null \|\| true$`)
)

// lazyRegexp compiles an expression when it is needed first: this package is part of
// every worker of a build root, and few use it.
func lazyRegexp(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// needsPreinst reports whether the preinst script of a package has to be run.
func (j *job) needsPreinst() bool {
	return j.has("preinst") && !doesNothing(j.file("preinst"))
}

// runPreinst runs the preinst script of a package that is about to be unpacked (or, in
// round 0, has just been), where dpkg runs it: in tmp.ci of the database.
func (in *installer) runPreinst(ctx context.Context, t *tree, j *job) (err error) {
	const dir = adminDir + "/tmp.ci"
	defer func() { err = errors.Join(err, t.removeDir(dir)) }()
	// debconf finds the name of the package there.
	if err := t.write(dir+"/control", []byte(j.control), 0o644); err != nil {
		return err
	}
	for _, f := range j.files {
		mode := f.mode & 0o777 // debconf runs config, if it has the mode of a program
		if isScript(f.name) {
			mode = 0o755
		}
		if err := t.write(dir+"/"+f.name, f.data, mode); err != nil {
			return err
		}
	}
	env := append(ScriptEnv(in.Epoch),
		"DPKG_MAINTSCRIPT_PACKAGE="+j.name, "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1", "DPKG_MAINTSCRIPT_ARCH="+j.arch,
		"DPKG_MAINTSCRIPT_NAME=preinst", "DPKG_MAINTSCRIPT_DEBUG=0", "DPKG_RUNNING_VERSION="+in.dpkgVersion(),
		"DPKG_ADMINDIR="+adminDir, "DPKG_ROOT=")
	tail := &Tail{To: in.Log}
	jail := &Jail{Tree: in.Tree, Env: env, Output: tail, Covers: in.covers, Native: in.fast}
	if err := jail.Run(ctx, dir+"/preinst", "install"); err != nil {
		return &PackageError{Package: j.String(), Doing: "running the preinst script of", Err: err, Output: tail.Last(20)}
	}
	return nil
}

// dpkgVersion is the version of the dpkg that is, or will be, in the tree.
func (in *installer) dpkgVersion() string {
	for _, j := range in.jobs {
		if j.name == "dpkg" {
			return upstream(j.version)
		}
	}
	for _, e := range in.db.entries {
		if e.name == "dpkg" {
			return upstream(e.version)
		}
	}
	return "1.21.22"
}

func upstream(version string) string {
	_, up, _ := splitVersion(version)
	return up
}

// PackageError says which package failed, and what its script printed last.
type PackageError struct {
	Package string // name and version
	Doing   string // "unpacking", "configuring"
	Err     error
	Output  []string
}

func (e *PackageError) Error() string {
	s := fmt.Sprintf("%s %s: %v", e.Doing, e.Package, e.Err)
	if len(e.Output) > 0 {
		s += "\n  " + strings.Join(e.Output, "\n  ")
	}
	return s
}

func (e *PackageError) Unwrap() error { return e.Err }
