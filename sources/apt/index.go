// Packages files: the indexes of a repository, read from the copies that apt has
// verified.
package apt

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/osbuild-star/osbuild-star/internal/edit"
)

// maxStanza bounds one package's description in an index, in bytes.
const maxStanza = 4 << 20

var errStanza = errors.New("a stanza of the index is longer than any package's")

// scanStanzas hands the stanzas of a control file to fn, one at a time and without
// the blank line that ends them, until it returns false. fn must not keep the bytes.
func scanStanzas(r io.Reader, fn func(stanza []byte) bool) error {
	br := bufio.NewReaderSize(r, 256<<10)
	var buf []byte
	for {
		line, err := br.ReadSlice('\n')
		blank := len(bytes.TrimRight(line, " \t\r\n")) == 0 && err != bufio.ErrBufferFull && (len(buf) == 0 || buf[len(buf)-1] == '\n')
		if !blank {
			if len(buf)+len(line) > maxStanza {
				return errStanza
			}
			buf = append(buf, line...)
		}
		if (blank && err == nil || err == io.EOF) && len(buf) > 0 {
			if !fn(buf) {
				return nil
			}
			buf = buf[:0]
		}
		switch err {
		case nil, bufio.ErrBufferFull:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// stanzaFields are the fields of a package that resolving looks at.
type stanzaFields struct {
	name, version, arch, priority, filename, size, sha256, provides []byte
	essential                                                       bool
}

// parseStanza picks them out.
func parseStanza(b []byte) stanzaFields {
	var f stanzaFields
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if len(line) == 0 || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		i := bytes.IndexByte(line, ':')
		if i < 0 {
			continue
		}
		key, value := line[:i], bytes.TrimSpace(line[i+1:])
		switch string(key) {
		case "Package":
			f.name = value
		case "Version":
			f.version = value
		case "Architecture":
			f.arch = value
		case "Priority":
			f.priority = value
		case "Filename":
			f.filename = value
		case "Size":
			f.size = value
		case "SHA256":
			f.sha256 = value
		case "Provides":
			f.provides = value
		case "Essential":
			f.essential = string(value) == "yes"
		}
	}
	return f
}

// dropped are the fields of an index that the stanza of an installed package does
// without.
var dropped = map[string]bool{
	"Filename": true, "Size": true, "MD5sum": true, "SHA1": true, "SHA256": true, "SHA512": true,
	"Description": true, "Description-md5": true, "Tag": true, "Homepage": true, "Maintainer": true,
	"Status": true, "Conffiles": true, "Bugs": true, "Phased-Update-Percentage": true,
}

// installedStanza writes a stanza of an index the way dpkg's status file has that of
// an installed package.
func installedStanza(b []byte) []byte {
	var out bytes.Buffer
	keep := false
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			key, _, ok := bytes.Cut(line, []byte(":"))
			keep = ok && !dropped[string(key)]
		}
		if keep {
			out.Write(line)
			out.WriteByte('\n')
			if bytes.HasPrefix(line, []byte("Package:")) {
				out.WriteString("Status: install ok installed\n")
			}
		}
	}
	return out.Bytes()
}

// names is what the indexes of a set of repositories have, by name only.
type names struct {
	real      map[string]bool // packages
	virtual   map[string]bool // what packages provide
	essential map[string]bool
	required  map[string]bool
}

func newNames() *names {
	return &names{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
}

// read adds an index; main says that it is one of the native architecture.
func (n *names) read(r io.Reader, main bool) error {
	return scanStanzas(r, func(b []byte) bool {
		f := parseStanza(b)
		if len(f.name) == 0 {
			return true
		}
		name := string(f.name)
		n.real[name] = true
		for p := range strings.SplitSeq(string(f.provides), ",") {
			if p, _, _ := strings.Cut(strings.TrimSpace(p), " "); p != "" {
				n.virtual[p] = true
			}
		}
		if main && f.essential {
			n.essential[name] = true
		}
		if main && string(f.priority) == "required" {
			n.required[name] = true
		}
		return true
	})
}

// number reads a size; -1 is none.
func number(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// nearest returns up to three known names that somebody who wrote name may have meant.
func (n *names) nearest(name string) []string {
	type near struct {
		name string
		d    int
	}
	limit := max(1, min(3, len(name)/4))
	var best []near
	add := func(c near) {
		i := len(best)
		for i > 0 && (c.d < best[i-1].d || c.d == best[i-1].d && c.name < best[i-1].name) {
			i--
		}
		if i < 3 {
			best = append(best[:i], append([]near{c}, best[i:]...)...)
			best = best[:min(3, len(best))]
		}
	}
	for c := range n.real {
		if d := edit.Distance(name, c, limit); d <= limit {
			add(near{c, d})
		} else if len(name) >= 4 && strings.HasPrefix(c, name) {
			add(near{c, limit + len(c) - len(name)})
		}
	}
	out := make([]string, len(best))
	for i, b := range best {
		out[i] = b.name
	}
	return out
}
