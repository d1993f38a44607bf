// The output of a command, taken out of a console that others write to.

package vm

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// protocolRE finds the lines that make a session: the prefix of a line of output,
// and after it perhaps a mark.
var protocolRE = regexp.MustCompile(`^(=[0-9a-f]{8}=):(?:[REA](=[0-9a-f]{8}=)(?: \d+)?$)?`)

// visible is a line of the console without the protocol of a session; ok is
// false for one that is nothing else.
func visible(line string) (s string, ok bool) {
	if strings.Contains(line, openingWords) {
		return "", false
	}
	m := protocolRE.FindStringSubmatch(line)
	if m == nil {
		return line, true
	}
	if m[1] == m[2] {
		return "", false
	}
	return line[len(m[1])+1:], true
}

// maxOutput is how much of a command's output is kept, in bytes.
const maxOutput = 4 << 20

// kernelRE finds the time that a kernel message begins with.
var kernelRE = regexp.MustCompile(`\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? `)

// demux puts together the lines of a command from the console's bytes. In the
// guest each of them was given a prefix; the last is the prefix and the mark
// that has the exit status. A kernel message may come at any place: between two
// lines, where it has no prefix; or in a line, which it splits:
//
//	PREFIX:hel[   12.345678] random: crng init done
//	lo
//
// So a line that has what looks like a kernel message in it is kept until the
// next: if that has the prefix the line was whole, and the time stamp is the
// command's own output; if not, it is the rest of the line.
type demux struct {
	prefix []byte // with the colon
	end    []byte // prefix, mark and a blank: before the status
	ack    []byte // the same before the number of a part of the command that was taken

	buf  []byte // an unfinished line
	held []byte // a line that may be split; nil = none
	cut  int    // where the kernel message begins in held

	out    []byte
	over   bool // there was more output than maxOutput
	acked  int  // parts that were taken
	done   bool
	status int
}

func newDemux(nonce string) *demux {
	return &demux{
		prefix: []byte(nonce + ":"),
		end:    []byte(nonce + ":E" + nonce + " "),
		ack:    []byte(nonce + ":A" + nonce + " "),
	}
}

// Write takes bytes of the console; after the end mark the rest is ignored.
func (d *demux) Write(p []byte) (int, error) {
	n := len(p)
	for !d.done {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if len(d.buf) <= maxOutput {
				d.buf = append(d.buf, p...)
			}
			break
		}
		line := append(d.buf, p[:i]...)
		p = p[i+1:]
		d.line(bytes.TrimRight(line, "\r"))
		d.buf = d.buf[:0]
	}
	return n, nil
}

func (d *demux) line(l []byte) {
	if d.held != nil {
		held := d.held
		switch {
		case bytes.HasPrefix(l, d.prefix):
			d.held = nil
			d.whole(held) // nothing followed: it had not been split
		case startsWithStamp(l):
			return // one more kernel message in the same gap
		default:
			d.held = nil
			l = append(append([]byte(nil), held[:d.cut]...), l...)
		}
	}
	if d.suspect(l) {
		d.held = append([]byte(nil), l...)
		return
	}
	d.whole(l)
}

// suspect tells if a line may have been split: a kernel message is in it, after
// something that is, or can become, the prefix. The last time stamp counts.
func (d *demux) suspect(l []byte) bool {
	locs := kernelRE.FindAllIndex(l, -1)
	for i := len(locs) - 1; i >= 0; i-- {
		at := locs[i][0]
		if at == 0 {
			return false
		}
		head := l[:at]
		if bytes.HasPrefix(head, d.prefix) || bytes.HasPrefix(d.prefix, head) {
			d.cut = at
			return true
		}
	}
	return false
}

func startsWithStamp(l []byte) bool {
	loc := kernelRE.FindIndex(l)
	return loc != nil && loc[0] == 0
}

// whole takes a line that is as the guest wrote it.
func (d *demux) whole(l []byte) {
	if rest, ok := bytes.CutPrefix(l, d.end); ok {
		if n, err := strconv.Atoi(strings.TrimSpace(string(rest))); err == nil {
			d.status, d.done = n, true
			// The mark is on a line of its own: the newline before it is ours.
			d.out = bytes.TrimSuffix(d.out, []byte("\n"))
			return
		}
	}
	if rest, ok := bytes.CutPrefix(l, d.ack); ok {
		if n, err := strconv.Atoi(string(rest)); err == nil && n == d.acked {
			d.acked++
			return
		}
	}
	rest, ok := bytes.CutPrefix(l, d.prefix)
	if !ok {
		return
	}
	if len(d.out)+len(rest) >= maxOutput {
		d.over = true
		return
	}
	d.out = append(append(d.out, rest...), '\n')
}

// output is what the command wrote until now.
func (d *demux) output() string {
	if d.over {
		return string(d.out) + "\n[more output was left out]\n"
	}
	return string(d.out)
}
