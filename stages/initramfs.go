// org.osbuild-star.initramfs: the initramfs of Debian's initramfs-tools.
package stages

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/stages/deb"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild-star.initramfs",
		Revision: 1,
		Summary:  "make the initramfs with initramfs-tools",
		Doc: `Runs update-initramfs of the tree for its kernels, once for each.

Without options every kernel that has modules in /lib/modules and its image in /boot
gets an initramfs as the configuration of the tree says; on Debian that is one with
most modules, compressed by zstd. The options write a file into
/etc/initramfs-tools/conf.d, so that the initramfs of a later kernel is made alike.

With a source epoch two runs make the same file. The time goes mostly into shell
scripts that start programs for every module; with the versions of initramfs-tools that
the stage knows, it makes them start fewer, and the result is the same. For a tree of
another architecture the scripts are emulated; with the input "native", and compressed by
zstd or gzip, the small tools that they start are not, and the result is the same, too.`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "kernels": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9.+~_-]*$"},
        "description": "versions of kernels (6.1.0-13-amd64); by default all that are in the tree"
      },
      "compress": {
        "type": "string",
        "enum": ["zstd", "xz", "gzip", "lz4", "lzma", "bzip2", "lzop"],
        "description": "the compression; by default what the tree is configured to, zstd"
      },
      "level": {
        "type": "integer",
        "minimum": 1,
        "maximum": 22,
        "description": "the level of the compression; by default that of initramfs-tools: 9 for zstd, of which 3 takes a fifth of the time and makes an eighth more"
      },
      "modules": {
        "type": "string",
        "enum": ["most", "netboot", "list"],
        "description": "which modules are in it: most, those for booting from a network, or only those listed in /etc/initramfs-tools/modules; by default what the tree is configured to, most"
      }
    }
  },
  "inputs": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "native": {
        "type": "object",
        "description": "a tree of the build host's architecture and the same release, an input of type org.osbuild.tree: for a tree of another architecture, its shell and small tools are started instead of emulated ones"
      }
    }
  }
}`,
		Chroot: true,
		Run:    runInitramfs,
	})
}

type initramfsOptions struct {
	Kernels  []string `json:"kernels"`
	Compress string   `json:"compress"`
	Level    int      `json:"level"`
	Modules  string   `json:"modules"`
}

const initramfsConf = "/etc/initramfs-tools/conf.d/osbuild-star"

func runInitramfs(c *Context) error {
	var o initramfsOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	if _, err := os.Stat(c.TreePath("/usr/sbin/update-initramfs")); err != nil {
		return &Error{
			Msg:  "the tree has no update-initramfs",
			Hint: "install initramfs-tools in a stage before this one",
		}
	}
	kernels, err := initramfsKernels(c, o.Kernels)
	if err != nil {
		return err
	}
	var conf strings.Builder
	for _, s := range []struct{ name, value string }{
		{"COMPRESS", o.Compress}, {"COMPRESSLEVEL", levelString(o.Level)}, {"MODULES", o.Modules},
	} {
		if s.value != "" {
			fmt.Fprintf(&conf, "%s=%s\n", s.name, s.value)
		}
	}
	if conf.Len() > 0 {
		path := c.TreePath(initramfsConf)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(conf.String()), 0o644); err != nil {
			return err
		}
	}
	covers, remove, err := initramfsCovers(c)
	if err != nil {
		return err
	}
	defer remove()
	for _, version := range kernels {
		if err := makeInitramfs(c, o, covers, version); err != nil {
			return err
		}
	}
	return nil
}

// makeInitramfs makes that of one kernel: with native programs where there are such, and
// without them if one of them got into it.
func makeInitramfs(c *Context, o initramfsOptions, covers map[string]string, version string) error {
	run := func(jail *deb.Jail) error {
		tail := &deb.Tail{To: c.Log}
		jail.Tree, jail.Env, jail.Covers, jail.Output = c.Tree, initramfsEnv(c), covers, tail
		err := jail.Run(c.context(), "/usr/sbin/update-initramfs", "-c", "-k", version)
		if err == nil || c.context().Err() != nil {
			return err
		}
		return &Error{
			Msg:  fmt.Sprintf("making the initramfs of kernel %s: %v\n  %s", version, err, strings.Join(tail.Last(20), "\n  ")),
			Hint: "the lines above are what update-initramfs printed last",
		}
	}
	in, ok := c.Inputs["native"]
	if !ok || o.Compress != "zstd" && o.Compress != "gzip" {
		return run(&deb.Jail{})
	}
	dir, err := os.MkdirTemp("", "osbuild-star-native-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	native, err := deb.OpenNatives(c.Tree, in.Path, dir)
	if err != nil {
		return err
	}
	if err := run(&deb.Jail{Native: native}); err != nil || native == nil {
		return err
	}
	name, err := borrowed(c.TreePath("/boot/initrd.img-" + version))
	if err != nil || name == "" {
		return err
	}
	c.Logf("a hook has copied %s, which is not the tree's now: making it again by emulated programs", name)
	return run(&deb.Jail{})
}

func levelString(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// initramfsEnv is the environment of update-initramfs. What zstd writes does not
// depend on how many threads it has, so it gets all; its files are in memory.
func initramfsEnv(c *Context) []string {
	return append(deb.ScriptEnv(c.Meta.SourceEpoch), "ZSTD_NBTHREADS=0", "TMPDIR=/tmp")
}

// initramfsKernels finds the kernels of the tree, or checks those that are asked for.
func initramfsKernels(c *Context, want []string) ([]string, error) {
	entries, err := os.ReadDir(c.TreePath("/usr/lib/modules"))
	if errors.Is(err, os.ErrNotExist) {
		entries, err = os.ReadDir(c.TreePath("/lib/modules"))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var have []string
	for _, e := range entries {
		for _, image := range []string{"vmlinuz-", "vmlinux-"} {
			if _, err := os.Stat(c.TreePath("/boot/" + image + e.Name())); err == nil {
				have = append(have, e.Name())
				break
			}
		}
	}
	if len(have) == 0 {
		return nil, &Error{
			Msg:  "the tree has no kernel: there is none with modules in /lib/modules and its image in /boot",
			Hint: "install a kernel (linux-image-amd64) in a stage before this one",
		}
	}
	for _, v := range want {
		if !slices.Contains(have, v) {
			return nil, &Error{
				Msg:  fmt.Sprintf("the tree has no kernel %s", v),
				Hint: "it has " + strings.Join(have, ", "),
			}
		}
	}
	if len(want) > 0 {
		return want, nil
	}
	return have, nil
}
