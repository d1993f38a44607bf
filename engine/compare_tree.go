// Two trees beside each other: in which paths they differ, and how.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// PathDifference is a path in which two trees differ.
type PathDifference struct {
	Path    string   `json:"path"` // "/etc/motd"
	Changes []Change `json:"changes"`
}

// Change is one way in which they do: of the content, where it begins.
type Change struct {
	What   string `json:"what"` // presence, type, mode, owner, mtime, size, content, target, device, xattr NAME, links
	First  string `json:"first"`
	Second string `json:"second"`
	Offset int64  `json:"offset,omitempty"` // of the first byte of the content that differs
	Line   int    `json:"line,omitempty"`   // of a text, from 1
}

// maxDifferences bounds how many paths are told; the others are counted.
const maxDifferences = 500

// side is one of two trees: where it can be seen, and the layers that it has beyond
// what is known to be equal. Without layers all of it is compared.
type side struct {
	view string
	tops []string
}

// comparer compares two trees.
type comparer struct {
	ctx   context.Context
	sides [2]side
	links [2]map[[2]uint64]string // device and inode → the first path of those with several
	out   []PathDifference
	more  int
}

// compareTrees tells in which paths two trees differ, sorted by them. The order of
// directories, times of access and change, and sizes of directories are not looked at.
func compareTrees(ctx context.Context, a, b side) (out []PathDifference, more int, err error) {
	c := &comparer{ctx: ctx, sides: [2]side{a, b}, links: [2]map[[2]uint64]string{{}, {}}}
	if err := c.entry(".", len(a.tops) == 0 && len(b.tops) == 0); err != nil {
		return nil, 0, fmt.Errorf("comparing: %w", err)
	}
	slices.SortFunc(c.out, func(a, b PathDifference) int { return strings.Compare(a.Path, b.Path) })
	return c.out, c.more, nil
}

