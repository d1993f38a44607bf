package stages

import (
	"fmt"
	"strings"
	"testing"
)

func TestNoop(t *testing.T) {
	runCases(t, "org.osbuild.noop", []stageCase{
		{name: "options", options: `{"any": ["thing"]}`, tree: map[string]string{"/a": "x"}, want: map[string]string{"/a": "x"}},
	})
	c := testContext(t, map[string]any{"answer": 42})
	c.Inputs["in"] = InputArg{}
	if err := runNoop(c); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Log); !strings.Contains(got, `{"answer":42}`) || !strings.Contains(got, "input in") {
		t.Errorf("the log is %q", got)
	}
	c.Options = nil
	if err := runNoop(c); err != nil {
		t.Fatal(err)
	}
}
