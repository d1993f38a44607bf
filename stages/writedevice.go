// org.osbuild.write-device: writes a file to a device.
package stages

import (
	"fmt"
	"io"
	"os"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.write-device",
		Revision: 1,
		Summary:  "write a file to a device",
		Doc: `Writes a file of an input to the start of the device: a boot loader or a firmware
to its partition, say. What is beyond the file stays as it is.

    {"from": "input://firmware/u-boot.bin"}`,
		Schema: `{
  "devices": ` + deviceSchema + `,
  "inputs": {
    "type": "object",
    "additionalProperties": true
  },
  "options": {
    "additionalProperties": false,
    "required": ["from"],
    "properties": {
      "from": {
        "type": "string",
        "pattern": "^input:\\/\\/[^\\/]+\\/",
        "description": "location of the file, such as input://NAME/FILE"
      }
    }
  }
}`,
		InPlace: true,
		Run:     runWriteDevice,
	})
}

func runWriteDevice(c *Context) error {
	var o struct {
		From string `json:"from"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	path, err := c.ResolveLocation(o.From, true)
	if err != nil {
		return err
	}
	dev, err := devicePath(c, "device")
	if err != nil {
		return err
	}
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return Errorf("%s is not a regular file", o.From)
	}
	dst, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	room, err := dst.Seek(0, io.SeekEnd) // the size of a block device, too
	if err != nil {
		return err
	}
	if st.Size() > room {
		return &Error{
			Msg:  fmt.Sprintf("%s has %d bytes, but the device has %d", o.From, st.Size(), room),
			Hint: "make the partition larger",
		}
	}
	if _, err := copyRange(dst, 0, src, 0, st.Size()); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil { // into the file behind a loop device
		return err
	}
	c.Logf("%d of %d bytes of the device written", st.Size(), room)
	return dst.Close()
}
