// The parsers: archives, control data, versions, relations, filters.
package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCompareVersions(t *testing.T) {
	// In ascending order; those of one line are equal.
	order := [][]string{
		{"0~~", "0:0~~"}, {"0~"}, {"0", "0-0", "00"}, {"0a"}, {"0+"}, {"1~rc1"}, {"1~rc1-1"}, {"1-0~bpo1"}, {"1", "1-0", "01", "0:1"},
		{"1-1"}, {"1-1+b1"}, {"1-1.1"}, {"1-2"}, {"1-10"}, {"1a"}, {"1+b"}, {"1.0"}, {"1.2.3-4-5"}, {"1.10"},
		{"20250101-1"}, {"99999999999999999999998"}, {"99999999999999999999999"}, {"1:0"}, {"1:0.1"}, {"2:0"}, {"10:0"},
	}
	for i, as := range order {
		for j, bs := range order {
			for _, a := range as {
				for _, b := range bs {
					want := 0
					if i < j {
						want = -1
					} else if i > j {
						want = 1
					}
					if got := compareVersions(a, b); got != want {
						t.Errorf("%s and %s: %d, want %d", a, b, got, want)
					}
				}
			}
		}
	}
}

// The dpkg of this machine has the last word.
func FuzzCompareVersions(f *testing.F) {
	dpkg, err := exec.LookPath("dpkg")
	for _, s := range [][2]string{{"1.0", "1.0-1"}, {"1~", "1"}, {"1:1", "2"}, {"1.2-3-4", "1.2-3"}, {"1-0~bpo1", "1"}, {"1.0a", "1.0+"}, {"0.0.9", "0.00.10"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		got := compareVersions(a, b)
		if back := compareVersions(b, a); got != -back {
			t.Fatalf("%q and %q: %d, and the other way round %d", a, b, got, back)
		}
		for _, v := range []string{a, b} {
			_, up, rev := splitVersion(v)
			if !validVersion(v) || up == "" || !isDigit(up[0]) || strings.HasSuffix(v, "-") || strings.Contains(rev, ":") ||
				strings.HasPrefix(v, ":") || strings.Count(v, ":") > 1 || len(v) > 40 {
				return
			}
			if e, _, ok := strings.Cut(v, ":"); ok && (len(e) > 6 || strings.Trim(e, "0123456789") != "") {
				return
			}
		}
		if err != nil {
			return
		}
		op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[got]
		if out, err := exec.Command(dpkg, "--compare-versions", a, op, b).CombinedOutput(); err != nil {
			t.Errorf("%q %s %q: dpkg says no: %v %s", a, op, b, err, out)
		}
	})
}

func TestRelations(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"a1":                           "a1",
		" aa (>=1) |bb:any, cc(<<2~) ": "aa (>= 1) | bb:any, cc (<< 2~)",
		"aa (< 1), bb (> 2), cc (3)":   "aa (<= 1), bb (>= 2), cc (= 3)",
		"aa,\n bb,\n":                  "aa, bb",
	} {
		r, err := parseRelations(in)
		if err != nil || r.String() != want {
			t.Errorf("%q: %q, %v, want %q", in, r, err, want)
		}
	}
	for _, bad := range []string{"aa (", "aa >= 1", "aa (>= )", "aa (=> 1)", "-a", "aa | | bb", "aa (>= 1) x", "a b"} {
		if r, err := parseRelations(bad); err == nil {
			t.Errorf("%q is taken for %q", bad, r)
		}
	}
	p := &pkg{name: "libx", arch: "amd64", version: "2.0-1", provides: relations{{{name: "virt"}}, {{name: "api", op: "=", version: "3"}}}}
	for in, want := range map[string]bool{
		"libx": true, "libx (>= 2)": true, "libx (>> 2.0-1)": false, "libx:any": true, "libx:armhf": false, "libx (= 2.0-1)": true,
		"virt": true, "virt (>= 1)": false, "api (>= 2)": true, "api (<< 3)": false, "other": false, "libx (<= 2.0)": false, "libx (<< 3)": true,
	} {
		r, err := parseRelation(in)
		if err != nil || r.matches(p) != want {
			t.Errorf("%q matches: %v, %v", in, r.matches(p), err)
		}
	}
}

