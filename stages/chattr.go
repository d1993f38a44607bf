// org.osbuild.chattr: the immutable attribute of files.
package stages

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.chattr",
		Revision: 1,
		Summary:  "make files immutable, or not",
		Doc: `Sets or clears the immutable attribute of files and directories, one after the
other. The file system must have such an attribute: ext4, xfs and btrfs do.

    {"items": {"mount://root/ostree": {"immutable": true}}}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "items": {
        "type": "object",
        "additionalProperties": false,
        "description": "location in a mount or the tree → its attributes",
        "patternProperties": {
          "^mount://[^/]+/|^tree:///": {
            "type": "object",
            "required": ["immutable"],
            "properties": {
              "immutable": {"type": "boolean", "default": true, "description": "nobody can change, remove or rename it"}
            }
          }
        }
      }
    }
  },
  "devices": {"type": "object", "additionalProperties": true}
}`,
		Run: runChattr,
	})
}

type chattrOptions struct {
	Items orderedMap[chattrItem] `json:"items"`
}

type chattrItem struct {
	Immutable bool `json:"immutable"`
}

func runChattr(c *Context) error {
	var o chattrOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	for _, e := range o.Items {
		at, err := c.ResolveLocation(e.Name, false)
		if err != nil {
			return err
		}
		if err := setImmutable(at, e.Value.Immutable); err != nil {
			if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
				return &Error{
					Msg:  fmt.Sprintf("cannot make %s immutable: %v", e.Name, err),
					Hint: "its file system has no such attribute; use a mount of ext4, xfs or btrfs",
				}
			}
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h.
const immutableFlag = 0x10

// setImmutable sets or clears the attribute. Where it is so already, or cannot be
// set and shall not, nothing is done.
func setImmutable(at string, on bool) error {
	st, err := os.Lstat(at)
	if err != nil {
		return err
	}
	if !st.IsDir() && !st.Mode().IsRegular() {
		return Errorf("only files and directories have attributes")
	}
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		if !on && (errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP)) {
			return nil
		}
		return err
	}
	want := flags &^ immutableFlag
	if on {
		want |= immutableFlag
	}
	if want == flags {
		return nil
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(want))
}