// entry compares what is at rel, and all below it. whole is set where everything below
// has to be looked at, and not only what layers have.
func (c *comparer) entry(rel string, whole bool) error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	var paths [2]string
	var st [2]fs.FileInfo
	for i, s := range c.sides {
		var err error
		paths[i] = filepath.Join(s.view, rel)
		if st[i], err = os.Lstat(paths[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	var changes []Change
	add := func(what, first, second string) {
		if first != second {
			changes = append(changes, Change{What: what, First: first, Second: second})
		}
	}
	switch {
	case st[0] == nil && st[1] == nil: // a whiteout
		return nil
	case st[0] == nil || st[1] == nil:
		add("presence", presence(st[0]), presence(st[1]))
		c.add(rel, changes)
		return nil
	case st[0].Mode().Type() != st[1].Mode().Type():
		add("type", typeName(st[0]), typeName(st[1]))
		c.add(rel, changes)
		return nil
	}
	var sys [2]*syscall.Stat_t
	for i := range st {
		sys[i] = st[i].Sys().(*syscall.Stat_t) // always, on Linux
	}
	kind := st[0].Mode().Type()
	if kind != fs.ModeSymlink {
		add("mode", fmt.Sprintf("%04o", sys[0].Mode&0o7777), fmt.Sprintf("%04o", sys[1].Mode&0o7777))
	}
	add("owner", fmt.Sprintf("%d:%d", sys[0].Uid, sys[0].Gid), fmt.Sprintf("%d:%d", sys[1].Uid, sys[1].Gid))
	add("mtime", timeText(st[0]), timeText(st[1]))
	attrs, err := c.xattrs(paths)
	if err != nil {
		return err
	}
	changes = append(changes, attrs...)
	if kind != fs.ModeDir {
		add("links", c.linked(0, rel, sys[0]), c.linked(1, rel, sys[1]))
	}
	switch kind {
	case 0:
		add("size", fmt.Sprint(st[0].Size()), fmt.Sprint(st[1].Size()))
		ch, err := compareFiles(c.ctx, paths[0], paths[1])
		if err != nil {
			return err
		}
		if ch != nil {
			changes = append(changes, *ch)
		}
	case fs.ModeSymlink:
		first, err := os.Readlink(paths[0])
		if err != nil {
			return err
		}
		second, err := os.Readlink(paths[1])
		if err != nil {
			return err
		}
		add("target", first, second)
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		add("device", deviceText(sys[0]), deviceText(sys[1]))
	}
	c.add(rel, changes)
	if kind == fs.ModeDir {
		return c.directory(rel, whole)
	}
	return nil
}

// directory compares what is in a directory that both have.
func (c *comparer) directory(rel string, whole bool) error {
	names := map[string]bool{}
	for _, s := range c.sides {
		for _, top := range s.tops {
			// What a layer does not have itself, or has from another place, can be anything.
			l := layers{dirs: []string{top}}
			for _, mark := range []string{overlayOpaque, overlayRedirect} {
				_, ok := l.mark(place{0, rel}, mark)
				whole = whole || ok && rel != "."
			}
		}
	}
	for _, s := range c.sides {
		dirs := s.tops
		if whole {
			dirs = []string{s.view}
		}
		for _, dir := range dirs {
			ents, err := os.ReadDir(filepath.Join(dir, rel))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			if err != nil {
				return err
			}
			for _, e := range ents {
				names[e.Name()] = true
			}
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		if err := c.entry(path.Join(rel, name), whole); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparer) add(rel string, changes []Change) {
	switch {
	case len(changes) == 0:
	case len(c.out) == maxDifferences:
		c.more++
	default:
		c.out = append(c.out, PathDifference{path.Join("/", rel), changes})
	}
}

// linked names the first of the paths that are one file.
func (c *comparer) linked(i int, rel string, st *syscall.Stat_t) string {
	const own = "a file of its own" // also one that has its other names elsewhere, by an export say
	if st.Nlink < 2 {
		return own
	}
	id := [2]uint64{st.Dev, st.Ino}
	if first, ok := c.links[i][id]; ok {
		return first
	}
	c.links[i][id] = path.Join("/", rel)
	return own
}

func (c *comparer) xattrs(paths [2]string) ([]Change, error) {
	var attrs [2]map[string]string
	for i, p := range paths {
		var err error
		if attrs[i], err = readXattrs(p); err != nil {
			return nil, err
		}
	}
	names := map[string]bool{}
	for _, a := range attrs {
		for name := range a {
			names[name] = true
		}
	}
	var out []Change
	for name := range names {
		a, inA := attrs[0][name]
		b, inB := attrs[1][name]
		if a != b || inA != inB {
			out = append(out, Change{What: "xattr " + name, First: value(a, inA), Second: value(b, inB)})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.What, b.What) })
	return out, nil
}

func value(s string, there bool) string {
	if !there {
		return "none"
	}
	return fmt.Sprintf("%.80q", s)
}

func presence(st fs.FileInfo) string {
	if st == nil {
		return "missing"
	}
	return typeName(st)
}

func typeName(st fs.FileInfo) string {
	switch st.Mode().Type() {
	case 0:
		return "a file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a link"
	case fs.ModeNamedPipe:
		return "a pipe"
	case fs.ModeSocket:
		return "a socket"
	default:
		return "a device"
	}
}

func timeText(st fs.FileInfo) string { return st.ModTime().UTC().Format(time.RFC3339Nano) }

func deviceText(st *syscall.Stat_t) string {
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// compareFiles tells where the content of two files differs first; nil: nowhere.
func compareFiles(ctx context.Context, first, second string) (*Change, error) {
	a, err := os.Open(first)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := os.Open(second)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	st, err := a.Stat()
	if err != nil {
		return nil, err
	}
	size := min(st.Size()+1, 1<<20) // most files are small
	bufs := [2][]byte{make([]byte, size), make([]byte, size)}
	line := 1
	for off := int64(0); ; off += int64(len(bufs[0])) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		x, err := readFull(a, bufs[0])
		if err != nil {
			return nil, err
		}
		y, err := readFull(b, bufs[1])
		if err != nil {
			return nil, err
		}
		if bytes.Equal(x, y) {
			if len(x) < len(bufs[0]) {
				return nil, nil
			}
			line += bytes.Count(x, []byte("\n"))
			continue
		}
		n := 0
		for n < min(len(x), len(y)) && x[n] == y[n] {
			n++
		}
		ch := &Change{What: "content", Offset: off + int64(n)}
		start := bytes.LastIndexByte(x[:n], '\n') + 1
		if isText(x) && isText(y) && n-start < 200 {
			ch.Line = line + bytes.Count(x[:start], []byte("\n"))
			ch.First, ch.Second = lineAt(x[start:]), lineAt(y[start:])
		} else {
			ch.First, ch.Second = hexAt(x[n:]), hexAt(y[n:])
		}
		return ch, nil
	}
}

// readFull fills the buffer as far as the file goes.
func readFull(r io.Reader, buf []byte) ([]byte, error) {
	n, err := io.ReadFull(r, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return buf[:n], err
}

// isText tells text by its beginning.
func isText(b []byte) bool {
	b = b[:min(len(b), 4096)]
	for i := 0; i < utf8.UTFMax && len(b) > 0 && !utf8.Valid(b); i++ {
		b = b[:len(b)-1] // a rune that was cut
	}
	return !bytes.ContainsRune(b, 0) && utf8.Valid(b)
}

// lineAt is the line that begins there, quoted, as far as a person wants to see it.
func lineAt(b []byte) string {
	line, _, _ := bytes.Cut(b[:min(len(b), 240)], []byte("\n"))
	return fmt.Sprintf("%.120q", line)
}

func hexAt(b []byte) string {
	if len(b) == 0 {
		return "the end"
	}
	return fmt.Sprintf("% x", b[:min(len(b), 8)])
}