func FuzzRelations(f *testing.F) {
	f.Add("aa (>= 1) | bb:any, cc")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRelations(s)
		if err != nil {
			return
		}
		again, err := parseRelations(r.String())
		if err != nil || again.String() != r.String() {
			t.Errorf("%q becomes %q, and that %q (%v)", s, r, again, err)
		}
	})
}

func TestParseParagraph(t *testing.T) {
	got, err := parseParagraph("Package: aa\n# comment\nDescription:  two words \n long line\n .\n  more\nEmpty:\n")
	want := paragraph{{"Package", "aa"}, {"Description", "two words \n long line\n .\n  more"}, {"Empty", ""}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(field{})); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{" a: b\n", "a: b\n\nc: d\n", "a\n", ": b\n", "a b: c\n", "A: 1\na: 2\n"} {
		if p, err := parseParagraph(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, p)
		}
	}
}

func FuzzControl(f *testing.F) {
	f.Add("Package: aa\nVersion: 1\nArchitecture: all\nDepends: bb (>= 1)\nDescription: x\n y\n", "/etc/a\nremove-on-upgrade /etc/b\n", "interest /x\nactivate y\n")
	f.Fuzz(func(t *testing.T, control, conffiles, triggers string) {
		conf, err := parseConffiles(conffiles)
		if err != nil {
			conf = nil
		}
		parseTriggers(triggers)
		fields, err := parseParagraph(control)
		if err != nil {
			return
		}
		p, err := newPkg(fields)
		if err != nil {
			return
		}
		if strings.ContainsAny(p.infoName(), "/\n") {
			t.Errorf("the name %q", p.infoName())
		}
		entries, err := parseStatus(p.statusText(conf))
		if err != nil || len(entries) != 1 {
			t.Fatalf("its status cannot be read again: %v\n%s", err, p.statusText(conf))
		}
		if e := entries[p.id()]; e == nil || e.state != "unpacked" || e.version != p.version {
			t.Errorf("its status is another: %+v", e)
		}
	})
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"./": "/.", ".": "/.", "": "/.", "/": "/.", "./usr/bin/": "/usr/bin", "usr": "/usr", "/etc/x": "/etc/x", ".//a//b/./c/": "/a/b/c",
		"./.hidden": "/.hidden", ".hidden": "/.hidden", "./a..b/..c": "/a..b/..c", "././a": "/a",
	} {
		if got, err := cleanName(in); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"..", "./..", "a/../b", "./a/..", "a\nb", "a\x00b", "//.."} {
		if got, err := cleanName(bad); err == nil {
			t.Errorf("%q is taken for %q", bad, got)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	f.Add("./usr//bin/./x/")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := cleanName(s)
		if err != nil {
			return
		}
		want := path.Clean("/" + s)
		if want == "/" {
			want = "/."
		}
		if got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	})
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"/usr/share/doc/*", "/usr/share/doc/a/b/c", true}, {"/usr/share/doc/*", "/usr/share/doc", false}, {"*", "", true}, {"", "", true}, {"", "a", false},
		{"/a/*/c", "/a/b/b/c", true}, {"/a/*/c", "/a/b/b/d", false}, {"*.gz", "/x.gz.gz", true}, {"**a**", "bab", true}, {"a?c", "a/c", true}, {"a?c", "ac", false},
		{"[abc]", "b", true}, {"[!abc]", "b", false}, {"[^a-c]x", "dx", true}, {"[a-c]x", "bx", true}, {"[]]", "]", true}, {"[", "[", true}, {"[a", "[a", true},
		{`\*`, "*", true}, {`\*`, "a", false}, {`[\]]`, "]", true}, {"[a-]", "-", true}, {"/usr/share/locale/[a-z]*", "/usr/share/locale/de/x", true},
	} {
		if got := match(tt.pattern, tt.s); got != tt.want {
			t.Errorf("%q and %q: %v", tt.pattern, tt.s, got)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("/usr/*[a-z]?\\*", "/usr/x")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if got := match(pattern, s); !strings.ContainsAny(pattern, "*?[\\") && got != (pattern == s) {
			t.Errorf("%q and %q", pattern, s)
		}
	})
}

