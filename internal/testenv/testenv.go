// Package testenv gives tests the build environment that stands for the host: this
// machine, or what OSBUILD_TEST_BUILD_ENV says, the file or the JSON that the option
// --build-env takes. Its tree is built once, by the command itself, and exported for
// the tests of all packages; IDs stay what they are, so tests can compare them.
package testenv

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/runners"
	"golang.org/x/sys/unix"
)

// Variable is the environment variable that names the build environment.
const Variable = "OSBUILD_TEST_BUILD_ENV"

// found keeps the answer for the processes that a test starts.
const found = "OSBUILD_STAR_TEST_HOST"

// Host is the build root of tests that use the host's.
type Host struct {
	Tree   string `json:"tree"`   // "/", or a directory
	Runner string `json:"runner"` // its full name
}

// Real tells that it is this machine.
func (h Host) Real() bool { return h.Tree == "/" }

// Setup finds the build root of tests, and makes it where it is not there yet; call it
// in TestMain. Processes that are started afterwards find it by themselves.
func Setup() (Host, error) {
	if h, ok := inherited(); ok {
		return h, nil
	}
	text := os.Getenv(Variable)
	if text == "" {
		return Host{Tree: "/", Runner: runners.Host("/")}, nil
	}
	h, err := build(text)
	if err != nil {
		return h, fmt.Errorf("%s: %w", Variable, err)
	}
	b, err := json.Marshal(h)
	if err != nil {
		return h, err
	}
	return h, os.Setenv(found, string(b))
}

// Env is what a process has to have in its environment to find what Setup has found;
// nil on this machine.
func Env() []string {
	if v := os.Getenv(found); v != "" {
		return []string{found + "=" + v}
	}
	return nil
}

// Inherited is what a process that a test has started finds; ok is false when nothing
// stands for this machine.
func Inherited() (h Host, ok bool) { return inherited() }

func inherited() (h Host, ok bool) {
	v := os.Getenv(found)
	return h, v != "" && json.Unmarshal([]byte(v), &h) == nil
}

// build makes the tree of an environment, or finds it made.
func build(text string) (Host, error) {
	data := []byte(text)
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		var err error
		if data, err = os.ReadFile(text); err != nil {
			return Host{}, err
		}
	}
	env, err := manifest.LoadEnvironment(data, manifest.Builtin())
	if err != nil {
		return Host{}, err
	}
	r, err := runners.Lookup(env.Runner)
	if err != nil {
		return Host{}, err
	}
	sum := sha256.Sum256(data)
	dir := filepath.Join(os.TempDir(), "osbuild-star-test-env-"+hex.EncodeToString(sum[:8]))
	name := env.Pipelines[len(env.Pipelines)-1].Name
	h := Host{Tree: filepath.Join(dir, name), Runner: r.Name}
	// The tests of several packages run at once.
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return Host{}, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Host{}, fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(h.Tree); err == nil {
		return h, nil
	}
	m, err := (&manifest.Manifest{Pipelines: env.Pipelines, Sources: env.Sources}).MarshalJSON()
	if err != nil {
		return Host{}, err
	}
	return h, export(dir, name, m)
}

// export builds a pipeline with the command and puts its tree into dir.
func export(dir, pipeline string, m []byte) error {
	work, err := os.MkdirTemp("", "osbuild-star-test-env.")
	if err != nil {
		return err
	}
	defer scratch.RemoveAll(work)
	prog, made := filepath.Join(work, "osbuild-star"), filepath.Join(work, "out")
	build := exec.Command("go", "build", "-o", prog, "github.com/osbuild-star/osbuild-star/cmd/osbuild-star")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the command: %w\n%s", err, out)
	}
	cmd := exec.Command(prog, "osbuild", "--export", pipeline, "--output-directory", made, "-")
	cmd.Stdin = bytes.NewReader(m)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the environment: %w\n%s", err, out)
	}
	return os.Rename(made, dir)
}
