// What has to hold after a crash, and after the build that follows it.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// checkVisible finds what is there by halves: in out/, among the objects and the
// sources of the store, in the lock file. old is what out/ had before, new what is made.
func (tr *trial) checkVisible(p *problemList, outs []string, old, new map[string]string) {
	for _, out := range outs {
		sums, _, err := fileSums(out)
		if err != nil {
			p.Errorf("reading out/: %v", err)
		}
		for f, sum := range sums {
			if sum != old[f] && sum != new[f] {
				p.Errorf("%s is neither the old file nor the new one: %s", filepath.Join(out, f), sum)
			}
		}
	}
	objects, _ := filepath.Glob(tr.store + "/objects/*")
	for _, dir := range objects {
		b, err := os.ReadFile(dir + "/info.json")
		if err != nil {
			p.Errorf("an object without a file that says what it is: %v", err)
			continue
		}
		var info struct {
			Key    string   `json:"key"`
			Layers []string `json:"layers"`
		}
		if err := json.Unmarshal(b, &info); err != nil || info.Key != filepath.Base(dir) {
			p.Errorf("object %s is damaged: %v", dir, err)
		}
		for _, layer := range info.Layers {
			if st, err := os.Lstat(filepath.Join(tr.store, "layers", layer)); err != nil || !st.IsDir() {
				p.Errorf("object %s names layer %s, which is not there: %v", dir, layer, err)
			}
		}
	}
	files, _ := filepath.Glob(tr.store + "/sources/org.osbuild.files/sha256:*")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if sum := sha256.Sum256(b); err != nil || "sha256:"+hex.EncodeToString(sum[:]) != filepath.Base(f) {
			p.Errorf("source %s has another content: %v", f, err)
		}
	}
	want, err := os.ReadFile(filepath.Join(tr.w.lab.dir, "lock"))
	if err != nil {
		p.Errorf("%v", err)
	}
	if b, err := os.ReadFile(tr.dir + "/ws/osbuild-star.lock"); !errors.Is(err, fs.ErrNotExist) && string(b) != string(want) {
		p.Errorf("the lock file is another one: %v\n%s", err, b)
	}
}

// checkDead waits for the end of all that the builds started; living are those that
// may go on.
func (tr *trial) checkDead(p *problemList, living ...*crashBuild) {
	var left []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if left = tr.processes(living); len(left) == 0 {
			return
		}
	}
	p.Errorf("processes are left: %v", left)
}

