// org.osbuild.kernel-cmdline: the command line that new kernels get.
package stages

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.kernel-cmdline",
		Revision: 1,
		Summary:  "set the kernel's command line",
		Doc: `Writes /etc/kernel/cmdline, which the tools that install a kernel read.

Too long a line is refused: the kernel would cut it off. Its limit depends on the
architecture (2048 on x86_64 and aarch64, else 4096) and can be set.

    {"root_fs_uuid": "76a22bf4-f153-4541-b6c7-0332c0dfaeac", "kernel_opts": "ro console=ttyS0"}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "root_fs_uuid": {
        "type": "string",
        "description": "UUID of the root file system: makes root=UUID=…",
        "oneOf": [
          {"pattern": "^[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}$"},
          {"pattern": "^[0-9A-Za-z]{4}-[0-9A-Za-z]{4}$"}
        ]
      },
      "kernel_opts": {
        "type": "string",
        "default": "",
        "description": "more options, with spaces between"
      },
      "kernel_cmdline_size": {
        "type": "integer",
        "minimum": 256,
        "maximum": 4096,
        "description": "how many characters the line may have"
      }
    }
  }
}`,
		Run: runKernelCmdline,
	})
}

type kernelCmdlineOptions struct {
	RootFSUUID string `json:"root_fs_uuid"`
	KernelOpts string `json:"kernel_opts"`
	Size       *int   `json:"kernel_cmdline_size"`
}

// cmdlineSizes has COMMAND_LINE_SIZE of the architectures where it is not 4096.
var cmdlineSizes = map[string]int{"x86_64": 2048, "i386": 2048, "aarch64": 2048, "ppc64": 2048, "powerpc": 2048, "arm": 1024, "riscv": 1024}

func runKernelCmdline(c *Context) error {
	var o kernelCmdlineOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	var params []string
	if o.RootFSUUID != "" {
		params = append(params, "root=UUID="+o.RootFSUUID)
	}
	if o.KernelOpts != "" {
		params = append(params, o.KernelOpts)
	}
	line := strings.Join(params, " ")
	limit, ok := cmdlineSizes[c.Arch]
	if !ok {
		limit = 4096
	}
	if o.Size != nil {
		limit = *o.Size
	}
	if n := utf8.RuneCountInString(line); n > limit {
		return &Error{
			Msg:  fmt.Sprintf("the kernel command line has %d characters, more than the %d that are allowed", n, limit),
			Hint: "shorten kernel_opts, or set kernel_cmdline_size if the kernel takes more",
		}
	}
	return c.WriteFile("/etc/kernel/cmdline", line)
}
