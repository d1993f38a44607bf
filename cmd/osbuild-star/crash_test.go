// Crashes: builds that are killed at any moment, and disks that are full. Whatever
// happened, nothing is visible by halves, and the next build is right and tidy.
//
// OSBUILD_STAR_SLOW=1 makes 200 kills and 50 full disks, OSBUILD_STAR_CRASH_KILLS and
// OSBUILD_STAR_CRASH_DISKS another number; OSBUILD_STAR_CRASH_SEED is what all of them
// are drawn from, and OSBUILD_STAR_CRASH_ONLY the number of the one to try again.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// crashNumber is a number from the environment.
func crashNumber(t *testing.T, name string, def int) int {
	t.Helper()
	text := os.Getenv("OSBUILD_STAR_CRASH_" + name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("OSBUILD_STAR_CRASH_%s: %v", name, err)
	}
	return n
}

func TestCrash(t *testing.T) {
	kills, disks := 6, 3
	if os.Getenv("OSBUILD_STAR_SLOW") != "" {
		kills, disks = 200, 50
	}
	kills, disks = crashNumber(t, "KILLS", kills), crashNumber(t, "DISKS", disks)
	seed := crashNumber(t, "SEED", int(time.Now().UnixNano()%1e9))
	t.Logf("OSBUILD_STAR_CRASH_SEED=%d", seed)
	l := newCrashLab(t)
	t.Run("kill", func(t *testing.T) { l.trials(t, kills, seed, (*crashWorld).killed) })
	t.Run("full", func(t *testing.T) { l.trials(t, disks, seed, (*crashWorld).full) })
	l.before.check(t, l.dir)
}

// trials makes n of them, some at once: a build does not use all that two processors
// can do.
func (l *crashLab) trials(t *testing.T, n, seed int, try func(w *crashWorld, n int, rng *rand.Rand) (string, problemList)) {
	only := crashNumber(t, "ONLY", -1)
	next := make(chan int)
	var wg sync.WaitGroup
	for range runtime.NumCPU() + 1 {
		w, err := newCrashWorld(l)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer w.close()
			for i := range next {
				w.do(func() {
					what, problems := try(w, i, rand.New(rand.NewPCG(uint64(seed), uint64(i))))
					if len(problems) > 0 {
						t.Errorf("OSBUILD_STAR_CRASH_SEED=%d OSBUILD_STAR_CRASH_ONLY=%d: %s:\n%s", seed, i, what, strings.Join(problems, "\n"))
					} else if testing.Verbose() {
						t.Logf("%d: %s", i, what)
					}
				})
			}
		})
	}
	for i := range n {
		if only < 0 || i == only {
			next <- i
		}
	}
	close(next)
	wg.Wait()
}

// draw chooses how trial n goes.
func (l *crashLab) draw(n int, rng *rand.Rand) crashPlan {
	p := crashPlan{
		from: startings[n%len(startings)], hostname: "box", sandbox: []string{"nspawn", "native"}[rng.IntN(2)],
		locked: rng.IntN(2) == 0, memory: rng.IntN(4) == 0,
	}
	if p.from == "all" && rng.IntN(3) > 0 {
		p.hostname = "other" // all of it, and then something else
	}
	p.kills = append(p.kills, l.moment(p, rng))
	p.alone, p.power = rng.IntN(5) == 0, rng.IntN(6) == 0
	if l.caches {
		p.tidy = []string{"", "", "", "gc", "verify"}[rng.IntN(5)]
	}
	switch rng.IntN(4) {
	case 0:
		p.kills = append(p.kills, l.moment(p, rng))
	case 1:
		p.second = []string{"killed", "lives"}[rng.IntN(2)]
	}
	return p
}

// moment draws one of a build: by its events, which are dense where much happens, or
// by time.
func (l *crashLab) moment(p crashPlan, rng *rand.Rand) crashMoment {
	m := l.measured[p.from]
	if p.hostname == "box" && p.from == "all" {
		// It only exports.
		return crashMoment{after: time.Duration(rng.Int64N(int64(60 * time.Millisecond)))}
	}
	if rng.IntN(3) == 0 {
		return crashMoment{after: time.Duration(rng.Int64N(int64(m.took)))}
	}
	return crashMoment{1 + rng.IntN(m.events), time.Duration(rng.Int64N(int64(20 * time.Millisecond)))}
}

// killed is one trial: builds that are killed, and one that is not.
func (w *crashWorld) killed(n int, rng *rand.Rand) (string, problemList) {
	plan := w.lab.draw(n, rng)
	tr := w.trial(fmt.Sprintf("k%d", n), plan)
	var p problemList
	var old map[string]string
	if plan.from == "all" && !plan.memory {
		old = w.lab.want["box"]
		if plan.hostname == "box" {
			os.RemoveAll(tr.out)
		}
	}
	outs := []string{tr.out}
	var at []string
	for _, m := range plan.kills {
		b := tr.start(tr.out, nil)
		var other *crashBuild
		if plan.second != "" {
			outs = []string{tr.out, tr.dir + "/out2"}
			other = tr.start(outs[1], nil)
		}
		what := m.String()
		if !b.await(m) {
			what += " (too late)"
		}
		dirs, _ := os.ReadDir(crashRun)
		for _, d := range dirs {
			b.runDir = append(b.runDir, d.Name())
		}
		b.kill(plan.alone)
		switch plan.second {
		case "killed":
			other.kill(plan.alone)
		case "lives":
			tr.checkDead(&p, other)
			other.end()
			if other.status() != exitOK {
				p.Errorf("the build beside it fails: exit status %d\n%s", other.status(), other.said())
			}
		}
		at = append(at, what)
		tr.checkDead(&p)
		tr.checkVisible(&p, outs, old, w.lab.want[plan.hostname])
	}
	if plan.power {
		tr.powerCut(&p, rng)
	}
	if plan.tidy != "" {
		cmd := exec.Command("osbuild-star", "cache", plan.tidy, "--store="+tr.store)
		cmd.Dir, cmd.Env = tr.dir+"/ws", w.lab.env(tr.dir+"/tmp")
		if err := cmd.Start(); err != nil {
			p.Errorf("%v", err)
		}
		time.Sleep(time.Duration(rng.Int64N(int64(100 * time.Millisecond))))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if plan.power || plan.tidy != "" {
		tr.checkVisible(&p, nil, nil, nil)
	}
	if n%4 == 0 && !plan.power {
		if err := tr.cache("verify", "--keep"); err != nil {
			p.Errorf("before the next build: %v", err)
		}
	}
	tr.finish(&p, outs...)
	if len(p) == 0 {
		tr.remove()
	}
	return fmt.Sprintf("from %s, %s, hostname %s, locked %v, copied %v, beside it %q, killed (alone %v) %s, power cut %v, then %q, in %s",
		plan.from, plan.sandbox, plan.hostname, plan.locked, plan.memory, plan.second, plan.alone, strings.Join(at, " and "), plan.power, plan.tidy, filepath.Base(tr.dir)), p
}
