// Temporary directories: the dead ones are removed, the living ones and what is
// mounted never are.
package scratch

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The test program started again with this in the environment makes a directory
// below that parent, says its name, and hangs.
const holdEnv = "SCRATCH_TEST_HOLD"

func TestMain(m *testing.M) {
	if parent := os.Getenv(holdEnv); parent != "" {
		d, err := New(parent, "t-")
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		if err := os.WriteFile(filepath.Join(d.Path, "f"), nil, 0o644); err != nil {
			os.Exit(1)
		}
		fmt.Println(d.Path)
		bufio.NewReader(os.Stdin).ReadString('\n') // until it is killed
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}

func TestSweepTakesOnlyTheDead(t *testing.T) {
	parent := t.TempDir()
	mine, err := New(parent, "t-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+parent)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	theirs := strings.TrimSpace(line)
	if err != nil || !exists(theirs) {
		t.Fatalf("helper: %q %v", line, err)
	}
	others := []string{filepath.Join(parent, "other-1"), filepath.Join(parent, "t-file")}
	if err := os.Mkdir(others[0], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(others[1], nil, 0o644); err != nil {
		t.Fatal(err)
	}
	Sweep(parent, "t-")
	for _, p := range append(others, mine.Path, theirs) {
		if !exists(p) {
			t.Errorf("%s was removed", p)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if !exists(theirs) {
		t.Fatal("the directory of a killed process is gone before anybody swept")
	}
	next, err := New(parent, "t-")
	if err != nil {
		t.Fatal(err)
	}
	if exists(theirs) {
		t.Error("the directory of a killed process is left")
	}
	for _, d := range []*Dir{mine, next} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if exists(d.Path) {
			t.Errorf("%s is left after Close", d.Path)
		}
	}
	for _, p := range others {
		if !exists(p) {
			t.Errorf("%s was removed", p)
		}
	}
}

// Many at once sweep and make: nobody loses a directory in use.
func TestAtOnce(t *testing.T) {
	parent := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 20 {
				d, err := New(parent, "t-")
				if err != nil {
					t.Error(err)
					return
				}
				if err := os.WriteFile(filepath.Join(d.Path, "f"), nil, 0o644); err != nil {
					t.Errorf("a directory in use is gone: %v", err)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if ents, _ := os.ReadDir(parent); len(ents) != 0 {
		t.Errorf("%d directories are left", len(ents))
	}
}

func TestRemoveAllOfNothing(t *testing.T) {
	if err := RemoveAll(filepath.Join(t.TempDir(), "nothing")); err != nil {
		t.Error(err)
	}
}

// A mount is never emptied: not below the directory, not the directory itself.
func TestRemoveAllStopsAtMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, c := range []struct{ name, at string }{{"below", "victim/a/b"}, {"itself", "victim"}} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			precious, at := filepath.Join(base, "precious"), filepath.Join(base, c.at)
			for _, d := range []string{precious, at} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(precious, "data"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(base, "victim", "f"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			errc := make(chan error)
			go func() {
				runtime.LockOSThread() // thrown away with its namespace
				err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
				if err == nil {
					err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
				}
				if err == nil {
					err = unix.Mount(precious, at, "", unix.MS_BIND, "")
				}
				if err != nil {
					t.Errorf("preparing: %v", err)
				}
				errc <- RemoveAll(filepath.Join(base, "victim"))
			}()
			err := <-errc
			if err == nil || !strings.Contains(err.Error(), at+" is a mount") {
				t.Errorf("error: %v", err)
			}
			for _, p := range []string{filepath.Join(precious, "data"), filepath.Join(base, "victim", "f")} {
				if !exists(p) {
					t.Errorf("%s was removed", p)
				}
			}
		})
	}
}

// A directory that is reached by a link to another file system is no mount.
func TestRemoveAllThroughLink(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "scratch-test-")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(other)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	d, err := New(link, "t-")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil || exists(d.Path) {
		t.Errorf("left: %v, error: %v", exists(d.Path), err)
	}
}

func TestImmutable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.MkdirAll(filepath.Join(dir, "sub/locked"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, flag := range map[string]int{"sub/f": 0x10, "sub/log": 0x20, "sub/locked": 0x10, "": 0x10} {
		p := filepath.Join(dir, name)
		if !exists(p) {
			if err := os.WriteFile(p, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		defer setFlags(p, flag)()
	}
	// A link out of the tree is removed, and what it leads to is not touched.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(filepath.Dir(dir), "link")); err != nil {
		t.Fatal(err)
	}
	if err := setErr(filepath.Join(dir, "sub"), 0x10); err != nil {
		t.Skipf("no such flags on this file system: %v", err)
	}
	if err := RemoveAll(filepath.Dir(dir)); err != nil {
		t.Error(err)
	}
	if exists(dir) || !exists(outside) {
		t.Errorf("directory left: %v, file outside left: %v", exists(dir), exists(outside))
	}
}

func setErr(p string, flag int) error {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	fl, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(fl)&^0x30|flag)
}

// setFlags sets flags and returns what takes them back.
func setFlags(p string, flag int) func() {
	setErr(p, flag)
	return func() { setErr(p, 0) }
}
