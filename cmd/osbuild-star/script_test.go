// Tests of the command by scripts: each file of testdata/script is one, in the
// format of testscript. This file is how they are run; the commands that scripts
// have beside testscript's own are in scriptcmd_test.go.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/osbuild-star/osbuild-star/agent"
	"github.com/osbuild-star/osbuild-star/buildroot/binfmt"
	"github.com/osbuild-star/osbuild-star/engine"
	"github.com/osbuild-star/osbuild-star/internal/testenv"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the expected output in testdata/script anew")

// TestMain is several programs, by its name: the agent of build roots (by agent/start), the
// command itself, a helper that starts it in a full file system, and the tests.
func TestMain(m *testing.M) {
	if agent.Is(os.Args) { // for the stages of these tests
		os.Exit(agent.Main(os.Args))
	}
	h, err := testenv.Setup()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	host = engine.Host{Tree: h.Tree, Runner: h.Runner}
	testscript.Main(m, map[string]func(){
		"osbuild-star": func() { os.Exit(Main()) },
		"in-tmpfs":     func() { os.Exit(inTmpfs(os.Args[1:])) },
		"in-readonly":  func() { os.Exit(inReadonly(os.Args[1:])) },
	})
}

// inTmpfs mounts a tmpfs with those options on a directory, in a mount namespace of
// its own, and becomes the command: in-tmpfs DIR OPTIONS COMMAND...
func inTmpfs(args []string) int {
	return inNamespace(args[2:], func() error { return unix.Mount("tmpfs", args[0], "tmpfs", 0, args[1]) })
}

// inReadonly mounts a directory on itself, read-only, and becomes the command:
// in-readonly DIR COMMAND...
func inReadonly(args []string) int {
	return inNamespace(args[1:], func() error {
		if err := unix.Mount(args[0], args[0], "", unix.MS_BIND, ""); err != nil {
			return err
		}
		return unix.Mount("", args[0], "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	})
}

// inNamespace mounts something in a mount namespace of its own and becomes the command.
func inNamespace(command []string, mount func() error) int {
	fail := func(what string, err error) int {
		fmt.Fprintf(os.Stderr, "%s: %s: %v\n", os.Args[0], what, err)
		return 125
	}
	runtime.LockOSThread() // the namespace is that of the thread which becomes the command
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fail("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fail("making mounts private", err)
	}
	if err := mount(); err != nil {
		return fail("mounting", err)
	}
	prog, err := exec.LookPath(command[0])
	if err != nil {
		return fail("looking", err)
	}
	return fail("starting", unix.Exec(prog, command, os.Environ()))
}

// canBuild tells why builds cannot be tested here, or "".
func canBuild() string {
	switch {
	case os.Geteuid() != 0:
		return "building needs root"
	case builtWithCgo:
		return "a test program with cgo cannot be the agent of a build root: CGO_ENABLED=0 go test"
	}
	return ""
}

func needBuild(t testing.TB) {
	t.Helper()
	if why := canBuild(); why != "" {
		t.Skip(why)
	}
}

func TestScripts(t *testing.T) {
	// Another user has to reach the command.
	prog, err := exec.LookPath("osbuild-star")
	if err != nil {
		t.Fatal(err)
	}
	// testscript leaves its folder behind when not all scripts are run.
	tmp := t.TempDir()
	t.Setenv("GOTMPDIR", tmp)
	for _, d := range []string{filepath.Dir(prog), filepath.Dir(filepath.Dir(prog)), tmp, filepath.Dir(tmp)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot()
	t.Cleanup(func() { before.check(t, "") })
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("OSBUILD_STAR_STORE", filepath.Join(env.WorkDir, "store"))
			env.Setenv("NO_COLOR", "1")
			env.Vars = append(env.Vars, testenv.Env()...)
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, "tmp"))
			for _, d := range []string{filepath.Join(env.WorkDir, "var"), filepath.Join(env.WorkDir, "tmp")} {
				if err := os.Mkdir(d, 0o777); err != nil {
					return err
				}
				if err := os.Chmod(d, 0o777); err != nil {
					return err
				}
			}
			for _, d := range []string{env.WorkDir, filepath.Dir(env.WorkDir)} {
				if err := os.Chmod(d, 0o755); err != nil {
					return err
				}
			}
			s := &scriptState{vars: env.Vars, before: snapshot(), started: map[string]*process{}}
			env.Values[stateKey{}] = s
			env.Defer(s.end)
			return nil
		},
		Cmds:          scriptCommands,
		Condition:     condition,
		UpdateScripts: *update,
		// What a script says has to be what a person types.
		RequireExplicitExec: true,
	})
}

// condition has [build]: stages can be run here, and [foreign]: those of trees of s390x
// too, whose packages can be downloaded.
func condition(cond string) (bool, error) {
	switch cond {
	case "build":
		return canBuild() == "", nil
	case "foreign":
		_, err := exec.LookPath("apt-get")
		return !testing.Short() && err == nil && canBuild() == "" && binfmt.Host() != "s390x" && binfmt.Check("s390x") == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}
