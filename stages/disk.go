// Helpers that the stages of disk images and archives share: the file of an input,
// the path of a device, reproducible environments, names derived from the stage's
// ID, and copying that keeps holes.
package stages

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// sectorSize is the unit in which partitions and loop devices are described,
// whatever the disk's own sectors are.
const sectorSize = 512

// Schemas that several stages use: one device by the name "device", one input by
// the name "tree", "file" or "image".
const (
	deviceSchema = `{
    "type": "object",
    "additionalProperties": true,
    "required": ["device"],
    "properties": {
      "device": {
        "type": "object",
        "additionalProperties": true,
        "description": "the device that is written"
      }
    }
  }`
	treeInputSchema = `{
    "type": "object",
    "additionalProperties": false,
    "required": ["tree"],
    "properties": {
      "tree": {
        "type": "object",
        "additionalProperties": true,
        "description": "the tree whose content is taken"
      }
    }
  }`
	fileInputSchema = `{
    "type": "object",
    "additionalProperties": false,
    "required": ["file"],
    "properties": {
      "file": {
        "type": "object",
        "additionalProperties": true,
        "description": "the one file that is read"
      }
    }
  }`
)

// inputDir returns the directory of an input.
func inputDir(c *Context, name string) (string, error) {
	in, ok := c.Inputs[name]
	if !ok {
		return "", &Error{
			Msg:  fmt.Sprintf("the stage has no input %q", name),
			Hint: fmt.Sprintf("give it inputs = {%q: …}", name),
		}
	}
	return in.Path, nil
}

// inputFile returns the path of the one file of an input of org.osbuild.files.
func inputFile(c *Context, name string) (string, error) {
	dir, err := inputDir(c, name)
	if err != nil {
		return "", err
	}
	files := slices.Sorted(maps.Keys(c.Inputs[name].Data.Files))
	if len(files) != 1 {
		return "", &Error{
			Msg:  fmt.Sprintf("input %q has %d files, but the stage takes exactly one", name, len(files)),
			Hint: "give the input a single reference; one to a pipeline names its file",
		}
	}
	return filepath.Join(dir, files[0]), nil
}

// devicePath returns the path of a device of the stage.
func devicePath(c *Context, name string) (string, error) {
	d, ok := c.Devices[name]
	if !ok || d.Path == "" {
		return "", &Error{
			Msg:  fmt.Sprintf("the stage has no device %q", name),
			Hint: fmt.Sprintf("give it devices = {%q: device.loopback(…)}", name),
		}
	}
	return d.Path, nil
}

// environ returns the environment of the stage's programs, with the source epoch
// where there is one, and then the additions ("NAME=value").
func environ(c *Context, add ...string) []string {
	env := c.env()
	if env == nil {
		env = os.Environ()
	}
	return append(slices.Clone(env), add...)
}

// runEnv is [Context.Run] with an environment from environ.
func runEnv(c *Context, env []string, name string, args ...string) error {
	cmd := c.Cmd(name, args...)
	cmd.Env = env
	return c.wait(cmd)
}

// tool returns the first of the names that the build root has as a program, or
// the first name, so that starting it gives the usual error.
func tool(names ...string) string {
	for _, n := range names {
		if _, err := exec.LookPath(n); err == nil {
			return n
		}
	}
	return names[0]
}

