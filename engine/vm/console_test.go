// Tests of the console without a machine: recorded text, and fuzzing.

package vm

import (
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// What SeaBIOS and GRUB write to a serial port (QEMU 7.2 with graphics=off), and
// the kernel after them.
const recordedBIOS = "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2-debian-1.16.2-1)\r\nBooting from Hard Disk...\r\nGRUB loading...\r\n" +
	"\x1b[0;30;47mW\r\x1b[04;02Helcome to GRUB\x1b[H\x1b[J\x1b[1;1H\x1b[H\x1b[J\x1b[1;1H!\x1b[01;01H\x1b[0m\x1b[2J   Booting `Debian' Boo\x1b[01;05H\x1b[01;06Hting `Debian\n\r\n\r'\r\n\n" +
	"[    0.000000] Linux version 6.1.0-56-cloud-amd64 (gcc-12)\r\n"

// What OVMF and systemd-boot write.
const recordedUEFI = "\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01H\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2J\x1b[01;01HBdsDxe: loading Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x1,0x0)\r\n" +
	"BdsDxe: starting Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x1,0x0)\r\nEFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path\r\n"

// What systemd and getty write, with a kernel message after the prompt.
const recordedSystemd = "[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mserial-getty@ttyS0…rvice\x1b[0m - Serial Getty on ttyS0.\r\r\n" +
	"\x1b[K[ \x1b[0;31m*\x1b[0;1;31m*\x1b[0m\x1b[0;31m* \x1b[0m] A start job is running for \x1b[0;1;39mx.service\x1b[0m (6s / no limit)\r\x1b[K[\x1b[0;32m  OK  \x1b[0m] Finished \x1b[0;1;39mx.service\x1b[0m - X.\r\n" +
	"\r\nDebian GNU/Linux 12 peerbox ttyS0\r\n\r\npeerbox login: [   21.701473] kvm: Nested Virtualization enabled\r\n"

func feed(t *testing.T, s string, size int) (lines []string, partial string) {
	t.Helper()
	term := lineTerm{emit: func(l string) { lines = append(lines, l) }}
	for p := []byte(s); len(p) > 0; {
		n := min(size, len(p))
		term.Write(p[:n])
		p = p[n:]
	}
	return lines, term.Partial()
}

func TestLineTerm(t *testing.T) {
	for _, test := range []struct {
		name, in string
		lines    []string
		partial  string
	}{
		{"plain", "one\ntwo\r\nthree", []string{"one", "two"}, "three"},
		{"carriage return overwrites", "abcdef\rXY", nil, "XYcdef"},
		{"erase to the end", "abcdef\r\x1b[KXY", nil, "XY"},
		{"erase the line", "abcdef\x1b[2K\rX", nil, "X"},
		{"backspace", "pasd\b\x1b[Ks\bz", nil, "pasz"},
		{"colours", "\x1b[0;1;31mred\x1b[m \x1b[38;5;9mtoo\x1b[0m", nil, "red too"},
		{"title", "\x1b]0;root@host: ~\x07root@host# ", nil, "root@host# "},
		{"title ended by ST", "\x1b]0;x\x1b\\y", nil, "y"},
		{"a title that does not end", "\x1b]0;x\nnext", []string{""}, "next"},
		{"bracketed paste", "\x1b[?2004hroot# \x1b[?2004l\r", nil, "root# "},
		{"character sets", "\x1b(Babc\x1b)0", nil, "abc"},
		{"tab", "a\tb", nil, "a       b"},
		{"move in the line", "abc\x1b[10Gd\x1b[2De", nil, "abc     ed"},
		{"another row", "menu\x1b[5;3Hentry\x1b[6;3Hother\x1b[6;8H!", []string{"menu", "  entry"}, "  other!"},
		{"half a character", "\xe2\x80", nil, ""},
		{"a broken character", "a\xffb\xe2\x80c", nil, "a\ufffdb\ufffdc"},
		{"null and bell", "a\x00b\x07c", nil, "abc"},
		{"an escape in an escape", "\x1b[1\x1b[0mx", nil, "x"},
		{"a line end in an escape", "a\x1b[1\nb", []string{"a"}, "b"},
		{"BIOS", recordedBIOS, []string{
			"SeaBIOS (version 1.16.2-debian-1.16.2-1)", "Booting from Hard Disk...", "GRUB loading...", "Welcome to GRUB", "!",
			"   Boting `Debiann' Boo", "", "'", "", "[    0.000000] Linux version 6.1.0-56-cloud-amd64 (gcc-12)",
		}, ""},
		{"UEFI", recordedUEFI, []string{
			`BdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0)`,
			`BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0)`,
			"EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path",
		}, ""},
		{"systemd", recordedSystemd, []string{
			"[  OK  ] Started serial-getty@ttyS0…rvice - Serial Getty on ttyS0.",
			"[  OK  ] Finished x.service - X.", "", "Debian GNU/Linux 12 peerbox ttyS0", "",
			"peerbox login: [   21.701473] kvm: Nested Virtualization enabled",
		}, ""},
	} {
		for _, size := range []int{1, 3, 1 << 20} {
			lines, partial := feed(t, test.in, size)
			if diff := cmp.Diff(test.lines, lines); diff != "" || partial != test.partial {
				t.Errorf("%s, %d bytes at once: unfinished %q, want %q; lines (-want +got):\n%s", test.name, size, partial, test.partial, diff)
			}
		}
	}
}

func FuzzLineTerm(f *testing.F) {
	for _, s := range []string{recordedBIOS, recordedUEFI, recordedSystemd, "\x1b[9999;9999Hx\x1b[9999Cy", "\x1b[1;2;3;4;5x", "\xe2\x1b\x80", "\x1b]\x1b\x1b\\"} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, s string, size int) {
		lines, partial := feed(t, s, max(1, size%64))
		again, partial2 := feed(t, s, 1<<20)
		if diff := cmp.Diff(again, lines); diff != "" || partial != partial2 {
			t.Fatalf("it matters how the bytes come: %q %q\n%s", partial, partial2, diff)
		}
		for _, l := range append(lines, partial) {
			if !utf8.ValidString(l) || strings.ContainsAny(l, "\x1b\r\n\x00") || utf8.RuneCountInString(l) > maxLine {
				t.Fatalf("not a line: %.100q", l)
			}
		}
	})
}

