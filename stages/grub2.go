// org.osbuild.grub2: GRUB's configuration for images that list their kernels as
// boot loader entries (BLS).
package stages

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.grub2",
		Revision: 1,
		Summary:  "configure the GRUB boot loader",
		Doc: `Writes /boot/grub2/grub.cfg, /boot/grub2/grubenv and /etc/default/grub. The menu
is made at boot from the boot loader entries below /boot/loader/entries (blscfg), as
Fedora's GRUB has it: Debian's has no such command.

    {"rootfs": {"uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"},
     "kernel_opts": "ro console=ttyS0", "legacy": "i386-pc",
     "uefi": {"vendor": "fedora", "unified": true}, "config": {"timeout": 5}}

- "bootfs" is the file system of /boot, where that is one of its own.
- "legacy" copies GRUB's modules for the platform, and a font, from the build root to
  /boot/grub2; true is i386-pc.
- "uefi" puts the configuration to /boot/efi/EFI/VENDOR/grub.cfg. With "unified", or
  together with "legacy", that file only leads to the one in /boot/grub2. "install" also
  copies EFI/BOOT and EFI/VENDOR from the build root.
- "compat_version" 1 leaves the names of unset terminal options in grub.cfg, as upstream
  osbuild once did; 2 is better.
- with "saved_entry", set "config": {"default": "saved"} too.`,
		Schema: grub2Schema,
		Reads:  grub2Reads,
		Run:    runGrub2,
	})
}

type grub2FS struct {
	UUID  string `json:"uuid"`
	Label string `json:"label"`
}

// UnmarshalJSON passes over unknown members, as the schema does.
func (f *grub2FS) UnmarshalJSON(data []byte) error {
	type plain grub2FS
	return json.Unmarshal(data, (*plain)(f))
}

type grub2UEFI struct {
	Vendor  string `json:"vendor"`
	SrcDir  string `json:"efi_src_dir"`
	Install bool   `json:"install"`
	Unified bool   `json:"unified"`
}

// UnmarshalJSON passes over unknown members, as the schema does.
func (u *grub2UEFI) UnmarshalJSON(data []byte) error {
	type plain grub2UEFI
	return json.Unmarshal(data, (*plain)(u))
}

type grub2Options struct {
	CompatVersion json.Number `json:"compat_version"`
	RootFS        *grub2FS    `json:"rootfs"`
	BootFS        *grub2FS    `json:"bootfs"`
	RootFSUUID    string      `json:"root_fs_uuid"`
	BootFSUUID    string      `json:"boot_fs_uuid"`
	KernelOpts    string      `json:"kernel_opts"`
	Legacy        any         `json:"legacy"`
	UEFI          *grub2UEFI  `json:"uefi"`
	SavedEntry    string      `json:"saved_entry"`
	WriteDefaults *bool       `json:"write_defaults"`
	WriteCmdline  *bool       `json:"write_cmdline"`
	Ignition      bool        `json:"ignition"`
	Greenboot     bool        `json:"greenboot"`
	Config        grub2Config `json:"config"`
}

type grub2Config struct {
	Default         *string     `json:"default"`
	DisableRecovery *bool       `json:"disable_recovery"`
	DisableSubmenu  *bool       `json:"disable_submenu"`
	Distributor     string      `json:"distributor"`
	Terminal        []string    `json:"terminal"`
	TerminalInput   []string    `json:"terminal_input"`
	TerminalOutput  []string    `json:"terminal_output"`
	Timeout         json.Number `json:"timeout"`
	TimeoutStyle    string      `json:"timeout_style"`
	Serial          string      `json:"serial"`
}

// platform is the GRUB platform of BIOS or Open Firmware boot, or "".
func (o *grub2Options) platform() string {
	switch v := o.Legacy.(type) {
	case string:
		return v
	case bool:
		if v {
			return "i386-pc"
		}
	}
	return ""
}

// normalize turns the old names of options into the new, and checks what the
// schema cannot.
func (o *grub2Options) normalize() error {
	if o.RootFS == nil || *o.RootFS == (grub2FS{}) {
		o.RootFS = &grub2FS{UUID: o.RootFSUUID}
	}
	if (o.BootFS == nil || *o.BootFS == (grub2FS{})) && o.BootFSUUID != "" {
		o.BootFS = &grub2FS{UUID: o.BootFSUUID}
	}
	for name, f := range map[string]*grub2FS{"rootfs": o.RootFS, "bootfs": o.BootFS} {
		if f != nil && f.UUID == "" && f.Label == "" {
			return &Error{Msg: name + " says nothing of the file system", Hint: "give its uuid or its label"}
		}
	}
	return nil
}

// home is the directory above grub2/, as GRUB's root device has it.
func (o *grub2Options) home() string {
	if o.BootFS != nil {
		return "/"
	}
	return "/boot/"
}

