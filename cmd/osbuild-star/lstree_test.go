// Trees as text, in the form of testdata/conformance/lstree: a line for each file.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// entry is one line: type, mode, uid, gid, size, digest, and the rest.
type entry [7]string

var entryFields = [7]string{"type", "mode", "uid", "gid", "size", "sha256", "extra"}

// diffTree compares a directory with a tree in that form, of which fields that are
// "~" may have any value.
func diffTree(want, dir string) []string {
	wanted := map[string]entry{}
	times := false
	for line := range strings.Lines(want) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		f := strings.SplitN(line, " ", 7)
		path, extra, _ := strings.Cut(f[6], " ")
		wanted[path] = entry{f[0], f[1], f[2], f[3], f[4], f[5], extra}
		times = times || strings.Contains(extra, "mtime:")
	}
	got, err := listTree(dir, times)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for path, w := range wanted {
		g, ok := got[path]
		if !ok {
			out = append(out, "missing: "+path)
			continue
		}
		for i := range w {
			if w[i] != "~" && w[i] != g[i] {
				out = append(out, fmt.Sprintf("%s: %s is %s, upstream has %s", path, entryFields[i], g[i], w[i]))
			}
		}
	}
	for path := range got {
		if _, ok := wanted[path]; !ok {
			out = append(out, "upstream does not have "+path)
		}
	}
	slices.Sort(out)
	return out
}

func listTree(dir string, times bool) (map[string]entry, error) {
	out := map[string]entry{}
	inodes := map[uint64]string{}
	var paths []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		paths = append(paths, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range walkOrder(paths) {
		rel := "/" + strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		e := entry{kind(st.Mode), fmt.Sprintf("%04o", st.Mode&0o7777), fmt.Sprint(st.Uid), fmt.Sprint(st.Gid), "-", "-", ""}
		var extra []string
		switch e[0] {
		case "l":
			e[1] = "-"
			to, err := os.Readlink(p)
			if err != nil {
				return nil, err
			}
			extra = append(extra, "-> "+to)
		case "f":
			e[4] = fmt.Sprint(st.Size)
			if e[5], err = digestOf(p); err != nil {
				return nil, err
			}
		}
		if e[0] == "f" || e[0] == "d" {
			if flags := fileFlags(p); flags != "" {
				extra = append(extra, "attr:"+flags)
			}
		}
		if e[0] == "f" && st.Nlink > 1 {
			if first, ok := inodes[st.Ino]; ok {
				extra = append(extra, "hardlink:"+first)
			} else {
				inodes[st.Ino] = rel
			}
		}
		if times {
			extra = append(extra, fmt.Sprintf("mtime:%d", st.Mtim.Sec))
		}
		attrs, err := xattrs(p)
		if err != nil {
			return nil, err
		}
		e[6] = strings.Join(append(extra, attrs...), " ")
		out[rel] = e
	}
	return out, nil
}

// walkOrder is that of lstree: the entries of a directory before those of the
// directories in it. It says which of several links comes first.
func walkOrder(paths []string) []string {
	children := map[string][]string{}
	for _, p := range paths[1:] {
		children[filepath.Dir(p)] = append(children[filepath.Dir(p)], p)
	}
	out := paths[:1:1]
	var visit func(d string)
	visit = func(d string) {
		slices.Sort(children[d])
		out = append(out, children[d]...)
		for _, c := range children[d] {
			visit(c)
		}
	}
	visit(paths[0])
	return out
}

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "l"
	case unix.S_IFDIR:
		return "d"
	case unix.S_IFREG:
		return "f"
	case unix.S_IFIFO:
		return "p"
	case unix.S_IFSOCK:
		return "s"
	case unix.S_IFBLK:
		return "b"
	default:
		return "c"
	}
}

func digestOf(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// fileFlags are "i" for immutable, "a" for append-only.
func fileFlags(p string) string {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	v, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return ""
	}
	out := ""
	if v&0x10 != 0 {
		out += "i"
	}
	if v&0x20 != 0 {
		out += "a"
	}
	return out
}

func xattrs(p string) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	var names []string
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name != "" && name != "security.selinux" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []string
	for _, name := range names {
		n, err := unix.Lgetxattr(p, name, buf)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		out = append(out, "xattr:"+name+"="+hex.EncodeToString(buf[:n]))
	}
	return out, nil
}

// unlock takes flags away that would keep a test's folder from being removed.
func unlock(dir string) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || fileFlags(p) == "" {
			return nil
		}
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0)
			unix.Close(fd)
		}
		return nil
	})
}
