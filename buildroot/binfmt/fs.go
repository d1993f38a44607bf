// The kernel's table of formats: reading and changing it, without mounting it where
// anybody would see it.
package binfmt

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// table is an open binfmt_misc file system. It is a mount that has no place: it goes
// away with its file, and so with this process.
type table struct{ dir *os.File }

// openTable opens the table of the kernel, or of the user namespace where it has one
// of its own.
func openTable() (*table, error) {
	fd, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, &Error{Msg: "the kernel has no binfmt_misc", Hint: "load the module: modprobe binfmt_misc", Err: err}
	}
	if err != nil {
		return nil, notPermitted("opening binfmt_misc", err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, notPermitted("opening binfmt_misc", err)
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, notPermitted("mounting binfmt_misc", err)
	}
	return &table{os.NewFile(uintptr(mnt), "binfmt_misc")}, nil
}

func (t *table) close() error { return t.dir.Close() }

// file opens a file of the table.
func (t *table) file(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(t.dir.Fd()), name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "binfmt_misc/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), "binfmt_misc/"+name), nil
}

func (t *table) read(name string) (string, error) {
	f, err := t.file(name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func (t *table) write(name, text string) error {
	f, err := t.file(name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// enabled tells whether the kernel looks at the table at all.
func (t *table) enabled() bool {
	s, err := t.read("status")
	return err == nil && strings.TrimSpace(s) == "enabled"
}

// names are those of the entries, and two that are not: "register" and "status".
func (t *table) names() ([]string, error) {
	fd, err := unix.Openat(int(t.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "binfmt_misc", Err: err}
	}
	d := os.NewFile(uintptr(fd), "binfmt_misc")
	defer d.Close()
	return d.Readdirnames(-1)
}

// entry is one format.
type entry struct {
	name        string
	enabled     bool
	interpreter string
	flags       string
	offset      int
	magic, mask []byte
}

// entries reads all formats that go by the content of a file.
func (t *table) entries() ([]entry, error) {
	names, err := t.names()
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, name := range names {
		if name == "register" || name == "status" {
			continue
		}
		text, err := t.read(name)
		if errors.Is(err, unix.ENOENT) {
			continue // another process has removed it
		}
		if err != nil {
			return nil, err
		}
		if e := parseEntry(name, text); len(e.magic) > 0 {
			out = append(out, e)
		}
	}
	return out, nil
}

// parseEntry reads a format as the kernel prints it.
func parseEntry(name, text string) entry {
	e := entry{name: name}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "enabled":
			e.enabled = true
		case "interpreter":
			e.interpreter = value
		case "flags:":
			e.flags = value
		case "offset":
			e.offset, _ = strconv.Atoi(value)
		case "magic":
			e.magic, _ = hex.DecodeString(value)
		case "mask":
			e.mask, _ = hex.DecodeString(value)
		}
	}
	return e
}

// matches tells whether a file with that beginning is of the format.
func (e *entry) matches(header []byte) bool {
	if !e.enabled || e.offset < 0 || len(header) < e.offset+len(e.magic) {
		return false
	}
	for i, want := range e.magic {
		mask := byte(0xff)
		if i < len(e.mask) {
			mask = e.mask[i]
		}
		if (header[e.offset+i]^want)&mask != 0 {
			return false
		}
	}
	return true
}

// everywhere tells whether the interpreter works in every root directory: the kernel
// opened it when the entry was made (F), and it needs nothing else.
func (e *entry) everywhere() bool {
	return strings.Contains(e.flags, "F") && static(e.interpreter)
}

// static tells whether a program needs no other file to start.
func static(path string) bool {
	linker, err := Linker(path)
	return err == nil && linker == ""
}

// register makes an entry for programs of m.
func (t *table) register(name string, m *machine, interpreter, flags string) error {
	magic, mask := m.magic()
	escape := func(b []byte) string {
		var s strings.Builder
		for _, c := range b {
			fmt.Fprintf(&s, `\x%02x`, c)
		}
		return s.String()
	}
	return t.write("register", fmt.Sprintf(":%s:M:0:%s:%s:%s:%s", name, escape(magic), escape(mask), interpreter, flags))
}

// remove removes an entry; one that is gone already is no error.
func (t *table) remove(name string) error {
	if err := t.write(name, "-1"); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
