// Build roots of other architectures, on trees of real Debian packages.
package buildroot

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osbuild-star/osbuild-star/buildroot/binfmt"
	"github.com/osbuild-star/osbuild-star/stages/deb"
	"github.com/osbuild-star/osbuild-star/stages/deb/debtest"
	"golang.org/x/sys/unix"
)

// debian unpacks the packages that a shell needs; nothing of them is configured.
func debian(t *testing.T, arch, name string) string {
	t.Helper()
	needRoot(t)
	if binfmt.Host() == arch {
		t.Skip("this machine is one of " + arch)
	}
	run, err := binfmt.Use(arch)
	if err != nil {
		t.Skip(err)
	}
	defer run.Close()
	archives := debtest.FetchArch(t, name, "dash", "coreutils", "sed", "libc-bin")
	tree := debtest.TempDir(t)
	if err := os.Chmod(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if _, err := deb.Install(t.Context(), deb.Config{Tree: tree, Arch: name, Archives: archives, Unpack: true, Log: &log}); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	return tree
}

// variant is a copy of a build root's tree, by hard links, that is changed then.
func variant(t *testing.T, cfg Config, script string) Config {
	t.Helper()
	tree := cfg.Tree
	dir := filepath.Join(filepath.Dir(tree), filepath.Base(tree)+"-"+filepath.Base(t.Name()))
	t.Cleanup(func() { os.RemoveAll(dir) })
	out, err := exec.Command("cp", "-al", tree, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cfg.Tree = dir
	return cfg
}

// start opens a build root on a tree and runs a program of it.
func start(t *testing.T, cfg Config, script string, mounts ...Mount) (string, error) {
	t.Helper()
	s := newSpace(t)
	cfg.Space, cfg.Runner, cfg.Work, cfg.Var = s, "org.osbuild.linux", t.TempDir(), t.TempDir()
	b, err := Open(context.Background(), cfg)
	if err != nil {
		return "", err
	}
	defer checkClosed(t, s, b)
	var out []string
	res, err := b.Run(context.Background(), Job{
		Argv: []string{"/usr/bin/dash", "-c", script}, Mounts: mounts, Line: func(s string) { out = append(out, s) },
	})
	if err != nil {
		return "", err
	}
	if res.Err != nil {
		return "", res.Err
	}
	if res.Status != 0 {
		return strings.Join(out, "\n"), fmt.Errorf("exit status %d", res.Status)
	}
	return strings.Join(out, "\n"), nil
}

func TestForeign(t *testing.T) {
	for _, c := range []struct {
		arch, name string // and Debian's
		linker     string
		layout     string // moves the linker below /lib64, as other distributions have it
	}{
		{"s390x", "s390x", "/lib/ld64.so.1", "mkdir -p usr/lib64; cp -L usr/lib/s390x-linux-gnu/ld64.so.1 usr/lib64; ln -sf /lib64/ld64.so.1 usr/lib/ld64.so.1"},
		{"ppc64le", "ppc64el", "/lib64/ld64.so.2", ":"},
	} {
		t.Run(c.arch, func(t *testing.T) {
			tree := debian(t, c.arch, c.name)
			if got := Arch(tree); got != c.arch {
				t.Errorf("the tree is taken for one of %q", got)
			}
			if got, err := binfmt.Linker(filepath.Join(tree, "usr/bin/dash")); got != c.linker {
				t.Errorf("its programs ask for %q (%v)", got, err)
			}
			eachSandbox(t, func(t *testing.T, sandbox string) {
				cfg := Config{Tree: tree, Sandbox: sandbox}
				t.Run("start", func(t *testing.T) {
					out, err := start(t, cfg, "uname -m; echo $(echo a b | wc -w)")
					if err != nil || out != c.arch+"\n2" {
						t.Errorf("%q, %v", out, err)
					}
				})
				t.Run("lib64", func(t *testing.T) { testLib64(t, cfg, c.layout) })
				t.Run("devices", func(t *testing.T) { testForeignDevices(t, cfg, c.arch) })
			})
		})
	}
}

// testLib64: a tree without /lib64 gets the link, and without the link nothing of it
// would start; one that leads elsewhere is told.
func testLib64(t *testing.T, cfg Config, layout string) {
	t.Run("absent", func(t *testing.T) {
		cfg := variant(t, cfg, layout+"; rm -f lib64")
		if out, err := start(t, cfg, "echo started; readlink /lib64"); err != nil || out != "started\n/usr/lib64" {
			t.Errorf("%q, %v", out, err)
		}
		// The same tree, taken for one that the rule is not for.
		host := cfg
		host.Arch = binfmt.Host()
		if out, err := start(t, host, "echo started"); err == nil {
			t.Errorf("without the link it started too: %q", out)
		}
	})
	t.Run("real", func(t *testing.T) {
		cfg := variant(t, cfg, layout+"; rm -f lib64; mv usr/lib64 lib64")
		if out, err := start(t, cfg, "echo started; test ! -L /lib64"); err != nil || out != "started" {
			t.Errorf("%q, %v", out, err)
		}
	})
	for name, c := range map[string]struct{ link, want string }{
		"dangling": {"/usr/nothing", "/lib64 is a link to /usr/nothing, which leads nowhere"},
		"wrong":    {"/usr/share", "/lib64 is a link to /usr/share"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := variant(t, cfg, layout+"; rm -f lib64; ln -s "+c.link+" lib64")
			if _, err := start(t, cfg, ":"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// testForeignDevices: a node of the device that a program has can be made in a build
// root of s390x and in no other, and no other block device can be made or opened.
func testForeignDevices(t *testing.T, cfg Config, arch string) {
	img := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(img, []byte("marker"+strings.Repeat("\x00", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLoop(LoopConfig{File: img})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		t.Fatal(err)
	}
	mount := Mount{Path: l.Path, Target: l.Path, Device: [2]uint32{l.Major, l.Minor}}
	script := fmt.Sprintf(`head -c 6 %s; echo
for n in "%d %d" "%d %d" "8 0"; do
	rm -f /dev/mine; mknod /dev/mine b $n 2>/dev/null && head -c 6 /dev/mine || echo -n refused; echo
done`, l.Path, l.Major, l.Minor, unix.Major(root.Dev), unix.Minor(root.Dev))
	want := map[bool]string{true: "marker\nmarker\nrefused\nrefused", false: "marker\nrefused\nrefused\nrefused"}
	for _, bpf := range []bool{false, true} {
		cfg.BPF = bpf
		out, err := start(t, cfg, script, mount)
		if err != nil || out != want[arch == "s390x"] {
			t.Errorf("BPF %t: %q, %v", bpf, out, err)
		}
		// A node that is there already cannot be opened either.
		node := filepath.Join(t.TempDir(), "node")
		if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(root.Dev)); err != nil {
			t.Skip(err)
		}
		out, err = start(t, cfg, "head -c 6 /dev/theirs 2>/dev/null || echo refused", Mount{Path: node, Target: "/dev/theirs"})
		if err != nil || out != "refused" {
			t.Errorf("BPF %t: a node of another device: %q, %v", bpf, out, err)
		}
	}
}
