// Tests of what is decided before a machine is started, and of the small parts.

package vm

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestConfigErrors(t *testing.T) {
	t.Setenv(AccelEnv, "")
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk.raw")
	packed := filepath.Join(dir, "disk.qcow2.zst")
	for _, f := range []string{disk, packed} {
		if err := os.WriteFile(f, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		config Config
		field  string // "" = no error
	}{
		{Config{Disk: disk}, ""},
		{Config{Disk: disk, Firmware: "uefi", Accel: "tcg", Memory: 64, CPUs: 255}, ""},
		{Config{Disk: disk, Arch: "s390x"}, ""},
		{Config{}, "Disk"},
		{Config{Disk: dir}, "Disk"},
		{Config{Disk: disk + "x"}, "Disk"},
		{Config{Disk: packed}, "Disk"},
		{Config{Disk: disk, Format: "floppy"}, "Format"},
		{Config{Disk: disk, Arch: "vax"}, "Arch"},
		{Config{Disk: disk, Firmware: "openboot"}, "Firmware"},
		{Config{Disk: disk, Arch: "aarch64", Firmware: "bios"}, "Firmware"},
		{Config{Disk: disk, Arch: "s390x", Firmware: "uefi"}, "Firmware"},
		{Config{Disk: disk, Accel: "warp"}, "Accel"},
		{Config{Disk: disk, Memory: -1}, "Memory"},
		{Config{Disk: disk, CPUs: 1000}, "CPUs"},
		{Config{Disk: disk, SSHUser: "a b"}, "SSHUser"},
		{Config{Disk: disk, AuthorizedKey: "one\ntwo"}, "AuthorizedKey"},
		{Config{Disk: disk, AuthorizedKey: "one", Persist: true}, "AuthorizedKey"},
		{Config{Disk: disk, Credentials: map[string]string{"a:b": ""}}, "Credentials"},
		{Config{Kernel: disk + "x"}, "Kernel"},
		{Config{Disk: disk, Append: "quiet"}, "Kernel"},
		{Config{Kernel: disk, Initrd: dir}, "Initrd"},
	} {
		_, err := test.config.withDefaults()
		var ce *ConfigError
		switch {
		case test.field == "" && err != nil:
			t.Errorf("%+v: %v", test.config, err)
		case test.field != "" && (!errors.As(err, &ce) || ce.Field != test.field):
			t.Errorf("%+v: %v, want an error of %s", test.config, err, test.field)
		}
	}
	t.Setenv(AccelEnv, "tcg")
	if c, err := (Config{Disk: disk, Accel: "kvm"}).withDefaults(); err != nil || c.Accel != "tcg" {
		t.Errorf("the environment does not win: %q, %v", c.Accel, err)
	}
}

func TestFormats(t *testing.T) {
	for name, want := range map[string]string{"a.raw": "raw", "a.QCOW2": "qcow2", "a.vhd": "vpc", "a.img": "raw", "a.vmdk": "vmdk"} {
		// By name alone: the file is not even there.
		if got, err := probeFormat(filepath.Join(t.TempDir(), name)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %s", name, got, err, want)
		}
	}
	for head, want := range map[string]string{
		"": "raw", "\x00": "raw", "QFI\xfb\x00": "qcow2", "KDMV": "vmdk", "# Disk DescriptorFile\n": "vmdk", "vhdxfile": "vhdx", "conectix": "vpc",
		strings.Repeat("\x00", 64) + "\x7f\x10\xda\xbe": "vdi", strings.Repeat("\x00", 64): "raw",
	} {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, []byte(head), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := probeFormat(file); err != nil || got != want {
			t.Errorf("%.10q: %q, %v; want %s", head, got, err, want)
		}
	}
	// A real image of each kind, where qemu-img is.
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("missing: qemu-img (qemu-utils)")
	}
	for _, f := range []string{"raw", "qcow2", "vmdk", "vhdx", "vdi"} {
		file := filepath.Join(t.TempDir(), "disk")
		if out, err := exec.Command("qemu-img", "create", "-q", "-f", f, file, "8M").CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
		if got, err := probeFormat(file); err != nil || got != f {
			t.Errorf("an image of qemu-img: %q, %v; want %s", got, err, f)
		}
	}
}

