// Digests: what a program is made of, as part of the cache key of what it makes.
package libdir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// version names the content of a file as far as the kernel tells it: a file that
// was written to has another.
type version struct {
	dev, ino   uint64
	size       int64
	mtim, ctim unix.Timespec
}

type digested struct {
	version version
	sum     string
}

// digests remembers those of this process, by path.
var digests sync.Map

// Digest is the SHA-256 of the program, 64 hexadecimal digits. Within a process a
// file is read again only when it has changed.
func (m *Module) Digest() (string, error) { return fileDigest(m.Path) }

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading a program: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	v := version{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
	if d, ok := digests.Load(path); ok && d.(digested).version == v {
		return d.(digested).sum, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading a program: %w", err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	digests.Store(path, digested{v, sum})
	return sum, nil
}

// LibraryDigest is a digest of the Python package that the programs import: its
// modules, by their names. A tree without one has the digest of nothing.
func (d *Dir) LibraryDigest() (string, error) {
	root, err := d.Python()
	if err != nil {
		return "", err
	}
	if root == "" {
		root = filepath.Join(d.Path, "osbuild")
	}
	h := sha256.New()
	err = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && p == root:
			return nil
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "__pycache__":
			return fs.SkipDir // Python writes it as it likes
		case e.IsDir() || strings.HasSuffix(e.Name(), ".pyc"):
			return nil
		}
		if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() {
			return nil // a link that leads nowhere cannot be imported
		}
		sum, err := fileDigest(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		fmt.Fprintf(h, "%s %s\n", sum, rel)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the library of the programs: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
