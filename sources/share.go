// Files that one store directory has, for another one.
package sources

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Share gives the store directory to the file of that checksum that from has: by a hard
// link, or as a copy in another file system. The content is read and held against its
// checksum before.
func Share(from, to, checksum string) error {
	if Have(to, checksum, 0) {
		return nil
	}
	h, err := newHash(checksum)
	if err != nil {
		return err
	}
	f, err := os.Open(Path(from, checksum))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	if got := sumText(checksum, h); got != checksum {
		return &Error{
			Msg:  fmt.Sprintf("the source %s in the store is damaged: its content is %s", checksum, got),
			Hint: "remove " + f.Name() + ", and it is fetched again",
		}
	}
	err = os.Link(f.Name(), Path(to, checksum))
	switch {
	case err == nil, errors.Is(err, os.ErrExist):
		return nil
	case !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EMLINK):
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(to, ".share-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := io.Copy(tmp, f); err != nil {
		tmp.Close()
		return err
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), Path(to, checksum))
}
