// Package store keeps what builds make and fetch: sources by their checksum, and
// trees as chains of layers by their cache key.
//
//	sources/org.osbuild.files/sha256:HEX   verified files
//	layers/NAME/                           what one step changed, as an overlay layer
//	objects/KEY/info.json                  a tree: the names of its layers, bottom first
//	links/NAME.json                        files of a layer that have a name outside too
//	sums/NAME.zst                          what is in a layer, with checksums
//	pins/WORKSPACE/LABEL.json              what the last build of a target needs
//	locks/KEY                              held by who makes the object of that key
//	leases/PROCESS                         what a process uses; locked by it
//	tests/KEY.json                         tests of images that have passed
//	memo/NAME.json                         what is cheap to find out again
//	builds/WORKSPACE/LABEL.json            the command's: the last builds of a target
//	reports/KEY.json                       the command's: what is in a tree, for reports
//	tmp/                                   builds under way; locked by their process
//
// A tool makes a layer below tmp, renames it into layers, and then writes the
// object that names it: nothing is visible before it is complete, and what a
// killed process leaves is removed by the next one. A build does not wait for the
// disk: an object is trusted while the machine has not been restarted since it was
// made, and after [Store.Settle] has written it out, always.
//
// A tour: store.go commits objects and looks them up; claim.go has one process make an
// object and others wait; lease.go keeps what is in use, pins.go what will be needed,
// when gc.go makes room; entries.go lists what is in layers, and verify.go finds what is
// damaged; readonly.go adds a second store. Locks and their order are in docs/design.md.
package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"golang.org/x/sys/unix"
)

// Store is an open store. It is safe for concurrent use, also by several processes.
type Store struct {
	Dir  string
	boot string

	readOnly []*Store // looked at after this one

	mu    sync.Mutex
	lease *os.File        // names what this process uses; nil: nothing yet
	used  map[string]bool // what it names
	held  *os.File        // gc.lock, shared, where there is no lease to be had
}

// Info is what is known of an object.
type Info struct {
	Key     string                     `json:"key"`
	ID      string                     `json:"id"`   // upstream's ID of the last stage
	Type    string                     `json:"type"` // of the last stage
	Layers  []string                   `json:"layers"`
	Created time.Time                  `json:"created"`
	Boot    string                     `json:"boot"`           // when the machine was started, as it names it
	Size    int64                      `json:"size"`           // bytes on disk of the last layer
	Meta    map[string]json.RawMessage `json:"meta,omitempty"` // of the stages, by ID
	Adopted bool                       `json:"adopted,omitempty"`

	// Plain is a tree in one layer that is as it is seen, where overlayfs cannot serve.
	// Odd is one of those with files that overlayfs would take for marks of its own: no
	// layer can be on it.
	Plain bool `json:"plain,omitempty"`
	Odd   bool `json:"odd,omitempty"`
}

// Object is a tree in the store.
type Object struct {
	Info
	s *Store
}

// Open opens the store at dir, and makes it when it is not there.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{Dir: dir}
	for _, d := range []string{s.SourcesDir(), s.path("layers"), s.path("objects"), s.path("tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("opening the store: %w", err)
		}
	}
	tag := s.path("CACHEDIR.TAG")
	if _, err := os.Stat(tag); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(tag, []byte("Signature: 8a477f597d28d172789f06886806bc55\n# This directory is a cache of osbuild-star.\n"), 0o644); err != nil {
			return nil, fmt.Errorf("opening the store: %w", err)
		}
	}
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	s.boot = strings.TrimSpace(string(b))
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// SourcesDir is where verified files are.
func (s *Store) SourcesDir() string { return s.path("sources", "org.osbuild.files") }

// LayersDir is where layers are.
func (s *Store) LayersDir() string { return s.path("layers") }

// Scratch makes a temporary directory in the store's file system, gone with the
// process that made it.
func (s *Store) Scratch() (*scratch.Dir, error) { return scratch.New(s.path("tmp"), "run-") }

// Sweep removes what processes left in the store that were killed, but for what only
// [Store.GC] knows not to be needed.
func (s *Store) Sweep() {
	s.clean()
	s.sweepLeases()
	claims, _ := namesIn(s.path("locks"))
	for _, key := range claims {
		if release, ok, _ := s.TryClaim(key); ok {
			release()
		}
	}
}

// Lookup finds the object of that key. One that is damaged, or that was perhaps
// not written out before the machine went down, is not found.
func (s *Store) Lookup(key string) (*Object, bool) {
	if key == "" {
		return nil, false
	}
	defer s.sharing()()
	if o, ok := s.lookupHere(key); ok {
		return o, true
	}
	return s.lookupReadOnly(key)
}

func (s *Store) lookupHere(key string) (*Object, bool) {
	p := s.path("objects", key, "info.json")
	b, err := os.ReadFile(p)
	if err != nil {
		if exists(filepath.Dir(p)) && !exists(p) { // else somebody has made it this moment
			s.drop(key) // what is left of it
		}
		return nil, false
	}
	o := &Object{s: s}
	if err := json.Unmarshal(b, &o.Info); err != nil || o.Key != key {
		s.drop(key)
		return nil, false
	}
	if o.Boot != s.boot {
		if _, err := os.Stat(s.path("objects", key, "settled")); err != nil {
			s.drop(key)
			return nil, false
		}
	}
	for _, l := range o.Layers {
		if _, err := os.Stat(s.layerDir(l)); err != nil {
			s.drop(key)
			return nil, false
		}
	}
	if !o.linksIntact() {
		s.drop(key)
		return nil, false
	}
	now := time.Now()
	os.Chtimes(p, now, now) // the clock of least recent use
	o.use()
	return o, true
}

