// Loop devices: a file, or a part of it, as a block device.
package buildroot

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func dupCloexec(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3) }

// LoopConfig says what a loop device shows.
type LoopConfig struct {
	File       string
	Backing    *os.File // used as it is open, and not taken over, instead of opening File
	Offset     uint64   // bytes
	Size       uint64   // bytes; 0: to the end of the file
	SectorSize uint32   // bytes; 0: 512
	ReadOnly   bool
	PartScan   bool
	Lock       bool // hold a lock on the device, which keeps udev from looking at it
}

// Loop is an attached loop device. The kernel detaches it when its last user is
// gone, so none is left when this process dies.
type Loop struct {
	Path         string // "/dev/loop3"
	Major, Minor uint32
	dev, back    *os.File
}

// OpenLoop attaches a free loop device to a file.
func OpenLoop(cfg LoopConfig) (*Loop, error) {
	mode := os.O_RDWR
	if cfg.ReadOnly {
		mode = os.O_RDONLY
	}
	back, err := cfg.backing(mode)
	if err != nil {
		return nil, err
	}
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		back.Close()
		return nil, fmt.Errorf("no loop devices: %w", err)
	}
	defer ctl.Close()
	for range 64 {
		l, err := attachLoop(ctl, back, cfg, mode)
		if err == nil {
			return l, nil
		}
		// Somebody else was faster.
		if !errors.Is(err, unix.EBUSY) {
			back.Close()
			return nil, err
		}
	}
	back.Close()
	return nil, errors.New("no free loop device")
}

func (cfg *LoopConfig) backing(mode int) (*os.File, error) {
	if cfg.Backing == nil {
		return os.OpenFile(cfg.File, mode, 0)
	}
	cfg.File = cfg.Backing.Name()
	return dup(cfg.Backing)
}

func attachLoop(ctl, back *os.File, cfg LoopConfig, mode int) (*Loop, error) {
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("finding a free loop device: %w", err)
	}
	path := fmt.Sprintf("/dev/loop%d", n)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		// No devtmpfs here.
		if err := unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, &os.PathError{Op: "mknod", Path: path, Err: err}
		}
	}
	dev, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, err
	}
	if cfg.Lock {
		if err := unix.Flock(int(dev.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			dev.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = unix.EBUSY
			}
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
	}
	c := unix.LoopConfig{Fd: uint32(back.Fd()), Size: cfg.SectorSize}
	c.Info.Offset, c.Info.Sizelimit = cfg.Offset, cfg.Size
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if cfg.ReadOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if cfg.PartScan {
		c.Info.Flags |= unix.LO_FLAGS_PARTSCAN
	}
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &c); err != nil {
		dev.Close()
		return nil, fmt.Errorf("attaching %s to %s: %w", path, cfg.File, err)
	}
	return &Loop{Path: path, Major: 7, Minor: uint32(n), dev: dev, back: back}, nil
}

// Close writes out what is cached and detaches the device; it waits until the
// device is free.
func (l *Loop) Close() error {
	var errs []error
	if err := l.dev.Sync(); err != nil {
		errs = append(errs, fmt.Errorf("flushing %s: %w", l.Path, err))
	}
	// An explicit detach; with users left it becomes automatic at the last close.
	if err := unix.IoctlSetInt(int(l.dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		errs = append(errs, fmt.Errorf("detaching %s: %w", l.Path, err))
	}
	l.dev.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", l.Minor)); err != nil || !l.mine() {
			break
		}
		if time.Now().After(deadline) {
			errs = append(errs, fmt.Errorf("%s is still in use", l.Path))
			break
		}
	}
	l.back.Close()
	return errors.Join(errs...)
}

// mine tells whether the device is still attached to our file.
func (l *Loop) mine() bool {
	f, err := os.Open(l.Path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(l.back.Fd()), &st); err != nil {
		return false
	}
	return info.Inode == st.Ino && info.Device == st.Dev
}
