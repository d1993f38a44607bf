// Comparing trees and builds: each way in which two trees can differ, and which step
// is told to be the cause.
package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osbuild-star/osbuild-star/manifest"
	"golang.org/x/sys/unix"
)

// sh runs a shell script in a directory.
func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// tell writes differences as lines.
func tell(diffs []PathDifference) []string {
	out := []string{}
	for _, d := range diffs {
		for _, ch := range d.Changes {
			line := fmt.Sprintf("%s %s: %s | %s", d.Path, ch.What, ch.First, ch.Second)
			if ch.What == "content" {
				line += fmt.Sprintf(" @%d line %d", ch.Offset, ch.Line)
			}
			out = append(out, line)
		}
	}
	return out
}

func TestCompareTrees(t *testing.T) {
	needRoot(t)
	const tree = `
		mkdir -p etc sub/deep
		printf 'a\nb\nc\n' >etc/text
		head -c 3000000 /dev/zero >etc/data
		ln -s text etc/link
		ln etc/text sub/hard
		mknod sub/dev c 1 3
		mkfifo sub/pipe
		find . -exec touch -h -d @1700000000 {} +
	`
	tests := []struct {
		name, change string
		want         []string
	}{
		{"same", "", []string{}},
		{"order of a directory", "rm etc/data sub/pipe; mkfifo sub/pipe; head -c 3000000 /dev/zero >etc/data; touch -d @1700000000 etc/data sub/pipe etc sub", []string{}},
		{"time of access", "touch -a -d @1 etc/text", []string{}},
		{"a line", "printf 'a\\nB\\nc\\n' >etc/data2; cat etc/data2 >etc/text; rm etc/data2; touch -d @1700000000 etc/text etc", []string{
			`/etc/text content: "b" | "B" @2 line 2`, `/sub/hard content: "b" | "B" @2 line 2`}},
		{"a byte far behind", "printf X | dd of=etc/data bs=1 seek=2500000 conv=notrunc status=none; touch -d @1700000000 etc/data", []string{
			"/etc/data content: 00 00 00 00 00 00 00 00 | 58 00 00 00 00 00 00 00 @2500000 line 0"}},
		{"shorter", "truncate -s 2999999 etc/data; touch -d @1700000000 etc/data", []string{
			"/etc/data size: 3000000 | 2999999", "/etc/data content: 00 | the end @2999999 line 0"}},
		{"mode, owner, time", "chown 1:2 etc; chmod 2755 etc; touch -d @1700000001.5 sub/pipe", []string{
			"/etc mode: 0755 | 2755", "/etc owner: 0:0 | 1:2", "/sub/pipe mtime: 2023-11-14T22:13:20Z | 2023-11-14T22:13:21.5Z"}},
		{"the root", "chmod 700 .", []string{"/ mode: 0755 | 0700"}},
		{"a link's target", "ln -sfn data etc/link; touch -h -d @1700000000 etc/link etc", []string{"/etc/link target: text | data"}},
		{"a device", "rm sub/dev; mknod sub/dev c 1 5; touch -d @1700000000 sub/dev sub", []string{"/sub/dev device: 1:3 | 1:5"}},
		{"a type, with all below it", "rm -r sub/deep; touch -d @1700000000 sub/deep sub", []string{"/sub/deep type: a directory | a file"}},
		{"missing and new", "rm etc/link; touch etc/new; touch -d @1700000000 etc", []string{
			"/etc/link presence: a link | missing", "/etc/new presence: missing | a file"}},
		{"attributes", "# see below", []string{
			`/etc/text xattr user.note: "one" | "two"`, `/sub xattr user.note: none | "x"`, `/sub/hard xattr user.note: "one" | "two"`}},
		{"a hard link that is a copy", "cp -a etc/text etc/t; mv etc/t sub/hard; touch -d @1700000000 etc sub", []string{
			"/sub/hard links: /etc/text | a file of its own"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := t.TempDir(), t.TempDir()
			sh(t, a, tree)
			sh(t, b, tree)
			for _, attr := range [][3]string{{a, "etc/text", "one"}, {b, "etc/text", "one"}, {b, "etc/text", "two"}, {b, "sub", "x"}} {
				if tt.name != "attributes" && attr[2] != "one" {
					continue
				}
				if err := unix.Setxattr(filepath.Join(attr[0], attr[1]), "user.note", []byte(attr[2]), 0); err != nil {
					t.Fatal(err)
				}
			}
			sh(t, b, tt.change)
			// The root of each was made by the test.
			for _, d := range []string{a, b} {
				if err := os.Chtimes(d, time.Time{}, time.Unix(1700000000, 0)); err != nil {
					t.Fatal(err)
				}
			}
			got, more, err := compareTrees(context.Background(), side{view: a}, side{view: b})
			if err != nil || more != 0 {
				t.Fatalf("%d more, %v", more, err)
			}
			if diff := cmp.Diff(tt.want, tell(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Only what a step's layers have is looked at, and everything below a directory that a
// layer has from another place.
func TestCompareLayers(t *testing.T) {
	s1, s2 := newStore(t), newStore(t)
	e1, e2 := newEngine(t, s1), newEngine(t, s2)
	epoch := int64(1700000000)
	// The script of a stage is the same in both; what differs is what it draws.
	draw := stage(shStage, `{"script":"mkdir -p a/b c; echo 1 >a/b/f; echo 2 >c/f"}`)
	random := stage(shStage, `{"script":"mv a c/moved; cat /proc/sys/kernel/random/uuid >c/moved/b/f; echo later >later"}`)
	after := stage(shStage, `{"script":"cp c/moved/b/f copied; echo fixed >c/f"}`)
	m := plan1(pipe("tree", draw, random, after), pipe("reader", copyOf("tree"), note("/etc/x", "x")), pipe("other", note("/y", "y")))
	for _, p := range m.Pipelines {
		p.SourceEpoch = &epoch
	}
	names := []string{"reader", "other"}
	mustBuild(t, e1, m, names...)
	mustBuild(t, e2, m, names...)
	c, err := e1.Compare(context.Background(), m, names, s2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Causes) != 1 || c.Unknown != 0 {
		t.Fatalf("%+v", c)
	}
	cause := c.Causes[0]
	if cause.Pipeline != "tree" || len(cause.Stages) != 1 || cause.Stages[0].ID != idOf(t, m, "tree", 1) || cause.NoEpoch {
		t.Errorf("the cause is %+v", cause)
	}
	if len(cause.Files) != 1 || cause.Files[0].Path != "/c/moved/b/f" || cause.Files[0].Changes[0].What != "content" {
		t.Errorf("files: %v", tell(cause.Files))
	}

	// What the first store has lost is told: it could have been one of those.
	for i := range 2 {
		if err := os.RemoveAll(filepath.Join(s1.Dir, "objects", keyOf(t, e1, m, "tree", i))); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = e1.Compare(context.Background(), m, names, s2, nil); err != nil {
		t.Fatal(err)
	}
	if len(c.Causes) != 1 || c.Unknown != 2 || c.Causes[0].Unknown != 2 || c.Causes[0].Stages[0].ID != idOf(t, m, "tree", 2) {
		t.Fatalf("with trees missing: %+v", c)
	}
	got := []string{}
	for _, f := range c.Causes[0].Files {
		got = append(got, f.Path)
	}
	if diff := cmp.Diff([]string{"/c/moved/b/f", "/copied"}, got); diff != "" {
		t.Errorf("with trees missing (-want +got):\n%s", diff)
	}
}

func idOf(t *testing.T, m *manifest.Manifest, pipeline string, i int) string {
	t.Helper()
	ids, err := m.IDs()
	if err != nil {
		t.Fatal(err)
	}
	p := m.Pipelines[slices.IndexFunc(m.Pipelines, func(p *manifest.Pipeline) bool { return p.Name == pipeline })]
	return ids.Stage(p, i)
}

func keyOf(t *testing.T, e *Engine, m *manifest.Manifest, pipeline string, step int) string {
	t.Helper()
	all, err := e.plans(m)
	if err != nil {
		t.Fatal(err)
	}
	return all[pipeline].steps[step].key
}

// Of several stages that write to one file, the one is named whose part differs first.
func TestCovers(t *testing.T) {
	files := []PathDifference{{Path: "/disk.raw", Changes: []Change{{What: "mtime"}, {What: "content", Offset: 2048*512 + 7}}}}
	tests := []struct {
		options string
		want    bool
	}{
		{`{"filename":"disk.raw","start":2048,"size":10}`, true},
		{`{"filename":"/disk.raw","start":2047,"size":2}`, true},
		{`{"filename":"disk.raw","start":2049,"size":10}`, false},
		{`{"filename":"disk.raw","start":34,"size":2014}`, false},
		{`{"filename":"disk.raw","size":"64 MiB"}`, false},
		{`{"filename":"other.raw","start":2048,"size":10}`, false},
		{`{}`, false},
	}
	for _, tt := range tests {
		if got := covers(stage(noteStage, tt.options), files); got != tt.want {
			t.Errorf("%s: %v", tt.options, got)
		}
	}
}

// A comparison ends with its context, also within a file.
func TestCompareEnds(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := compareTrees(ctx, side{view: a}, side{view: b}); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("error %v", err)
	}
	f := filepath.Join(a, "f")
	if err := os.WriteFile(f, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := compareFiles(ctx, f, f); err == nil {
		t.Error("a file was compared after the end")
	}
}
