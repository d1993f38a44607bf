// Unpacking the content of packages into the tree.
package deb

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// unpacker has what the workers of a round share.
type unpacker struct {
	t         *tree
	db        *database
	filters   filters
	ids       ids
	interests map[string]bool // paths with file triggers
}

// claim says which package has put a file somewhere in this run.
type claim struct {
	job  *job
	path string // as the package has it
}

// verdict is what happens to an entry.
type verdict int

const (
	create verdict = iota // it is made
	keep                  // what is there stays, and the path is not of this package
	hide                  // what is there stays, though dpkg counts the path for this package
	share                 // another instance of the package has made it; it must be the same
)

// unpack unpacks one package. Its links are left for later.
func (u *unpacker) unpack(j *job) error {
	src, release, err := j.content()
	if err != nil {
		return err
	}
	defer release()
	tr := &tarReader{src: src}
	for {
		e, err := tr.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = u.entry(j, tr, e)
		}
		if err != nil {
			return err
		}
	}
	return u.writeInfo(j)
}

func (u *unpacker) entry(j *job, tr *tarReader, e *tarEntry) error {
	path, err := cleanName(e.name)
	if err != nil {
		return err
	}
	if e.kind == typeSymlink && path == "/." {
		return fmt.Errorf("%w: the root is a link", errTar)
	}
	a := attr{mode: e.mode, uid: e.uid, gid: e.gid, mtime: e.mtime}
	if id, ok := u.ids.users[e.uname]; ok {
		a.uid = id
	}
	if id, ok := u.ids.groups[e.gname]; ok {
		a.gid = id
	}
	if o, ok := u.db.overrides[path]; ok {
		a.mode, a.uid, a.gid = o.mode, o.uid, o.gid
	}
	use, err := u.db.divert(j.name, path)
	if err != nil {
		return err
	}
	if e.kind == typeSymlink {
		if e.link == "" {
			return fmt.Errorf("%w: link %s without a target", errTar, path)
		}
		j.links = append(j.links, link{path, use, e.link, a})
		return nil
	}
	j.list = append(j.list, path)
	u.fire(j, use)
	if u.filters.skip(path, e.kind == typeDir) {
		return nil
	}
	switch e.kind {
	case typeDir:
		return u.t.makeDir(use, a, j.rank)
	case typeFile:
		return u.file(j, tr, path, use, a)
	case typeHardlink:
		return u.hardlink(j, path, use, e.link)
	default:
		return u.special(j, e, path, use, a)
	}
}

// fire notes the file triggers that a path activates.
func (u *unpacker) fire(j *job, path string) {
	if len(u.interests) == 0 {
		return
	}
	for p := path; p != ""; p = p[:strings.LastIndexByte(p, '/')] {
		if u.interests[p] {
			if j.fired == nil {
				j.fired = map[string]bool{}
			}
			j.fired[p] = true
		}
	}
}

// claim decides about a non-directory, with the directory locked.
func (u *unpacker) claim(p place, j *job, path string) (verdict, error) {
	c, ok := p.dir.claims[p.name]
	if ok && c.job != j {
		switch {
		case c.path != path:
			// Two names of one place, through a link such as /bin: dpkg does not know
			// that they are one, and the package that comes later wins.
			if j.rank < c.job.rank {
				return hide, nil
			}
		case c.job.name == j.name && c.job.multiArch == "same" && j.multiArch == "same" && c.job.version == j.version:
			return share, nil
		default:
			mine, theirs := j.replaces.concern(c.job.pkg), c.job.replaces.concern(j.pkg)
			switch {
			case !mine && !theirs:
				return 0, &ConflictError{Path: path, Packages: [2]string{j.String(), c.job.String()}}
			case mine && theirs && j.rank < c.job.rank, !mine:
				j.lose(path, c.job)
				return keep, nil
			}
			c.job.lose(path, j)
		}
	}
	if !ok {
		for _, e := range u.db.owners[path] {
			if e.state == "config-files" || e.name == j.name || u.db.diverts(path, e.name, j.name) {
				continue
			}
			return 0, &ConflictError{Path: path, Packages: [2]string{j.String(), e.String()}}
		}
	}
	if p.dir.claims == nil {
		p.dir.claims = map[string]claim{}
	}
	p.dir.claims[p.name] = claim{j, path}
	p.dir.touched = true
	return create, nil
}

// A ConflictError says that two packages have the same file.
type ConflictError struct {
	Path     string
	Packages [2]string // name and version
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s is in %s too", e.Path, e.Packages[1])
}

