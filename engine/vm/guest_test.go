// The guest of the tests: Debian's cloud kernel, a busybox and an init of our
// own, put together once per run.

package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// guestFiles are taken out of Debian packages and kept in the user's cache.
type guestFiles struct{ kernel, initrd string }

var guest = sync.OnceValues(makeGuest)

// guestConfig is a machine that plays a mode of testdata/guest. It skips the test
// where it cannot be made, and says what is missing.
func guestConfig(t *testing.T, mode string) Config {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a machine")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the test guest is an amd64 machine")
	}
	if missing := Preflight(Config{}); len(missing) > 0 {
		t.Skipf("missing: %+v", missing)
	}
	g, err := guest()
	if err != nil {
		t.Skipf("no test guest: %v", err)
	}
	return Config{
		Kernel: g.kernel, Initrd: g.initrd, Append: "console=ttyS0 panic=0 guest=" + mode,
		Memory: 256, CPUs: 1, Accel: "tcg",
	}
}

// within is a context that a test which hangs fails by, on any machine.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func makeGuest() (g guestFiles, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return g, err
	}
	dir := filepath.Join(cache, "osbuild-star-tests", "guest")
	if err := fetchGuest(dir); err != nil {
		return g, err
	}
	tmp, err := os.MkdirTemp("", "vm-guest-")
	if err != nil {
		return g, err
	}
	cleanups = append(cleanups, func() { os.RemoveAll(tmp) })
	init := filepath.Join(tmp, "init")
	build := exec.Command("go", "build", "-o", init, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		return g, fmt.Errorf("build the init: %v: %s", err, out)
	}
	var cpio cpioWriter
	for _, d := range []string{"bin", "dev", "modules", "proc", "sys", "tmp", "run"} {
		cpio.add(d, 0o40755, nil)
	}
	for name, from := range map[string]string{
		"init": init, "bin/busybox": filepath.Join(dir, "busybox"),
		"modules/button.ko": filepath.Join(dir, "button.ko"), "modules/evdev.ko": filepath.Join(dir, "evdev.ko"),
	} {
		data, err := os.ReadFile(from)
		if err != nil {
			return g, err
		}
		cpio.add(name, 0o100755, data)
	}
	for _, n := range []string{"sh", "env", "stty", "sed", "cat", "seq", "dmesg", "sleep", "usleep", "id", "head", "tr", "sha256sum", "poweroff", "yes"} {
		cpio.add("bin/"+n, 0o120777, []byte("busybox"))
	}
	// What the tests of WaitRunning ask; its answer is on the kernel command line.
	cpio.add("bin/systemctl", 0o100755, []byte(`#!/bin/sh
case "$1" in
is-system-running) case "$(cat /proc/cmdline)" in
	*state=degraded*) echo degraded; exit 1;;
	*) sleep 1; echo running;;
	esac;;
list-units) echo "broken.service loaded failed failed A unit that fails";;
status) echo "broken.service - A unit that fails"; echo "Jan 01 guest broken[7]: it broke"; exit 3;;
esac
`))
	g = guestFiles{kernel: filepath.Join(dir, "vmlinuz"), initrd: filepath.Join(tmp, "initrd")}
	return g, os.WriteFile(g.initrd, cpio.finish(), 0o644)
}

// fetchGuest fills dir by apt-get, if that was not done before.
func fetchGuest(dir string) error {
	if isFile(filepath.Join(dir, "vmlinuz")) {
		return nil
	}
	for _, p := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(p); err != nil {
			return errors.New("missing: " + p + ", to fetch a kernel of Debian")
		}
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(parent, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	deps, err := exec.Command("apt-cache", "depends", "linux-image-cloud-amd64").Output()
	if err != nil {
		return fmt.Errorf("apt-cache depends linux-image-cloud-amd64: %v", err)
	}
	m := regexp.MustCompile(`Depends: (linux-image-\S+-cloud-amd64)`).FindSubmatch(deps)
	if m == nil {
		return errors.New("missing: the package linux-image-cloud-amd64 in the lists of apt (apt-get update)")
	}
	get := exec.Command("apt-get", "download", "-q", string(m[1]), "busybox-static")
	get.Dir = tmp
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s busybox-static: %v: %s", m[1], err, out)
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	want := []struct{ match, name string }{
		{"/boot/vmlinuz-*", "vmlinuz"}, {"*/button.ko", "button.ko"}, {"*/evdev.ko", "evdev.ko"}, {"*/bin/busybox", "busybox"},
	}
	ready := filepath.Join(tmp, "ready")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return err
	}
	for _, deb := range debs {
		cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		r := tar.NewReader(pipe)
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				cmd.Wait()
				return fmt.Errorf("%s: %w", deb, err)
			}
			for _, w := range want {
				name := strings.TrimPrefix(h.Name, ".")
				ok, _ := path.Match(w.match, name)
				if !ok && strings.HasPrefix(w.match, "*/") {
					ok = strings.HasSuffix(name, w.match[1:])
				}
				if !ok || h.Typeflag != tar.TypeReg {
					continue
				}
				data, err := io.ReadAll(r)
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(ready, w.name), data, 0o644); err != nil {
					return err
				}
			}
		}
		io.Copy(io.Discard, pipe)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("dpkg-deb %s: %w", deb, err)
		}
	}
	for _, w := range want {
		if !isFile(filepath.Join(ready, w.name)) {
			return fmt.Errorf("the packages %s and busybox-static have no %s", m[1], w.match)
		}
	}
	if err := os.Rename(ready, dir); err != nil && !isFile(filepath.Join(dir, "vmlinuz")) {
		return err
	}
	return nil
}

// cpioWriter makes an archive of the "newc" kind, which the kernel unpacks.
type cpioWriter struct {
	buf bytes.Buffer
	ino int
}

func (c *cpioWriter) add(name string, mode int, data []byte) {
	c.ino++
	fmt.Fprintf(&c.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.buf.WriteString(name + "\x00")
	c.pad()
	c.buf.Write(data)
	c.pad()
}

func (c *cpioWriter) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}

func (c *cpioWriter) finish() []byte {
	c.add("TRAILER!!!", 0, nil)
	return c.buf.Bytes()
}
