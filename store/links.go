// Files of layers that have a second name outside of the store.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// link is a file of a layer that is also somewhere else by a hard link. Writing to
// it there changes the layer, and every object that has it: size and time tell, and so do
// mode and owner, which a later stage would copy.
type link struct {
	Path  string `json:"path"` // below the layer
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime"` // ns since 1970
	Mode  uint32 `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
}

// linkOf is the link of a file as it is now.
func linkOf(path, sub string) (l link, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return l, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return link{sub, st.Size, st.Mtim.Nano(), st.Mode, st.Uid, st.Gid}, nil
}

// RecordLink notes that the file at path, which is in one of the object's layers,
// has a second name outside of the store.
func (o *Object) RecordLink(path string) error {
	rel, err := filepath.Rel(o.s.LayersDir(), path)
	if err != nil {
		return err
	}
	layer, sub, ok := strings.Cut(rel, "/")
	if !ok || layer == ".." {
		return fmt.Errorf("%s is not in a layer", path)
	}
	now, err := linkOf(path, sub)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.s.path("links"), 0o755); err != nil {
		return err
	}
	defer o.s.sharing()()
	// Other processes note theirs.
	lock, err := os.Open(o.s.path("links"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return &os.PathError{Op: "flock", Path: lock.Name(), Err: err}
	}
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	// A line more, and nothing is read: a whole tree has ten thousands of files.
	f, err := os.OpenFile(o.s.path("links", layer+".json"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}

func (s *Store) links(layer string) ([]link, error) {
	b, err := os.ReadFile(filepath.Join(s.homeOf(layer), "links", layer+".json"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var links []link
	seen := map[link]bool{} // what was linked again
	for line := range bytes.Lines(b) {
		var l link
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fmt.Errorf("links of layer %s: %w", layer, err)
		}
		if !seen[l] {
			seen[l] = true
			links = append(links, l)
		}
	}
	return links, nil
}

// linksIntact tells whether nobody wrote to a file of the object by its other name.
func (o *Object) linksIntact() bool {
	for _, layer := range o.Layers {
		links, err := o.s.links(layer)
		if err != nil {
			return false
		}
		for _, l := range links {
			now, err := linkOf(o.s.path("layers", layer, l.Path), l.Path)
			if err != nil || now != l {
				return false
			}
		}
	}
	return true
}
