// org.osbuild-star.ext4: a tree in an ext4 file system that is part of a disk image,
// without a mount and without a loop device.
package stages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild-star.ext4",
		Revision: 1,
		Summary:  "put a tree into an ext4 file system of a disk image",
		Doc: `Makes an ext4 file system in a part of a file of the tree and fills it from a
directory, with "mkfs.ext4 -d": no mount, no loop device, so it needs no rights and runs
anywhere. The file exists before (org.osbuild.truncate) and stays sparse.

    {"filename": "disk.img", "start": 4096, "size": 4190208, "root": "input://tree/",
     "label": "root", "uuid": "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}

Owner, mode, times, links, device nodes, extended attributes and holes of the tree are
kept; sockets are not. UUID and directory hash seed are derived from the ID of the stage
where they are not set. With a source epoch, two builds make the same bytes: times of
access, change and creation are the epoch, and no file was modified later.`,
		Schema: `{
  "inputs": {
    "type": "object",
    "additionalProperties": true
  },
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["filename", "root"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the disk image in the tree"
      },
      "start": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "first sector of the file system, in units of 512 bytes"
      },
      "size": {
        "type": "integer",
        "minimum": 1,
        "description": "its length in sectors; default: up to the end of the file"
      },
      "root": {
        "type": "string",
        "description": "location of the directory that becomes its root, such as input://tree/"
      },
      "uuid": {
        "type": "string",
        "pattern": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
        "description": "UUID of the file system; default: derived from the ID of the stage"
      },
      "label": {
        "type": "string",
        "maxLength": 16,
        "description": "volume label"
      },
      "hash_seed": {
        "type": "string",
        "pattern": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
        "description": "seed of the hashes of large directories, a UUID; default: derived from the ID of the stage"
      },
      "features": {
        "type": "array",
        "description": "features that are switched on, or off with ^ in front, such as ^orphan_file; see ext4(5)",
        "items": {"type": "string", "pattern": "^\\^?[a-z0-9_]+$"}
      },
      "lazy_init": {
        "type": "boolean",
        "default": false,
        "description": "let the kernel zero the inode tables after the first mount; they are zeros in a sparse file as it is"
      },
      "reserved-percent": {
        "type": "integer",
        "minimum": 0,
        "maximum": 50,
        "default": 5,
        "description": "percent of the blocks that only root may use"
      },
      "exclude": {
        "type": "array",
        "description": "directories of the tree whose content is left out, such as /boot/efi; they stay, empty, to mount something there",
        "items": {"type": "string"}
      }
    }
  }
}`,
		Tools:   []string{"mkfs.ext4"},
		Reads:   mkfsExt4Reads,
		InPlace: true,
		Run:     runStarExt4,
	})
}

type starExt4Options struct {
	imagePart
	Root     string   `json:"root"`
	UUID     string   `json:"uuid"`
	Label    string   `json:"label"`
	HashSeed string   `json:"hash_seed"`
	Features []string `json:"features"`
	LazyInit bool     `json:"lazy_init"`
	Reserved *int     `json:"reserved-percent"`
	Exclude  []string `json:"exclude"`
}

func runStarExt4(c *Context) error {
	var o starExt4Options
	if err := c.Decode(&o); err != nil {
		return err
	}
	path, off, n, err := o.resolve(c)
	if err != nil {
		return err
	}
	root, err := c.ResolveLocation(o.Root, true)
	if err != nil {
		return err
	}
	root = filepath.Clean(root)
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return Errorf("root %s is not a directory", o.Root)
	}

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// In a hole mke2fs need not zero anything, whatever was there before.
	zeroed, err := clearRange(f, off, n)
	if err != nil {
		return err
	}
	if err := o.mkfs(c, path, root, off, n, zeroed || o.LazyInit); err != nil {
		return err
	}

	fs, err := openExt4(f, off)
	if err == nil {
		fix := ext4Fix{root: rootOf(&st), epoch: c.Meta.SourceEpoch, zeroed: zeroed && !o.LazyInit}
		err = fs.apply(fix)
	}
	if err != nil {
		return fmt.Errorf("%s: setting the times of the new file system: %w", o.Filename, err)
	}
	return f.Close()
}

