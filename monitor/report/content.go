// What is in a tree: sizes by folder and by package, and the packages.
package report

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Content is what is in a tree, small enough to be kept.
type Content struct {
	Version  int              `json:"version"`
	OS       string           `json:"os,omitempty"`       // as /etc/os-release has it
	Database string           `json:"database,omitempty"` // dpkg, rpm
	Size     int64            `json:"size"`               // bytes of its files, hard links once
	Files    int              `json:"files"`
	Folders  *Node            `json:"folders"`
	Sections *Node            `json:"sections,omitempty"` // packages by section, and the rest
	Packages []Package        `json:"packages,omitempty"`
	Dirs     map[string]int64 `json:"dirs"` // sizes of folders near the root, to compare
}

// contentVersion changes when a Content that was kept does not say what one made now
// would.
const contentVersion = 1

// Current tells whether this is what [ReadContent] would make now.
func (c *Content) Current() bool { return c.Version == contentVersion }

// Node is a part of a whole, and its own parts: the largest first, small ones as one.
type Node struct {
	Name string  `json:"n"`
	Size int64   `json:"s"`
	Kids []*Node `json:"c,omitempty"`
}

// Package is an installed package.
type Package struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Arch      string `json:"arch"`
	Section   string `json:"section,omitempty"`
	Installed int64  `json:"installed"` // bytes, as the package says
	Size      int64  `json:"size"`      // bytes of its files in this tree
}

// file is a regular file of a tree.
type file struct {
	path string // without a slash in front
	size int64
}

// IsSystem tells whether a tree is that of an operating system.
func IsSystem(dir *os.File) bool {
	for _, p := range []string{"etc/os-release", "usr/lib/os-release", dpkgStatus, "var/lib/rpm", "usr/lib/sysimage/rpm"} {
		if exists(dir, p) {
			return true
		}
	}
	return false
}

func exists(dir *os.File, p string) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(dir.Fd()), p, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// open opens a file of a tree; links are followed within it.
func open(dir *os.File, p string) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), p, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	return os.NewFile(uintptr(fd), p), nil
}

// maxFile bounds what is read of a file of a tree: a stage may write what it likes.
const maxFile = 64 << 20

