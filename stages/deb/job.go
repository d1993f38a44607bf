// A package that is to be installed: its archive, and what its control data says.
package deb

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// job is one archive.
type job struct {
	*pkg
	path      string // of the archive
	archive   *archive
	rank      int // its place in the order of packages
	round     int
	byDpkg    bool   // dpkg has to unpack it
	control   string // the control file
	files     []controlFile
	conffiles []conffile
	isConf    map[string]bool
	triggers  []trigger
	noSums    bool // the package has no md5sums

	ahead *prefetched // its content, as far as it has been decompressed already
	free  func()      // releases that

	// What unpacking it found.
	list  []string
	fired map[string]bool // file triggers of other packages
	links []link
	sums  [][2]string // checksum and path, if the package has none

	mu   sync.Mutex
	lost map[string]int // paths that another package has: its rank
}

// link is a symbolic link, which is made after the files of all packages.
type link struct {
	path, use string // as the package has it, and where it goes
	target    string
	attr      attr
}

// controlFile is a file of the control member, besides control.
type controlFile struct {
	name string
	mode uint32
	time int64
	data []byte
}

// file returns the content of a control file, "" when there is none.
func (j *job) file(name string) string {
	for i := range j.files {
		if j.files[i].name == name {
			return string(j.files[i].data)
		}
	}
	return ""
}

func (j *job) has(name string) bool {
	for i := range j.files {
		if j.files[i].name == name {
			return true
		}
	}
	return false
}

// lose notes that a path belongs to another package.
func (j *job) lose(path string, to *job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lost == nil {
		j.lost = map[string]int{}
	}
	if rank, ok := j.lost[path]; !ok || to.rank < rank {
		j.lost[path] = to.rank
	}
}

func (j *job) close() {
	if j.free != nil {
		j.free()
		j.free, j.ahead = nil, nil
	}
	j.archive.file.Close()
}

const (
	maxControl     = 64 << 20 // of all control files of a package
	maxControlName = 50       // dpkg's limit
)

// openJob opens an archive and reads its control member.
func openJob(path string) (*job, error) {
	a, err := openArchive(path)
	if err != nil {
		return nil, err
	}
	j := &job{path: path, archive: a, noSums: true}
	if err := j.readControl(); err != nil {
		a.file.Close()
		return nil, err
	}
	return j, nil
}

func (j *job) readControl() error {
	src, release, err := openMember(j.archive, j.archive.control)
	if err != nil {
		return err
	}
	defer release()
	if err := j.parseControl(src); err != nil {
		return fmt.Errorf("%s: %w", j.archive.control.name, err)
	}
	return nil
}

func (j *job) parseControl(src source) error {
	tr := &tarReader{src: src}
	total := int64(0)
	for {
		e, err := tr.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		name, err := cleanName(e.name)
		if err != nil {
			return err
		}
		name = name[1:]
		if name == "." || e.kind == typeDir && strings.HasPrefix(name, ".") {
			continue
		}
		if e.kind != typeFile || strings.Contains(name, "/") {
			return fmt.Errorf("%s: control data has plain files only", name)
		}
		if total += e.size; total > maxControl {
			return errors.New("control data of more than 64 MiB")
		}
		data := make([]byte, 0, e.size)
		for {
			p, err := tr.body()
			if err != nil {
				return err
			}
			if p == nil {
				break
			}
			data = append(data, p...)
		}
		switch {
		case name == "control":
			j.control = string(data)
		case name == "list" || strings.Contains(name, ".") || len(name) > maxControlName: // as dpkg
		default:
			if name == "md5sums" {
				j.noSums = false
			}
			j.files = append(j.files, controlFile{name, e.mode, e.mtime, data})
		}
	}
	fields, err := parseParagraph(strings.Trim(j.control, "\n"))
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if j.pkg, err = newPkg(fields); err != nil {
		return err
	}
	if j.conffiles, err = parseConffiles(j.file("conffiles")); err != nil {
		return err
	}
	j.isConf = map[string]bool{}
	for _, c := range j.conffiles {
		if !c.removeOnUpgrade {
			j.isConf[c.path] = true
		}
	}
	j.triggers, err = parseTriggers(j.file("triggers"))
	return err
}

// content opens the data member, or what has been decompressed of it before.
func (j *job) content() (source, func(), error) {
	if j.ahead != nil {
		s, free := j.ahead, j.free
		j.ahead, j.free = nil, nil
		return s, free, nil
	}
	return openMember(j.archive, j.archive.data)
}
