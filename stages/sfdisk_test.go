package stages

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// need skips a test whose programs are not on this machine.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("%s is not installed", n)
		}
	}
}

// blankImage makes a sparse file of n bytes in the tree of c, and makes it the
// device "device".
func blankImage(t *testing.T, c *Context, name string, n int64) string {
	t.Helper()
	p := c.TreePath(name)
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(n); err != nil {
		t.Fatal(err)
	}
	c.Devices["device"] = DeviceArg{Path: p}
	return p
}

// loopDevice attaches a loop device to a part of a file until the test ends.
func loopDevice(t *testing.T, path string, off, n string) string {
	t.Helper()
	need(t, "losetup")
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	out, err := exec.Command("losetup", "--find", "--show", "--offset", off, "--sizelimit", n, path).Output()
	if err != nil {
		t.Skipf("no loop device here: %v", err)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", dev, err, out)
		}
	})
	return dev
}

// mustRun runs a stage and fails the test with its log when it fails.
func mustRun(t *testing.T, name string, c *Context) {
	t.Helper()
	if err := Lookup(name).Run(c); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, c.Log)
	}
}

// mustOutput runs a program that looks at a result.
func mustOutput(t *testing.T, name string, args ...string) string {
	t.Helper()
	need(t, name)
	cmd := exec.Command(name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func sha256File(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

var gptOptions = map[string]any{
	"label": "gpt", "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
	"partitions": []any{
		map[string]any{
			"start": 2048, "size": 2048, "type": "21686148-6449-6E6F-744E-656564454649", "bootable": true,
			"uuid": "FAC7F1FB-3E8D-4137-A512-961DE09A5549", "name": "bios",
		},
		map[string]any{
			"start": 4096, "size": 40960, "type": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
			"uuid": "6264D520-3FB9-423F-8AB8-7A0A8E3D3562", "name": "root",
		},
	},
}

// The digests are those of upstream's results.
func TestSfdisk(t *testing.T) {
	need(t, "sfdisk")
	tests := map[string]struct {
		size    int64
		options any
		want    string
	}{
		"gpt": {32 << 20, gptOptions, "cfe35cf6a8e39d973f56b1a3e02c6e64362a89122fc1ba0ddc46e51aa6fb9d98"},
		"dos": {16 << 20, map[string]any{
			"label": "dos", "uuid": "0x14fc63d2",
			"partitions": []any{
				map[string]any{"start": 2048, "size": 10240, "type": "83", "bootable": true},
				map[string]any{"start": 12288, "size": 8192, "type": "82"},
			},
		}, "f3e31434b86654f39c604c3483932e7b5adf5ad846937fa3c1ce3cbd2fd69235"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := testContext(t, tt.options)
			img := blankImage(t, c, "disk.img", tt.size)
			mustRun(t, "org.osbuild.sfdisk", c)
			if got := sha256File(t, img); got != tt.want {
				t.Errorf("sha256 is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSfdiskEmptyAndNumbers(t *testing.T) {
	need(t, "sfdisk")
	c := testContext(t, map[string]any{"label": "mbr", "uuid": "0x1"})
	blankImage(t, c, "disk.img", 16<<20)
	mustRun(t, "org.osbuild.sfdisk", c)

	c = testContext(t, map[string]any{
		"label": "gpt", "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
		"partitions": []any{
			map[string]any{"partnum": 4, "size": 2048, "attrs": []int{0, 2, 5, 60}, "ignored": 1},
			map[string]any{"partnum": 2},
		},
	})
	img := blankImage(t, c, "disk.img", 16<<20)
	mustRun(t, "org.osbuild.sfdisk", c)
	dump := mustOutput(t, "sfdisk", "--dump", img)
	for _, want := range []string{"disk.img4 : start=        2048, size=        2048", "RequiredPartition LegacyBIOSBootable GUID:60", "disk.img2 : start=        4096"} {
		if !strings.Contains(dump, want) {
			t.Errorf("the table has no %q:\n%s", want, dump)
		}
	}
}

func TestSfdiskScript(t *testing.T) {
	o := sfdiskOptions{Label: "gpt", UUID: "U", Partitions: []sfdiskPartition{
		{Start: "0", Size: "8", Type: "linux", Name: "a b"},
		{Partnum: "3", Attrs: []int{1, 48}, Bootable: true},
	}}
	got, err := o.script("/dev/loop7")
	if err != nil {
		t.Fatal(err)
	}
	want := "label: gpt\nlabel-id: U\nsize=\"8\", type=\"linux\", name=\"a b\"\n/dev/loop7p3: attrs=\"NoBlockIOProtocol,48\", bootable\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("script differs (-want +got):\n%s", diff)
	}
	o.Partitions[0].Name = "a\"\nstart=1"
	if _, err := o.script("/dev/loop7"); err == nil {
		t.Error("a name with a quote was taken")
	}
}

func TestSfdiskOnDevice(t *testing.T) {
	need(t, "sfdisk")
	c := testContext(t, gptOptions)
	img := blankImage(t, c, "disk.img", 32<<20)
	c.Devices["device"] = DeviceArg{Path: loopDevice(t, img, "0", "33554432")}
	mustRun(t, "org.osbuild.sfdisk", c)
	if dump := mustOutput(t, "sfdisk", "--dump", filepath.Clean(img)); !strings.Contains(dump, `name="root"`) {
		t.Errorf("unexpected table:\n%s", dump)
	}
}
