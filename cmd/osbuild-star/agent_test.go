// What the program does before it is the agent: as little as there is, for it is
// started for every stage.
package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/osbuild-star/osbuild-star/agent/wire"
)

func TestAgentStartsEarly(t *testing.T) {
	const trace = "inittrace=1"
	if os.Getenv("GODEBUG") == trace {
		t.Fatal("the test program was started as the agent, and is not")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = []string{wire.AgentName, "launch"} // and nothing to launch
	cmd.Env = []string{"GODEBUG=" + trace}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "launch: no program") {
		t.Fatalf("it is not the agent: %v\n%s", err, out)
	}
	inits := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "init" {
			inits[strings.TrimPrefix(f[1], "github.com/osbuild-star/osbuild-star/")] = true
		}
	}
	if !inits["stages"] {
		t.Fatalf("the stages are not initialised, or the trace reads otherwise:\n%s", out)
	}
	for _, p := range []string{"builtins", "engine", "engine/vm", "sources/apt", "cmd/osbuild-star", "net/http"} {
		if inits[p] {
			t.Errorf("%s is initialised for every stage", p)
		}
	}
}
