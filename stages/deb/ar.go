// The outer format of a package: an ar archive of three members.
package deb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// A member is one part of an archive: where it is in the file.
type member struct {
	name      string
	off, size int64
}

// archive is an opened .deb.
type archive struct {
	file          *os.File
	control, data member
}

func (a *archive) section(m member) *io.SectionReader {
	return io.NewSectionReader(a.file, m.off, m.size)
}

func openArchive(path string) (*archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	a := &archive{file: f}
	st, err := f.Stat()
	if err == nil {
		a.control, a.data, err = readAr(f, st.Size())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

const arMagic = "!<arch>\n"

// ErrNotArchive says that a file is no package, or a damaged one.
var ErrNotArchive = errors.New("not a Debian package")

// readAr finds the control and data members of a package of the given size, format
// 2.x of deb(5): debian-binary first, then control.tar*, then data.tar*. Members
// whose names begin with "_" are passed over, as the format asks.
func readAr(r io.ReaderAt, size int64) (control, data member, err error) {
	fail := func(format string, args ...any) (member, member, error) {
		return member{}, member{}, fmt.Errorf("%w: "+format, append([]any{ErrNotArchive}, args...)...)
	}
	var head [60]byte
	if _, err := r.ReadAt(head[:len(arMagic)], 0); err != nil || string(head[:len(arMagic)]) != arMagic {
		return fail("it does not start as an ar archive")
	}
	off, n := int64(len(arMagic)), 0
	for ; off < size; n++ {
		if _, err := r.ReadAt(head[:], off); err != nil {
			return fail("the header of member %d is cut off", n+1)
		}
		if head[58] != '`' || head[59] != '\n' {
			return fail("the header of member %d is damaged", n+1)
		}
		length, err := strconv.ParseUint(strings.TrimRight(string(head[48:58]), " "), 10, 62)
		if err != nil {
			return fail("the size of member %d is damaged", n+1)
		}
		m := member{
			name: strings.TrimSuffix(strings.TrimRight(string(head[:16]), " "), "/"),
			off:  off + 60, size: int64(length),
		}
		if m.size > size-m.off {
			return fail("member %q is cut off", m.name)
		}
		off = m.off + m.size + m.size&1

		switch {
		case n == 0:
			var v [8]byte
			k, _ := r.ReadAt(v[:min(int64(len(v)), m.size)], m.off)
			if m.name != "debian-binary" || k < 4 || string(v[:2]) != "2." {
				return fail("it does not begin with debian-binary 2.x")
			}
		case strings.HasPrefix(m.name, "_"):
		case control.name == "":
			if !isTar(m.name, "control.tar") {
				return fail("member %q where control.tar should be", m.name)
			}
			control = m
		default:
			if !isTar(m.name, "data.tar") {
				return fail("member %q where data.tar should be", m.name)
			}
			return control, m, nil // what follows is of no concern, as for dpkg
		}
	}
	return fail("it has no data.tar")
}

func isTar(name, base string) bool {
	return name == base || strings.HasPrefix(name, base+".")
}
