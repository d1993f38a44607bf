// Tests of ssh on an image of the caller's: the guest of the other tests has no
// ssh server.

package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// realImage is a disk image with an ssh server that lets root in by a key, named
// by OSBUILD_STAR_TEST_IMAGE; OSBUILD_STAR_TEST_FIRMWARE is bios (default) or uefi.
func realImage(t *testing.T) Config {
	t.Helper()
	disk := os.Getenv("OSBUILD_STAR_TEST_IMAGE")
	if disk == "" {
		t.Skip("missing: an image with an ssh server; name one by OSBUILD_STAR_TEST_IMAGE")
	}
	c := Config{Disk: disk, Firmware: os.Getenv("OSBUILD_STAR_TEST_FIRMWARE")}
	c.SSH = true
	if missing := Preflight(c); len(missing) > 0 {
		t.Skipf("missing: %+v", missing)
	}
	return c
}

func TestSSH(t *testing.T) {
	t.Parallel()
	c := realImage(t)
	ctx := within(t, long)
	var out, stderr bytes.Buffer
	status, err := SSH(ctx, c, SSHOptions{
		Command: []string{"cat; id -un; exit 9"}, Stdin: strings.NewReader("input\n"), Stdout: &out, Stderr: &stderr,
	})
	if err != nil || status != 9 || out.String() != "input\nroot\n" {
		t.Errorf("status %d, %v: %q %q", status, err, out.String(), stderr.String())
	}
	// A user who is not there: the status of ssh itself.
	status, err = SSH(ctx, c, SSHOptions{User: "nobody-of-that-name", Options: []string{"-o", "BatchMode=yes"}, Command: []string{"true"}, Stderr: &stderr})
	if err != nil || status != 255 {
		t.Errorf("an unknown user: %d, %v", status, err)
	}
}

func TestOverSSH(t *testing.T) {
	t.Parallel()
	c := realImage(t)
	r := Test(t.Context(), TestSpec{Config: c, OverSSH: true, WaitRunning: true, Commands: []string{"echo a; echo b >&2"}, Timeout: long}, nil)
	if !r.Passed || r.Commands[0].Output != "a\nb\n" {
		t.Errorf("%+v", r)
	}
	t.Logf("ssh after %v, running after %v", r.Boot, r.Running)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := Test(ctx, TestSpec{Config: c}, nil); !errors.Is(r.Err, context.Canceled) || r.IsFailure() {
		t.Errorf("interrupted: %+v", r)
	}
}
