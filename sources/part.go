// A file that is not complete yet: written, hashed and locked under a name of its
// own, and renamed when it is what was asked for.
package sources

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// partPrefix begins the names of files that are not complete. What follows is the
// checksum; beside the data is a small file that tells where they came from. A file
// with such a name belongs to the process that holds a lock on it (flock), and is
// taken up where it ends by the next one.
const (
	partPrefix = ".part."
	infoSuffix = ".from"
)

// part is one incomplete file, locked.
type part struct {
	dir, checksum string
	file          *os.File
	path          string
	n             int64     // bytes that are written
	sum           hash.Hash // of those
	old           bool      // it begins with bytes that an earlier attempt or run wrote
	count         func(int64)
}

// errPresent says that somebody else has completed the file meanwhile.
var errPresent = errors.New("the file is there")

// openPart locks the part of a file, waiting for another process that is at it,
// and reads what is there already. count is told how many bytes came or went. It
// returns errPresent when the file is complete.
func openPart(ctx context.Context, dir string, it *Item, count func(int64)) (*part, error) {
	p := &part{dir: dir, checksum: it.Checksum, path: filepath.Join(dir, partPrefix+it.Checksum), count: count}
	for {
		f, err := os.OpenFile(p.path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, p.local(err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// The name may belong to another file since it was opened.
			mine, err1 := f.Stat()
			named, err2 := os.Lstat(p.path)
			if err1 == nil && err2 == nil && os.SameFile(mine, named) {
				p.file = f
				break
			}
			f.Close()
			continue
		}
		f.Close()
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return nil, fmt.Errorf("locking %s: %w", p.path, err)
		}
		if Have(dir, it.Checksum, it.Size) {
			return nil, errPresent
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if Have(dir, it.Checksum, it.Size) {
		p.remove()
		return nil, errPresent
	}
	if err := p.resume(it.Size); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// resume hashes what the file has.
func (p *part) resume(size int64) error {
	var err error
	if p.sum, err = newHash(p.checksum); err != nil {
		return err
	}
	fi, err := p.file.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", p.path)
	}
	if size > 0 && fi.Size() > size {
		return p.reset()
	}
	n, err := io.Copy(p.sum, p.file)
	if err != nil {
		return fmt.Errorf("reading %s: %w", p.path, err)
	}
	p.n, p.old = n, n > 0
	p.count(n)
	return nil
}

// Write appends to the file.
func (p *part) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.sum.Write(b[:n])
	p.n += int64(n)
	p.count(int64(n))
	if err != nil {
		return n, p.local(err)
	}
	return n, nil
}

// reset drops all bytes.
func (p *part) reset() error {
	p.count(-p.n)
	p.n, p.old = 0, false
	p.sum.Reset()
	os.Remove(p.path + infoSuffix)
	if err := p.file.Truncate(0); err != nil {
		return p.local(err)
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// commit gives the file its name, if it is what was asked for; else it returns a
// ChecksumError and leaves the part as it is.
func (p *part) commit(from string) error {
	if got := sumText(p.checksum, p.sum); got != p.checksum {
		return &ChecksumError{Want: p.checksum, Got: got, From: from}
	}
	// Stages copy it with its mode, which must not depend on the caller's umask.
	if err := p.file.Chmod(0o644); err != nil {
		return p.local(err)
	}
	// First, since nobody would look for it any more if this process ended after the
	// renaming.
	os.Remove(p.path + infoSuffix)
	// A name must not outlive its data when the machine stops.
	if err := unix.Fdatasync(int(p.file.Fd())); err != nil {
		return p.local(&fs.PathError{Op: "fdatasync", Path: p.path, Err: err})
	}
	if err := os.Rename(p.path, Path(p.dir, p.checksum)); err != nil {
		return p.local(err)
	}
	p.file.Close()
	return nil
}

// close gives the part up for a later run; an empty one is removed.
func (p *part) close() {
	if p.n == 0 {
		p.remove()
		return
	}
	p.file.Close()
}

func (p *part) remove() {
	os.Remove(p.path + infoSuffix)
	os.Remove(p.path)
	p.file.Close()
}

// origin reads where the bytes came from: the URL, and the validator that the
// server gave, both empty when that is not known.
func (p *part) origin() (url, validator string) {
	b, err := os.ReadFile(p.path + infoSuffix)
	if err != nil {
		return "", ""
	}
	url, rest, _ := strings.Cut(string(b), "\n")
	validator, _, ok := strings.Cut(rest, "\n")
	if !ok {
		return "", ""
	}
	return url, validator
}

// setOrigin remembers that. It may fail: the checksum decides in the end.
func (p *part) setOrigin(url, validator string) {
	if strings.ContainsAny(url+validator, "\n") {
		return
	}
	_ = os.WriteFile(p.path+infoSuffix, []byte(url+"\n"+validator+"\n"), 0o600)
}

// local marks an error as one of this machine: another server does not help. A
// full disk becomes a SpaceError.
func (p *part) local(err error) error { return localFailure(p.dir, err) }

func localFailure(dir string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = spaceError(dir, 0)
	}
	return &localError{err}
}

// spaceError is a SpaceError with a hint.
func spaceError(dir string, need int64) error {
	return &Error{
		Msg:  "the sources cannot be stored",
		Hint: "make room there, or use a store on another file system; what was fetched so far is kept",
		Err:  &SpaceError{Dir: dir, Free: freeSpace(dir), Need: need},
	}
}

// localError is a failure of this machine.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// RemoveStaleParts deletes incomplete files of a store directory that nobody is at
// and that were last written more than age ago. It returns the bytes that it freed.
func RemoveStaleParts(dir string, age time.Duration) (int64, error) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, err
	}
	var freed int64
	for _, e := range ents {
		name := filepath.Join(dir, e.Name())
		fi, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), partPrefix) || strings.HasSuffix(name, infoSuffix) || time.Since(fi.ModTime()) < age {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && os.Remove(name) == nil {
			os.Remove(name + infoSuffix)
			freed += fi.Size()
		}
		f.Close()
	}
	return freed, nil
}

// freeSpace returns the bytes that are free for a file in dir, -1 if not known.
func freeSpace(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize)
}
