// GRUB images: making them with grub-mkimage, and the places in boot.img and
// core.img that say where on the disk the rest is (GRUB's boot.S and diskboot.S).
package stages

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// grubImage is what grub-mkimage is asked for.
type grubImage struct {
	binary   string // name of the program, or ""
	dir      string // of the modules, or "": that of the platform in the build root
	platform string
	format   string
	prefix   string
	config   string // embedded, or ""
	modules  []string
	more     []string // arguments
}

// grubMkimageNames are the names of the program, Fedora's and Debian's; either does.
const grubMkimageNames = "grub2-mkimage|grub-mkimage"

// grubMkimage makes an image and returns its bytes.
func grubMkimage(c *Context, g grubImage) ([]byte, error) {
	dir := g.dir
	if dir == "" {
		var err error
		if dir, err = grubModules(g.platform); err != nil {
			return nil, err
		}
	}
	tmp, err := os.MkdirTemp("", "osbuild-star-grub-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "image")
	args := append([]string{"--directory", dir, "--prefix", g.prefix, "--format", g.format}, g.more...)
	if g.config != "" {
		p := filepath.Join(tmp, "config")
		if err := os.WriteFile(p, []byte(g.config), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--config", p)
	}
	for _, m := range g.modules {
		if err := safeWord("module", m); err != nil {
			return nil, err
		}
	}
	names := strings.Split(grubMkimageNames, "|")
	if g.binary != "" {
		names = slices.Insert(names, 0, g.binary)
	}
	args = append(append(args, "--output", out), g.modules...)
	if err := runEnv(c, environ(c, "LC_ALL=C"), tool(names...), args...); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// grubBootCode is how much of the first sector is boot code: what comes after are
// the disk's signature and the partition table.
const grubBootCode = 440

// grubBootImage returns the boot code for the first sector of a disk; dir has the
// modules of i386-pc.
func grubBootImage(dir string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, "boot.img"))
	if err != nil {
		return nil, err
	}
	if len(b) < grubBootCode {
		return nil, Errorf("GRUB's boot.img has %d bytes", len(b))
	}
	return b[:grubBootCode], nil
}

// grubPointBoot writes into boot code which sector the core image begins at.
func grubPointBoot(boot []byte, sector int64) {
	binary.LittleEndian.PutUint64(boot[0x5c:], uint64(sector))
}

// grubPointCore writes into a core image, which is in one piece, which sector its
// second one is.
func grubPointCore(core []byte, sector int64) {
	const blockList = 512 - 12 // the last entry of the list, in the first sector
	if len(core) >= 512 {
		binary.LittleEndian.PutUint64(core[blockList:], uint64(sector+1))
	}
}

// grubDefaultModules are those that a core image gets when the options name none,
// as far as the platform has them: all that a usual grub.cfg for a Linux system
// needs, so that no modules have to be on the disk.
var grubDefaultModules = []string{
	"part_gpt", "part_msdos", "ext2", "xfs", "btrfs", "fat", "normal", "configfile", "search", "search_fs_uuid",
	"search_label", "search_fs_file", "linux", "linux16", "multiboot", "echo", "test", "true", "ls", "cat", "reboot", "halt",
	"sleep", "serial", "terminal", "terminfo", "loadenv", "minicmd", "gzio", "regexp", "boot", "chain", "all_video",
	"gfxterm", "font", "keystatus", "probe", "efi_gop", "efi_uga", "fwsetup", "biosdisk",
}

// grubReads is Stage.Reads of a stage that uses grubDirectory: nothing where the options
// name the directory.
func grubReads(platform string) func(map[string]any) []string {
	return func(o map[string]any) []string {
		if asked, _ := o["directory"].(string); asked != "" {
			return nil
		}
		p, _ := o["platform"].(string)
		return grubModuleDirs(cmp.Or(platform, p))
	}
}

// grubDirectory returns the directory of a platform's modules: that of the options,
// or the build root's.
func grubDirectory(c *Context, platform, asked string) (string, error) {
	if asked == "" {
		return grubModules(platform)
	}
	dir, err := c.ResolveLocation(asked, true)
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(filepath.Join(dir, "normal.mod")); err != nil || !st.Mode().IsRegular() {
		return "", &Error{
			Msg:  fmt.Sprintf("%s has no modules of GRUB", asked),
			Hint: "it has to be the directory with normal.mod: input://NAME/usr/lib/grub/" + platform,
		}
	}
	return dir, nil
}

// grubModuleList returns the modules of the options, or those of the default ones
// that the directory has.
func grubModuleList(dir string, asked []string) []string {
	if len(asked) > 0 {
		return asked
	}
	var out []string
	for _, m := range grubDefaultModules {
		if _, err := os.Stat(filepath.Join(dir, m+".mod")); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// grubSearch is the configuration that is embedded in an image: it finds the file
// system by its UUID and makes its directory the prefix, from which GRUB then loads
// grub.cfg.
func grubSearch(uuid, prefix string) string {
	return fmt.Sprintf("search --no-floppy --fs-uuid --set=root %s\nset prefix=($root)%s\n", uuid, grubPrefix(prefix))
}

// grubPrefix is a path with one slash in front and none behind.
func grubPrefix(p string) string {
	return "/" + strings.Trim(p, "/")
}

// Parts of the schemas of the stages of star_grub.go and star_grub_prep.go.
const (
	grubDirectoryOption = `"directory": {
        "type": "string",
        "pattern": "^(tree://|input://[^/]+|mount://[^/]*)/",
        "description": "where GRUB's modules are, for machines whose modules the build root has no package of: input://NAME/usr/lib/grub/PLATFORM; default: that of the build root"
      }`
	grubInputs = `"inputs": {
    "type": "object",
    "additionalProperties": true,
    "description": "trees that the directory of the modules may be in"
  }`
	grubUUIDOption = `"root-uuid": {
        "type": "string",
        "pattern": "^[0-9A-Fa-f-]+$",
        "description": "UUID of the file system that has GRUB's directory, in lower case as GRUB writes it"
      }`
	grubPrefixOption = `"prefix": {
        "type": "string",
        "pattern": "^/[A-Za-z0-9._/@+-]*$",
        "default": "/boot/grub",
        "description": "GRUB's directory on that file system, where grub.cfg is"
      }`
	grubModulesOption = `"modules": {
        "type": "array",
        "description": "modules that are part of the program; default: those that a usual grub.cfg needs, with ext4, xfs, btrfs and FAT",
        "items": {"type": "string", "pattern": "^[A-Za-z0-9_]+$"}
      }`
)
