// Making an initramfs for another architecture with programs of this one.
package stages

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// borrowed returns the name of a program in an initramfs that is of this machine's
// architecture, "" if there is none: a hook may have copied one that was seen in place
// of the tree's. Archives that follow each other, and zstd and gzip, are known.
func borrowed(path string) (string, error) {
	own, err := machineOf("/proc/self/exe")
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		head, err := r.Peek(6)
		switch {
		case errors.Is(err, io.EOF) && len(bytes.Trim(head, "\x00")) == 0:
			return "", nil
		case err != nil:
			return "", fmt.Errorf("reading %s: %w", path, err)
		case head[0] == 0: // between archives
			if _, err := r.Discard(1); err != nil {
				return "", err
			}
			continue
		case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(1<<30))
			if err != nil {
				return "", err
			}
			defer z.Close()
			r = bufio.NewReaderSize(z, 1<<20)
			continue
		case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
			z, err := gzip.NewReader(r)
			if err != nil {
				return "", err
			}
			r = bufio.NewReaderSize(z, 1<<20)
			continue
		}
		if name, err := findMachine(r, own); name != "" || err != nil {
			return name, err
		}
	}
}

func machineOf(path string) (elf.Machine, error) {
	f, err := elf.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Machine, nil
}

// findMachine reads one cpio archive (newc) to its end, or to a program of a machine.
func findMachine(r io.Reader, m elf.Machine) (string, error) {
	at := int64(0)
	read := func(n int64) ([]byte, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		at += n
		return b, err
	}
	skip := func(n int64) error {
		at += n
		_, err := io.CopyN(io.Discard, r, n)
		return err
	}
	pad := func() error { return skip(-at & 3) }
	for {
		h, err := read(110)
		if err != nil {
			return "", fmt.Errorf("reading an initramfs: %w", err)
		}
		size, err1 := strconv.ParseUint(string(h[54:62]), 16, 32)
		length, err2 := strconv.ParseUint(string(h[94:102]), 16, 16)
		if err := errors.Join(err1, err2); err != nil || !bytes.HasPrefix(h, []byte("07070")) {
			return "", errors.Join(errors.New("reading an initramfs: it is no archive of cpio"), err)
		}
		name, err := read(int64(length))
		if err != nil {
			return "", fmt.Errorf("reading an initramfs: %w", err)
		}
		if err := pad(); err != nil {
			return "", err
		}
		head, err := read(min(int64(size), 20))
		if err != nil {
			return "", fmt.Errorf("reading an initramfs: %w", err)
		}
		text := string(bytes.TrimRight(name, "\x00"))
		if text == "TRAILER!!!" {
			return "", pad()
		}
		if len(head) == 20 && bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
			got := elf.Machine(head[18]) | elf.Machine(head[19])<<8
			if elf.Data(head[5]) == elf.ELFDATA2MSB {
				got = elf.Machine(head[19]) | elf.Machine(head[18])<<8
			}
			if got == m {
				return text, nil
			}
		}
		if err := skip(int64(size) - int64(len(head))); err != nil {
			return "", err
		}
		if err := pad(); err != nil {
			return "", err
		}
	}
}
