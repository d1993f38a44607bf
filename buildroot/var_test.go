// /var of build roots: on disk, private per use, gone afterwards.
package buildroot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestVarInMemory(t *testing.T) {
	s := newSpace(t)
	dir := t.TempDir()
	err := s.Do(func() error {
		for _, kind := range []string{"tmpfs", "ramfs"} {
			at := filepath.Join(dir, kind)
			if err := os.Mkdir(at, 0o755); err != nil {
				return err
			}
			if err := unix.Mount(kind, at, kind, 0, ""); err != nil {
				return err
			}
			for _, d := range []string{at, filepath.Join(at, "not/there/yet")} {
				var ve *VarError
				if err := CheckVar(d); !errors.As(err, &ve) || ve.FS != kind || ve.Dir != d || !strings.Contains(ve.Hint(), "--var-dir") {
					t.Errorf("%s: %v", d, err)
				}
			}
			if err := os.Symlink(at, filepath.Join(dir, kind+"-link")); err != nil {
				return err
			}
			if err := CheckVar(filepath.Join(dir, kind+"-link", "x")); err == nil {
				t.Errorf("a link to %s was taken", kind)
			}
			if err := Unmount(at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"", dir, filepath.Join(dir, "not/there/yet")} {
		if err := CheckVar(d); err != nil {
			t.Errorf("%q: %v", d, err)
		}
	}
	if err := os.Symlink("/nothing/here", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	if err := CheckVar(filepath.Join(dir, "dangling")); err == nil || !strings.Contains(err.Error(), "link to nothing") {
		t.Errorf("a dangling link: %v", err)
	}
	// Open asks it, and leaves nothing.
	if err := CheckVar("/dev/shm"); err != nil {
		_, err := Open(context.Background(), Config{Space: s, Tree: testHost.Tree, Runner: "org.osbuild.linux", Work: t.TempDir(), Var: "/dev/shm"})
		var ve *VarError
		if !errors.As(err, &ve) {
			t.Errorf("in /dev/shm: %v", err)
		}
		if left, _ := filepath.Glob("/dev/shm/osbuild-star-var.*"); left != nil {
			t.Errorf("left: %v", left)
		}
	}
}

// shmem is the memory that tmpfs takes on this machine, in bytes.
func shmem(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "Shmem:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no Shmem in /proc/meminfo")
	return 0
}

// Two gigabytes in /var/tmp take no memory: they are in the directory that the caller
// has chosen, for this program alone, and gone when it ends.
func TestVarIsOnDisk(t *testing.T) { eachSandbox(t, testVarIsOnDisk) }

func testVarIsOnDisk(t *testing.T, sandbox string) {
	if testing.Short() {
		t.Skip("writes 2 GiB")
	}
	needRoot(t)
	const size, limit = 2 << 30, 100 << 20
	vardir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(vardir, &st); err != nil || int64(st.Bavail)*st.Bsize < 2*size {
		t.Skipf("needs %d GiB below %s (%v)", 2*size>>30, vardir, err)
	}
	s := newSpace(t)
	b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: testHost.Tree, Runner: testHost.Runner, Work: t.TempDir(), Var: vardir})
	if err != nil {
		t.Fatal(err)
	}
	defer checkClosed(t, s, b)
	// Others use this machine too: what they take in memory meanwhile is not ours, and
	// not there each time.
	for try := 1; ; try++ {
		got := writeBig(t, b, vardir, size)
		if got.fs != "on no tmpfs" || got.onDisk < size || got.rss > limit {
			t.Fatalf("%+v", got)
		}
		if got.shmem < limit {
			t.Logf("with 2 GiB in /var/tmp: %d MiB more of Shmem, %d MiB RSS, %d MiB on disk", got.shmem>>20, got.rss>>20, got.onDisk>>20)
			break
		}
		if try == 3 {
			t.Fatalf("memory grows: %+v", got)
		}
	}
}

// written is what there was to see of a program with a large file in /var/tmp.
type written struct {
	fs                 string
	onDisk, shmem, rss int64 // bytes
}

// writeBig has a program write a file and looks around while it is there; the next
// program does not find it.
func writeBig(t *testing.T, b *BuildRoot, vardir string, size int64) (w written) {
	t.Helper()
	hold := t.TempDir()
	fifo := filepath.Join(hold, "go")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	before := shmem(t)
	res, err := b.Run(context.Background(), Job{
		Argv: []string{"/bin/sh", "-ec", `test -z "$(ls -A /var/tmp)"
			if stat -f -c %T /var /var/tmp | grep -E 'tmpfs|ramfs'; then echo on tmpfs; else echo on no tmpfs; fi
			dd if=/dev/zero of=/var/tmp/big bs=1M count=` + strconv.FormatInt(size>>20, 10) + ` status=none
			echo written
			read x </run/osbuild/hold/go`},
		Mounts: []Mount{{Path: hold, Target: "/run/osbuild/hold"}},
		Line: func(l string) {
			if l != "written" {
				w.fs = l
				return
			}
			w.shmem = shmem(t) - before
			w.onDisk = allocated(vardir)
			if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
				t.Error(err)
			}
		},
		Limit: 5 * time.Minute,
	})
	if err != nil || res.Err != nil || res.Status != 0 {
		t.Fatalf("%v %+v", err, res)
	}
	w.rss = res.MaxRSS
	if left := allocated(vardir); left > size/2 {
		t.Errorf("%d bytes are left when the program has ended", left)
	}
	return w
}

// allocated is what the files below a directory take, in bytes.
func allocated(dir string) (n int64) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(p, &st) == nil {
			n += st.Blocks * 512
		}
		return nil
	})
	return n
}
