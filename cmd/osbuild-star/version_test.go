// Another version of the command, which makes what the one before it made.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The version of osbuild-star alone makes nothing again.
func TestVersionIsInNoKey(t *testing.T) {
	needBuild(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"MODULE.star": `module(name = "v", source_epoch = 1700000000)`,
		"BUILD.star":  `image("v", pipeline("v", [stage.hostname(hostname = "v"), stage.noop()]), files = ["etc/hostname"])`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var programs [][]byte
	for i, c := range []struct {
		version string
		ran     int
	}{{"1.2.3", 2}, {"9.8.7-later", 0}} {
		prog := filepath.Join(dir, "osbuild-star-"+c.version)
		build := exec.Command("go", "build", "-ldflags", "-X main.version="+c.version, "-o", prog, ".")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(prog)
		if err != nil {
			t.Fatal(err)
		}
		if programs = append(programs, b); i > 0 && bytes.Equal(programs[0], b) {
			t.Fatal("it is the same program")
		}
		cmd := exec.Command(prog, "build", "--json", "--store", filepath.Join(dir, "store"), "--var-dir", dir, "//:v")
		cmd.Dir, cmd.Stderr = dir, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var got struct {
			Ran int `json:"stages_run"`
		}
		if err := json.Unmarshal(out, &got); err != nil || got.Ran != c.ran {
			t.Errorf("version %s ran %d stages, want %d (%v)", c.version, got.Ran, c.ran, err)
		}
	}
}