func TestParseFilter(t *testing.T) {
	for in, want := range map[string]Filter{
		"path-exclude=/usr/share/doc/*\n": {false, "/usr/share/doc/*"}, "path-include /a": {true, "/a"}, "  path-exclude = \"/b c\"": {false, "/b c"},
	} {
		if got, ok := parseFilter(in); !ok || got != want {
			t.Errorf("%q: %+v %v", in, got, ok)
		}
	}
	for _, no := range []string{"", "# path-exclude=/a", "path-excluded=/a", "log /var/log/dpkg.log", "path-exclude="} {
		if got, ok := parseFilter(no); ok {
			t.Errorf("%q: %+v", no, got)
		}
	}
}

func TestTriggers(t *testing.T) {
	for _, bad := range []string{"interest", "watch /x", "interest a/b", "interest ..", "interest File", "activate Unincorp", "interest /a/../b", "interest a b"} {
		if got, err := parseTriggers(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
}

func TestReadTables(t *testing.T) {
	if _, err := parseDiversions("/a\n/b\n"); err == nil {
		t.Error("a record of two lines is taken")
	}
	names := ids{users: map[string]uint32{"root": 0}, groups: map[string]uint32{"mail": 8}}
	got, err := parseOverrides("root mail 2775 /a b\n#7 #9 0600 /c\n", names)
	want := map[string]attr{"/a b": {mode: 0o2775, gid: 8}, "/c": {mode: 0o600, uid: 7, gid: 9}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(attr{})); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"root mail /a\n", "none mail 755 /a\n", "root mail 999 /a\n", "root mail 77777 /a\n", "root #x 755 /a\n"} {
		if got, err := parseOverrides(bad, names); err == nil {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
}

func TestDoesNothing(t *testing.T) {
	const head = "#!/bin/sh\nset -e\n"
	for _, yes := range []string{
		head, head + "# comment\n\nexit 0\n",
		head + "dpkg-maintscript-helper rm_conffile /etc/x 1.2\\~ -- \"$@\"\n",
		head + "dpkg-maintscript-helper dir_to_symlink /a ../b 2022g-1\\~ pkg -- \"$@\"\n",
		head + "if [ \"$1\" = \"install\" ] && [ -n \"$2\" ] && [ -e \"/etc/init.d/x\" ] ; then\n\tchmod +x \"/etc/init.d/x\" >/dev/null || true\nfi\n",
	} {
		if !doesNothing(yes) {
			t.Errorf("it does nothing:\n%s", yes)
		}
	}
	for _, no := range []string{
		"", "#!/usr/bin/perl\n", head + "true\n", head + "dpkg-maintscript-helper supports rm_conffile\n",
		head + "dpkg-maintscript-helper rm_conffile /etc/x 1.2 -- \"$@\"; touch /x\n",
		head + "dpkg-maintscript-helper rm_conffile $(touch /x) 1.2 -- \"$@\"\n",
		head + "dpkg-maintscript-helper rm_conffile `touch /x` 1.2 -- \"$@\"\n",
		head + "if [ \"$1\" = \"install\" ] && [ -n \"$2\" ] && [ -e \"/x\" ] ; then\n\ttouch /x\nfi\n",
		head + "if [ \"$1\" = \"install\" ] && [ -n \"$2\" ] && [ -e \"/x\" ] ; then\n",
		head + "if [ \"$1\" = \"install\" ] && [ -e \"/x\" ] ; then\nfi\n",
		head + "dpkg-maintscript-helper rm_conffile /etc/x 1.2 -- \"$@\" \\\n|| touch /x\n",
	} {
		if doesNothing(no) {
			t.Errorf("it may do something:\n%s", no)
		}
	}
}

// makeAr makes an ar archive of names and contents in turn.
func makeAr(parts ...string) []byte {
	var b bytes.Buffer
	b.WriteString(arMagic)
	for i := 0; i+1 < len(parts); i += 2 {
		b.WriteString(arHeader(parts[i], len(parts[i+1])) + parts[i+1])
		if len(parts[i+1])%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func arHeader(name string, size int) string {
	pad := func(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }
	return pad(name, 16) + pad("0", 12) + pad("0", 6) + pad("0", 6) + pad("100644", 8) + pad(itoa(size), 10) + "`\n"
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func TestReadAr(t *testing.T) {
	good := makeAr("debian-binary", "2.0\n", "_own", "xyz", "control.tar.xz/", "odd", "data.tar", "content", "more", "x")
	control, data, err := readAr(bytes.NewReader(good), int64(len(good)))
	if err != nil || control.name != "control.tar.xz" || data.size != 7 || string(good[data.off:data.off+data.size]) != "content" {
		t.Errorf("%+v %+v %v", control, data, err)
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "no archive": []byte("rubbish, and more rubbish"), "only magic": []byte(arMagic),
		"other version": makeAr("debian-binary", "3.0\n", "control.tar", "", "data.tar", ""),
		"no version":    makeAr("control.tar", "", "data.tar", ""),
		"other order":   makeAr("debian-binary", "2.0\n", "data.tar", "", "control.tar", ""),
		"no data":       makeAr("debian-binary", "2.0\n", "control.tar", ""),
		"cut off":       good[:len(good)-70],
		"strange":       makeAr("debian-binary", "2.0\n", "control.tar", "", "data.tarx", ""),
		"size":          []byte(arMagic + strings.Replace(arHeader("debian-binary", 4), "4         `", "-4        `", 1) + "2.0\n"),
	} {
		if _, _, err := readAr(bytes.NewReader(bad), int64(len(bad))); !errors.Is(err, ErrNotArchive) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadAr(f *testing.F) {
	f.Add(makeAr("debian-binary", "2.0\n", "control.tar.xz", "odd", "data.tar.zst", "content"))
	f.Fuzz(func(t *testing.T, file []byte) {
		control, data, err := readAr(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		for _, m := range []member{control, data} {
			if m.off < 0 || m.size < 0 || m.off+m.size > int64(len(file)) {
				t.Errorf("member %+v of %d bytes", m, len(file))
			}
		}
	})
}

// tarOf makes a tar archive.
func tarOf(t testing.TB, format tar.Format, entries ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		h.Format, h.ModTime = format, time.Unix(1600000000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readTar reads an archive that comes in pieces of a given size.
func readTar(file []byte, size int) (names []string, content int, err error) {
	var list [][]byte
	for p := range slices.Chunk(file, size) {
		list = append(list, p)
	}
	r := &tarReader{src: &pieces{list, io.EOF}}
	for {
		e, err := r.next()
		if err == io.EOF {
			return names, content, nil
		}
		if err != nil {
			return names, content, err
		}
		names = append(names, string(e.kind)+" "+e.name+" "+e.link)
		for {
			p, err := r.body()
			if err != nil {
				return names, content, err
			}
			if p == nil {
				break
			}
			content += len(p)
		}
	}
}

func TestReadTar(t *testing.T) {
	long := "./" + strings.Repeat("long/", 60)
	entries := []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, {Typeflag: tar.TypeReg, Name: "./file", Size: 1000, Mode: 0o4755, Uid: 3000000, Gid: 5, Uname: "u"},
		{Typeflag: tar.TypeReg, Name: long + "file", Size: 512}, {Typeflag: tar.TypeSymlink, Name: "./link", Linkname: long + "to"},
		{Typeflag: tar.TypeLink, Name: "./hard", Linkname: "./file"}, {Typeflag: tar.TypeChar, Name: "./dev", Devmajor: 4, Devminor: 64}, {Typeflag: tar.TypeFifo, Name: "./fifo"},
	}
	file := tarOf(t, tar.FormatGNU, entries...)
	want := []string{"5 ./ ", "0 ./file ", "0 " + long + "file ", "2 ./link " + long + "to", "1 ./hard ./file", "3 ./dev ", "6 ./fifo "}
	for _, size := range []int{1, 511, 512, 1000, 1 << 20} {
		names, content, err := readTar(file, size)
		if diff := cmp.Diff(want, names); diff != "" || content != 1512 || err != nil {
			t.Errorf("pieces of %d: %d bytes, %v\n%s", size, content, err, diff)
		}
	}
	for n := range len(file) - 1024 {
		if _, _, err := readTar(file[:n], 700); n%512 != 0 && err == nil {
			t.Fatalf("the first %d bytes of %d are taken", n, len(file))
		}
	}
	if _, _, err := readTar(tarOf(t, tar.FormatPAX, tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("ü", 200)}), 700); !errors.Is(err, errTar) {
		t.Errorf("a PAX header: %v", err)
	}
	bad := bytes.Clone(file)
	bad[3] ^= 1
	if _, _, err := readTar(bad, 700); !errors.Is(err, errTar) {
		t.Errorf("a changed header: %v", err)
	}
	r := &tarReader{src: &pieces{[][]byte{file[:1600]}, errTest}}
	for {
		if _, err := r.next(); err != nil {
			if !errors.Is(err, errTest) {
				t.Errorf("an error of the source becomes %v", err)
			}
			break
		}
	}
}

func TestTarNumber(t *testing.T) {
	for in, want := range map[string]int64{"0000644\x00": 0o644, "   17 \x00\x00": 15, "\x00\x00\x00\x00\x00\x00\x00\x00": 0,
		"\x80\x00\x00\x00\x00\x2d\xc6\xc0": 3000000, "\xff\xff\xff\xff\xff\xff\xff\xff": -1, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00": 256} {
		if got, ok := number([]byte(in)); !ok || got != want {
			t.Errorf("%q: %d %v, want %d", in, got, ok, want)
		}
	}
	for _, bad := range []string{"0000648\x00", "-0000001", "abc\x00\x00\x00\x00\x00", "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if got, ok := number([]byte(bad)); ok {
			t.Errorf("%q is taken for %d", bad, got)
		}
	}
}

func FuzzReadTar(f *testing.F) {
	f.Add(tarOf(f, tar.FormatGNU, tar.Header{Typeflag: tar.TypeReg, Name: "./x", Size: 700}, tar.Header{Typeflag: tar.TypeSymlink, Name: "./" + strings.Repeat("n", 150), Linkname: "x"}), 300)
	f.Add(tarOf(f, tar.FormatUSTAR, tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("d/", 60) + "x"}), 4096)
	f.Fuzz(func(t *testing.T, file []byte, size int) {
		if size < 1 || size > 1<<16 {
			return
		}
		_, content, _ := readTar(file, size)
		if content > len(file) {
			t.Errorf("%d bytes of content in %d", content, len(file))
		}
	})
}

func FuzzOpenJob(f *testing.F) {
	control := tarOf(f, tar.FormatGNU, tar.Header{Typeflag: tar.TypeReg, Name: "./control", Size: 0})
	f.Add(makeAr("debian-binary", "2.0\n", "control.tar", string(control), "data.tar", ""))
	f.Fuzz(func(t *testing.T, file []byte) {
		path := t.TempDir() + "/x.deb"
		must(t, os.WriteFile(path, file, 0o644))
		if j, err := openJob(path); err == nil {
			j.close()
		}
	})
}