func TestArguments(t *testing.T) {
	args := func(c Config, accel string) string {
		if c.Arch == "" {
			c.Arch = "x86_64"
		}
		if c.Firmware == "" {
			c.Firmware = "bios"
		}
		return " " + strings.Join(arguments(c, accel, firmware{"/code,x.fd", "/vars.fd", "raw"}), " ") + " "
	}
	for _, test := range []struct {
		name     string
		config   Config
		accel    string
		has, not []string
	}{
		{"defaults", Config{Disk: "/d.raw", Format: "raw"}, "tcg",
			[]string{"-machine pc,accel=tcg,graphics=off ", "-cpu max ", ",snapshot=on", "restrict=on", " -no-reboot "},
			[]string{"hostfwd", "pflash", "smbios", "-kernel"}},
		{"all", Config{Disk: "/a,b.qcow2", Format: "qcow2", Firmware: "uefi", Persist: true, Network: true, Reboot: true, SSH: true}, "kvm",
			[]string{"-machine q35,accel=kvm", "-cpu host ", "file=/a,,b.qcow2", "cache=writeback", "hostfwd=tcp:127.0.0.1:0-:22", "readonly=on,format=raw,file=/code,,x.fd ", "file=/proc/self/fd/5 "},
			[]string{"snapshot", "restrict", "-no-reboot", "/vars.fd"}},
		{"s390x", Config{Disk: "/d", Format: "raw", Arch: "s390x", AuthorizedKey: "key", SSHUser: "root"}, "tcg",
			[]string{"-machine s390-ccw-virtio,accel=tcg "}, []string{"smbios", "romfile", "graphics"}},
		{"aarch64", Config{Disk: "/d", Format: "raw", Arch: "aarch64", Firmware: "uefi"}, "tcg",
			[]string{"-machine virt,accel=tcg ", "-cpu max,pauth-impdef=on ", "pflash"}, nil},
		{"aarch64 by KVM", Config{Disk: "/d", Format: "raw", Arch: "aarch64", Firmware: "uefi"}, "kvm", []string{"-cpu host "}, nil},
		{"direct", Config{Kernel: "/k", Initrd: "/i", Append: "a b"}, "tcg",
			[]string{"-kernel /k -initrd /i -append a b "}, []string{"virtio-blk"}},
	} {
		got := args(test.config, test.accel)
		for _, s := range test.has {
			if !strings.Contains(got, s) {
				t.Errorf("%s: no %q in %s", test.name, s, got)
			}
		}
		for _, s := range test.not {
			if strings.Contains(got, s) {
				t.Errorf("%s: %q in %s", test.name, s, got)
			}
		}
	}
}