func read(dir *os.File, p string) ([]byte, error) {
	f, err := open(dir, p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: %w", p, cmp.Or(err, fs.ErrInvalid))
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// ReadContent reads what is in the tree of an open directory.
func ReadContent(dir *os.File) (*Content, error) {
	w := walker{seen: map[[2]uint64]bool{}}
	if err := w.walk(int(dir.Fd()), ".", "", 0); err != nil {
		return nil, fmt.Errorf("reading the sizes of a tree: %w", err)
	}
	c := &Content{Version: contentVersion, Files: len(w.files), Dirs: map[string]int64{}}
	for _, f := range w.files {
		c.Size += f.size
		at := 0
		for range dirDepth {
			i := strings.IndexByte(f.path[at:], '/')
			if i < 0 {
				break
			}
			at += i + 1
			c.Dirs[f.path[:at-1]] += f.size
		}
	}
	least := c.Size / smallest
	c.Folders = folders(w.files, least)
	c.readPackages(dir, w.files, least)
	c.OS = osName(dir)
	return c, nil
}

const (
	dirDepth = 3    // how far down folders are compared
	maxDepth = 200  // folders that are further down are not looked into
	smallest = 2000 // what is less than that part of a tree is not shown by itself
)

// walker collects the regular files of a tree.
type walker struct {
	files []file
	seen  map[[2]uint64]bool // hard links
}

// walk reads the folder of that name of an open one.
func (w *walker) walk(at int, name, prefix string, depth int) error {
	if depth > maxDepth {
		return nil
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/" + prefix, Err: err}
	}
	d := os.NewFile(uintptr(fd), prefix)
	defer d.Close()
	ents, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	// Which of two hard links counts is not for the file system to say.
	slices.SortFunc(ents, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range ents {
		name := path.Join(prefix, e.Name())
		switch {
		case e.IsDir():
			if err := w.walk(fd, e.Name(), name, depth+1); err != nil {
				return err
			}
		case e.Type().IsRegular():
			var st unix.Stat_t
			if err := unix.Fstatat(fd, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return &fs.PathError{Op: "stat", Path: "/" + name, Err: err}
			}
			if id := [2]uint64{uint64(st.Dev), st.Ino}; st.Nlink > 1 {
				if w.seen[id] {
					st.Size = 0
				}
				w.seen[id] = true
			}
			w.files = append(w.files, file{name, st.Size})
		}
	}
	return nil
}

// folders makes the tree of folders and files; parts smaller than least are one.
func folders(files []file, least int64) *Node {
	type folder struct {
		node *Node
		kids map[string]*folder
	}
	root := &folder{node: &Node{Name: "/"}}
	for _, f := range files {
		at := root
		at.node.Size += f.size
		for name := range strings.SplitSeq(f.path, "/") {
			if at.kids == nil {
				at.kids = map[string]*folder{}
			}
			next := at.kids[name]
			if next == nil {
				next = &folder{node: &Node{Name: name}}
				at.kids[name] = next
			}
			next.node.Size += f.size
			at = next
		}
	}
	var build func(f *folder) *Node
	build = func(f *folder) *Node {
		var kids []*Node
		for _, k := range f.kids {
			if k.node.Size >= least {
				build(k)
			}
			kids = append(kids, k.node)
		}
		f.node.Kids = largest(kids, least)
		return f.node
	}
	return build(root)
}

// largest sorts parts, and makes one of those that are small. A single small one stays
// as it is.
func largest(kids []*Node, least int64) []*Node {
	slices.SortFunc(kids, func(a, b *Node) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(a.Name, b.Name))
	})
	for i, k := range kids {
		if rest := kids[i:]; k.Size < max(least, 1) && len(rest) > 1 {
			small := &Node{Name: fmt.Sprintf("%d smaller", len(rest))}
			for _, r := range rest {
				small.Size += r.Size
			}
			if kids = kids[:i:i]; small.Size > 0 {
				kids = append(kids, small)
			}
			break
		}
	}
	return kids
}

const dpkgStatus = "var/lib/dpkg/status"

// readPackages reads the database of packages, and what each has in the tree. What
// cannot be read is no database: a stage may have put anything there.
func (c *Content) readPackages(dir *os.File, files []file, least int64) {
	b, err := read(dir, dpkgStatus)
	if err != nil {
		if exists(dir, "var/lib/rpm") || exists(dir, "usr/lib/sysimage/rpm") {
			c.Database = "rpm"
		}
		return
	}
	c.Database = "dpkg"
	c.Packages = parseStatus(b)
	owner := map[string]int{}
	links := topLinks(dir)
	for i, p := range c.Packages {
		list, err := read(dir, "var/lib/dpkg/info/"+p.Name+".list")
		if err != nil {
			list, err = read(dir, "var/lib/dpkg/info/"+p.Name+":"+p.Arch+".list")
		}
		if err != nil {
			continue // a package without files
		}
		for line := range bytes.Lines(list) {
			name := strings.TrimPrefix(strings.TrimSuffix(string(line), "\n"), "/")
			top, rest, _ := strings.Cut(name, "/")
			if to := links[top]; to != "" {
				name = to + "/" + rest
			}
			if _, taken := owner[name]; !taken {
				owner[name] = i
			}
		}
	}
	own := make([][]file, len(c.Packages))
	var rest []file
	for _, f := range files {
		if i, ok := owner[f.path]; ok {
			c.Packages[i].Size += f.size
			own[i] = append(own[i], f)
		} else {
			rest = append(rest, f)
		}
	}
	bySection := map[string][]*Node{}
	for i, p := range c.Packages {
		bySection[p.Section] = append(bySection[p.Section], parts(p.Name, own[i], least))
	}
	all := &Node{Name: "packages", Size: c.Size}
	for name, kids := range bySection {
		n := &Node{Name: cmp.Or(name, "no section"), Kids: kids}
		for _, k := range kids {
			n.Size += k.Size
		}
		n.Kids = largest(n.Kids, least)
		all.Kids = append(all.Kids, n)
	}
	if len(rest) > 0 {
		n := folders(rest, least)
		n.Name = "of no package"
		all.Kids = append(all.Kids, n)
	}
	all.Kids = largest(all.Kids, 0)
	c.Sections = all
}

// parts is a package and its largest files.
func parts(name string, files []file, least int64) *Node {
	n := &Node{Name: name}
	var kids []*Node
	for _, f := range files {
		n.Size += f.size
		kids = append(kids, &Node{Name: "/" + f.path, Size: f.size})
	}
	if n.Size >= least {
		n.Kids = largest(kids, least)
	}
	return n
}

// topLinks are the links in the root of a tree with a merged /usr: dpkg knows files by
// the names that they had before.
func topLinks(dir *os.File) map[string]string {
	out := map[string]string{}
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		var buf [256]byte
		if n, err := unix.Readlinkat(int(dir.Fd()), name, buf[:]); err == nil {
			out[name] = strings.Trim(string(buf[:n]), "/")
		}
	}
	return out
}

// parseStatus reads dpkg's database: paragraphs of fields.
func parseStatus(b []byte) []Package {
	var out []Package
	var p Package
	installed := false
	flush := func() {
		if p.Name != "" && installed {
			out = append(out, p)
		}
		p, installed = Package{}, false
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, maxFile)
	for s.Scan() {
		line := s.Text()
		if line == "" {
			flush()
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		value = strings.TrimSpace(value)
		switch key {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Architecture":
			p.Arch = value
		case "Section":
			p.Section = value[strings.LastIndexByte(value, '/')+1:]
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		case "Installed-Size":
			var kib int64
			if _, err := fmt.Sscan(value, &kib); err == nil {
				p.Installed = kib << 10
			}
		}
	}
	flush()
	slices.SortFunc(out, func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch))
	})
	return out
}

// osName is what the system calls itself.
func osName(dir *os.File) string {
	b, err := read(dir, "etc/os-release")
	if err != nil {
		if b, err = read(dir, "usr/lib/os-release"); err != nil {
			return ""
		}
	}
	for line := range bytes.Lines(b) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}
