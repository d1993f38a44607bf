// org.osbuild.kernel-cmdline.bls-append: options for the kernels that are there.
package stages

import (
	"os"
	"path/filepath"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.kernel-cmdline.bls-append",
		Revision: 1,
		Summary:  "add options to the boot loader entries",
		Doc: `Adds kernel options at the end of the first "options" line of every entry in
loader/entries, or a new line where there is none. See the boot loader specification.

    {"kernel_opts": ["quiet", "console=ttyS0"], "bootpath": "mount:///boot"}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["kernel_opts"],
    "properties": {
      "kernel_opts": {
        "type": "array",
        "items": {"type": "string"},
        "description": "the options, in order"
      },
      "bootpath": {
        "type": "string",
        "pattern": "^(mount|tree):///",
        "default": "tree:///boot",
        "description": "location of the boot directory, which has loader/entries in it"
      }
    }
  },
  "devices": {"type": "object", "additionalProperties": true}
}`,
		Run: runBLSAppend,
	})
}

type blsAppendOptions struct {
	KernelOpts []string `json:"kernel_opts"`
	BootPath   *string  `json:"bootpath"`
}

func runBLSAppend(c *Context) error {
	var o blsAppendOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	boot := "tree:///boot"
	if o.BootPath != nil {
		boot = *o.BootPath
	}
	dir, err := c.ResolveLocation(boot, true)
	if err != nil {
		return err
	}
	files, err := confFiles(filepath.Join(dir, "loader/entries"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return &Error{
			Msg:  "no boot loader entry in " + strings.TrimSuffix(boot, "/") + "/loader/entries",
			Hint: "install a kernel before this stage, or set bootpath",
		}
	}
	for _, f := range files {
		if err := appendBLS(f, strings.Join(o.KernelOpts, " ")); err != nil {
			return err
		}
	}
	return nil
}

func appendBLS(file, options string) error {
	text, err := readText(file)
	if err != nil {
		return err
	}
	var out strings.Builder
	done := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if !done && strings.HasPrefix(line, "options ") {
			line, done = line+" "+options, true
		}
		out.WriteString(line + "\n")
	}
	if !done {
		out.WriteString("options " + options + "\n")
	}
	return rewriteFile(file, out.String(), os.FileMode(0o644))
}
