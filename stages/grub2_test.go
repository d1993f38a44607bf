package stages

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The digests are those of upstream's results.
func TestGrub2Results(t *testing.T) {
	c := testContext(t, map[string]any{
		"rootfs": map[string]any{"label": "root"}, "bootfs": map[string]any{"uuid": testUUID}, "kernel_opts": "ro quiet",
		"legacy": false, "write_defaults": true, "saved_entry": "ffff-6.1",
		"config": map[string]any{"timeout": 5, "terminal_output": []string{"serial"}, "serial": "serial --speed=115200"},
	})
	mustRun(t, "org.osbuild.grub2", c)
	c2 := testContext(t, map[string]any{
		"compat_version": 2, "rootfs": map[string]any{"uuid": testUUID}, "write_defaults": false,
		"uefi": map[string]any{"vendor": "demo", "unified": true}, "greenboot": false, "ignition": false,
	})
	mustRun(t, "org.osbuild.grub2", c2)
	for _, tt := range []struct {
		c    *Context
		path string
		want string
	}{
		{c, "/boot/grub2/grub.cfg", "dd3459369e0df14cb16f46425bee15383b590d170255f6e41c4e89ac9c7492fc"},
		{c, "/boot/grub2/grubenv", "67b97b02460c55b1b6a5cd5aa8a686027614c0f1544a04e8aad5e16796503bfb"},
		{c, "/etc/default/grub", "a2fb5b55c25519a305734bf3feffdcb36f67924ac711d63f7dfce113e4b9ad18"},
		{c2, "/boot/efi/EFI/demo/grub.cfg", "4acbb1905cf5f47021e05179e32f3a10ec5eca5dd055a5ac4ba5433062792c57"},
		{c2, "/boot/grub2/grub.cfg", "5b1360e42c2d77af68d1a60702da4539f4441f4d4cbce1e5f09bafd4ded43e73"},
		{c2, "/boot/grub2/grubenv", "7a6ce52a9940dfbc0f77227f7e8bb37cd3176783004c17fd75ad78ecc6001847"},
	} {
		if got := sha256File(t, tt.c.TreePath(tt.path)); got != tt.want {
			b, _ := os.ReadFile(tt.c.TreePath(tt.path))
			t.Errorf("%s has sha256 %s, want %s:\n%s", tt.path, got, tt.want, b)
		}
	}
	if _, err := os.Stat(c2.TreePath("/etc/default/grub")); err == nil {
		t.Error("/etc/default/grub was written")
	}
}

func TestGrub2Features(t *testing.T) {
	c := testContext(t, map[string]any{
		"root_fs_uuid": testUUID, "boot_fs_uuid": "6699-AFB5", "ignition": true, "greenboot": true, "write_cmdline": false,
	})
	mustRun(t, "org.osbuild.grub2", c)
	tree := readTree(t, c.Tree)
	cfg := tree["/boot/grub2/grub.cfg"]
	for _, want := range []string{
		"search --no-floppy --set=root --fs-uuid 6699-AFB5\nset boot=${root}\n",
		`if [ -f "/ignition.firstboot" ]; then`,
		"\n    set ignition_firstboot=\"ignition.firstboot ${ignition_network_kcmdline}\"\nfi\n\n\n# greenboot support",
		"save_env boot_success\n${serial}${terminal_input}${terminal_output}\nblscfg\n",
	} {
		if !strings.Contains(cfg, want) {
			t.Errorf("grub.cfg has no %q:\n%s", want, cfg)
		}
	}
	if env := tree["/boot/grub2/grubenv"]; len(env) != 1024 || strings.Contains(env, "kernelopts") {
		t.Errorf("unexpected grubenv:\n%s", env)
	}
}

