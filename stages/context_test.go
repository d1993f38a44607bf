package stages

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEnv(t *testing.T) {
	epoch := int64(5)
	c := testContext(t, nil)
	if got := c.env(); got != nil {
		t.Errorf("without a source epoch the environment is %q", got)
	}
	c.Meta.SourceEpoch = &epoch
	c.Env = []string{"A=1", "SOURCE_DATE_EPOCH=7"}
	if got := c.env(); !slices.Equal(got, []string{"A=1", "SOURCE_DATE_EPOCH=5"}) {
		t.Errorf("the environment is %q", got)
	}
	t.Setenv("SOME_VARIABLE", "x")
	c.Env = nil
	if got := c.env(); !slices.Contains(got, "SOME_VARIABLE=x") || got[len(got)-1] != "SOURCE_DATE_EPOCH=5" {
		t.Errorf("the environment is %q", got)
	}
}

func TestRunErrors(t *testing.T) {
	c := testContext(t, nil)
	var se *Error
	if err := c.Run("no-such-program"); !errors.As(err, &se) || se.Msg != "no-such-program is not in the build root" {
		t.Errorf("a missing program: %v", err)
	}
	err := c.Run("sh", "-c", "echo said; exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || errors.As(err, &se) && strings.Contains(se.Msg, "exit") {
		t.Errorf("a failing program: %v", err)
	}
	if got := c.Log.(*bytes.Buffer).String(); got != "said\n" {
		t.Errorf("the log is %q", got)
	}
	out, err := c.Output("sh", "-c", "echo out; echo err >&2")
	if err != nil || string(out) != "out\n" || !strings.HasSuffix(fmt.Sprint(c.Log), "err\n") {
		t.Errorf("output %q, %v, log %q", out, err, c.Log)
	}
	if err := c.Input([]byte("in"), "sh", "-c", `test "$(cat)" = in`); err != nil {
		t.Errorf("input: %v", err)
	}
}

func TestChroot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	c := testContext(t, nil)
	var se *Error
	if err := c.Chroot("true"); !errors.As(err, &se) || se.Msg != "true is not in the tree" {
		t.Errorf("a missing program: %v", err)
	}
	dir := inNamespace(t)
	if dir == "" {
		return
	}
	c.Tree = filepath.Join(dir, "tree")
	hostUsr(t, c.Tree)
	if err := c.Chroot("sh", "-c", "test -e /usr/bin/sh && ! test -e /etc && pwd"); err != nil {
		t.Errorf("%v\n%s", err, c.Log)
	}
	if got := fmt.Sprint(c.Log); got != "/\n" {
		t.Errorf("the log is %q", got)
	}
}
