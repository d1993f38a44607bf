package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterruptAnyMoment ends builds at moments that nobody chose: while a build
// root starts, between stages, while files are put into out/. After Ctrl-C nothing
// is left; after kill -9 the next build removes what is; the last one is right.
func TestInterruptAnyMoment(t *testing.T) {
	needBuild(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"MODULE.star": "",
		"BUILD.star": `
DISK = {"disk": device.loopback("disk.raw")}
OS = pipeline("os", [
    stage.hostname(hostname = param("hostname", "last")),
    stage.timezone(zone = "Etc/UTC"),
    stage.copy(paths = [{"from": "input://f/" + file("MODULE.star").id, "to": "tree:///m"}], inputs = {"f": file("MODULE.star")}),
])
image("disk", pipeline("disk", [
    stage.truncate(filename = "disk.raw", size = "16777216"),
    stage.mkfs_ext4(uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", devices = {"device": DISK["disk"]}),
    stage.copy(
        paths = [{"from": "input://os/", "to": "mount://disk/"}],
        inputs = {"os": OS},
        devices = DISK,
        mounts = [mount.ext4("disk", "/")],
    ),
]))
image("os", OS)
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	vardir := filepath.Join(dir, "var")
	before := snapshot()
	build := func(name string) *process {
		p := &process{cmd: exec.Command("osbuild-star", "build", "--store=store", "--var-dir="+vardir, "-Dhostname="+name, "//:all"), done: make(chan struct{})}
		p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.stdout, &p.stderr
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { p.err = p.cmd.Wait(); close(p.done) }()
		return p
	}
	left := func() []string {
		var out []string
		for _, d := range []string{vardir, filepath.Join(dir, "store/tmp")} {
			ents, err := os.ReadDir(d)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			for _, e := range ents {
				out = append(out, filepath.Join(d, e.Name()))
			}
		}
		return out
	}
	var pids []int
	for i := range 12 {
		p := build(fmt.Sprintf("name%d", i))
		pids = append(pids, p.cmd.Process.Pid)
		time.Sleep(time.Duration(i) * 31 * time.Millisecond)
		sig, kill := syscall.SIGINT, i%3 == 2
		if kill {
			sig = syscall.SIGKILL
		}
		p.cmd.Process.Signal(sig)
		select {
		case <-p.done:
		case <-time.After(patience):
			p.cmd.Process.Kill()
			t.Fatalf("a build does not end after signal %v:\n%s", sig, &p.stderr)
		}
		if kill {
			continue
		}
		// It may have been too early, before it could say anything, or too late.
		switch status := p.cmd.ProcessState.ExitCode(); {
		case status == exitInterrupted && !strings.HasSuffix(p.stderr.String(), "interrupted\n"),
			status != exitInterrupted && status != exitOK && p.stderr.Len() > 0,
			bytes.Contains(p.stderr.Bytes(), []byte("warning")):
			t.Errorf("after %d ms and Ctrl-C, exit status %d:\n%s", i*31, status, &p.stderr)
		}
		if got := left(); len(got) > 0 {
			t.Errorf("after Ctrl-C at %d ms there are still: %v", i*31, got)
		}
	}
	for _, pid := range pids {
		for end := time.Now().Add(patience); len(cgroupProcesses(fmt.Sprintf("osbuild-star.%d.", pid))) > 0 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	last := build("last")
	<-last.done
	if last.err != nil {
		t.Fatalf("the last build: %v\n%s", last.err, &last.stderr)
	}
	if got := read(t, filepath.Join(dir, "out/os/etc/hostname")); got != "last\n" {
		t.Errorf("the hostname is %q", got)
	}
	if got := left(); len(got) > 0 {
		t.Errorf("there are still: %v", got)
	}
	for _, pid := range append(pids, last.cmd.Process.Pid) {
		if got := cgroupsWith(fmt.Sprintf("osbuild-star.%d.", pid)); len(got) > 0 {
			t.Errorf("cgroups are left: %v", got)
		}
		if got := processesWith(fmt.Sprintf("osbuild-star-%d-", pid)); len(got) > 0 {
			t.Errorf("processes are left: %v", got)
		}
	}
	before.check(t, dir)
	// The file system on the disk is whole.
	if out, err := exec.Command("e2fsck", "-fn", filepath.Join(dir, "out/disk/disk.raw")).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}
