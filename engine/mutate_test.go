// Random trees, and random changes of them, of everything that a file system has.
package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mutator changes a tree. The same seed on the same tree makes the same changes.
type mutator struct {
	root  string
	r     *rand.Rand
	label string

	dirs, files, links, all []string // of the tree as it is; files are regular, links all but directories
}

// mutate makes count random changes below root.
func mutate(root string, seed uint64, count int) error {
	m := &mutator{root: root, r: rand.New(rand.NewPCG(seed, 11))}
	for n := range count {
		m.label = fmt.Sprintf("%d.%d", seed, n)
		if err := m.look(); err != nil {
			return err
		}
		op, err := m.change()
		// What is refused is refused in both trees.
		var errno unix.Errno
		if errors.As(err, &errno) && (errno == unix.ENOTEMPTY || errno == unix.EEXIST || errno == unix.EISDIR || errno == unix.ENOTDIR || errno == unix.EINVAL) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("change %s, operation %d: %w", m.label, op, err)
		}
	}
	return nil
}

func (m *mutator) look() error {
	m.dirs, m.files, m.links, m.all = nil, nil, nil, nil
	return filepath.WalkDir(m.root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			m.dirs = append(m.dirs, p)
		case d.Type().IsRegular():
			m.files = append(m.files, p)
			fallthrough
		default:
			m.links = append(m.links, p)
		}
		if p != m.root {
			m.all = append(m.all, p)
		}
		return nil
	})
}

func (m *mutator) pick(from []string) string {
	if len(from) == 0 {
		return ""
	}
	return from[m.r.IntN(len(from))]
}

// name is one that is free, or in use at times.
func (m *mutator) name() string {
	n := fmt.Sprintf("n%d", m.r.IntN(14))
	switch m.r.IntN(30) {
	case 0:
		n = "line\nbreak: , \\ \t" + n
	case 1:
		n = "\xff\xfe" + n + "\x80"
	case 2:
		n = n + strings.Repeat("x", 255-len(n))
	case 3:
		n = ".wh." + n
	case 4:
		n = "#" + n
	}
	return filepath.Join(m.pick(m.dirs), n)
}

func (m *mutator) content() []byte {
	n := m.r.IntN(6000)
	if m.r.IntN(20) == 0 {
		n *= 40
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.r.Uint32())
	}
	return b
}

func isFree(p string) bool { _, err := os.Lstat(p); return err != nil }

