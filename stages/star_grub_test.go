package stages

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func needGrub(t *testing.T, platform string) {
	t.Helper()
	if tool("grub2-mkimage", "grub-mkimage") == "grub2-mkimage" {
		need(t, "grub2-mkimage")
	}
	if _, err := grubModules(platform); err != nil {
		t.Skip(err)
	}
}

// The digest is that of upstream's result with the GRUB of Debian 12; others have
// other code in it, so that only the rest is compared there.
func TestGrub2Inst(t *testing.T) {
	needGrub(t, "i386-pc")
	need(t, "sfdisk")
	c := testContext(t, gptOptions)
	img := blankImage(t, c, "disk.img", 32<<20)
	mustRun(t, "org.osbuild.sfdisk", c)
	before, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	c.Options = []byte(`{"filename": "disk.img", "platform": "i386-pc", "location": 2048,
		"core": {"type": "mkimage", "partlabel": "gpt", "filesystem": "ext4", "binary": "grub-mkimage"},
		"prefix": {"type": "partition", "partlabel": "gpt", "number": 1, "path": "/boot/grub2"}}`)
	mustRun(t, "org.osbuild.grub2.inst", c)
	after, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/usr/lib/grub/i386-pc/boot.img")
	if err != nil {
		t.Fatal(err)
	}
	copy(boot[0x5c:], []byte{0, 8, 0, 0, 0, 0, 0, 0})
	if !bytes.Equal(after[:440], boot[:440]) {
		t.Error("the boot code differs from GRUB's")
	}
	if !bytes.Equal(after[440:2048*512], before[440:2048*512]) || !bytes.Equal(after[4096*512:], before[4096*512:]) {
		t.Error("more than the boot code and the BIOS boot partition was written")
	}
	if got := after[2048*512+500:][:8]; !bytes.Equal(got, []byte{1, 8, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("the core image looks for its rest at % x", got)
	}
	if release, _ := os.ReadFile("/etc/os-release"); bytes.Contains(release, []byte(`VERSION_ID="12"`)) && bytes.Contains(release, []byte("ID=debian")) {
		if got, want := sha256File(t, img), "6fe15be2ea1897122c98e7e0b2fde8b07bfa7017277d330c58780dd1dc28de1f"; got != want {
			t.Errorf("sha256 is %s, want %s", got, want)
		}
	}
}

func TestGrub2InstPlan(t *testing.T) {
	tests := []struct {
		options string
		want    string
	}{
		{`{"platform": "i386-pc", "core": {"partlabel": "dos", "filesystem": "xfs"}, "prefix": {"type": "partition", "partlabel": "dos", "number": 0, "path": "/grub2"}}`,
			"(,msdos1)/grub2 i386-pc biosdisk part_msdos xfs"},
		{`{"platform": "powerpc-ieee1275", "core": {"partlabel": "gpt", "filesystem": "btrfs"}, "prefix": {"type": "partition", "partlabel": "gpt", "number": 2.0, "path": "//boot/"}}`,
			"(,gpt3)/boot/ powerpc-ieee1275 part_gpt btrfs"},
		{`{"platform": "i386-pc", "core": {"partlabel": "gpt", "filesystem": "iso9660"}, "prefix": {"path": "/boot/grub2/"}}`,
			"/boot/grub2/ i386-pc-eltorito biosdisk part_gpt iso9660"},
	}
	for _, tt := range tests {
		var o grub2InstOptions
		c := testContext(t, nil)
		c.Options = []byte(tt.options)
		if err := c.Decode(&o); err != nil {
			t.Fatal(err)
		}
		prefix, format, modules, err := o.plan()
		if got := prefix + " " + format + " " + strings.Join(modules, " "); got != tt.want || err != nil {
			t.Errorf("plan of %s: %q, %v, want %q", tt.options, got, err, tt.want)
		}
	}
}

func TestGrub2InstWithoutLocation(t *testing.T) {
	needGrub(t, "i386-pc")
	for _, location := range []string{"", `"location": 0,`} {
		c := testContext(t, nil)
		c.Options = []byte(`{"filename": "eltorito.img", "platform": "i386-pc", ` + location + `
			"core": {"type": "mkimage", "partlabel": "gpt", "filesystem": "iso9660", "binary": "grub2-mkimage-of-another-name"},
			"prefix": {"path": "/boot/grub2/"}}`)
		mustRun(t, "org.osbuild.grub2.inst", c)
		if st, err := os.Stat(c.TreePath("eltorito.img")); err != nil || st.Size() < 10000 {
			t.Errorf("no core image: %v", err)
		}
	}
}

func TestStarGrubBIOSNeedsRoom(t *testing.T) {
	needGrub(t, "i386-pc")
	c := testContext(t, map[string]any{"filename": "disk.img", "start": 34, "size": 20, "root-uuid": testUUID})
	blankImage(t, c, "disk.img", 1<<20)
	if err := runStarGrubBIOS(c); err == nil || !strings.Contains(err.Error(), "core image has") {
		t.Errorf("too small a place: %v", err)
	}
}

// One GPT disk, made without a mount and a loop device, comes up by BIOS and by
// UEFI, and GRUB reads grub.cfg from an ext4 file system that it finds by UUID.
func TestBootPaths(t *testing.T) {
	needGrub(t, "i386-pc")
	needGrub(t, "x86_64-efi")
	need(t, "sfdisk", "mkfs.ext4", "mkfs.fat", "mcopy", "qemu-system-x86_64")
	if testing.Short() {
		t.Skip("starts two machines")
	}
	const marker = "osbuild-star was here"
	epoch := int64(1700000000)
	c := testContext(t, nil)
	c.Meta = MetaArg{ID: "boot", SourceEpoch: &epoch}
	root := filepath.Join(c.Paths.Inputs, "root")
	writeTree(t, root, map[string]string{"boot/grub/grub.cfg": `serial --unit=0 --speed=115200
terminal_output serial
echo "` + marker + ` $grub_platform"
halt
`})
	c.Inputs["root"] = InputArg{Path: root}
	img := blankImage(t, c, "disk.img", 100<<20)
	run := func(stage, options string) {
		t.Helper()
		c.Options = []byte(options)
		mustRun(t, stage, c)
	}
	run("org.osbuild.sfdisk", `{"label": "gpt", "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0", "partitions": [
		{"start": 2048, "size": 2048, "type": "21686148-6449-6E6F-744E-656564454649"},
		{"start": 4096, "size": 68000, "type": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"},
		{"start": 73728, "size": 120000, "type": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"}]}`)
	run("org.osbuild-star.ext4", `{"filename": "disk.img", "start": 73728, "size": 120000, "root": "input://root/", "uuid": "`+testUUID+`"}`)
	run("org.osbuild-star.grub.efi", `{"platform": "x86_64-efi", "path": "/esp/EFI/BOOT/BOOTX64.EFI", "root-uuid": "`+strings.ToUpper(testUUID)+`", "prefix": "/boot/grub/"}`)
	run("org.osbuild-star.fat", `{"filename": "disk.img", "start": 4096, "size": 68000, "fat-size": 32, "files": [{"from": "tree:///esp/", "to": "/"}]}`)
	run("org.osbuild-star.grub.bios", `{"filename": "disk.img", "start": 2048, "size": 2048, "root-uuid": "`+testUUID+`"}`)

	t.Run("bios", func(t *testing.T) {
		bootUntil(t, marker+" pc", "-machine", "pc,accel=tcg", "-drive", "file="+img+",format=raw,if=virtio,snapshot=on")
	})
	t.Run("uefi", func(t *testing.T) {
		code, vars := "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
		b, err := os.ReadFile(vars)
		if err != nil {
			t.Skip(err)
		}
		mine := filepath.Join(t.TempDir(), "vars.fd")
		if err := os.WriteFile(mine, b, 0o600); err != nil {
			t.Fatal(err)
		}
		bootUntil(t, marker+" efi", "-machine", "q35,accel=tcg",
			"-drive", "if=pflash,format=raw,readonly=on,file="+code, "-drive", "if=pflash,format=raw,file="+mine,
			"-drive", "file="+img+",format=raw,if=virtio,snapshot=on")
	})
}

// bootUntil starts a machine and waits until its serial console shows a text.
func bootUntil(t *testing.T, want string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{
		"-cpu", "max", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-serial", "stdio", "-no-reboot",
	}, args...)...)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed, as a rule
		w.Close()
		close(ended)
	}()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(seen.String(), want) {
		n, err := r.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Errorf("the machine ended without %q:\n%s", want, seen.String())
			break
		}
	}
	cancel()
	go func() { _, _ = io.Copy(io.Discard, r) }()
	<-ended
}
