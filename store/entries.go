// What a layer has in it: a list of its entries with their checksums, which is kept
// beside it, made once and read by whoever wants to know or to verify.
package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Entry is one file, directory or other thing of a layer. Marks of overlayfs are
// there as they are: whiteouts are character devices 0:0, and the rest extended
// attributes.
type Entry struct {
	Path   string            `json:"path"` // below the layer; its root is "."
	Type   string            `json:"type"` // file, dir, symlink, char, block, fifo, socket
	Mode   uint32            `json:"mode"` // permissions, setuid, setgid, sticky
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	MTime  int64             `json:"mtime"` // ns since 1970
	Size   int64             `json:"size,omitempty"`
	SHA256 string            `json:"sha256,omitempty"` // of a file; blocks of zeros are left out
	Target string            `json:"target,omitempty"` // of a symbolic link
	Device string            `json:"device,omitempty"` // major:minor
	Link   string            `json:"link,omitempty"`   // the first name of a file that has several
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
}

// Entries lists what is in a layer, in the order of [filepath.WalkDir], from the list
// that was made when it was committed. If there is none yet it is made.
func (s *Store) Entries(layer string) ([]Entry, error) {
	list, err := s.readSums(layer)
	if err == nil {
		return list, nil
	}
	return s.Sum(context.Background(), layer, runtime.NumCPU(), nil)
}

// Sum reads a layer, with that many files at once, and keeps the list of its entries.
// read is told of bytes that were read; it may be nil.
func (s *Store) Sum(ctx context.Context, layer string, jobs int, read func(int64)) ([]Entry, error) {
	list, err := listLayer(ctx, filepath.Join(s.homeOf(layer), "layers", layer), jobs, read)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", layer, err)
	}
	return list, s.writeSums(layer, list)
}

// Unsummed lists the layers whose entries have not been listed yet.
func (s *Store) Unsummed() ([]string, error) {
	ents, err := os.ReadDir(s.LayersDir())
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range ents {
		if !e.IsDir() {
			continue // of another store
		}
		if _, err := os.Lstat(s.sumsFile(e.Name())); errors.Is(err, fs.ErrNotExist) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

const sumsSuffix = ".zst"

func (s *Store) sumsFile(layer string) string { return s.path("sums", layer+sumsSuffix) }

func (s *Store) readSums(layer string) ([]Entry, error) {
	f, err := os.Open(filepath.Join(s.homeOf(layer), "sums", layer+sumsSuffix))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var list []Entry
	for d := json.NewDecoder(z); ; {
		var e Entry
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("sums of layer %s: %w", layer, err)
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("sums of layer %s: %w", layer, io.ErrUnexpectedEOF)
	}
	return list, nil
}

// writeSums keeps a list; a reader finds all of it or nothing. A layer of another
// store has its list there.
func (s *Store) writeSums(layer string, list []Entry) (err error) {
	if s.homeOf(layer) != s.Dir {
		return nil
	}
	if err := os.MkdirAll(s.path("sums"), 0o755); err != nil {
		return err
	}
	defer s.sharing()() // nobody clears up what is on the way
	f, err := os.CreateTemp(s.path("sums"), ".new-")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(z)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, e := range list {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Flush(), z.Close(), f.Chmod(0o644)); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.sumsFile(layer))
}

// listLayer lists what is below dir and reads its files, jobs at once. read is told
// of bytes that were read; it may be nil.
func listLayer(ctx context.Context, dir string, jobs int, read func(int64)) ([]Entry, error) {
	var list []Entry
	first := map[uint64]int{} // by inode: which entry has a file of several names
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e, st, err := entryOf(dir, p)
		if err != nil {
			return err
		}
		if st.Nlink > 1 && e.Type != "dir" {
			if i, ok := first[st.Ino]; ok {
				e.Link = list[i].Path
			} else {
				first[st.Ino] = len(list)
			}
		}
		list = append(list, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, sumFiles(ctx, dir, list, max(1, jobs), read)
}

// entryOf is all of an entry but the sum of its content.
func entryOf(dir, p string) (e Entry, st unix.Stat_t, err error) {
	if err := unix.Lstat(p, &st); err != nil {
		return e, st, &os.PathError{Op: "lstat", Path: p, Err: err}
	}
	rel := "."
	if p != dir {
		rel = p[len(dir)+1:]
	}
	e = Entry{Path: rel, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: st.Mtim.Nano()}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type, e.Size = "file", st.Size
	case unix.S_IFDIR:
		e.Type = "dir"
	case unix.S_IFLNK:
		e.Type = "symlink"
		if e.Target, err = os.Readlink(p); err != nil {
			return e, st, err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Type = map[bool]string{true: "char", false: "block"}[st.Mode&unix.S_IFMT == unix.S_IFCHR]
		e.Device = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		e.Type = "fifo"
	default:
		e.Type = "socket"
	}
	e.Xattrs, err = xattrs(p)
	return e, st, err
}

// xattrs reads the extended attributes of p itself; nil where there are none.
func xattrs(p string) (map[string][]byte, error) {
	n, err := unix.Llistxattr(p, nil)
	if n == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "llistxattr", Path: p, Err: err}
	}
	names := make([]byte, n)
	if n, err = unix.Llistxattr(p, names); err != nil {
		return nil, &os.PathError{Op: "llistxattr", Path: p, Err: err}
	}
	out := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		size, err := unix.Lgetxattr(p, name, nil)
		value := make([]byte, max(size, 0))
		if err == nil && size > 0 {
			size, err = unix.Lgetxattr(p, name, value)
		}
		if err != nil {
			return nil, &os.PathError{Op: "lgetxattr " + name, Path: p, Err: err}
		}
		out[name] = value[:size]
	}
	return out, nil
}

// sumFiles fills in the sums of the files of a list, jobs at once. Of files of several
// names the first is read.
func sumFiles(ctx context.Context, dir string, list []Entry, jobs int, read func(int64)) error {
	at := map[string]int{}
	var todo []int
	for i, e := range list {
		if e.Type == "file" {
			at[e.Path] = i
			if e.Link == "" {
				todo = append(todo, i)
			}
		}
	}
	var next atomic.Int64
	errs := make([]error, jobs)
	work := func(j int) {
		buf := make([]byte, 1<<18)
		for {
			n := int(next.Add(1)) - 1
			if n >= len(todo) {
				return
			}
			e := &list[todo[n]]
			if errs[j] = sumEntry(ctx, dir, e, buf, read); errs[j] != nil {
				next.Store(int64(len(todo))) // the others stop too
				return
			}
		}
	}
	var wg sync.WaitGroup
	for j := 1; j < jobs; j++ {
		wg.Go(func() { work(j) })
	}
	work(0) // here: its caller may have chosen the thread
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for i, e := range list {
		if e.Link != "" && e.Type == "file" {
			list[i].SHA256 = list[at[e.Link]].SHA256
		}
	}
	return nil
}

func sumEntry(ctx context.Context, dir string, e *Entry, buf []byte, read func(int64)) error {
	f, err := openQuietly(filepath.Join(dir, e.Path))
	if err != nil {
		return err
	}
	defer f.Close()
	if e.SHA256, err = sumFile(ctx, f, e.Size, buf, read); err != nil {
		return fmt.Errorf("reading %s: %w", e.Path, err)
	}
	return nil
}