func open(p string, flags int, f func(*os.File) error) error {
	file, err := os.OpenFile(p, flags, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	return f(file)
}

// rename leaves out what overlayfs refuses: the place that a file had below is noted
// where it goes, in 256 bytes.
func (m *mutator) rename(from, to string) error {
	if len(from)-len(m.root) > 255 || strings.HasPrefix(to+"/", from+"/") {
		return nil
	}
	return unix.Rename(from, to)
}

// change makes one change, and tells which.
func (m *mutator) change() (int, error) {
	r := m.r
	op := r.IntN(34)
	p, b := m.name(), m.content()
	if op < 8 && !isFree(p) {
		return op, nil
	}
	switch op {
	case 0, 1: // new things
		return op, os.WriteFile(p, b, fs.FileMode(0o600|r.IntN(0o100)))
	case 2:
		return op, os.Mkdir(p, 0o700)
	case 3: // deep
		return op, os.MkdirAll(p+"/a/b/c/d/e", 0o755)
	case 4:
		return op, unix.Symlink([]string{"../" + m.label, "/absolute/\xff" + m.label, strings.Repeat("long/", 200), "."}[r.IntN(4)], p)
	case 5: // fifo, socket, devices
		kind := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}[r.IntN(4)]
		dev := []uint64{unix.Mkdev(1, 3), unix.Mkdev(7, 300), unix.Mkdev(0, 1)}[r.IntN(3)]
		if kind == unix.S_IFBLK && r.IntN(3) == 0 {
			dev = 0
		}
		return op, unix.Mknod(p, kind|uint32(r.IntN(0o1000)), int(dev))
	case 6: // sparse
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			return op, err
		}
		return op, open(p, os.O_WRONLY, func(f *os.File) error {
			if _, err := f.WriteAt(b, int64(1+r.IntN(4))<<20); err != nil {
				return err
			}
			return f.Truncate(8 << 20)
		})
	case 7: // several names
		from := m.pick(m.links)
		if from == "" || len(from)-len(m.root) > 255 {
			return op, nil
		}
		if err := os.Link(from, p); err != nil || r.IntN(2) == 0 {
			return op, err
		}
		if q := m.name(); isFree(q) {
			return op, os.Link(from, q)
		}
	case 8, 9: // content
		if p := m.pick(m.files); p != "" {
			return op, open(p, os.O_WRONLY|os.O_TRUNC, func(f *os.File) error { _, err := f.Write(b); return err })
		}
	case 10:
		if p := m.pick(m.files); p != "" {
			return op, open(p, os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.Write(b); return err })
		}
	case 11:
		if p := m.pick(m.files); p != "" {
			return op, open(p, os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt(b, int64(r.IntN(5000))); return err })
		}
	case 12:
		if p := m.pick(m.files); p != "" {
			return op, os.Truncate(p, int64(r.IntN(5000)))
		}
	case 13:
		if p := m.pick(m.files); p != "" {
			return op, open(p, os.O_RDWR, func(f *os.File) error {
				return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
			})
		}
	case 14: // opened for writing, and not written to: overlayfs may give it a new time
		if p := m.pick(m.files); p != "" {
			if err := open(p, os.O_RDWR, func(*os.File) error { return nil }); err != nil {
				return op, err
			}
			return op, os.Chtimes(p, time.Time{}, time.Unix(int64(r.IntN(1000000)), 0))
		}
	case 15, 16: // attributes
		if p := m.pick(m.all); p != "" {
			if st, err := os.Lstat(p); err != nil || st.Mode()&fs.ModeSymlink != 0 {
				return op, err
			}
			return op, unix.Chmod(p, uint32(r.IntN(0o10000)))
		}
	case 17, 18:
		if p := m.pick(append(m.all, m.root)); p != "" {
			return op, os.Lchown(p, r.IntN(5), r.IntN(70000))
		}
	case 19, 20, 21:
		return op, m.xattr()
	case 22:
		if p := m.pick(append(m.all, m.root)); p != "" {
			ts := unix.Timespec{Sec: int64(r.IntN(1000000)), Nsec: int64(r.IntN(1e9))}
			if r.IntN(5) == 0 {
				ts.Sec = 3000000000 // will be clamped
			}
			return op, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, unix.AT_SYMLINK_NOFOLLOW)
		}
	case 23: // a whole tree
		uid, mode := r.IntN(1000), uint32(0o700|r.IntN(0o100))
		return op, filepath.WalkDir(m.pick(m.dirs), func(p string, d fs.DirEntry, err error) error {
			if err == nil {
				err = os.Lchown(p, uid, 7)
			}
			if err == nil && d.Type()&fs.ModeSymlink == 0 {
				err = unix.Chmod(p, mode)
			}
			return err
		})
	case 24, 25: // less
		if p := m.pick(m.all); p != "" {
			return op, os.RemoveAll(p)
		}
	case 26: // made anew: it hides what was in it
		if p := m.pick(m.dirs); p != m.root {
			if err := os.RemoveAll(p); err != nil {
				return op, err
			}
			if err := os.Mkdir(p, 0o755); err != nil {
				return op, err
			}
			return op, os.WriteFile(filepath.Join(p, fmt.Sprintf("n%d", r.IntN(14))), b, 0o644)
		}
	case 27: // a directory by a file, a file by a directory
		if p := m.pick(m.all); p != "" {
			st, err := os.Lstat(p)
			if err == nil {
				err = os.RemoveAll(p)
			}
			if err != nil {
				return op, err
			}
			if st.IsDir() {
				return op, os.WriteFile(p, b, 0o644)
			}
			return op, os.MkdirAll(p+"/n1/n2", 0o755)
		}
	case 28, 29, 30: // renamed, also over others
		if from := m.pick(m.all); from != "" {
			return op, m.rename(from, p)
		}
	case 31:
		if from := m.pick(m.dirs); from != m.root {
			return op, m.rename(from, p)
		}
	case 32: // exchanged
		a, b := m.pick(m.all), m.pick(m.all)
		if a != "" && max(len(a), len(b))-len(m.root) <= 255 && !strings.HasPrefix(a+"/", b+"/") && !strings.HasPrefix(b+"/", a+"/") {
			return op, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
	case 33: // a file in the place of another, as editors do it
		if p := m.pick(m.files); p != "" {
			if err := os.WriteFile(p+".new"[:min(4, 255-len(filepath.Base(p)))], b, 0o644); err != nil {
				return op, err
			}
			return op, unix.Rename(p+".new"[:min(4, 255-len(filepath.Base(p)))], p)
		}
	}
	return op, nil
}

// xattr sets or removes an extended attribute.
func (m *mutator) xattr() error {
	p := m.pick(append(m.all, m.root))
	if p == "" {
		return nil
	}
	st, err := os.Lstat(p)
	if err != nil {
		return err
	}
	names := []string{"trusted.x", "security.selinux", "trusted.overlay2.x"}
	if st.Mode().IsRegular() {
		names = append(names, "user.x", "user.y", "security.capability", "system.posix_acl_access")
	}
	if st.IsDir() {
		names = append(names, "user.x", "user.y", "system.posix_acl_access", "system.posix_acl_default")
	}
	name := names[m.r.IntN(len(names))]
	if m.r.IntN(4) == 0 {
		if err := unix.Lremovexattr(p, name); err != unix.ENODATA {
			return err
		}
		return nil
	}
	value := "system_u:object_r:t" + m.label + ":s0\x00"
	switch name {
	case "security.capability": // of revision 2, effective
		value = "\x01\x00\x00\x02" + string([]byte{byte(m.r.IntN(256))}) + strings.Repeat("\x00", 15)
	case "system.posix_acl_access", "system.posix_acl_default":
		value = "\x02\x00\x00\x00" +
			"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00" + string([]byte{byte(m.r.IntN(256))}) + "\x00\x00\x00" +
			"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	}
	return unix.Lsetxattr(p, name, []byte(value), 0)
}
