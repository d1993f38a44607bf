// Trials with full disks: a file system of its own holds the store, the results or
// the /var of build roots, and somebody fills it while a build runs.
package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// fullDisk is an ext4 on a sparse file, larger than a build wants to see free.
type fullDisk struct{ file, at string }

const fullDiskSize = 3 << 30

func newFullDisk(dir string) (*fullDisk, error) {
	d := &fullDisk{file: dir + ".img", at: dir}
	err := os.WriteFile(d.file, nil, 0o600)
	if err == nil {
		err = os.Truncate(d.file, fullDiskSize)
	}
	for _, argv := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-J", "size=8", "-E", "nodiscard", d.file},
		{"mkdir", "-p", d.at},
		{"mount", "-o", "loop", d.file, d.at},
	} {
		if err == nil {
			var out []byte
			if out, err = exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
			}
		}
	}
	return d, err
}

func (d *fullDisk) close() error {
	return errors.Join(unix.Unmount(d.at, 0), os.Remove(d.file))
}

// fill leaves that many bytes free, more or less.
func (d *fullDisk) fill(leave int64) error {
	f, err := os.OpenFile(d.at+"/ballast", os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var size int64
	for step := int64(fullDiskSize); step >= 4096; {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return err
		}
		free := int64(st.Bavail)*st.Bsize - leave
		if free < 4096 {
			return nil
		}
		step = min(step, free)
		if err := unix.Fallocate(int(f.Fd()), 0, size, step); err != nil {
			step /= 2
			continue
		}
		size += step
	}
	return nil
}

func (d *fullDisk) empty() error { return os.Remove(d.at + "/ballast") }

// full is one trial: a disk that is full at some moment, a build that fails in order,
// and one that does not when there is room again.
func (w *crashWorld) full(n int, rng *rand.Rand) (string, problemList) {
	plan := w.lab.draw(n, rng)
	plan.kills, plan.second, plan.memory = nil, "", false
	tr := w.trial(fmt.Sprintf("f%d", n), plan)
	var p problemList
	at := filepath.Join(tr.dir, "disk")
	// Most of it goes into the store.
	what := []string{"store", "store", "store", "out", "var"}[rng.IntN(5)]
	before := w.mounts
	disk, err := newFullDisk(at)
	if err != nil {
		p.Errorf("%v", err)
		return what, p
	}
	w.mounts = mountsHere()
	defer func() {
		w.mounts = before
		if err := disk.close(); err != nil {
			p.Errorf("%v", err)
		}
		if len(p) == 0 {
			tr.remove()
		}
	}()
	old := w.lab.want["box"]
	switch what {
	case "store":
		w.lab.run(tr.dir, "sh", "-c", "cp -a store disk/store && rm -rf store")
		tr.store = at + "/store"
	case "out":
		tr.out, old = at+"/out", nil
	case "var":
		tr.vardir = at + "/var"
		w.lab.run(tr.dir, "mkdir", tr.vardir)
	}
	m := w.lab.moment(plan, rng)
	leave := []int64{0, 64 << 10, rng.Int64N(4 << 20), rng.Int64N(64 << 20)}[rng.IntN(4)]
	b := tr.start(tr.out, nil)
	if b.await(m) {
		if err := disk.fill(leave); err != nil {
			p.Errorf("filling the disk: %v", err)
		}
	}
	b.end()
	outcome := "it fails"
	if b.status() == exitOK {
		outcome = "it had enough"
	} else {
		tr.checkSaysFull(&p, b, at)
	}
	if strings.Contains(b.said(), "warning") {
		p.Errorf("there is a warning:\n%s", b.said())
	}
	tr.checkDead(&p)
	tr.checkVisible(&p, []string{tr.out}, old, w.lab.want[plan.hostname])
	// A build that fails tidies up, also where there is no room.
	tr.checkNothingLeft(&p, tr.out)
	if err := disk.empty(); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.Errorf("%v", err)
	}
	tr.checkStore(&p)
	tr.finish(&p, tr.out)
	return fmt.Sprintf("from %s, %s, hostname %s, locked %v, the disk of %s has %d bytes left %s: %s, in %s",
		plan.from, plan.sandbox, plan.hostname, plan.locked, what, leave, m, outcome, filepath.Base(tr.dir)), p
}

// checkSaysFull looks for what a person has to be told.
func (tr *trial) checkSaysFull(p *problemList, b *crashBuild, disk string) {
	said := strings.ToLower(b.said())
	_, hint, _ := strings.Cut(said, " hint: ")
	hint, _, _ = strings.Cut(hint, "\n")
	missing := strings.Contains(said, "space in the store") && b.status() == exitHost // before it began
	space := strings.Contains(said, "no space left") || strings.Contains(said, "not enough space")
	switch {
	case missing:
	case b.status() != exitFailed:
		p.Errorf("exit status %d of a build on a full disk:\n%s", b.status(), b.said())
	case !space && !strings.Contains(hint, "free"):
		p.Errorf("it does not say that there is no space:\n%s", b.said())
	case !strings.Contains(said, strings.ToLower(disk)) || !strings.Contains(said, "free"):
		p.Errorf("it does not say where, and how much is free:\n%s", b.said())
	case hint == "":
		p.Errorf("there is no hint:\n%s", b.said())
	}
}
