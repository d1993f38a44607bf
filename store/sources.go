// Sources: noted as used, and copied from read-only stores.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// UseSources notes that this process uses sources, those too that it is about to
// fetch: nobody takes them away until [Store.Close].
func (s *Store) UseSources(checksums []string) {
	defer s.sharing()()
	names := make([]string, len(checksums))
	now := time.Now()
	for i, sum := range checksums {
		names[i] = leaseSource + sum
		os.Chtimes(filepath.Join(s.SourcesDir(), sum), now, now) // the clock of least recent use
	}
	s.use(names...)
}

// Borrow copies the sources of these checksums that are missing here from the
// read-only stores, as far as those have them, whole.
func (s *Store) Borrow(ctx context.Context, checksums []string) error {
	for _, sum := range checksums {
		to := filepath.Join(s.SourcesDir(), sum)
		if len(s.readOnly) == 0 || exists(to) {
			continue
		}
		for _, ro := range s.readOnly {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err := s.copySource(filepath.Join(ro.SourcesDir(), sum), to, sum)
			if err == nil {
				break
			}
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
				return fmt.Errorf("taking a source from %s: %w", ro.Dir, err)
			}
		}
	}
	return nil
}

// copySource copies a file, which is found under its name when it is complete and is
// what its checksum says.
func (s *Store) copySource(from, to, checksum string) error {
	in, err := openQuietly(from)
	if err != nil {
		return err
	}
	defer in.Close()
	dir, err := s.Scratch()
	if err != nil {
		return err
	}
	defer dir.Close()
	tmp := filepath.Join(dir.Path, "source")
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if err := CheckSource(tmp, checksum); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}
