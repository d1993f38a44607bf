// Helpers of the tests: workspaces from archives, and a resolver that needs no
// network.

package builtins

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/manifest"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

var update = flag.Bool("update", false, "write what the tests got into testdata")

// openArchive makes a workspace of a text with files in it, each after a line
// "-- NAME --", and opens it. A MODULE.star is there if the text has none; what
// stands before the first file is BUILD.star of the root package.
func openArchive(t *testing.T, archive string, defines map[string]string) (*Project, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, data string) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, name := map[string]string{"MODULE.star": "module(name = \"test\")\n"}, "BUILD.star"
	for line := range strings.Lines(archive) {
		if file, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(line, " --\n") {
			name = strings.TrimSuffix(file, " --\n")
			files[name] = ""
			continue
		}
		files[name] += line
	}
	for name, data := range files {
		write(name, data)
	}
	return openDir(t, dir, defines)
}

func openDir(t *testing.T, dir string, defines map[string]string) (*Project, *bytes.Buffer) {
	t.Helper()
	w, err := rulefile.FindWorkspace(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p, err := Open(Config{
		Workspace: w, Defines: defines, HostArch: "x86_64", Jobs: 1,
		Print: func(pos rulefile.Position, msg string) { out.WriteString(pos.String() + ": " + msg + "\n") },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, &out
}

// planOf matches the patterns and plans what they match.
func planOf(t *testing.T, p *Project, patterns ...string) *Plan {
	t.Helper()
	targets, err := p.Match(context.Background(), patterns, "")
	if err != nil {
		t.Fatal(formatted(err))
	}
	plan, err := p.Plan(context.Background(), targets, fakeResolve)
	if err != nil {
		t.Fatal(formatted(err))
	}
	return plan
}

func formatted(err error) string {
	var b bytes.Buffer
	rulefile.Format(&b, err, rulefile.FormatOptions{})
	return b.String()
}

// fakeResolve answers with one package for each name, and the same three for what a
// variant brings, but for those of the base: archives whose checksum is that of their
// name.
func fakeResolve(_ context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error) {
	var out [][]manifest.Package
	for _, r := range reqs {
		names := r.Names
		if r.Variant != "none" {
			names = append([]string{"base-files", "dpkg", "libc6"}, names...)
		}
		var pkgs []manifest.Package
		for _, name := range names {
			if r.Base != nil && slices.Contains(append([]string{"base-files", "dpkg", "libc6"}, r.Base.Names...), name) {
				continue
			}
			sum := sha256.Sum256([]byte(name))
			pkgs = append(pkgs, manifest.Package{
				Name: name, Version: "1", Arch: "amd64", Size: 1,
				URL: "https://deb.example.org/" + name + "_1_amd64.deb", SHA256: hex.EncodeToString(sum[:]),
			})
		}
		out = append(out, pkgs)
	}
	return out, nil
}

// golden compares a manifest with testdata/NAME, in the form people read, with the
// origins of the stages beside it.
func golden(t *testing.T, name string, plan *Plan) {
	t.Helper()
	raw, err := json.Marshal(plan.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n\n")
	for _, p := range plan.Manifest.Pipelines {
		for _, s := range p.Stages {
			b.WriteString(p.Name + " " + s.Type + " " + originOf(s.Origin) + "\n")
		}
	}
	for _, a := range plan.Artifacts {
		b.WriteString("artifact " + a.Label.String() + " " + a.Pipeline + " " + strings.Join(a.Files, " ") + "\n")
	}
	for _, x := range plan.Tests {
		b.WriteString("test " + x.Label.String() + " " + x.Image.String() + " " + x.ImagePipeline + " " + x.Disk + "\n")
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s differs (-want +got); go test -update writes it anew:\n%s", file, diff)
	}
	if _, err := plan.Manifest.IDs(); err != nil {
		t.Errorf("IDs: %v", err)
	}
	if err := plan.Manifest.Check(manifest.Builtin()); err != nil {
		t.Errorf("Check: %v", err)
	}
}