// processes are those of the trial: by its mark in their environment, by the control
// groups of its builds, and by the names of its containers.
func (tr *trial) processes(living []*crashBuild) []string {
	pids := slices.Clone(tr.w.pids)
	for _, b := range living {
		pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == b.cmd.Process.Pid })
	}
	var out []string
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range names {
		groups, err := os.ReadFile(proc + "/cgroup")
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(proc + "/cmdline")
		if len(line) == 0 {
			continue // it is dead, and its parent will know
		}
		ours := false
		for _, pid := range pids {
			ours = ours || strings.Contains(string(groups), fmt.Sprintf("/osbuild-star.%d.", pid)) ||
				strings.Contains(string(line), fmt.Sprintf("osbuild-star-%d-", pid))
		}
		if !ours && len(living) == 0 {
			env, _ := os.ReadFile(proc + "/environ")
			ours = strings.Contains(string(env), "OSBUILD_STAR_CRASH="+tr.dir+"\x00")
		}
		if ours {
			out = append(out, filepath.Base(proc)+": "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}

// checkNothingLeft looks for all that a build makes for a while: directories, mounts,
// loop devices, control groups, files on the way to their name.
func (tr *trial) checkNothingLeft(p *problemList, outs ...string) {
	for _, dir := range []string{crashRun, tr.dir + "/tmp", tr.vardir, tr.store + "/tmp", tr.store + "/locks", tr.store + "/leases"} {
		ents, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.Errorf("%v", err)
		}
		for _, e := range ents {
			if at := filepath.Join(dir, e.Name()); at != crashRun+"/out" && e.Name() != "lost+found" {
				p.Errorf("%s is left", at)
			}
		}
	}
	for _, dir := range append(outs, tr.dir+"/ws") {
		_, temporary, err := fileSums(dir)
		if err != nil {
			p.Errorf("%v", err)
		}
		for _, f := range temporary {
			p.Errorf("%s is left", f)
		}
	}
	if now := mountsHere(); now != tr.w.mounts {
		p.Errorf("mounts were\n%s\nand are\n%s", tr.w.mounts, now)
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range backing {
		b, _ := os.ReadFile(f)
		for _, build := range tr.builds {
			for _, dir := range build.runDir {
				if strings.Contains(string(b), dir) {
					p.Errorf("loop device %s is left: %s", f, b)
				}
			}
		}
		if strings.Contains(string(b), tr.dir) && !strings.Contains(string(b), tr.dir+"/disk.img") {
			p.Errorf("loop device %s is left: %s", f, b)
		}
	}
	for _, pid := range tr.w.pids {
		for _, g := range cgroupsWith(fmt.Sprintf("osbuild-star.%d.", pid)) {
			p.Errorf("cgroup %s is left", g)
		}
		dirs, _ := filepath.Glob(fmt.Sprintf("/run/systemd/nspawn/*/osbuild-star-%d-*", pid))
		for _, d := range dirs {
			p.Errorf("%s is left", d)
		}
	}
}

// cache runs a command of `cache`, unless there is none yet.
func (tr *trial) cache(args ...string) error {
	if !tr.w.lab.caches {
		return nil
	}
	cmd := exec.Command("osbuild-star", append(append([]string{"cache"}, args...), "--store="+tr.store)...)
	cmd.Dir, cmd.Env = tr.dir+"/ws", tr.w.lab.env(tr.dir+"/tmp")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cache %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// checkStore asks the store itself, which then removes what nobody needs: layers that
// a killed build had not named yet.
func (tr *trial) checkStore(p *problemList) {
	if !tr.w.lab.caches {
		return
	}
	err := tr.cache("verify")
	if err != nil && tr.power {
		err = tr.cache("verify") // notes of what this build did not need were lost, too
	}
	if err != nil {
		p.Errorf("%v", err)
	}
	named := ""
	objects, _ := filepath.Glob(tr.store + "/objects/*/info.json")
	for _, f := range objects {
		b, err := os.ReadFile(f)
		if err != nil {
			p.Errorf("%v", err)
		}
		named += string(b)
	}
	layers, _ := filepath.Glob(tr.store + "/layers/*")
	for _, l := range layers {
		if !strings.Contains(named, filepath.Base(l)) {
			p.Errorf("layer %s is left, and no object names it", l)
		}
	}
}

// finish builds once more, without a crash: it has to come to what the reference came
// to, leave nothing, and leave nothing to do.
func (tr *trial) finish(p *problemList, outs ...string) {
	want := tr.w.lab.want[tr.hostname]
	for _, out := range outs {
		b := tr.start(out, nil)
		b.end()
		said := b.said()
		if b.status() != exitOK || strings.Contains(said, "warning") {
			p.Errorf("the next build: exit status %d\n%s", b.status(), said)
		}
		sums, _, err := fileSums(out)
		if err != nil {
			p.Errorf("%v", err)
		}
		for f := range want {
			if sums[f] != want[f] {
				p.Errorf("%s is %q, want %q", filepath.Join(out, f), sums[f], want[f])
			}
		}
		for f := range sums {
			if want[f] == "" {
				p.Errorf("%s is there too", filepath.Join(out, f))
			}
		}
	}
	tr.checkDead(p)
	tr.checkNothingLeft(p, outs...)
	parts, _ := filepath.Glob(tr.store + "/sources/org.osbuild.files/.part*")
	for _, f := range parts {
		p.Errorf("%s is left", f)
	}
	tr.checkStore(p)
	b := tr.start(outs[0], []string{"--json"})
	b.end()
	var report buildReport
	text, err := os.ReadFile(b.files[0])
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	if err != nil || report.Ran != 0 {
		p.Errorf("after all is made, another build makes %d stages: %v\n%s", report.Ran, err, b.said())
	}
	for _, im := range report.Images {
		for _, f := range im.Files {
			if f.Changed {
				p.Errorf("after all is made, another build changes %s", f.Path)
			}
		}
	}
}

// powerCut makes the store what it can be after the machine has stopped: it has
// another name for its start, and what was not written out is lost, here always.
func (tr *trial) powerCut(p *problemList, rng *rand.Rand) {
	objects, _ := filepath.Glob(tr.store + "/objects/*")
	kept := map[string]bool{}
	lost := []string{}
	for _, dir := range objects {
		b, err := os.ReadFile(dir + "/info.json")
		var info map[string]any
		if err == nil {
			err = json.Unmarshal(b, &info)
		}
		if err != nil {
			p.Errorf("%s: %v", dir, err)
			continue
		}
		_, err = os.Stat(dir + "/settled")
		for _, l := range info["layers"].([]any) {
			if kept[l.(string)] = kept[l.(string)] || err == nil; err != nil {
				lost = append(lost, l.(string))
			}
		}
		info["boot"] = "the one before"
		if b, err = json.Marshal(info); err == nil {
			err = os.WriteFile(dir+"/info.json", b, 0o644)
		}
		if err != nil {
			p.Errorf("%v", err)
		}
	}
	cut := []string{"links", "sums", "pins", "history"} // nobody waits for those
	for _, l := range lost {
		if !kept[l] {
			cut = append(cut, filepath.Join("layers", l))
		}
	}
	for _, dir := range cut {
		err := filepath.WalkDir(filepath.Join(tr.store, dir), func(f string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && rng.IntN(2) == 0 {
				return os.Truncate(f, 0)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			p.Errorf("%v", err)
		}
	}
}
