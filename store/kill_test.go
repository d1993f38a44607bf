// Making room, killed at any moment.
package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const gcStore = "OSBUILD_STAR_TEST_GC"

// TestGCProcess is the process that TestGCKilled kills.
func TestGCProcess(t *testing.T) {
	dir := os.Getenv(gcStore)
	if dir == "" {
		t.Skip("started by TestGCKilled")
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	for n := int64(1 << 20); n >= 0; n -= 16 << 10 {
		if _, err := s.GC(t.Context(), GCOptions{MaxSize: n}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGCKilled(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := open(t)
		var last *Object
		for i := range 24 {
			base := last
			if i%6 == 0 {
				base = nil
			}
			last = sized(t, s, fmt.Sprintf("k%02d", i), base, 24, i)
		}
		s.Close()
		sumAll(t, s)
		cmd := exec.Command(os.Args[0], "-test.run", "^TestGCProcess$")
		cmd.Env = append(os.Environ(), gcStore+"="+s.Dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 5)
		for string(buf) != "ready" {
			if _, err := out.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(r.IntN(40_000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()
		checkWhole(t, s)
		if p := verify(t, s, VerifyOptions{}); p != nil {
			t.Errorf("seed %d: %v", seed, p)
		}
		tmp, err := namesIn(s.path("tmp"))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range tmp {
			if strings.HasPrefix(n, "gc-") {
				t.Errorf("seed %d: left: %s", seed, n)
			}
		}
		c, err := s.scan()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range c.layers {
			if len(c.names[l]) == 0 {
				t.Errorf("seed %d: layer %s is an orphan still", seed, l)
			}
		}
	}
}