func TestGrub2Defaults(t *testing.T) {
	yes, saved := true, "saved"
	o := grub2Options{KernelOpts: "loglevel=3", Config: grub2Config{
		Default: &saved, DisableSubmenu: &yes, DisableRecovery: &yes, Distributor: "$(sed x /etc/system-release)",
		Serial: "serial --unit=0", Terminal: []string{"serial", "console"}, TerminalOutput: []string{"console"},
		Timeout: "10", TimeoutStyle: "countdown",
	}}
	want := `GRUB_CMDLINE_LINUX="loglevel=3"
GRUB_TIMEOUT=10
GRUB_ENABLE_BLSCFG=true
GRUB_DISABLE_RECOVERY=true
GRUB_DISABLE_SUBMENU=true
GRUB_DISTRIBUTOR="$(sed x /etc/system-release)"
GRUB_SERIAL_COMMAND="serial --unit=0"
GRUB_TERMINAL="serial console"
GRUB_TERMINAL_OUTPUT="console"
GRUB_TIMEOUT_STYLE=countdown
GRUB_DEFAULT=saved
`
	if diff := cmp.Diff(want, o.defaults()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGrub2UEFI(t *testing.T) {
	src := t.TempDir()
	writeTree(t, src, map[string]string{"fedora/shim.efi": "shim", "fedora/fonts/f.pf2": "font", "BOOT/BOOTX64.EFI": "boot", "other/x": "x"})
	c := testContext(t, map[string]any{
		"rootfs": map[string]any{"label": "my root"}, "write_defaults": false,
		"uefi": map[string]any{"vendor": "fedora", "install": true, "efi_src_dir": src},
	})
	mustRun(t, "org.osbuild.grub2", c)
	tree := readTree(t, c.Tree)
	var got []string
	for p := range tree {
		got = append(got, p)
	}
	slices.Sort(got)
	want := []string{
		"/boot/efi/EFI/BOOT/BOOTX64.EFI", "/boot/efi/EFI/fedora/fonts/f.pf2", "/boot/efi/EFI/fedora/grub.cfg",
		"/boot/efi/EFI/fedora/shim.efi", "/boot/grub2/grubenv",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files differ (-want +got):\n%s", diff)
	}
	if err := runGrub2(c); err == nil || !strings.Contains(err.Error(), "in the tree already") {
		t.Errorf("a second install: %v", err)
	}
}

func TestGrub2Hybrid(t *testing.T) {
	if _, err := grubModules("i386-pc"); err != nil {
		t.Skip(err)
	}
	if _, err := os.Stat("/usr/share/grub/unicode.pf2"); err != nil {
		t.Skip(err)
	}
	c := testContext(t, map[string]any{"rootfs": map[string]any{"uuid": testUUID}, "legacy": true, "uefi": map[string]any{"vendor": "demo"}})
	if err := os.MkdirAll(c.TreePath("/boot/grub2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../efi/EFI/demo/grubenv", c.TreePath("/boot/grub2/grubenv")); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "org.osbuild.grub2", c)
	for _, p := range []string{"/boot/grub2/i386-pc/normal.mod", "/boot/grub2/i386-pc/moddep.lst", "/boot/grub2/fonts/unicode.pf2", "/boot/grub2/grub.cfg"} {
		if _, err := os.Stat(c.TreePath(p)); err != nil {
			t.Error(err)
		}
	}
	if st, err := os.Lstat(c.TreePath("/boot/grub2/grubenv")); err != nil || !st.Mode().IsRegular() {
		t.Errorf("grubenv is still a link: %v", err)
	}
	for _, p := range []string{"/boot/grub2/i386-pc/fdt.lst", "/boot/grub2/i386-pc/boot.img"} {
		if _, err := os.Stat(c.TreePath(p)); err == nil {
			t.Errorf("%s was copied", p)
		}
	}
	redirect := readTree(t, c.TreePath("/boot/efi"))["/EFI/demo/grub.cfg"]
	if !strings.Contains(redirect, "configfile $prefix/grub.cfg") {
		t.Errorf("the configuration of the ESP does not lead to the other:\n%s", redirect)
	}
}

func TestGrub2Refuses(t *testing.T) {
	for name, tt := range map[string]struct {
		options map[string]any
		want    string
	}{
		"no root":   {map[string]any{"rootfs": map[string]any{}}, "rootfs says nothing"},
		"long":      {map[string]any{"root_fs_uuid": testUUID, "kernel_opts": strings.Repeat("x ", 600)}, "GRUB reads 1024"},
		"platform":  {map[string]any{"root_fs_uuid": testUUID, "legacy": "no-such"}, "are not in the build root"},
		"traversal": {map[string]any{"root_fs_uuid": testUUID, "legacy": "../x"}, "is no GRUB platform"},
		"efi":       {map[string]any{"root_fs_uuid": testUUID, "uefi": map[string]any{"vendor": "x", "install": true, "efi_src_dir": filepath.Join(t.TempDir(), "no")}}, "not in the build root"},
	} {
		if err := runGrub2(testContext(t, tt.options)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
