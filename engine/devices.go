// Devices and mounts of a stage: loop devices on files of its tree, and the file
// systems on them.
package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/stages"
	"golang.org/x/sys/unix"
)

// loopOptions are those of org.osbuild.loopback, in sectors.
type loopOptions struct {
	Filename   string `json:"filename"`
	Start      uint64 `json:"start"`
	Size       uint64 `json:"size"`
	SectorSize uint64 `json:"sector-size"`
	Lock       bool   `json:"lock"`
	Partscan   bool   `json:"partscan"`
	ReadOnly   bool   `json:"read-only"`
}

func decodeOptions(options map[string]any, into any) error {
	b, err := json.Marshal(options)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// device is an open device of a stage.
type device struct {
	rel  string          // its name below /dev: "loop3"
	path string          // of its node on the host
	loop *buildroot.Loop // nil when a service made it
}

// deviceArg is what a stage is told of a device.
type deviceArg struct {
	Path string     `json:"path"`
	Node deviceNode `json:"node"`
}

type deviceNode struct {
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

func (v *environment) openDevices(args *arguments) (map[string]*device, error) {
	out := map[string]*device{}
	for _, name := range v.pl.ids.Devices(v.pl.p, v.i) {
		d := v.stage.Devices[name]
		module, err := v.b.e.cfg.Programs.device(d)
		if err == nil && module != nil {
			out[name], args.Devices[name], err = v.serveDevice(module, name, out)
		}
		if err != nil {
			return nil, fmt.Errorf("device %q: %w", name, err)
		}
		if module != nil {
			continue
		}
		if d.Type != "org.osbuild.loopback" {
			return nil, fmt.Errorf("device %q: devices of type %s are not known", name, d.Type)
		}
		o := loopOptions{SectorSize: 512}
		if err := decodeOptions(d.Options, &o); err != nil {
			return nil, fmt.Errorf("device %q: %w", name, err)
		}
		var l *buildroot.Loop
		err = v.b.e.space.Do(func() error {
			file, err := buildroot.InRoot(v.tree, path.Clean("/"+o.Filename))
			if err != nil {
				var pe *os.PathError
				if errors.As(err, &pe) {
					err = pe.Err
				}
				return &stages.Error{
					Msg:  fmt.Sprintf("device %q: file %q of the tree: %v", name, o.Filename, err),
					Hint: "make the file in a stage before, such as org.osbuild.truncate",
				}
			}
			l, err = buildroot.OpenLoop(buildroot.LoopConfig{
				File: file, Offset: o.Start * o.SectorSize, Size: o.Size * o.SectorSize,
				SectorSize: uint32(o.SectorSize), ReadOnly: o.ReadOnly, PartScan: o.Partscan,
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		v.onClose(l.Close)
		dev := &device{rel: strings.TrimPrefix(l.Path, "/dev/"), path: l.Path, loop: l}
		if v.nodes != "" {
			if err := v.addNode(l, dev.rel); err != nil {
				return nil, err
			}
		}
		out[name] = dev
		args.Devices[name] = deviceArg{l.Path, deviceNode{l.Major, l.Minor}}
	}
	return out, nil
}

// mountOptions are those of all mounts that are served here.
type mountOptions struct {
	Readonly   bool   `json:"readonly"`
	Norecovery bool   `json:"norecovery"`
	UID        *int   `json:"uid"`
	GID        *int   `json:"gid"`
	Umask      string `json:"umask"`
	Shortname  string `json:"shortname"`
	Subvol     string `json:"subvol"`
	Compress   string `json:"compress"`
	Source     string `json:"source"` // of a bind mount
}

// data is what the file system is told.
func (o *mountOptions) data() string {
	var out []string
	add := func(s string) { out = append(out, s) }
	if o.Norecovery {
		add("norecovery")
	}
	if o.UID != nil {
		add("uid=" + strconv.Itoa(*o.UID))
	}
	if o.GID != nil {
		add("gid=" + strconv.Itoa(*o.GID))
	}
	for _, kv := range [][2]string{{"umask", o.Umask}, {"shortname", o.Shortname}, {"subvol", o.Subvol}, {"compress", o.Compress}} {
		if kv[1] != "" {
			add(kv[0] + "=" + kv[1])
		}
	}
	return strings.Join(out, ",")
}

// kernelName is what the kernel calls the file system of a mount type.
var kernelName = map[string]string{
	"org.osbuild.ext4": "ext4", "org.osbuild.xfs": "xfs", "org.osbuild.btrfs": "btrfs", "org.osbuild.fat": "vfat",
	"org.osbuild.squashfs": "squashfs", "org.osbuild.erofs": "erofs",
}

// openMounts mounts below one directory, which the stage gets with all that is on it.
func (v *environment) openMounts(args *arguments, devices map[string]*device) error {
	root := filepath.Join(v.dir, "mounts")
	return v.b.e.space.Do(func() error {
		if err := buildroot.MountTmpfs(root, "0755"); err != nil {
			return err
		}
		v.onClose(func() error { return v.b.e.space.Do(func() error { return buildroot.Unmount(root) }) })
		for _, m := range v.stage.Mounts {
			module, err := v.b.e.cfg.Programs.mount(m)
			if err == nil && module != nil {
				args.Mounts[m.Name], err = v.serveMount(module, root, m, devices)
			} else if err == nil {
				args.Mounts[m.Name], err = v.mount(root, m, devices)
			}
			if err != nil {
				return fmt.Errorf("mount %q: %w", m.Name, err)
			}
		}
		return nil
	})
}

func (v *environment) mount(root string, m *manifest.Mount, devices map[string]*device) (stages.MountArg, error) {
	var o mountOptions
	if err := decodeOptions(m.Options, &o); err != nil {
		return stages.MountArg{}, err
	}
	rel := strings.TrimPrefix(path.Clean("/"+m.Target), "/")
	target := filepath.Join(root, rel)
	arg := stages.MountArg{Path: path.Join(insideMounts, rel)}
	switch m.Type {
	case "org.osbuild.noop":
		return arg, os.MkdirAll(target, 0o755)
	case "org.osbuild.bind":
		return stages.MountArg{}, v.bindMount(root, m, o)
	}
	fstype, ok := kernelName[m.Type]
	if !ok {
		return arg, fmt.Errorf("mounts of type %s are not known", m.Type)
	}
	l := devices[m.Source]
	if l == nil {
		return arg, fmt.Errorf("it has no device (source %q)", m.Source)
	}
	dev := l.path
	if m.Partition > 0 {
		dev = fmt.Sprintf("%sp%d", dev, m.Partition)
		if err := awaitPath(dev); err != nil {
			return arg, err
		}
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return arg, err
	}
	var flags uintptr
	if o.Readonly || fstype == "squashfs" || fstype == "erofs" {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(dev, target, fstype, flags, o.data()); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return arg, &HostError{fmt.Errorf("this kernel has no %s: %w", fstype, err), "load or build the module " + fstype}
		}
		return arg, fmt.Errorf("mounting %s from %s: %w", fstype, dev, err)
	}
	v.onClose(func() error {
		return v.b.e.space.Do(func() error { return unmountFS(target) })
	})
	return arg, nil
}

// unmountFS unmounts a file system for good: what the stage's own view of it held
// is gone when the stage is, which can take a moment. It fails too when what was
// written to the file system did not get to its device: the file below it can have no
// room left on the disk, and no program is told of it before it syncs.
func unmountFS(target string) error {
	var written error
	if fd, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		if err := unix.Syncfs(fd); err != nil {
			written = &os.PathError{Op: "syncfs", Path: target, Err: err}
		}
		unix.Close(fd)
	}
	var err error
	for range 500 {
		if err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return &os.PathError{Op: "umount", Path: target, Err: err}
	}
	return written
}

// bindMount mounts a directory of a mount over one of the tree.
func (v *environment) bindMount(root string, m *manifest.Mount, o mountOptions) error {
	at := func(loc string) (string, error) {
		scheme, p, _ := strings.Cut(loc, "://")
		base := v.tree
		switch scheme {
		case "tree":
		case "mount":
			base = root
		default:
			return "", fmt.Errorf("location %q: use tree:// or mount://", loc)
		}
		return buildroot.InRoot(base, path.Clean("/"+p))
	}
	from, err := at(o.Source)
	if err != nil {
		return err
	}
	to, err := at(m.Target)
	if err != nil {
		return err
	}
	if err := buildroot.Bind(from, to, false); err != nil {
		return err
	}
	v.onClose(func() error { return v.b.e.space.Do(func() error { return buildroot.Unmount(to) }) })
	return nil
}

// awaitPath waits for a device node that the kernel makes.
func awaitPath(p string) error {
	for range 100 {
		if _, err := os.Stat(p); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("there is no %s: this kernel may have no parser for the partition table", p)
}
