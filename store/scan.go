// What is in a store: its objects, layers and sources, and who needs them.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// ObjectInfo is an object, as a list of them has it.
type ObjectInfo struct {
	Info
	Used time.Time `json:"used"` // when it was looked up last
}

// SourceInfo is a source, as a list of them has it.
type SourceInfo struct {
	Checksum string    `json:"checksum"`
	Size     int64     `json:"size"`
	Used     time.Time `json:"used"`
}

// contents is all of a store.
type contents struct {
	objects []ObjectInfo        // that can be read, by key
	damaged map[string]string   // objects that cannot, and why
	names   map[string][]string // by layer: the objects that stand on it
	layers  []string            // directories and links, also those that nobody names
	sources []SourceInfo
}

// scan reads what there is. What goes away meanwhile is not in it.
func (s *Store) scan() (*contents, error) {
	c := &contents{damaged: map[string]string{}, names: map[string][]string{}}
	keys, err := namesIn(s.path("objects"))
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		o, err := s.readObject(key)
		if errors.Is(err, fs.ErrNotExist) && !exists(s.path("objects", key)) {
			continue
		}
		if err != nil {
			c.damaged[key] = err.Error()
			continue
		}
		c.objects = append(c.objects, o)
		for _, l := range o.Layers {
			c.names[l] = append(c.names[l], key)
		}
	}
	if c.layers, err = namesIn(s.LayersDir()); err != nil {
		return nil, err
	}
	c.sources, err = s.Sources()
	return c, err
}

func (s *Store) readObject(key string) (o ObjectInfo, err error) {
	p := s.path("objects", key, "info.json")
	st, err := os.Stat(p)
	if err != nil {
		return o, err
	}
	o.Used = st.ModTime()
	b, err := os.ReadFile(p)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(b, &o.Info); err != nil {
		return o, fmt.Errorf("it cannot be read: %w", err)
	}
	if o.Key != key {
		return o, fmt.Errorf("it says that it is %q", o.Key)
	}
	return o, nil
}

// stale tells whether an object was perhaps not written out before the machine went
// down: nobody trusts it.
func (s *Store) stale(o *ObjectInfo) bool {
	return o.Boot != s.boot && !exists(s.path("objects", o.Key, "settled"))
}

// Sources lists the sources, by checksum.
func (s *Store) Sources() ([]SourceInfo, error) {
	ents, err := os.ReadDir(s.SourcesDir())
	if err != nil {
		return nil, err
	}
	var out []SourceInfo
	for _, e := range ents {
		algo, _, _ := strings.Cut(e.Name(), ":")
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() || NewHash(algo) == nil {
			continue // no file of ours, or a part of one
		}
		out = append(out, SourceInfo{e.Name(), st.Size(), st.ModTime()})
	}
	return out, nil
}

// Objects lists the objects that can be read, by key.
func (s *Store) Objects() ([]ObjectInfo, error) {
	c, err := s.scan()
	if err != nil {
		return nil, err
	}
	return c.objects, nil
}

// namesIn lists a directory without what is hidden; one that is not there is empty.
func namesIn(dir string) ([]string, error) {
	ents, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range ents {
		if !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}
