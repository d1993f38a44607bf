// Runners of the user's own: programs that prepare a build root and start what runs in it.
package buildroot

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/agent/wire"
	"github.com/osbuild-star/osbuild-star/stages"
)

// catStage logs a file of the build root.
const catStage = "org.osbuild-star.test.cat"

func init() {
	stages.Register(&stages.Stage{Name: catStage, Revision: 1, Run: func(c *stages.Context) error {
		b, err := os.ReadFile("/etc/mine")
		c.Logf("native sees %s", strings.TrimSpace(string(b)))
		return err
	}})
}

func ownRunner(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "my-runner")
	if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOwnRunner(t *testing.T) { eachSandbox(t, testOwnRunner) }

func testOwnRunner(t *testing.T, sandbox string) {
	s := newSpace(t)
	b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "my-runner", Work: t.TempDir(), Var: t.TempDir(), Program: ownRunner(t, `#!/bin/sh
echo "$(cat /etc/mine 2>/dev/null)+" > /etc/mine
mkdir -p /var/lib/mine
export STARTED_BY="$0"
"$@"
exit $(($? * 2))
`)})
	if err != nil {
		t.Fatal(err)
	}
	defer checkClosed(t, s, b)
	run := func(j Job) (string, *Result) {
		t.Helper()
		var out []string
		j.Line = func(l string) { out = append(out, l) }
		res, err := b.Run(context.Background(), j)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, "\n"), res
	}
	for range 2 { // each has its own view
		// Prepared once: what it made lies under native stages.
		if out, res := run(Job{Native: catStage, Arguments: json.RawMessage(`{}`)}); out != "native sees +" || res.Status != 0 || res.Err != nil {
			t.Errorf("a native stage: %q %+v", out, res)
		}
		// A program is started by it, once more, and its status is the runner's.
		out, res := run(Job{Argv: []string{"/bin/sh", "-c", `cat /etc/mine; echo $STARTED_BY; ls -d /var/lib/mine; echo "$@"; exit 3`, "sh", "a b"}})
		if diff := cmp.Diff("++\n/run/osbuild/runner/my-runner\n/var/lib/mine\na b", out); diff != "" || res.Status != 6 {
			t.Errorf("a program: status %d (-want +got):\n%s", res.Status, diff)
		}
	}
	// The host executable of a Job is started by it too.
	if out, _ := run(Job{Program: ownRunner(t, "#!/bin/sh\necho $STARTED_BY $0 $1\n"), Argv: []string{"x"}}); out != "/run/osbuild/runner/my-runner /run/osbuild/bin/my-runner x" {
		t.Errorf("an executable of the host: %q", out)
	}
}

func TestOwnRunnerFails(t *testing.T) { eachSandbox(t, testOwnRunnerFails) }

func testOwnRunnerFails(t *testing.T, sandbox string) {
	s := newSpace(t)
	for _, c := range []struct{ name, text, err, hint string }{
		{"it fails", "#!/bin/sh\nfor i in 1 2 3 4 5 6; do echo line $i; done\nexit 3\n", "preparing the build root: runner my-runner: exit status 3: line 2; line 3; line 4; line 5; line 6", ""},
		{"it fails in silence", "#!/bin/sh\nexit 3\n", "preparing the build root: runner my-runner: exit status 3", ""},
		{"no interpreter", "#!/usr/bin/no-python3 -I\n", "preparing the build root: runner my-runner is a script for /usr/bin/no-python3, which is not in the build root", "add the package that holds it, or write the runner as a static program"},
		{"no program", "echo hello\n", "preparing the build root: runner my-runner is no program for this build root", "a script begins with #!"},
		{"something stays behind", "#!/bin/sh\nsetsid sleep 20 &\nexit 4\n", "preparing the build root: runner my-runner: exit status 4", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: "my-runner", Program: ownRunner(t, c.text), Work: t.TempDir(), Var: t.TempDir()})
			if err == nil || err.Error() != c.err {
				t.Fatalf("%v\nwant %s", err, c.err)
			}
			if c.hint != "" && !strings.Contains(hintIn(err), c.hint) {
				t.Errorf("hint %q", hintIn(err))
			}
		})
	}
}

func hintIn(err error) string {
	var we *wire.Error
	if errors.As(err, &we) {
		return we.Hint
	}
	return ""
}