// put claims a place and calls make, which must fail with EEXIST when something is
// there. That is removed first then, as dpkg replaces it.
func (u *unpacker) put(p place, j *job, path string, make func(name string) error) (verdict, error) {
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	v, err := u.claim(p, j, path)
	if err != nil || v != create {
		return v, err
	}
	name := p.path()
	if j.isConf[path] {
		name += ".dpkg-new"
	}
	for {
		err := make(name)
		if err == nil {
			return create, nil
		}
		if !errors.Is(err, unix.EEXIST) {
			return 0, &os.PathError{Op: "create", Path: path, Err: err}
		}
		if err := unix.Unlinkat(u.t.fd, name, 0); err == unix.EISDIR {
			return 0, &os.PathError{Op: "create", Path: path, Err: errors.New("there is a directory in its place")}
		} else if err != nil && err != unix.ENOENT {
			return 0, &os.PathError{Op: "remove", Path: path, Err: err}
		}
		delete(p.dir.kids, p.name)
	}
}

func (u *unpacker) file(j *job, tr *tarReader, path, use string, a attr) error {
	p, err := u.t.place(use)
	if err != nil {
		return err
	}
	fd, inherits := -1, false
	v, err := u.put(p, j, path, func(name string) (err error) {
		inherits = p.dir.setgid
		fd, err = unix.Openat(u.t.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, a.mode&0o777)
		return err
	})
	if err != nil {
		return err
	}
	if v == share {
		return u.sameFile(j, tr, p, path)
	}
	if v != create {
		return u.copy(j, tr, -1, path)
	}
	err = u.fill(j, tr, fd, path, a, inherits)
	if e := unix.Close(fd); err == nil && e != nil {
		err = e
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// fill writes content and attributes of a new file, which may have inherited the group
// of its directory.
func (u *unpacker) fill(j *job, tr *tarReader, fd int, path string, a attr, inherits bool) error {
	if err := u.copy(j, tr, fd, path); err != nil {
		return err
	}
	if a.uid != 0 || a.gid != 0 || inherits {
		if err := unix.Fchown(fd, int(a.uid), int(a.gid)); err != nil {
			return err
		}
	}
	if a.mode&^0o755 != 0 { // what the umask takes away, and what open(2) does not take
		if err := unix.Fchmod(fd, a.mode); err != nil {
			return err
		}
	}
	return setTimeFd(fd, a.mtime)
}

// copy writes the content of a file, and notes its checksum if the package has none. A
// file that is not made is read for that only, and fd is negative.
func (u *unpacker) copy(j *job, tr *tarReader, fd int, path string) error {
	var sum hash.Hash
	if j.noSums {
		sum = md5.New()
	} else if fd < 0 {
		return nil
	}
	for {
		b, err := tr.body()
		if err != nil {
			return err
		}
		if b == nil {
			break
		}
		if sum != nil {
			sum.Write(b)
		}
		for fd >= 0 && len(b) > 0 {
			n, err := unix.Write(fd, b)
			if err != nil && err != unix.EINTR {
				return err
			}
			b = b[max(n, 0):]
		}
	}
	if sum != nil {
		j.sums = append(j.sums, [2]string{hex.EncodeToString(sum.Sum(nil)), path})
	}
	return nil
}

// sameFile compares a file with that of another instance of the package.
func (u *unpacker) sameFile(j *job, tr *tarReader, p place, path string) error {
	name := p.path()
	if j.isConf[path] {
		name += ".dpkg-new"
	}
	fd, err := unix.Openat(u.t.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	sum := md5.New()
	differ := fmt.Errorf("%s differs from that of another architecture of the package", path)
	for {
		b, err := tr.body()
		if err != nil {
			return err
		}
		have := make([]byte, max(len(b), 1))
		n, err := io.ReadFull(f, have)
		if b == nil {
			if n != 0 {
				return differ
			}
			if j.noSums {
				j.sums = append(j.sums, [2]string{hex.EncodeToString(sum.Sum(nil)), path})
			}
			return nil
		}
		sum.Write(b)
		if err != nil || !bytes.Equal(b, have) {
			return differ
		}
	}
}

func (u *unpacker) hardlink(j *job, path, use, target string) error {
	from, err := cleanName(target)
	if err != nil {
		return err
	}
	fromUse, err := u.db.divert(j.name, from)
	if err != nil {
		return err
	}
	src, err := u.t.place(fromUse)
	if err != nil {
		return err
	}
	name := src.path()
	if j.isConf[from] {
		name += ".dpkg-new"
	}
	p, err := u.t.place(use)
	if err != nil {
		return err
	}
	v, err := u.put(p, j, path, func(to string) error {
		return unix.Linkat(u.t.fd, name, u.t.fd, to, 0)
	})
	if errors.Is(err, unix.ENOENT) && u.filters.skip(from, false) {
		return fmt.Errorf("%s is a hard link to %s, which is excluded: include it, or exclude both", path, from)
	}
	if err == nil && v != share {
		for _, s := range j.sums { // that of its target
			if s[1] == from {
				j.sums = append(j.sums, [2]string{s[0], path})
				break
			}
		}
	}
	return err
}

// special makes a device node or a named pipe.
func (u *unpacker) special(j *job, e *tarEntry, path, use string, a attr) error {
	p, err := u.t.place(use)
	if err != nil {
		return err
	}
	kind, dev := uint32(unix.S_IFIFO), 0
	if e.kind != typeFifo {
		kind, dev = unix.S_IFCHR, int(unix.Mkdev(e.major, e.minor))
	}
	if e.kind == typeBlock {
		kind = unix.S_IFBLK
	}
	_, err = u.put(p, j, path, func(name string) error {
		if err := unix.Mknodat(u.t.fd, name, kind|a.mode&0o777, dev); err != nil {
			return err
		}
		if err := unix.Fchownat(u.t.fd, name, int(a.uid), int(a.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if err := unix.Fchmodat(u.t.fd, name, a.mode, 0); err != nil {
			return err
		}
		return setTime(u.t.fd, name, a.mtime)
	})
	return err
}

// makeLinks makes the links of all packages of a round, in the order of packages.
//
// dpkg makes the links of a package after its files, and never replaces a directory
// by one. Here they come after the files of all packages of the round, so that the
// result does not depend on which of two packages is unpacked first: a directory of
// one wins over a link of another.
func (u *unpacker) makeLinks(jobs []*job) error {
	for _, j := range jobs {
		for _, l := range j.links {
			j.list = append(j.list, l.path)
			u.fire(j, l.use)
			if u.filters.skip(l.path, true) {
				continue
			}
			if err := u.makeLink(j, l); err != nil {
				return &PackageError{Package: j.String(), Doing: "unpacking", Err: err}
			}
		}
		j.links = nil
	}
	return nil
}

func (u *unpacker) makeLink(j *job, l link) error {
	p, err := u.t.place(l.use)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(u.t.fd, p.path(), &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			return nil
		case unix.S_IFLNK: // one to the same directory stays
			have, err1 := u.t.readlink(p.path())
			a, err2 := u.t.walk(p.dir, have, false, new(int))
			b, err3 := u.t.walk(p.dir, l.target, false, new(int))
			if errors.Join(err1, err2, err3) == nil && a == b {
				return nil
			}
		}
	}
	_, err = u.put(p, j, l.path, func(name string) error {
		if err := unix.Symlinkat(l.target, u.t.fd, name); err != nil {
			return err
		}
		if l.attr.uid != 0 || l.attr.gid != 0 || p.dir.setgid {
			if err := unix.Fchownat(u.t.fd, name, int(l.attr.uid), int(l.attr.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
		}
		return setTime(u.t.fd, name, l.attr.mtime)
	})
	return err
}

// writeInfo puts the control files of a package into the database.
func (u *unpacker) writeInfo(j *job) error {
	if err := u.t.makeDir(infoDir, attr{mode: 0o755, mtime: unix.UTIME_OMIT}, implicit); err != nil {
		return err
	}
	d, err := u.t.lookup(infoDir, true)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.touched = true
	d.mu.Unlock()
	prefix := d.path + "/" + j.infoName() + "."
	for _, f := range j.files {
		if err := u.infoFile(prefix+f.name, f); err != nil {
			return &os.PathError{Op: "write", Path: "/" + prefix + f.name, Err: err}
		}
	}
	return nil
}

func (u *unpacker) infoFile(path string, f controlFile) error {
	fd, err := unix.Openat(u.t.fd, path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, f.mode&0o777)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for b := f.data; len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err != nil && err != unix.EINTR {
			return err
		}
		b = b[max(n, 0):]
	}
	mode := f.mode & 0o777
	if isScript(f.name) && mode&0o555 != 0o555 { // as dpkg makes them executable
		mode = 0o755
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	return setTimeFd(fd, f.time)
}

func isScript(name string) bool {
	return name == "preinst" || name == "postinst" || name == "prerm" || name == "postrm"
}