// mkfs runs mkfs.ext4 for n bytes at off.
func (o *starExt4Options) mkfs(c *Context, path, root string, off, n int64, lazy bool) error {
	uuid, seed := o.UUID, o.HashSeed
	if uuid == "" {
		uuid = derivedUUID(c, "uuid")
	}
	if seed == "" {
		seed = derivedUUID(c, "hash_seed")
	}
	init := 0
	if lazy {
		init = 1
	}
	args := []string{
		"-q", "-F", "-U", uuid, "-d", root,
		"-E", fmt.Sprintf("offset=%d,hash_seed=%s,nodiscard,lazy_itable_init=%d,lazy_journal_init=%d", off, seed, init, init),
	}
	if o.Label != "" {
		args = append(args, "-L", o.Label)
	}
	if len(o.Features) > 0 {
		args = append(args, "-O", strings.Join(o.Features, ","))
	}
	if o.Reserved != nil {
		args = append(args, "-m", fmt.Sprint(*o.Reserved))
	}
	cmd := c.Cmd("mkfs.ext4", append(args, path, fmt.Sprintf("%ds", n/sectorSize))...)
	cmd.Env = ext4Environ(c)
	var said bytes.Buffer
	cmd.Stderr = io.MultiWriter(c.Log, &said)
	err := masked(root, o.Exclude, func() error { return c.wait(cmd) })
	if err != nil && bytes.Contains(said.Bytes(), []byte("Could not allocate")) {
		return &Error{
			Msg:  fmt.Sprintf("%s does not fit into an ext4 file system of %d MiB", o.Root, n>>20),
			Hint: "make the partition larger, or leave something out",
		}
	}
	return err
}

func rootOf(st *unix.Stat_t) *ext4Root {
	return &ext4Root{mode: st.Mode, uid: st.Uid, gid: st.Gid, mtime: time.Unix(st.Mtim.Unix())}
}

// masked runs f while the directories of exclude, below root, look empty to it and
// to programs that it starts: with empty directories mounted over them, in a mount
// namespace of its own.
func masked(root string, exclude []string, f func() error) error {
	var dirs []string
	for _, p := range exclude {
		dir, err := resolveIn(root, p, true)
		if err != nil {
			return err
		}
		st, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !st.IsDir() || dir == filepath.Clean(root) {
			return &Error{
				Msg:  fmt.Sprintf("exclude: %s cannot be left out", p),
				Hint: "exclude takes directories below the root, whose content is left out",
			}
		}
		dirs = append(dirs, dir)
	}
	if len(dirs) == 0 {
		return f()
	}
	return inMountNamespace(func() error {
		for _, dir := range dirs {
			empty, err := emptyLike(dir)
			if empty != "" {
				defer os.Remove(empty)
			}
			if err == nil {
				err = unix.Mount(empty, dir, "", unix.MS_BIND, "")
			}
			if err != nil {
				return fmt.Errorf("leaving out %s: %w", dir, err)
			}
		}
		return f()
	})
}

// inMountNamespace runs f on a thread that has a mount namespace of its own, in
// which nothing that it mounts is seen from outside. What f mounts ends with it.
func inMountNamespace(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it the namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("a mount namespace: %w", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- fmt.Errorf("making mounts private: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// emptyLike makes an empty directory with owner, mode, time and extended attributes
// of dir.
func emptyLike(dir string) (string, error) {
	empty, err := os.MkdirTemp("", "osbuild-star-empty-")
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return empty, err
	}
	if err := errors.Join(unix.Chown(empty, int(st.Uid), int(st.Gid)), unix.Chmod(empty, st.Mode&0o7777)); err != nil {
		return empty, err
	}
	names := make([]byte, 64<<10)
	if n, err := unix.Listxattr(dir, names); err == nil {
		for _, name := range strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
			value := make([]byte, 64<<10)
			if n, err := unix.Getxattr(dir, name, value); name != "" && err == nil {
				// Attributes that the file system of /tmp cannot hold are lost.
				_ = unix.Setxattr(empty, name, value[:n], 0)
			}
		}
	}
	return empty, unix.UtimesNano(empty, []unix.Timespec{st.Mtim, st.Mtim})
}
