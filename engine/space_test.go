// Full disks.
package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"golang.org/x/sys/unix"
)

// What is written to a file system in a file is in the page cache: that the disk below
// has no room for it is told when it is unmounted, or never.
func TestUnmountTellsOfLostWrites(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	space, err := buildroot.NewSpace()
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	for name, written := range map[string]int{"fits": 1 << 20, "does not fit": 24 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			disk, on := filepath.Join(dir, "disk"), filepath.Join(dir, "on")
			var l *buildroot.Loop
			err := space.Do(func() error {
				err := errors.Join(os.Mkdir(disk, 0o755), os.Mkdir(on, 0o755), unix.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"))
				file := filepath.Join(disk, "fs.raw")
				if err == nil {
					err = errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 64<<20))
				}
				if err != nil {
					return err
				}
				if out, err := exec.Command("mkfs.ext4", "-q", "-J", "size=4", file).CombinedOutput(); err != nil {
					return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
				}
				if l, err = buildroot.OpenLoop(buildroot.LoopConfig{File: file}); err != nil {
					return err
				}
				return unix.Mount(l.Path, on, "ext4", 0, "")
			})
			if err != nil {
				t.Fatal(err)
			}
			err = space.Do(func() error {
				if err := os.WriteFile(filepath.Join(on, "f"), make([]byte, written), 0o600); err != nil {
					return err
				}
				return nil
			})
			if err != nil {
				t.Fatalf("writing: %v", err)
			}
			lost := space.Do(func() error { return unmountFS(on) })
			if fits := name == "fits"; (lost == nil) != fits {
				t.Errorf("unmounting tells: %v", lost)
			}
			l.Close()
			if err := space.Do(func() error { return buildroot.Unmount(disk) }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFull(t *testing.T) {
	dir := t.TempDir()
	places := append(Places(dir, dir), Place{What: "the result,", Dir: filepath.Join(dir, "not/there/yet"), Otherwise: "--out DIR"})
	for name, c := range map[string]struct {
		err  error
		full bool
	}{
		"by number":        {fmt.Errorf("committing: %w", &os.PathError{Op: "write", Path: "f", Err: unix.ENOSPC}), true},
		"by a quota":       {unix.EDQUOT, true},
		"by the text":      {errors.New("cp: exit status 1: cp: error writing 'f': No space left on device"), true},
		"something else":   {os.ErrPermission, false},
		"nothing happened": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			var se *SpaceError
			err := Full(c.err, places...)
			if errors.As(err, &se) != c.full || !errors.Is(err, c.err) {
				t.Fatalf("%v", err)
			}
			if c.full && !(strings.Contains(se.Hint(), dir+" has ") && strings.Contains(se.Hint(), " free: ")) {
				t.Errorf("hint: %s", se.Hint())
			}
		})
	}
}
