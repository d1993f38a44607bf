// Tests of the documentation: rule files in it can be read and planned, commands in
// it can be typed, links in it lead somewhere.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/osbuild-star/osbuild-star/builtins"
	"github.com/osbuild-star/osbuild-star/manifest"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
	"github.com/spf13/pflag"
)

// pages are all pages that people write.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs = slices.DeleteFunc(docs, func(p string) bool { return filepath.Base(p) == "reference.md" })
	return append(docs, "../../README.md")
}

// block is a fenced block of a page.
type block struct {
	line       int
	lang, text string
}

func blocks(t *testing.T, page string) []block {
	t.Helper()
	f, err := os.Open(page)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []block
	var in *block
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		n++
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "```") && in == nil:
			in = &block{line: n, lang: strings.TrimPrefix(line, "```")}
		case line == "```":
			out = append(out, *in)
			in = nil
		case in != nil:
			in.text += line + "\n"
		}
	}
	if in != nil {
		t.Fatalf("%s:%d: the block does not end", page, in.line)
	}
	return out
}

// TestDocsRuleFiles: every block of a page whose first line names a file ("#
// images/BUILD.star") is written to a workspace, as a reader would, and what there is
// then can be read and planned.
func TestDocsRuleFiles(t *testing.T) {
	planned := 0
	for _, page := range pages(t) {
		dir := t.TempDir()
		write := func(name, text string) {
			p := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("MODULE.star", "")
		for _, b := range blocks(t, page) {
			first, _, _ := strings.Cut(b.text, "\n")
			name, ok := strings.CutPrefix(first, "# ")
			if b.lang != "python" || !ok || !strings.HasSuffix(name, ".star") {
				continue
			}
			write(name, b.text)
			if filepath.Base(name) != "BUILD.star" {
				continue
			}
			planned++
			if err := plan(dir); err != nil {
				var text strings.Builder
				rulefile.Format(&text, err, rulefile.FormatOptions{})
				t.Errorf("%s:%d: %s", page, b.line, &text)
			}
		}
	}
	if planned < 4 {
		t.Errorf("only %d rule files of the documentation were planned", planned)
	}
}

// plan plans everything in a workspace, with made-up packages.
func plan(dir string) error {
	ws, err := rulefile.FindWorkspace(dir)
	if err != nil {
		return err
	}
	p, err := builtins.Open(builtins.Config{Workspace: ws, HostArch: "x86_64"})
	if err != nil {
		return err
	}
	defer p.Close()
	ctx := context.Background()
	targets, err := p.Match(ctx, []string{"//..."}, "")
	if err != nil {
		return err
	}
	pl, err := p.Plan(ctx, targets, func(_ context.Context, reqs []*manifest.PackageRequest) ([][]manifest.Package, error) {
		out := make([][]manifest.Package, len(reqs))
		for i, r := range reqs {
			for _, name := range append([]string{"base"}, r.Names...) {
				sum := sha256.Sum256([]byte(name))
				out[i] = append(out[i], manifest.Package{
					Name: name, Version: "1", Arch: "amd64", URL: "http://localhost/" + name + ".deb", Size: 1, SHA256: hex.EncodeToString(sum[:]),
				})
			}
		}
		return out, nil
	})
	if err != nil {
		return err
	}
	if len(pl.Artifacts) == 0 {
		return fmt.Errorf("there is no image in it")
	}
	return pl.Manifest.Check(manifest.Builtin())
}

var (
	inlineCode = regexp.MustCompile("`[^`\n]+`")
	flagName   = regexp.MustCompile(`(?:^|[\s=(\x60])--([a-z][a-z-]*)`)
	link       = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

// TestDocsCommands: every command line of ours in the documentation has a verb and
// flags that there are, and so has every flag that is spoken of.
func TestDocsCommands(t *testing.T) {
	known := map[string]bool{}
	for _, c := range commands() {
		for _, c := range append(c.sub, c) {
			flagsOf(c).VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		}
	}
	known["version"] = true
	lines := 0
	for _, page := range pages(t) {
		// Pages about other programs' flags too.
		others := strings.HasSuffix(page, "performance.md") || strings.HasSuffix(page, "dependencies.md")
		for _, b := range blocks(t, page) {
			if b.lang != "sh" {
				continue
			}
			for line := range strings.Lines(b.text) {
				if strings.Contains(line, "COMMAND") || !strings.Contains(line, "osbuild-star ") {
					continue
				}
				lines++
				if err := parses(line); err != nil {
					t.Errorf("%s:%d: %s: %v", page, b.line, strings.TrimSpace(line), err)
				}
			}
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, code := range inlineCode.FindAllString(string(text), -1) {
			for _, m := range flagName.FindAllStringSubmatch(code, -1) {
				if !known[m[1]] && !others {
					t.Errorf("%s: there is no flag --%s: %s", page, m[1], code)
				}
			}
		}
	}
	if lines < 20 {
		t.Errorf("only %d command lines were looked at", lines)
	}
}

// TestDocsLinks: links to files of the project lead somewhere. The reference is made
// by make reference.
func TestDocsLinks(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			p := filepath.Join(filepath.Dir(page), m[1])
			if base := filepath.Base(p); base == "reference.md" || base == "performance.md" {
				continue
			}
			if _, err := os.Stat(p); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", page, m[1])
			}
		}
	}
}
