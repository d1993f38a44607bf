// Disks that are full: which one it is, and what is to be done about it.
package engine

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/monitor"
	"golang.org/x/sys/unix"
)

// SpaceError is a failure whose cause is a full disk.
type SpaceError struct {
	Err  error
	hint string
}

func (e *SpaceError) Error() string { return e.Err.Error() }
func (e *SpaceError) Unwrap() error { return e.Err }

// Hint says which disk is full, and what can be done.
func (e *SpaceError) Hint() string { return e.hint }

// Place is a directory that something is written to.
type Place struct {
	What      string // "the store"
	Dir       string // need not be there yet
	Otherwise string // how to name another one: "--store DIR"
}

// Full makes a SpaceError of an error that is about a full disk: of these places the one
// with the least room is meant. Other errors stay what they are.
func Full(err error, places ...Place) error {
	if err == nil || !saysFull(err, "") {
		return err
	}
	hint, _ := fullest(places)
	return &SpaceError{err, hint}
}

// saysFull tells whether an error, or what a program printed, is about a full disk.
func saysFull(err error, output string) bool {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return true
	}
	if err != nil {
		output += err.Error()
	}
	output = strings.ToLower(output)
	return strings.Contains(output, "no space left on device") || strings.Contains(output, "disk quota exceeded")
}

// fullest tells of the place with the least room, and how much that is; -1: not known.
func fullest(places []Place) (hint string, free int64) {
	free = -1
	for _, p := range places {
		var st unix.Statfs_t
		dir := p.Dir
		for unix.Statfs(dir, &st) != nil && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
		}
		if n := int64(st.Bavail) * st.Bsize; free < 0 || n < free {
			free = n
			room := monitor.Bytes(n) + " free"
			if st.Files > 0 && st.Ffree == 0 {
				room = "no inode free" // a file system may have bytes left and room for no file
			}
			hint = fmt.Sprintf("%s %s has %s: free some, or use another place: %s", p.What, p.Dir, room, p.Otherwise)
		}
	}
	return hint, free
}

// Places are those that builds write to: the store, and what backs /var ("": the
// default).
func Places(store, vardir string) []Place {
	return []Place{
		{"the store", store, "--store DIR"},
		{"the directory for /var of build roots,", cmp.Or(vardir, buildroot.DefaultVar), "--var-dir DIR"},
	}
}

// crowded is so little room that it is likely to be why a program failed that does not
// say why: tar tells how much it could write, and mkfs of an error of its device.
const crowded = 64 << 20

// spaceHint is what can be done about a stage that failed for want of room.
func (e *Engine) spaceHint(err error, output string) string {
	hint, free := fullest(Places(e.cfg.Store.Dir, e.cfg.Var))
	if saysFull(err, output) || free >= 0 && free < crowded {
		return hint
	}
	return ""
}
