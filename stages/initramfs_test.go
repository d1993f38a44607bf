package stages

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/stages/deb"
	"github.com/osbuild-star/osbuild-star/stages/deb/debtest"
)

func TestInitramfsRefuses(t *testing.T) {
	c := testContext(t, map[string]any{})
	var e *Error
	if err := runInitramfs(c); !errors.As(err, &e) || !strings.Contains(e.Msg, "no update-initramfs") {
		t.Errorf("without initramfs-tools: %v", err)
	}
	files := map[string]string{"/usr/sbin/update-initramfs": "", "/usr/lib/modules/1.0/x": "", "/boot/vmlinuz-2.0": ""}
	writeTree(t, c.Tree, files)
	if err := runInitramfs(c); !errors.As(err, &e) || !strings.Contains(e.Msg, "no kernel") {
		t.Errorf("without a kernel: %v", err)
	}
	writeTree(t, c.Tree, map[string]string{"/boot/vmlinuz-1.0": ""})
	c.Options = []byte(`{"kernels": ["2.0"]}`)
	if err := runInitramfs(c); !errors.As(err, &e) || !strings.Contains(e.Msg, "no kernel 2.0") || !strings.Contains(e.Hint, "1.0") {
		t.Errorf("with another kernel: %v", err)
	}
}

func TestQuickenLeavesUnknown(t *testing.T) {
	for _, text := range []string{"", "copy_file() {\n\ttrue\n}\n", "copy_file() {\n}\nmanual_add_modules()\n{\n\ttrue\n}\n"} {
		if got, ok := quicken(text); ok {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if body, ok := shellFunction("a() {\n\tx\n}\nab()\n{\n\ty\n}\n", "ab"); !ok || body != "ab()\n{\n\ty\n}\n" {
		t.Errorf("%q %v", body, ok)
	}
}

// A real kernel: with and without the faster functions, and twice, it is the same.
func TestInitramfsReal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	archives := debtest.Fetch(t, "?essential", "linux-image-cloud-amd64", "initramfs-tools", "zstd", "udev")
	c := testContext(t, map[string]any{})
	c.Tree = filepath.Join(debtest.TempDir(t), "tree")
	epoch := time.Now().Unix() // later than any file of a package, whose times have to be kept
	c.Meta.SourceEpoch = &epoch
	if err := os.Mkdir(c.Tree, 0o755); err != nil {
		t.Fatal(err)
	}
	log := c.Log.(*bytes.Buffer)
	if _, err := deb.Install(t.Context(), deb.Config{Tree: c.Tree, Archives: archives, Epoch: &epoch, Log: log}); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if made, _ := filepath.Glob(c.Tree + "/boot/initrd*"); len(made) > 0 {
		t.Errorf("%v was made while packages were configured", made)
	}
	before := readTree(t, c.Tree)
	sum := func(options string) string {
		t.Helper()
		c.Options = []byte(options)
		if err := runInitramfs(c); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		made, _ := filepath.Glob(c.Tree + "/boot/initrd.img-*")
		if len(made) != 1 {
			t.Fatalf("made %v\n%s", made, log)
		}
		b, err := os.ReadFile(made[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(made[0]); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %x", len(b), sha256.Sum256(b))
	}
	first := sum(`{}`)
	if n := strings.Count(log.String(), "Generating"); n != 1 {
		t.Errorf("it was made %d times", n)
	}
	if diff := cmp.Diff(before, readTree(t, c.Tree)); diff != "" {
		t.Errorf("more than the initramfs has changed:\n%s", diff)
	}
	if again := sum(`{}`); again != first {
		t.Errorf("twice: %s, %s", first, again)
	}
	if version := installedVersion(t, c.Tree, "initramfs-tools-core"); strings.HasPrefix(version, "0.142") {
		if covers, remove, err := initramfsCovers(c); len(covers) != 1 || err != nil {
			t.Errorf("initramfs-tools %s is not known: %v", version, err)
		} else {
			remove()
		}
	}
	known := knownFunctions["copy_file"]
	knownFunctions["copy_file"] = nil
	defer func() { knownFunctions["copy_file"] = known }()
	if plain := sum(`{}`); plain != first {
		t.Errorf("with initramfs-tools' own functions: %s, with ours %s", plain, first)
	}
	knownFunctions["copy_file"] = known
	if small := sum(`{"compress": "gzip", "level": 1, "modules": "list"}`); small == first {
		t.Error("the options change nothing")
	}
	b, err := os.ReadFile(c.Tree + initramfsConf)
	if want := "COMPRESS=gzip\nCOMPRESSLEVEL=1\nMODULES=list\n"; string(b) != want || err != nil {
		t.Errorf("configuration: %q, %v", b, err)
	}
}

func installedVersion(t *testing.T, tree, name string) string {
	t.Helper()
	out, err := exec.Command("dpkg-query", "--admindir="+tree+"/var/lib/dpkg", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