func runGrub2(c *Context) error {
	var o grub2Options
	if err := c.Decode(&o); err != nil {
		return err
	}
	if err := o.normalize(); err != nil {
		return err
	}
	if enabled(o.WriteDefaults) {
		if err := grub2Write(c, "/etc/default/grub", o.defaults()); err != nil {
			return err
		}
	}
	env, err := o.grubenv()
	if err != nil {
		return err
	}
	platform := o.platform()
	hybrid := platform != "" && o.UEFI != nil
	if hybrid {
		// Packages make it a link to the EFI system partition; here it stays in /boot.
		p, err := c.Resolve("/boot/grub2")
		if err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(p, "grubenv")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := grub2Write(c, "/boot/grub2/grubenv", env); err != nil {
		return err
	}

	cfg := "/boot/grub2/grub.cfg"
	if u := o.UEFI; u != nil {
		if u.Install {
			if err := grub2CopyEFI(c, u); err != nil {
				return err
			}
		}
		inESP := "/boot/efi/EFI/" + u.Vendor + "/grub.cfg"
		if hybrid || u.Unified {
			if err := grub2Write(c, inESP, o.redirect()); err != nil {
				return err
			}
		} else {
			cfg = inESP
		}
	}
	if err := grub2Write(c, cfg, o.config()); err != nil {
		return err
	}
	if platform == "" {
		return nil
	}
	if err := grub2CopyModules(c, platform); err != nil {
		return err
	}
	return grub2CopyInto(c, "/usr/share/grub/unicode.pf2", "/boot/grub2/fonts")
}

// grub2Write writes a file and makes its directory. A link that is there stays one.
func grub2Write(c *Context, p, text string) error {
	at, err := c.Resolve(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, []byte(text), 0o644)
}

// grub2CopyModules copies the modules of a platform, and the lists of what is in
// them, from the build root to the tree.
func grub2CopyModules(c *Context, platform string) error {
	dir, err := grubModules(platform)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext != ".mod" && ext != ".lst" || e.Name() == "fdt.lst" {
			continue
		}
		if err := grub2CopyInto(c, filepath.Join(dir, e.Name()), "/boot/grub2/"+platform); err != nil {
			return err
		}
	}
	return nil
}

// grub2CopyInto copies a file of the build root into a directory of the tree, with
// its mode and time.
func grub2CopyInto(c *Context, from, dir string) error {
	to, err := c.Resolve(dir + "/" + filepath.Base(from))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) {
		return &Error{Msg: from + " is not in the build root", Hint: "add GRUB's packages to the build root"}
	}
	if err != nil {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, b, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(to, st.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(to, time.Time{}, st.ModTime())
}

// grub2Reads are what runGrub2 copies of the build root.
func grub2Reads(options map[string]any) []string {
	o := grub2Options{Legacy: options["legacy"]}
	var out []string
	if platform := o.platform(); platform != "" {
		out = append(grubModuleDirs(platform), "/usr/share/grub/unicode.pf2")
	}
	if u, _ := options["uefi"].(map[string]any); u["install"] == true {
		src, _ := u["efi_src_dir"].(string)
		out = append(out, cmp.Or(src, "/boot/efi/EFI"))
	}
	return out
}

// grub2CopyEFI copies EFI/BOOT and EFI/VENDOR of the build root, which must not be
// in the tree before.
func grub2CopyEFI(c *Context, u *grub2UEFI) error {
	src := u.SrcDir
	if src == "" {
		src = "/boot/efi/EFI"
	}
	for _, name := range []string{"BOOT", u.Vendor} {
		from, dst := filepath.Join(src, name), "/boot/efi/EFI/"+name
		at, err := c.Resolve(dst)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(at); err == nil {
			return &Error{Msg: dst + " is in the tree already", Hint: `leave out "install", or what put it there`}
		}
		if _, err := os.Stat(from); err != nil {
			return &Error{Msg: from + " is not in the build root", Hint: "add GRUB's EFI packages to the build root, or set efi_src_dir"}
		}
		var dirs []string
		err = filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel := strings.TrimPrefix(p, from)
			if d.IsDir() {
				dirs = append(dirs, rel)
				return os.MkdirAll(at+rel, 0o755)
			}
			return grub2CopyInto(c, p, dst+filepath.Dir(rel))
		})
		if err != nil {
			return err
		}
		for i := len(dirs) - 1; i >= 0; i-- { // what is in them changed their times
			st, err := os.Stat(from + dirs[i])
			if err != nil {
				return err
			}
			if err := os.Chmod(at+dirs[i], st.Mode().Perm()); err != nil {
				return err
			}
			if err := os.Chtimes(at+dirs[i], time.Time{}, st.ModTime()); err != nil {
				return err
			}
		}
	}
	return nil
}

// grubModuleDirs are the directories of the build root that may have GRUB's modules for
// a platform. The second is where openSUSE has them.
func grubModuleDirs(platform string) []string {
	return []string{"/usr/lib/grub/" + platform, "/usr/share/grub2/" + platform}
}

// grubModules returns the directory of the build root with GRUB's modules for a
// platform.
func grubModules(platform string) (string, error) {
	if platform == "" || strings.ContainsAny(platform, "/\x00") || platform[0] == '.' {
		return "", Errorf("%q is no GRUB platform", platform)
	}
	for _, p := range grubModuleDirs(platform) {
		if st, err := os.Stat(p); err == nil && st.IsDir() {
			return p, nil
		}
	}
	return "", &Error{
		Msg:  fmt.Sprintf("GRUB's modules for %s are not in the build root", platform),
		Hint: "add the package that holds /usr/lib/grub/" + platform + ": grub-pc-bin or grub-efi-amd64-bin on Debian, grub2-pc-modules or grub2-efi-x64-modules on Fedora",
	}
}
