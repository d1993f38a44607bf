package xz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os/exec"
	"strings"
	"testing"
)

// samples are contents of different kinds.
func samples() map[string][]byte {
	r := rand.New(rand.NewSource(1))
	random := make([]byte, 300_000)
	r.Read(random)
	var text strings.Builder
	words := strings.Fields("the quick brown fox jumps over a lazy dog and /usr/share/doc/package/copyright 0123456789")
	for text.Len() < 1_200_000 {
		text.WriteString(words[r.Intn(len(words))])
		text.WriteByte(" \n"[r.Intn(2)])
	}
	// What repeats at a distance of more than a small dictionary, and of every small one.
	var far bytes.Buffer
	for i := range 12 {
		far.Write(random[:100_000+i])
		for d := range 20 {
			far.Write(bytes.Repeat(random[d*50:d*50+d+1], 40))
		}
	}
	return map[string][]byte{
		"empty": {}, "one": {7}, "zeros": make([]byte, 3_000_000), "random": random, "text": []byte(text.String()), "far": far.Bytes(),
	}
}

func compress(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("xz", append([]string{"-c"}, args...)...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz %v: %v", args, err)
	}
	return out
}

func decode(d *Decoder, file []byte) ([]byte, error) {
	d.Reset(bytes.NewReader(file))
	var out bytes.Buffer
	for {
		p, err := d.Next()
		if err == io.EOF {
			return out.Bytes(), nil
		}
		if err != nil {
			return out.Bytes(), err
		}
		if len(p) == 0 {
			return nil, errors.New("an empty piece")
		}
		out.Write(p)
	}
}

func needXz(t testing.TB) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip(err)
	}
}

func TestDecode(t *testing.T) {
	needXz(t)
	var d Decoder // one for all: it is used again and again
	for name, data := range samples() {
		for _, args := range []string{
			"-0", "-6", "-9e", "-T2 --block-size=100000", "--check=none", "--check=crc32", "--check=sha256",
			"--lzma2=dict=4096", "--lzma2=dict=65536,lc=0,lp=4,pb=0", "--lzma2=preset=6,lc=4,lp=0,pb=4", "--lzma2=lc=1,lp=2,pb=1",
		} {
			got, err := decode(&d, compress(t, data, strings.Fields(args)...))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s with %s: %d bytes of %d, %v", name, args, len(got), len(data), err)
			}
		}
	}
}

func TestDecodeStreams(t *testing.T) {
	needXz(t)
	one, two := compress(t, []byte("one")), compress(t, []byte("two"))
	file := bytes.Join([][]byte{one, make([]byte, 8), two, make([]byte, 4)}, nil)
	if got, err := decode(new(Decoder), file); err != nil || string(got) != "onetwo" {
		t.Errorf("%q, %v", got, err)
	}
	for _, tail := range []string{"\x00\x00", "rubbish", "\x00\x00\x00\x00x"} {
		if _, err := decode(new(Decoder), append(bytes.Clone(one), tail...)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("with %q behind it: %v", tail, err)
		}
	}
}

// Nothing that is damaged is taken for whole, and nothing makes it panic.
func TestDecodeDamaged(t *testing.T) {
	needXz(t)
	var d Decoder
	data := samples()["text"][:4_000]
	file := compress(t, data, "--block-size=1500")
	for n := range file {
		if _, err := decode(&d, file[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are taken for a whole file", n, len(file))
		}
	}
	bad := make([]byte, len(file))
	for n := range file {
		for _, bit := range []byte{1, 0x80} {
			copy(bad, file)
			bad[n] ^= bit
			got, err := decode(&d, bad)
			if err == nil {
				t.Fatalf("a change of byte %d goes unnoticed (%v)", n, bytes.Equal(got, data))
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("a change of byte %d: %v", n, err)
			}
		}
	}
}

func TestDecodeUnsupported(t *testing.T) {
	needXz(t)
	for _, args := range []string{"--x86 --lzma2", "--delta --lzma2", "--lzma2=dict=1GiB"} {
		if _, err := decode(new(Decoder), compress(t, []byte("some data"), strings.Fields(args)...)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// A reader's own error is passed on.
func TestDecodeReadError(t *testing.T) {
	needXz(t)
	want := errors.New("disk on fire")
	var d Decoder
	d.Reset(io.MultiReader(bytes.NewReader(compress(t, []byte("x"))[:20]), errReader{want}))
	if _, err := d.Next(); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func FuzzDecode(f *testing.F) {
	if _, err := exec.LookPath("xz"); err == nil {
		for _, data := range []string{"", "hello, hello, hello", strings.Repeat("abc", 5000)} {
			f.Add(compress(f, []byte(data)))
			f.Add(compress(f, []byte(data), "--check=none", "--block-size=100"))
		}
	}
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F"))
	f.Fuzz(func(t *testing.T, file []byte) {
		var d Decoder
		d.Reset(bytes.NewReader(file))
		for total := 0; total < 8<<20; { // a few bytes can be a block of gigabytes
			p, err := d.Next()
			if err != nil {
				return
			}
			total += len(p)
		}
	})
}

// The chunks of a file whose checksums are right can still be anything.
func FuzzChunk(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00"), byte(93), 100)
	f.Add(bytes.Repeat([]byte{0, 0xff, 0x55}, 300), byte(0), 40000)
	f.Fuzz(func(t *testing.T, data []byte, props byte, limit int) {
		if len(data) > inMax || limit < 1 || limit > 1<<17 {
			return
		}
		d := &lzma{buf: make([]byte, limit+slack)}
		if !d.props(props) {
			return
		}
		d.resetState()
		in := new(input)
		copy(in[:], data)
		d.chunk(in, len(data), limit)
	})
}

func BenchmarkDecode(b *testing.B) {
	needXz(b)
	data := samples()["text"]
	file := compress(b, data)
	var d Decoder
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := decode(&d, file); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleDecoder() {
	var d Decoder
	d.Reset(strings.NewReader("this is no xz file"))
	_, err := d.Next()
	fmt.Println(err)
	// Output: damaged xz data: it does not start as an xz file
}