// use notes that this process uses the object.
func (o *Object) use() {
	names := []string{leaseObject + o.Key}
	for _, l := range o.Layers {
		names = append(names, leaseLayer+l)
	}
	o.s.use(names...)
}

// layerDir is where a layer is.
func (s *Store) layerDir(layer string) string { return s.path("layers", layer) }

// homeOf is the directory of the store that a layer belongs to: that of another one
// is a link here.
func (s *Store) homeOf(layer string) string {
	if to, err := os.Readlink(s.layerDir(layer)); err == nil {
		return filepath.Dir(filepath.Dir(to))
	}
	return s.Dir
}

// drop removes an object, all of it or, on a full disk say, nothing.
func (s *Store) drop(key string) {
	trash, err := scratch.New(s.path("tmp"), "gc-")
	if err != nil {
		return
	}
	os.Rename(s.path("objects", key), filepath.Join(trash.Path, "object"))
	trash.Close()
}

// LayerDirs are the directories of the object's layers, bottom first.
func (o *Object) LayerDirs() []string {
	out := make([]string, len(o.Layers))
	for i, l := range o.Layers {
		out[i] = o.s.path("layers", l)
	}
	return out
}

// Commit makes the directory at upper, which has to be in a scratch directory of
// the store, the last layer of a new object on top of base (nil: none). If another
// process was faster its object is taken, and upper is left alone; but a plain tree
// replaces one of layers, which whoever made the plain one could not read.
func (s *Store) Commit(info Info, base *Object, upper string) (*Object, error) {
	name, err := s.layerName()
	if err != nil {
		return nil, err
	}
	if base != nil {
		info.Layers = append(append([]string{}, base.Layers...), name)
	} else {
		info.Layers = []string{name}
	}
	defer s.sharing()() // no object names the layer for a moment
	if err := os.Rename(upper, s.path("layers", name)); err != nil {
		return nil, fmt.Errorf("committing a layer: %w", err)
	}
	o, mine, err := s.write(info, filepath.Dir(upper))
	if err != nil || !mine {
		scratch.RemoveAll(s.path("layers", name))
	}
	return o, err
}

// Adopt makes an object with the very layers of another. What is on the way is in
// scratch, a scratch directory of the store.
func (s *Store) Adopt(info Info, from *Object, scratch string) (*Object, error) {
	defer s.sharing()()
	info.Layers, info.Plain, info.Odd, info.Adopted = from.Layers, from.Plain, from.Odd, true
	o, _, err := s.write(info, scratch)
	return o, err
}

// write makes the object, in a scratch directory first.
func (s *Store) write(info Info, in string) (_ *Object, mine bool, _ error) {
	info.Boot, info.Created = s.boot, time.Now().UTC()
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return nil, false, err
	}
	name, err := s.layerName()
	if err != nil {
		return nil, false, err
	}
	dir := filepath.Join(in, "object-"+name)
	err = os.Mkdir(dir, 0o755)
	if err == nil {
		defer func() {
			if !mine {
				scratch.RemoveAll(dir)
			}
		}()
		err = os.WriteFile(filepath.Join(dir, "info.json"), b, 0o644)
	}
	if err != nil {
		return nil, false, fmt.Errorf("committing: %w", err)
	}
	for range 2 {
		to := s.path("objects", info.Key)
		if err = unix.Rename(dir, to); err == nil {
			o := &Object{Info: info, s: s}
			o.use()
			return o, true, nil
		}
		err = &os.LinkError{Op: "rename", Old: dir, New: to, Err: err}
		// Somebody was faster; or what is there is damaged, and gone now.
		if o, ok := s.lookupHere(info.Key); ok {
			if o.Plain || !info.Plain {
				return o, false, nil
			}
			s.drop(info.Key)
		}
	}
	return nil, false, fmt.Errorf("committing: %w", err)
}

// layerName is short, since the names of all layers of a tree have to fit into the
// options of one mount.
func (s *Store) layerName() (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(b[:]), nil
}

// Settle writes everything in the store to the disk and marks the objects made so
// far as safe against a crash of the machine. It can take seconds.
func (s *Store) Settle() error {
	ents, err := os.ReadDir(s.path("objects"))
	if err != nil {
		return err
	}
	var unsettled []string
	for _, e := range ents {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if _, err := os.Stat(s.path("objects", e.Name(), "settled")); errors.Is(err, fs.ErrNotExist) {
			unsettled = append(unsettled, e.Name())
		}
	}
	if len(unsettled) == 0 {
		return nil
	}
	d, err := os.Open(s.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("writing out the store: %w", err)
	}
	for _, key := range unsettled {
		if b, err := os.ReadFile(s.path("objects", key, "info.json")); err != nil || !strings.Contains(string(b), s.boot) {
			continue
		}
		if err := os.WriteFile(s.path("objects", key, "settled"), nil, 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