func TestConsoleMatch(t *testing.T) {
	c := newConsole(nil)
	io.WriteString(c, "one two\nthree\npart")
	for _, test := range []struct {
		re   string
		want []string
	}{
		{`t(w)o`, []string{"two", "w"}},
		{`one`, nil}, // before the last match
		{`ee`, nil},  // searching has gone on to the unfinished line
		{`par`, []string{"par"}},
		{`x*`, nil}, // nothing is no match in a line that is being written
		{`t$`, []string{"t"}},
	} {
		got, _ := c.match(regexp.MustCompile(test.re))
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.re, diff)
		}
	}
	io.WriteString(c, "y\nfour")
	if _, ok := c.match(regexp.MustCompile("^y")); !ok {
		t.Error("the rest of a line is not matched as a line")
	}
	c.skip()
	if _, ok := c.match(regexp.MustCompile("four")); ok {
		t.Error("what was skipped is matched")
	}
	if got, want := c.tail(2), "party\nfour"; got != want {
		t.Errorf("tail %q, want %q", got, want)
	}
	c.close()
	if got, want := c.tail(100), "one two\nthree\nparty\nfour"; got != want {
		t.Errorf("tail %q, want %q", got, want)
	}
}

func TestConsoleBounds(t *testing.T) {
	n := 0
	c := newConsole(func(string) { n++ })
	line := strings.Repeat("x", 299) + "\n"
	for range 2 * keepLines {
		io.WriteString(c, line)
	}
	if len(c.raw) > 2*keepRaw || len(c.lines) > 2*keepLines || n != 2*keepLines {
		t.Errorf("%d bytes and %d lines are kept, %d were passed on", len(c.raw), len(c.lines), n)
	}
	io.WriteString(c, strings.Repeat(strings.Repeat("y", 10<<10)+"\n", 1500))
	if c.lineSize > 2*keepText || c.lines[len(c.lines)-1][0] != 'y' {
		t.Errorf("%d bytes of lines are kept", c.lineSize)
	}
	p, next, lost, err := c.read(context.Background(), 0)
	if !lost || err != nil || next != c.offset() || int64(len(p)) != next-c.rawBase {
		t.Errorf("reading from the start: %d bytes until %d, lost %v, %v", len(p), next, lost, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, _, err := c.read(ctx, next); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: %v", err)
	}
	c.close()
	if _, _, _, err := c.read(context.Background(), next); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if _, ok := c.match(regexp.MustCompile("y")); !ok {
		t.Error("no match in what is kept")
	}
}

func TestDetect(t *testing.T) {
	for _, test := range []struct {
		line    string
		kind    FailureKind
		session bool // seen in a session, too
	}{
		{"[    1.598466] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", Panic, true},
		{"[    1.598466][    T1] Kernel panic - not syncing: Fatal exception", Panic, true},
		{"Kernel panic - not syncing: Attempted to kill init!", Panic, true},
		{"the docs speak of Kernel panic - not syncing", "", false},
		{"[    2.0] systemd[1]: Freezing execution.", InitDied, true},
		{"[!!!!!!] Failed to mount API filesystems, freezing.", InitDied, false},
		{"You are in emergency mode. After logging in, type \"journalctl -xb\" to view", Emergency, false},
		{"You are in rescue mode. After logging in, type", Emergency, false},
		{"Give root password for maintenance", Emergency, false},
		{"(initramfs) ", Initramfs, false},
		{"ALERT!  UUID=1111 does not exist.  Dropping to a shell!", Initramfs, false},
		{"dracut:/# ", Initramfs, false},
		{"grub rescue> ", BootLoader, false},
		{"grub> ", BootLoader, false},
		{"No bootable device.", NothingBoot, false},
		{"BdsDxe: No bootable option or device was found.", NothingBoot, false},
		{"! No virtio device found !", NothingBoot, false},
		{"Failed to load OS from hard disk", NothingBoot, false},
		{"[FAILED] Failed to load OS from hard disk", "", false},
		{"E3404: Not a bootable device!", NothingBoot, false},
		{"E3407: Load failed", NothingBoot, false},
		{"Please enter passphrase for disk root (root): ", Passphrase, false},
		{"[  OK  ] Reached target emergency.target - Emergency Mode.", "", false},
		{"GRUB loading...", "", false},
		{"Welcome to GRUB!", "", false},
		{"peerbox login: ", "", false},
		{"", "", false},
	} {
		for _, session := range []bool{false, true} {
			want := test.kind
			if session && !test.session {
				want = ""
			}
			var got FailureKind
			if f := detect(test.line, session); f != nil {
				got = f.Kind
			}
			if got != want {
				t.Errorf("%q (session %v): %q, want %q", test.line, session, got, want)
			}
		}
	}
}

func TestLoginPrompt(t *testing.T) {
	for line, want := range map[string]bool{
		"peerbox login: ": true, "peerbox login: [   18.07] powernow": true, "(none) login:": true, "login: ": true,
		"host.example.org login: root (automatic login)":                     true,
		"Last login: Mon Jun 1":                                              false,
		"[  OK  ] Started systemd-logind.service - User Login Management.":   false,
		"root login: not allowed here? no: a name has no blank; this is one": true,
	} {
		c := newConsole(nil)
		io.WriteString(c, line)
		m := &Machine{con: c}
		if got := m.sawLogin(); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}

const nonceForTest = "=0123abcd="

func TestDemux(t *testing.T) {
	const p = nonceForTest + ":"
	const end = p + "E" + nonceForTest + " "
	for _, test := range []struct {
		name, in, out string
		status        int
	}{
		{"plain", p + "a\n" + p + "b\n" + p + "\n" + end + "0\n", "a\nb\n", 0},
		{"no newline at the end", p + "a\n" + end + "3\n", "a", 3},
		{"nothing", p + "\n" + end + "127\n", "", 127},
		{"carriage returns", p + "a\r\n" + p + "\r\r\n" + end + "0\r\n", "a\n", 0},
		{"strangers between lines", "junk\n" + p + "a\n[   12.345678] random: crng init done\nWall message\n" + p + "b\n" + p + "\n" + end + "0\n", "a\nb\n", 0},
		{"a split line", p + "hel[   12.345678] random: crng init done\r\nlo\n" + p + "\n" + end + "0\n", "hello\n", 0},
		{"split by several", p + "hel[   12.345678] one\r\n[   12.345679] two\r\nlo\n" + p + "\n" + end + "0\n", "hello\n", 0},
		{"split twice", p + "he[   12.345678] one\r\nl[   12.345679] two\r\nlo\n" + p + "\n" + end + "0\n", "hello\n", 0},
		{"a split prefix", p[:4] + "[   12.345678] one\r\n" + p[4:] + "hello\n" + p + "\n" + end + "0\n", "hello\n", 0},
		{"a split mark", p + "hello\n" + p + "\n" + end[:15] + "[   12.345678][    T1] one\r\n" + end[15:] + "4\n", "hello\n", 4},
		{"time stamps of the command", p + "[    1.000000] mine\n" + p + "x [    2.000000] mine, too\n" + p + "\n" + end + "0\n", "[    1.000000] mine\nx [    2.000000] mine, too\n", 0},
		{"its stamp in a split line", p + "[    1.000000] mi[   12.345678] one\r\nne\n" + p + "\n" + end + "0\n", "[    1.000000] mine\n", 0},
		{"after the end", p + "a\n" + end + "0\n" + p + "b\n" + end + "9\n", "a", 0},
		{"a mark without a status", p + "a\n" + end + "x\n" + end + "1\n", "a\n" + end[len(p):] + "x", 1},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			d := newDemux(nonceForTest)
			for in := []byte(test.in); len(in) > 0; {
				n := min(size, len(in))
				d.Write(in[:n])
				in = in[n:]
			}
			if !d.done || d.output() != test.out || d.status != test.status {
				t.Errorf("%s: done %v, status %d, %q; want %d %q", test.name, d.done, d.status, d.output(), test.status, test.out)
			}
		}
	}
}

// Whatever a command writes comes back, with kernel messages at any place in it.
func FuzzDemux(f *testing.F) {
	f.Add("hello\nworld\n", 3, 20)
	f.Add("[    1.000000] mine\nx", 12, 13)
	f.Add("", 0, 40)
	f.Fuzz(func(t *testing.T, out string, first, second int) {
		if strings.ContainsAny(out, "\r") {
			t.Skip("line ends are made plain")
		}
		if strings.Contains(out, "[") && kernelRE.MatchString(out) {
			t.Skip("which of two time stamps in a line is the kernel's cannot always be known")
		}
		var stream strings.Builder
		for _, l := range strings.Split(out+"\nE"+nonceForTest+" 5", "\n") {
			stream.WriteString(nonceForTest + ":" + l + "\n")
		}
		s := stream.String()
		at := []int{abs(first) % (len(s) + 1), abs(second) % (len(s) + 1)}
		if at[0] > at[1] {
			at[0], at[1] = at[1], at[0]
		}
		noise := "[  123.456789] the kernel says something\r\n"
		s = s[:at[0]] + noise + s[at[0]:at[1]] + noise + s[at[1]:]
		d := newDemux(nonceForTest)
		io.WriteString(d, s)
		if !d.done || d.status != 5 || d.output() != out {
			t.Fatalf("%q\ngave %v %d %q, want %q", s, d.done, d.status, d.output(), out)
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}

func TestVisible(t *testing.T) {
	const n = nonceForTest
	for in, want := range map[string]string{
		n + ":output": "output", n + ":": "", "plain": "plain", n + ":E" + n + " 0 ": "E" + n + " 0 ",
	} {
		if got, ok := visible(in); got != want || !ok {
			t.Errorf("%q: %q %v", in, got, ok)
		}
	}
	for _, in := range []string{n + ":E" + n + " 0", n + ":A" + n + " 12", n + ":R" + n, "root# " + sessionScript(n)} {
		if got, ok := visible(in); ok {
			t.Errorf("%q shows as %q", in, got)
		}
	}
}
