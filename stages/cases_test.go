// Table tests of stages that change files: a tree written as text before, and as
// text after.
package stages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// stageCase is one run of a stage.
//
// Trees are maps of paths to what is there: the content of a file, "-> TARGET" for a
// link, "dir" for a directory that has nothing in it. In front of it stands in
// brackets what is not as usual: "[0600 5:6] content" (usual is 0644 for a file and
// 0755 for a directory, owned by root). Directories that have something in them and
// are as usual are left out.
type stageCase struct {
	name    string
	options string // JSON
	tree    map[string]string
	inputs  map[string]string // "NAME/path"
	mounts  map[string]string // "NAME/path"
	arch    string
	epoch   int64

	want       map[string]string // the whole tree afterwards
	wantMounts map[string]string // the same of the mounts; nil: unchanged
	wantErr    string            // part of the error or of its hint
}

// runCases runs the cases of a stage.
func runCases(t *testing.T, stage string, cases []stageCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := testContext(t, json.RawMessage(tc.options))
			runCase(t, c, stage, tc)
		})
	}
}

// runCase runs a case in a context, whose tree may hold "%TREE%" in options.
func runCase(t *testing.T, c *Context, stage string, tc stageCase) {
	t.Helper()
	defer unix.Umask(unix.Umask(0o022))
	s := Lookup(stage)
	if s == nil {
		t.Fatalf("no stage %s", stage)
	}
	c.Options = json.RawMessage(strings.ReplaceAll(tc.options, "%TREE%", c.Tree))
	if tc.arch != "" {
		c.Arch = tc.arch
	}
	if tc.epoch != 0 {
		c.Meta.SourceEpoch = &tc.epoch
	}
	putTree(t, c.Tree, tc.tree)
	putTree(t, c.Paths.Inputs, tc.inputs)
	putTree(t, c.Paths.Mounts, tc.mounts)
	for p := range tc.inputs {
		name, _, _ := strings.Cut(p, "/")
		c.Inputs[name] = InputArg{Path: filepath.Join(c.Paths.Inputs, name)}
	}
	for p := range tc.mounts {
		name, _, _ := strings.Cut(p, "/")
		c.Mounts[name] = MountArg{Path: filepath.Join(c.Paths.Mounts, name)}
	}
	err := s.Run(c)
	if tc.wantErr != "" {
		if err == nil {
			t.Fatalf("no error, want one with %q", tc.wantErr)
		}
		text := err.Error()
		var se *Error
		if errors.As(err, &se) {
			text += "\n" + se.Hint
		}
		text += fmt.Sprintf("\n%s", c.Log)
		if !strings.Contains(text, tc.wantErr) {
			t.Fatalf("the error is %q, want one with %q", text, tc.wantErr)
		}
		return
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Log)
	}
	if diff := cmp.Diff(orEmpty(tc.want), listTree(t, c.Tree)); diff != "" {
		t.Errorf("tree differs (-want +got):\n%s", diff)
	}
	want := tc.wantMounts
	if want == nil {
		want = tc.mounts
	}
	if diff := cmp.Diff(orEmpty(want), stripSlash(listTree(t, c.Paths.Mounts))); diff != "" {
		t.Errorf("mounts differ (-want +got):\n%s", diff)
	}
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func stripSlash(m map[string]string) map[string]string {
	out := map[string]string{}
	for p, s := range m {
		out[strings.TrimPrefix(p, "/")] = s
	}
	return out
}

// putTree makes the files of a tree.
func putTree(t testing.TB, root string, files map[string]string) {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for p, s := range files {
		at := filepath.Join(root, p)
		check(os.MkdirAll(filepath.Dir(at), 0o755))
		var mode, uid, gid uint32
		set := false
		if strings.HasPrefix(s, "[0") || strings.HasPrefix(s, "[1") || strings.HasPrefix(s, "[4") {
			if n, _ := fmt.Sscanf(s, "[%o %d:%d] ", &mode, &uid, &gid); n == 0 {
				t.Fatalf("%s: cannot read %q", p, s)
			}
			_, s, _ = strings.Cut(s, "] ")
			set = true
		}
		if to, ok := strings.CutPrefix(s, "-> "); ok {
			check(os.Symlink(to, at))
			continue
		}
		if s == "dir" {
			check(os.MkdirAll(at, 0o755))
		} else {
			check(os.WriteFile(at, []byte(s), 0o644))
		}
		if set {
			check(unix.Chown(at, int(uid), int(gid)))
			check(unix.Chmod(at, mode))
		}
	}
}

// listTree is the opposite of putTree. Mount points below root are left out.
func listTree(t *testing.T, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if st.Dev != top.Dev {
			return fs.SkipDir
		}
		rel := "/" + mustRel(root, p)
		usual, text := uint32(0o644), ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			usual, text = 0o777, "-> "+to
		case unix.S_IFDIR:
			entries, err := os.ReadDir(p)
			if err != nil {
				return err
			}
			usual, text = 0o755, "dir"
			if len(entries) > 0 && st.Mode&0o7777 == usual && st.Uid == 0 && st.Gid == 0 {
				return nil
			}
		default:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text = string(b)
		}
		switch {
		case st.Uid != 0 || st.Gid != 0:
			text = fmt.Sprintf("[%04o %d:%d] %s", st.Mode&0o7777, st.Uid, st.Gid, text)
		case st.Mode&0o7777 != usual:
			text = fmt.Sprintf("[%04o] %s", st.Mode&0o7777, text)
		}
		got[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// needTools skips the test where one of the programs is missing.
func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("%s is not installed", n)
		}
	}
}

// Environment variables of a test that runs itself again, see [inNamespace].
const nsTestVar, nsDirVar = "STAGES_TEST_NAMESPACE", "STAGES_TEST_DIR"

// inNamespace runs the test again in a process with a mount namespace of its own,
// on a fresh tmpfs, and returns the directory of that; to the test that was called
// first it returns "", and that shall end. All mounts go away with the process, and
// what is mounted is never below a directory that anybody removes.
func inNamespace(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if os.Getenv(nsTestVar) == t.Name() {
		dir := os.Getenv(nsDirVar)
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), nsTestVar+"="+t.Name(), nsDirVar+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return ""
}

// hostUsr puts the programs of the host into a tree: /usr, read-only, and the links
// to it.
func hostUsr(t *testing.T, tree string) {
	t.Helper()
	usr := filepath.Join(tree, "usr")
	if err := os.MkdirAll(usr, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/usr", usr, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", usr, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		unix.Unmount(usr, 0)
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, filepath.Join(tree, d)); err != nil {
			t.Fatal(err)
		}
	}
}
