package stages

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// imageInput gives c the input "image": 8 MiB, some of them random, most a hole.
func imageInput(t *testing.T, c *Context) string {
	t.Helper()
	p := fileInput(t, c, "image", "")
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, 200<<10)
	r.Read(b)
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, 3 << 20, 7<<20 + 512} {
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestQemuFormats(t *testing.T) {
	need(t, "qemu-img")
	tests := []map[string]any{
		{"type": "qcow2"},
		{"type": "qcow2", "compression": false, "compat": "0.10"},
		{"type": "qcow2", "compression_type": "zstd"},
		{"type": "vdi"},
		{"type": "vmdk", "compression": false},
		{"type": "vmdk", "subformat": "streamOptimized", "adapter_type": "lsilogic"},
		{"type": "vmdk", "compression": false, "subformat": "twoGbMaxExtentSparse", "compat6": true},
		{"type": "vmdk", "compression": false, "subformat": "monolithicFlat"},
		{"type": "vpc"},
		{"type": "vpc", "subformat": "dynamic", "force_size": false},
		{"type": "vhdx"},
		{"type": "raw"},
	}
	for _, format := range tests {
		name, err := json.Marshal(format)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(string(name), func(t *testing.T) {
			var trees [2]map[string]string
			for i := range trees {
				c := testContext(t, map[string]any{"filename": "/disk.img", "format": format})
				epoch := int64(1700000000)
				c.Meta = MetaArg{ID: "1234", SourceEpoch: &epoch}
				source := imageInput(t, c)
				mustRun(t, "org.osbuild.qemu", c)
				image := c.TreePath("disk.img")
				kind := format["type"].(string)
				if !(kind == "vpc" && format["force_size"] == false) { // its size is rounded
					mustOutput(t, "qemu-img", "compare", "-f", "raw", "-F", kind, source, image)
				}
				if kind != "vpc" && kind != "raw" && kind != "vmdk" {
					mustOutput(t, "qemu-img", "check", "-f", kind, image)
				}
				trees[i] = readTree(t, c.Tree)
			}
			for p := range trees[0] {
				if trees[0][p] != trees[1][p] {
					t.Errorf("%s differs between two runs", p)
				}
			}
		})
	}
}

func TestQemuArgs(t *testing.T) {
	no := false
	tests := []struct {
		format qemuFormat
		want   string
	}{
		{qemuFormat{Type: "vmdk"}, "-O vmdk -c"},
		{qemuFormat{Type: "vmdk", AdapterType: "ide"}, "-O vmdk -c -o adapter_type=ide"},
		{qemuFormat{Type: "vmdk", Compat6: true}, "-O vmdk -c -o compat6"},
		{qemuFormat{Type: "vmdk", Compat6: true, Subformat: "streamOptimized"}, "-O vmdk -c -o compat6,subformat=streamOptimized"},
		{qemuFormat{Type: "qcow2", Compression: &no, Compat: "1.1"}, "-O qcow2 -o compat=1.1"},
		{qemuFormat{Type: "qcow2", CompressionType: "zlib"}, "-O qcow2 -c"},
		{qemuFormat{Type: "qcow2", Compat: "1.1", CompressionType: "zstd"}, "-O qcow2 -c -o compat=1.1,compression_type=zstd"},
		{qemuFormat{Type: "vpc"}, "-O vpc -o subformat=fixed,force_size"},
		{qemuFormat{Type: "vpc", Subformat: "dynamic", ForceSize: &no}, "-O vpc -o subformat=dynamic"},
		{qemuFormat{Type: "vhdx"}, "-O vhdx"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, strings.Join(tt.format.args(), " ")); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.format, diff)
		}
	}
}

func TestQemuTimeOfVPC(t *testing.T) {
	need(t, "qemu-img")
	c := testContext(t, map[string]any{"filename": "d.vhd", "format": map[string]any{"type": "vpc"}})
	epoch := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	c.Meta.SourceEpoch = &epoch
	imageInput(t, c)
	mustRun(t, "org.osbuild.qemu", c)
	b, err := os.ReadFile(c.TreePath("d.vhd"))
	if err != nil {
		t.Fatal(err)
	}
	footer := b[len(b)-512:]
	if got, want := footer[24:28], []byte{1, 0xe2, 0x85, 0}; string(got) != string(want) { // 366 days after 2000
		t.Errorf("time stamp %x, want %x", got, want)
	}
}

func FuzzFixImage(f *testing.F) {
	vdi := make([]byte, 512)
	copy(vdi[64:], []byte{0x7f, 0x10, 0xda, 0xbe})
	f.Add("vdi", vdi)
	f.Add("vpc", append([]byte("conectix"), make([]byte, 504)...))
	f.Add("vmdk", []byte("KDMV\nCID=01234567\n"))
	vhdx := make([]byte, 1<<20)
	copy(vhdx[64<<10:], "head")
	copy(vhdx[128<<10:], "head")
	copy(vhdx[192<<10:], "regi")
	f.Add("vhdx", vhdx)
	f.Fuzz(func(t *testing.T, format string, data []byte) {
		p := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = fixImage(p, format, [32]byte{}, 1) // must neither panic nor hang
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() < int64(len(data)) {
			t.Error("the image became shorter")
		}
	})
}

// qemu-img leaves the end of the text behind when the content ID that it writes last is
// shorter than its first.
func TestFixVMDKOfAnyLength(t *testing.T) {
	const rest = "\nparentCID=ffffffff\nddb.toolsVersion = \"2147483647\"\n"
	fixed := func(cid, after string) string {
		t.Helper()
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		text := "# Disk DescriptorFile\nversion=1\nCID=" + cid + rest + after
		if _, err := f.WriteString(text + strings.Repeat("\x00", 1024-len(text)) + "data"); err != nil {
			t.Fatal(err)
		}
		if err := fixVMDK(f, [32]byte{1, 2, 3, 4}, 0); err != nil {
			t.Fatalf("CID=%s: %v", cid, err)
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	want := fixed("12345678", "")
	if !strings.Contains(want, "\nCID=11020304"+rest+"\x00") || len(want) != 1028 {
		t.Fatalf("%q", want)
	}
	for cid, after := range map[string]string{"dfd0678": "", "fd0678": "\x00\n", "678": "\x007\"\n", "8": "\x0083647\"\n"[:7]} {
		if diff := cmp.Diff(want, fixed(cid, after)); diff != "" {
			t.Errorf("CID=%s (-want +got):\n%s", cid, diff)
		}
	}
}