func TestCredentials(t *testing.T) {
	decode := func(c Config) map[string]string {
		creds := map[string]string{}
		for _, s := range smbiosStrings(c) {
			s, _ = strings.CutPrefix(s, "io.systemd.credential.binary:")
			name, value, _ := strings.Cut(s, "=")
			data, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				t.Fatal(err)
			}
			creds[name] = string(data)
		}
		return creds
	}
	b64 := base64.StdEncoding.EncodeToString([]byte("\nKEY\n"))
	want := map[string]string{
		"ssh.authorized_keys.root": "KEY", "ssh.ephemeral-authorized_keys-all": "KEY", "login.motd": "hi",
		"tmpfiles.extra": "d /root/.ssh 0700 root root -\nw+~ /root/.ssh/authorized_keys - - - - " + b64 + "\n",
	}
	got := decode(Config{SSHUser: "root", AuthorizedKey: "KEY", Credentials: map[string]string{"login.motd": "hi"}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("root (-want +got):\n%s", diff)
	}
	want = map[string]string{
		"ssh.ephemeral-authorized_keys-all": "KEY",
		"tmpfiles.extra": "f /etc/mine\nd /home/u/.ssh 0700 u u -\nf /home/u/.ssh/authorized_keys 0600 u u -\n" +
			"w+~ /home/u/.ssh/authorized_keys - - - - " + b64 + "\n",
	}
	got = decode(Config{SSHUser: "u", AuthorizedKey: "KEY", Credentials: map[string]string{"tmpfiles.extra": "f /etc/mine"}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a user (-want +got):\n%s", diff)
	}
}

func TestPreflight(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	got := Preflight(Config{SSH: true})
	var names []string
	for _, m := range got {
		names = append(names, m.What)
	}
	if diff := cmp.Diff([]string{"qemu-system-x86_64", "ssh"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	err := &HostError{got}
	if err.Hint() != "apt-get install qemu-system-x86 openssh-client" || !strings.Contains(err.Error(), "qemu-system-x86_64 and ssh") {
		t.Errorf("%v; %s", err, err.Hint())
	}
	kernel := filepath.Join(t.TempDir(), "k")
	os.WriteFile(kernel, nil, 0o644)
	var host *HostError
	if _, err := Start(t.Context(), Config{Kernel: kernel}); !errors.As(err, &host) {
		t.Errorf("start without QEMU: %v", err)
	}
}

func TestTables(t *testing.T) {
	for arch, want := range map[string]string{"": "bios", "x86_64": "bios", "aarch64": "uefi", "s390x": "", "ppc64le": ""} {
		if got := DefaultFirmware(arch); got != want {
			t.Errorf("the firmware of %q is %q, want %q", arch, got, want)
		}
	}
	for name, m := range machines {
		if m.program == "" || m.pkg == "" || m.console == "" || m.bios == "" && m.uefi == "" {
			t.Errorf("%s: %+v", name, m)
		}
		if m.uefi != "" && len(firmwares[name].files) == 0 {
			t.Errorf("%s boots by UEFI and has no firmware", name)
		}
		if Console(name) != m.console {
			t.Errorf("console of %s", name)
		}
	}
	if diff := cmp.Diff([]string{"aarch64", "ppc64le", "s390x", "x86_64"}, Architectures()); diff != "" {
		t.Error(diff)
	}
}

// What is typed has to come out of a shell as it went in.
func FuzzShellChunks(f *testing.F) {
	for _, s := range []string{"", "-n", "a'b\\c%d\n\n", "é\xff\x01\x7f", strings.Repeat("-x", 900), "ends in newlines\n\n\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, 0) || len(s) > 20000 {
			t.Skip()
		}
		script := "c=\n"
		for _, part := range shellChunks(s, chunk) {
			if len(part) > chunk+4 || strings.ContainsFunc(part, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
				t.Fatalf("a chunk of %d bytes: %q", len(part), part)
			}
			script += "c=$c$(printf '" + part + ".');c=${c%.}\n"
		}
		cmd := exec.Command("/bin/sh", "-s")
		cmd.Stdin = strings.NewReader(script + `printf %s "$c"` + "\n")
		cmd.Env = []string{"LC_ALL=C"}
		out, err := cmd.Output()
		if err != nil || string(out) != s {
			t.Fatalf("%q came out as %q, %v", s, out, err)
		}
	})
}

func TestEscapeKeys(t *testing.T) {
	for _, test := range []struct {
		in         []string
		keys, acts string
	}{
		{[]string{"abc\r\x1b[A\x03"}, "abc\r\x1b[A\x03", ""},
		{[]string{"a\x01xb"}, "a", "x"},
		{[]string{"a\x01", "xb"}, "ab", "x"}, // "b" was typed before anybody knew; see below
		{[]string{"\x01a\x01\x01"}, "\x01\x01", ""},
		{[]string{"\x01h\x01p\x01?z"}, "z", "hph"},
		{[]string{"\x01z1"}, "1", ""},
	} {
		var e escapeKeys
		var keys, acts string
		for _, in := range test.in {
			k, a := e.feed([]byte(in))
			keys, acts = keys+string(k), acts+string(a)
			if strings.HasSuffix(acts, "x") {
				break
			}
		}
		want := test.keys
		if strings.HasPrefix(test.in[0], "a\x01") {
			want = "a" // nothing counts after x
		}
		if keys != want || acts != test.acts {
			t.Errorf("%q: keys %q, actions %q; want %q, %q", test.in, keys, acts, want, test.acts)
		}
	}
}

// A monitor that answers as the test wants.
func TestQMP(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	events := make(chan string, 4)
	go func() {
		defer theirs.Close()
		dec := json.NewDecoder(theirs)
		fmt.Fprint(theirs, `{"QMP": {"version": {}, "capabilities": []}}`+"\r\n")
		for {
			var c struct {
				Execute string
				ID      uint64
			}
			if dec.Decode(&c) != nil {
				return
			}
			switch c.Execute {
			case "human-monitor-command":
				fmt.Fprintf(theirs, `{"event": "RESUME"}{"return": "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  12       127.0.0.1 36413       10.0.2.15    22     0     0\r\n", "id": %d}`, c.ID)
			case "bad":
				fmt.Fprintf(theirs, `{"error": {"class": "GenericError", "desc": "no such thing"}, "id": %d}`, c.ID)
			case "quit":
				return
			default:
				fmt.Fprintf(theirs, `{"return": {}, "id": %d}`, c.ID)
			}
		}
	}()
	ctx := context.Background()
	q, err := newQMP(ctx, ours, time.Minute, func(name string, _ json.RawMessage) { events <- name })
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	if port, err := q.sshPort(ctx); port != 36413 || err != nil {
		t.Errorf("port %d, %v", port, err)
	}
	if e := <-events; e != "RESUME" {
		t.Errorf("event %s", e)
	}
	if err := q.command(ctx, "bad", nil, nil); err == nil || !strings.Contains(err.Error(), "bad: no such thing") {
		t.Errorf("an error: %v", err)
	}
	for range 2 {
		if err := q.command(ctx, "quit", nil, nil); !errors.Is(err, errMonitorGone) {
			t.Errorf("the monitor is gone: %v", err)
		}
	}
}

func TestSSHAnswers(t *testing.T) {
	t.Parallel()
	for says, want := range map[string]bool{
		"SSH-2.0-OpenSSH_9.2\r\n": true, "a banner\r\nSSH-2.0-x\r\n": true, "": false, "HTTP/1.1 400 Bad Request\r\n\r\n": false,
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				io.WriteString(c, says)
				c.Close()
			}
		}()
		if got := sshAnswers(t.Context(), l.Addr().String()); got != want {
			t.Errorf("a server that says %q: %v", says, got)
		}
		l.Close()
	}
}

