// A disk of s390x, made by zipl in a build root of s390x, starts a kernel.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/osbuild-star/osbuild-star/engine/vm"
	"github.com/osbuild-star/osbuild-star/stages/deb/debtest"
)

// The system is Debian's kernel and an init of one file, so that all of it takes
// seconds. It proves what only s390x has: zipl makes a node of the loop device that it
// installs to, and what it writes down of the kernel's blocks is true.
func TestZiplBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	needBuild(t)
	if vm.HostArch() != "x86_64" {
		t.Skip("the host is the build root, and the rest is of s390x")
	}
	for _, p := range []string{"go", "tar", "sfdisk", "mkfs.ext4", "qemu-system-s390x", "qemu-s390x-static"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	before := snapshot()
	dir := t.TempDir()
	workspace := filepath.Join(dir, "ws")
	if err := os.CopyFS(workspace, os.DirFS("testdata/zipl")); err != nil {
		t.Fatal(err)
	}
	// Under its own name it would be a package of this project's workspace.
	err := errors.Join(
		os.Rename(filepath.Join(workspace, "small.star"), filepath.Join(workspace, "BUILD.star")),
		os.WriteFile(filepath.Join(workspace, "MODULE.star"), []byte("module(source_epoch = 1700000000)\n"), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	run := func(env []string, prog string, args ...string) (string, string) {
		t.Helper()
		cmd := exec.Command(prog, args...)
		cmd.Dir = workspace
		cmd.Env = append(os.Environ(), env...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s%s", prog, strings.Join(args, " "), err, out, &errs)
		}
		return string(out), errs.String()
	}
	unpack := func(name string, match string, names ...string) string {
		t.Helper()
		tree := filepath.Join(dir, name)
		for _, d := range []string{"bin", "lib", "sbin"} {
			if err := errors.Join(os.MkdirAll(tree+"/usr/"+d, 0o755), os.Symlink("usr/"+d, tree+"/"+d)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(tree+"/usr/lib64", 0o755); err != nil {
			t.Fatal(err)
		}
		for _, a := range debtest.FetchSome(t, "s390x", regexp.MustCompile(match), names...) {
			run(nil, "sh", "-ec", `dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"`, "sh", a, tree)
		}
		return tree
	}
	run(nil, "tar", "-C", unpack("zipl", `^(libc6|dash|s390-tools)$`, "s390-tools", "dash"), "-cf", "zipl.tar", ".")

	root := unpack("kernel", `^linux-image-[0-9]`, "linux-image-s390x")
	kernels, err := filepath.Glob(root + "/boot/vmlinuz-*")
	if err != nil || len(kernels) != 1 {
		t.Fatalf("kernels %v, %v", kernels, err)
	}
	run([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=s390x"}, "go", "build", "-o", "init.s390x", "./init/main.go")
	init, err := os.ReadFile(filepath.Join(workspace, "init.s390x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/initrd.img", newc("init", init), 0o644); err != nil {
		t.Fatal(err)
	}
	run(nil, "tar", "-C", root, "-cf", "root.tar", "initrd.img", "boot/"+filepath.Base(kernels[0]), "boot/")

	store := []string{"OSBUILD_STAR_STORE=" + filepath.Join(dir, "store"), "TMPDIR=" + dir}
	out, console := run(store, "osbuild-star", "test", "--json", "--accel=tcg", "-v", "--var-dir="+dir, "//:boots")
	for _, want := range []string{"machine s390x", ` panic=-1 word="x86_64"`, "small login:"} {
		if !strings.Contains(console, want) {
			t.Errorf("the console has no %q:\n%s%s", want, console, out)
		}
	}
	// zipl wrote to a mounted file system, and yet it is the same again.
	out, _ = run(store, "osbuild-star", "build", "--rebuild-check", "--var-dir="+dir, "//:small")
	if !strings.HasPrefix(out, "identical ") {
		t.Errorf("built again: %s", out)
	}
	before.check(t, "")
}

// newc is a cpio archive with one program in it.
func newc(name string, data []byte) []byte {
	var b bytes.Buffer
	add := func(name string, mode int, data []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			b.Len()+1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad := func() { b.Write(make([]byte, (4-b.Len()%4)%4)) }
		pad()
		b.Write(data)
		pad()
	}
	add(name, 0o100755, data)
	add("TRAILER!!!", 0, nil)
	return b.Bytes()
}
