package stages

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeMkimage puts a grub-mkimage in front of all others whose program is its
// arguments, one in a line, and the embedded configuration.
func fakeMkimage(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
printf '%s\n' "$@" >"$0.args"
while [ $# -gt 0 ]; do
	case "$1" in --output) out="$2" ;; --config) config="$2" ;; esac
	shift
done
{ cat "$0.args" "$config"; printf '%01000d' 0; } >"$out"
`
	if err := os.WriteFile(filepath.Join(dir, "grub2-mkimage"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestStarGrubPReP(t *testing.T) {
	fakeMkimage(t)
	const options = `{"filename": "disk.img", "start": 2048, "size": 4096, "root-uuid": "6E4FF95F-f662-45ee-a82a-bdf44a2d0b75",
		"directory": "input://grub/usr/lib/grub/powerpc-ieee1275"}`
	c := testContext(t, nil)
	c.Options = []byte(options)
	img := blankImage(t, c, "disk.img", 8<<20)
	before := bytes.Repeat([]byte{0xaa}, 8<<20)
	if err := os.WriteFile(img, before, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Inputs["grub"] = InputArg{Path: filepath.Join(c.Paths.Inputs, "grub")}
	var e *Error
	if err := runStarGrubPReP(c); !errors.As(err, &e) || !strings.Contains(e.Msg, "has no modules of GRUB") {
		t.Errorf("without modules: %v", err)
	}
	modules := filepath.Join(c.Paths.Inputs, "grub/usr/lib/grub/powerpc-ieee1275")
	writeTree(t, modules, map[string]string{"normal.mod": "", "ext2.mod": "", "linux.mod": "", "unknown.mod": ""})
	mustRun(t, "org.osbuild-star.grub.prep", c)
	after, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	at, end := 2048*512, (2048+4096)*512
	if !bytes.Equal(after[:at], before[:at]) || !bytes.Equal(after[end:], before[end:]) {
		t.Error("more than the partition was written")
	}
	if bytes.Contains(after[at:end], []byte{0xaa}) {
		t.Error("what was in the partition is still there behind the program")
	}
	program := string(bytes.TrimRight(after[at:end], "\x00"))
	for _, want := range []string{
		"--directory\n" + modules + "\n", "--format\npowerpc-ieee1275\n", "--prefix\n/boot/grub\n",
		"\next2\nnormal\nlinux\n", "--set=root 6e4ff95f-f662-45ee-a82a-bdf44a2d0b75\nset prefix=($root)/boot/grub\n",
	} {
		if !strings.Contains(program, want) {
			t.Errorf("the program has no %q:\n%s", want, program)
		}
	}
	if strings.Contains(program, "unknown") {
		t.Error("it has a module that nobody asked for")
	}
	c.Options = []byte(strings.Replace(options, "4096", "1", 1))
	if err := runStarGrubPReP(c); !errors.As(err, &e) || !strings.Contains(e.Msg, "and the PReP partition 512") {
		t.Errorf("too small a partition: %v", err)
	}
}

// The modules of a machine whose package the build root cannot have.
func TestStarGrubDirectory(t *testing.T) {
	fakeMkimage(t)
	c := testContext(t, map[string]any{
		"platform": "arm64-efi", "path": "/EFI/BOOT/BOOTAA64.EFI", "root-uuid": testUUID, "directory": "input://grub/usr/lib/grub/arm64-efi",
	})
	c.Inputs["grub"] = InputArg{Path: filepath.Join(c.Paths.Inputs, "grub")}
	modules := filepath.Join(c.Paths.Inputs, "grub/usr/lib/grub/arm64-efi")
	writeTree(t, modules, map[string]string{"normal.mod": ""})
	mustRun(t, "org.osbuild-star.grub.efi", c)
	program, err := os.ReadFile(c.TreePath("/EFI/BOOT/BOOTAA64.EFI"))
	if want := "--directory\n" + modules + "\n"; err != nil || !strings.Contains(string(program), want) {
		t.Errorf("%v: the program has no %q:\n%s", err, want, program)
	}
}