// OpenSSH takes the key from where it is kept, and agrees on its public half.
func TestPrepareKey(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("missing: ssh-keygen (openssh-client)")
	}
	disk := filepath.Join(t.TempDir(), "disk.raw")
	os.WriteFile(disk, nil, 0o644)
	c := Config{Disk: disk}
	key, err := prepareKey(&c, "me", "")
	if err != nil {
		t.Fatal(err)
	}
	defer key.close()
	out, err := exec.Command("ssh-keygen", "-y", "-f", key.path).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	want := strings.Join(strings.Fields(c.AuthorizedKey)[:2], " ")
	if got := strings.Join(strings.Fields(string(out))[:2], " "); got != want || c.SSHUser != "me" {
		t.Errorf("public key %q, want %q", got, want)
	}
	for _, c := range []Config{{Disk: disk, Persist: true}, {Disk: disk, Arch: "s390x"}} {
		if _, err := prepareKey(&c, "root", ""); err == nil {
			t.Errorf("a key was made for %+v", c)
		}
		if _, err := prepareKey(&c, "root", disk); err != nil {
			t.Errorf("a key of one's own: %v", err)
		}
	}
	if _, err := prepareKey(&c, "root", disk+"x"); err == nil {
		t.Error("a key that is not there")
	}
}

// What a machine is made of: another file of these is another machine.
func TestFiles(t *testing.T) {
	if missing := Preflight(Config{Firmware: "uefi"}); len(missing) > 0 {
		t.Skipf("missing: %+v", missing)
	}
	fw, _ := findFirmware("x86_64")
	bios, uefi := Files(Config{Firmware: "bios"}), Files(Config{Arch: "x86_64", Firmware: "uefi"})
	if !slices.Contains(uefi, fw.code) || !slices.Contains(uefi, fw.vars) || slices.Contains(bios, fw.code) {
		t.Errorf("firmware: by BIOS %q, by UEFI %q", bios, uefi)
	}
	for _, files := range [][]string{bios, uefi} {
		if !filepath.IsAbs(files[0]) || filepath.Base(files[0]) != "qemu-system-x86_64" {
			t.Errorf("the program: %q", files)
		}
	}
	if got := Files(Config{Arch: "s390x"}); filepath.Base(got[0]) != "qemu-system-s390x" || len(got) != 2 {
		t.Errorf("s390x: %q", got)
	}
}
