package stages

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestZipl(t *testing.T) {
	conf := func(timeout string) map[string]string {
		return map[string]string{"/etc/zipl.conf": "[defaultboot]\ndefaultauto\nprompt=1\ntimeout=" + timeout + "\ntarget=/boot\n"}
	}
	runCases(t, "org.osbuild.zipl", []stageCase{
		{name: "default", options: `{}`, want: conf("0")},
		{name: "timeout", options: `{"timeout": 30}`, tree: conf("1"), want: conf("30")},
		{name: "as Python prints it", options: `{"timeout": 3.0}`, want: conf("3.0")},
		{name: "an exponent", options: `{"timeout": 1e3}`, want: conf("1000.0")},
		{name: "a small one", options: `{"timeout": 0.5}`, want: conf("0.5")},
		{name: "a link leads nowhere but into the tree", options: `{}`,
			tree: map[string]string{"/etc": "-> /usr/etc", "/usr/etc": "dir"},
			want: map[string]string{"/etc": "-> /usr/etc", "/usr/etc/zipl.conf": conf("0")["/etc/zipl.conf"]}},
	})
}

// fakeZipl puts a zipl that writes down its arguments in front of all others.
func fakeZipl(t *testing.T) (calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "calls")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" >>" + out + "\n"
	if err := os.WriteFile(filepath.Join(dir, "zipl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		b, err := os.ReadFile(out)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		_ = os.Remove(out)
		return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}
}

func TestZiplInst(t *testing.T) {
	entries := map[string]string{
		"boot/loader/entries/0-rescue.conf": "version 6.8\nlinux /vmlinuz-rescue\ninitrd /initrd\n",
		"boot/loader/entries/1-other.conf":  "title other\nversion 6.7\nlinux /vmlinuz-6.7\ninitrd /initrd-6.7\n",
		"boot/loader/entries/2-it.conf":     "title it\nversion  6.8 \noptions root=/dev/vda1 ro\nlinux /vmlinuz-6.8\ninitrd /initrd-6.8\n",
		"boot/loader/entries/3-it.conf":     "version 6.8\nlinux /not-this\ninitrd /not-this\n",
		"boot/loader/entries/README":        "no entry",
		"boot/vmlinuz-6.9":                  "k", "vmlinuz-6.8": "k", "initrd-6.8": "i", "initrd.img": "-> boot/initrd.img-6.9", "boot/initrd.img-6.9": "i",
	}
	and := func(more map[string]string) map[string]string {
		m := map[string]string{}
		for _, part := range []map[string]string{entries, more} {
			for k, v := range part {
				if v == "" {
					delete(m, k)
				} else {
					m[k] = v
				}
			}
		}
		return m
	}
	const inst, star = "org.osbuild.zipl.inst", "org.osbuild-star.zipl.disk"
	for _, tt := range []struct {
		name, stage, options string
		mounts               map[string]string
		want                 string // image, ramdisk, parameters, block size, offset
		wantErr              string
	}{
		{name: "an entry", stage: inst, options: `{"kernel": "6.8", "location": 2048}`, mounts: entries,
			want: "/vmlinuz-6.8 /initrd-6.8 [root=/dev/vda1 ro] 512 2048"},
		{name: "more options", stage: inst, options: `{"kernel": "6.8", "location": 256.0, "blocksize": 4096, "kernel_opts_append": ["a=1", "b"]}`, mounts: entries,
			want: "/vmlinuz-6.8 /initrd-6.8 [root=/dev/vda1 ro a=1 b] 4096 256"},
		{name: "no such entry", stage: inst, options: `{"kernel": "6.6", "location": 1}`, mounts: entries,
			wantErr: `there is no entry of the boot loader for kernel "6.6"`},
		{name: "no entries", stage: inst, options: `{"kernel": "6.8", "location": 1}`, mounts: map[string]string{"vmlinuz": "k"},
			wantErr: "has none"},
		{name: "an entry without a kernel", stage: inst, options: `{"kernel": "6.8", "location": 1}`,
			mounts:  and(map[string]string{"boot/loader/entries/2-it.conf": "version 6.8\ninitrd /initrd-6.8\n"}),
			wantErr: `2-it.conf: there is no "linux"`},
		{name: "a line that is none", stage: inst, options: `{"kernel": "6.8", "location": 1}`,
			mounts:  and(map[string]string{"boot/loader/entries/1-other.conf": "version\t6.7\n"}),
			wantErr: `1-other.conf: "version\t6.7" is not a key and a value`},
		{name: "the kernel is not there", stage: inst, options: `{"kernel": "6.7", "location": 1}`, mounts: entries,
			wantErr: "/vmlinuz-6.7 is not a file of the mounted system"},
		{name: "the only kernel", stage: star, options: `{"location": 2048, "cmdline": "root=UUID=1 ro"}`, mounts: entries,
			want: "/boot/vmlinuz-6.9 /boot/initrd.img-6.9 [root=UUID=1 ro] 512 2048"},
		{name: "the link", stage: star, options: `{"location": 2048}`, mounts: and(map[string]string{"vmlinuz": "-> /vmlinuz-6.8"}),
			want: "/vmlinuz-6.8 /boot/initrd.img-6.9 [] 512 2048"},
		{name: "named, without an initramfs", stage: star, options: `{"location": 2048, "kernel": "/vmlinuz-6.8", "initrd": "", "blocksize": 4096}`, mounts: entries,
			want: "/vmlinuz-6.8  [] 4096 2048"},
		{name: "two kernels", stage: star, options: `{"location": 2048}`, mounts: and(map[string]string{"boot/vmlinuz-7": "k"}),
			wantErr: "2 files /boot/vmlinuz-VERSION"},
		{name: "no initramfs", stage: star, options: `{"location": 2048}`, mounts: and(map[string]string{"initrd.img": ""}),
			wantErr: "/initrd.img is not a file of the mounted system"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := fakeZipl(t)
			c := testContext(t, nil)
			c.Options = []byte(tt.options)
			c.Devices["disk"] = DeviceArg{Path: "/dev/loop7"}
			putTree(t, c.Paths.Mounts, tt.mounts)
			err := Lookup(tt.stage).Run(c)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, c.Log)
			}
			got := map[string]string{}
			args := calls()
			for i := 1; i+1 < len(args); i += 2 {
				got[args[i]] = strings.TrimPrefix(args[i+1], c.Paths.Mounts)
			}
			line := got["--image"] + " " + got["--ramdisk"] + " [" + got["--parameters"] + "] " + got["--targetblocksize"] + " " + got["--targetoffset"]
			if diff := cmp.Diff(tt.want, line); diff != "" {
				t.Errorf("called with (-want +got):\n%s", diff)
			}
			if args[0] != "--verbose" || got["--target"] != "/boot" || got["--targetbase"] != "/dev/loop7" || got["--targettype"] != "SCSI" {
				t.Errorf("called with %q", args)
			}
		})
	}
	c := testContext(t, map[string]any{"location": 1, "kernel": "/k"})
	if err := Lookup(star).Run(c); err == nil || !strings.Contains(err.Error(), `no device "disk"`) {
		t.Errorf("without a disk: %v", err)
	}
}