// derivedUUID makes a UUID (of version 8, "custom") from the ID of the stage: two
// builds of one stage have the same, two stages never do.
func derivedUUID(c *Context, purpose string) string {
	b := derived(c, purpose)
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// derived returns 32 bytes that depend on the stage's ID and a purpose alone.
func derived(c *Context, purpose string) [32]byte {
	return sha256.Sum256([]byte("osbuild-star\x00" + purpose + "\x00" + c.Meta.ID))
}

// xzOpt is the environment variable that makes xz use all processors. With one
// thread xz writes another form of file; two at least keep the result the same on
// each machine.
func xzOpt() string {
	if runtime.NumCPU() == 1 {
		return "XZ_OPT=--threads 2"
	}
	return "XZ_OPT=--threads 0"
}

// openTarget creates the file at a path of the tree, or empties the one that is
// there; a missing directory is explained.
func openTarget(c *Context, filename string) (*os.File, error) {
	path, err := target(c, filename)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// target returns the path of a file of the tree that is going to be written, with
// links followed inside the tree. Its directory must be there.
func target(c *Context, filename string) (string, error) {
	path, err := c.Resolve(filename)
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(filepath.Dir(path)); err != nil || !st.IsDir() {
		return "", &Error{
			Msg:  fmt.Sprintf("%s: its directory is not in the tree", filename),
			Hint: "make it before, with an org.osbuild.mkdir stage",
		}
	}
	return path, nil
}

// toFile runs a program with its standard output in a file of the tree.
func toFile(c *Context, filename string, env []string, name string, args ...string) error {
	f, err := openTarget(c, filename)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := c.Cmd(name, args...)
	cmd.Env, cmd.Stdout = env, f
	if err := c.wait(cmd); err != nil {
		return err
	}
	return f.Close()
}

// imagePart is a part of a disk image in the tree: "filename", "start" and "size"
// of the options, the latter in sectors.
type imagePart struct {
	Filename string `json:"filename"`
	Start    int64  `json:"start"`
	Size     int64  `json:"size"`
}

// resolve returns the path of the image, and offset and length of the part in
// bytes. A size of 0 is all there is after the start.
func (p imagePart) resolve(c *Context) (path string, off, n int64, err error) {
	if path, err = c.Resolve(p.Filename); err != nil {
		return "", 0, 0, err
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", 0, 0, &Error{
			Msg:  fmt.Sprintf("%s is not in the tree", p.Filename),
			Hint: "make it with an org.osbuild.truncate stage before",
		}
	case err != nil:
		return "", 0, 0, err
	case !st.Mode().IsRegular():
		return "", 0, 0, Errorf("%s is not a regular file", p.Filename)
	}
	const most = 1 << 53 // sectors: no product below overflows
	if p.Start < 0 || p.Size < 0 || p.Start > most || p.Size > most {
		return "", 0, 0, Errorf("%s: start %d or size %d is out of range", p.Filename, p.Start, p.Size)
	}
	off, n = p.Start*sectorSize, p.Size*sectorSize
	if p.Size == 0 {
		n = (st.Size() - off) / sectorSize * sectorSize
	}
	if n <= 0 || off+n > st.Size() {
		return "", 0, 0, &Error{
			Msg: fmt.Sprintf("%s has %d sectors, too few for a part of %d that starts at %d",
				p.Filename, st.Size()/sectorSize, max(n/sectorSize, 0), p.Start),
			Hint: "raise the size of the org.osbuild.truncate stage that makes it",
		}
	}
	return path, off, n, nil
}

// clearRange makes n bytes of a file a hole. It reports false where the file
// system cannot, and the bytes are what they were.
func clearRange(f *os.File, off, n int64) (bool, error) {
	err := retryEINTR(func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "punch hole in", Path: f.Name(), Err: err}
	}
	return true, nil
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// copyRange copies n bytes of src from srcOff to dst at dstOff, as far as src has
// them, and returns how many. Holes of src become holes of dst, so that nothing is
// written for them; where dst can have none, zeros are written.
func copyRange(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) (int64, error) {
	st, err := src.Stat()
	if err != nil {
		return 0, err
	}
	if st.Mode().IsRegular() {
		n = min(n, max(st.Size()-srcOff, 0))
	}
	buf := make([]byte, 1<<20)
	var done int64
	for done < n {
		hole, data := int64(0), n-done
		if st.Mode().IsRegular() {
			hole, data = nextData(src, srcOff+done, n-done)
		}
		if hole > 0 {
			if err := zeroRange(dst, dstOff+done, hole); err != nil {
				return done, err
			}
			done += hole
		}
		w := io.NewOffsetWriter(dst, dstOff+done)
		m, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.NewSectionReader(src, srcOff+done, data)}, buf)
		done += m
		if err != nil {
			return done, err
		}
		if m < data {
			break // src ended early
		}
	}
	return done, nil
}

// nextData returns the lengths of the hole at off and of the data after it, both
// within n bytes.
func nextData(f *os.File, off, n int64) (hole, data int64) {
	d, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return n, 0
	}
	if err != nil || d < off {
		return 0, n
	}
	hole = min(d-off, n)
	e, err := unix.Seek(int(f.Fd()), d, unix.SEEK_HOLE)
	if err != nil || e <= d {
		return hole, n - hole
	}
	return hole, min(e-d, n-hole)
}

// zeroRange makes n bytes of dst read as zeros, by a hole if it can have one.
func zeroRange(dst *os.File, off, n int64) error {
	st, err := dst.Stat()
	if err != nil {
		return err
	}
	if st.Mode().IsRegular() && st.Size() < off+n {
		if err := dst.Truncate(off + n); err != nil {
			return err
		}
	}
	if ok, err := clearRange(dst, off, n); ok || err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for n > 0 {
		m, err := dst.WriteAt(zeros[:min(n, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}

// jsonNumber is a number as the manifest has it, 0 when absent.
func jsonNumber(n json.Number) string {
	if n == "" {
		return "0"
	}
	return n.String()
}

// integer turns a JSON number that must be whole into an int64.
func integer(name string, n json.Number) (int64, error) {
	if i, err := n.Int64(); err == nil {
		return i, nil
	}
	f, err := n.Float64()
	if err != nil || f != float64(int64(f)) || f > 1<<53 || f < -(1<<53) {
		return 0, Errorf("%s: %s is not a whole number", name, n)
	}
	return int64(f), nil
}

// safeWord refuses values that a program would take as an option, or as several.
func safeWord(what, s string) error {
	if strings.HasPrefix(s, "-") || strings.ContainsAny(s, "\n\x00") {
		return Errorf("%s: %q cannot be used", what, s)
	}
	return nil
}
