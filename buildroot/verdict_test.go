// System calls: what each sandbox says of every one, and that both say the same.
package buildroot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// abis are what programs of this machine call the kernel by; the first is its own.
var abis = map[string][]string{"amd64": {"amd64", "386"}}

// probes builds testdata/probe for each, and returns the folder.
func probes(t *testing.T) (string, []string) {
	t.Helper()
	archs := abis[runtime.GOARCH]
	if archs == nil {
		archs = []string{runtime.GOARCH}
	}
	dir := t.TempDir()
	for _, arch := range archs {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, arch), "./testdata/probe")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building the probe for %s: %v: %s", arch, err, out)
		}
	}
	return dir, archs
}

// asked is what a probe answers, by number: "pass", or an error's number.
func asked(t *testing.T, b *BuildRoot, dir, arch, args string) map[string]string {
	t.Helper()
	out, res := sh(t, b, "exec /run/osbuild/probes/"+arch+" "+args, Mount{Path: dir, Target: "/run/osbuild/probes", Readonly: true})
	if res.Status != 0 {
		t.Fatalf("the probe of %s, %s: %s", arch, args, out)
	}
	verdicts := map[string]string{}
	for line := range strings.Lines(out) {
		n, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		verdicts[n] = v
	}
	return verdicts
}

// Every number that there is, and some that there are not.
const allNumbers = "0 640"

func TestSameVerdicts(t *testing.T) {
	needRoot(t)
	version, err := exec.Command("systemd-nspawn", "--version").Output()
	if err != nil {
		t.Skip("there is nothing to compare with: systemd-nspawn is not installed")
	}
	dir, archs := probes(t)
	got := map[string]map[string]map[string]string{}
	eachSandbox(t, func(t *testing.T, sandbox string) {
		_, b := openHost(t, sandbox)
		got[sandbox] = map[string]map[string]string{}
		for _, arch := range archs {
			got[sandbox][arch] = asked(t, b, dir, arch, allNumbers)
			if n := len(got[sandbox][arch]); n < 600 {
				t.Errorf("%s: only %d answers", arch, n)
			}
		}
	})
	// Another version knows of other calls.
	if !strings.HasPrefix(string(version), "systemd 252 ") {
		t.Logf("not compared in full with %.12s", version)
		return
	}
	if diff := cmp.Diff(got[SandboxNspawn], got[SandboxNative]); diff != "" {
		t.Errorf("(-nspawn +native):\n%s", diff)
	}
}

// Some of them by name, with what is expected: the comparison cannot tell when both are
// wrong.
func TestVerdicts(t *testing.T) {
	dir, archs := probes(t)
	own := archs[0]
	type call struct {
		name, arch, args string
		want             string
		native           string // where it is stricter
	}
	calls := []call{}
	add := func(want string, numbers map[string]int) {
		for name, n := range numbers {
			calls = append(calls, call{name: name, arch: own, args: fmt.Sprint(n), want: want})
		}
	}
	add("1", map[string]int{
		"kexec_load": unix.SYS_KEXEC_LOAD, "init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE,
		"delete_module": unix.SYS_DELETE_MODULE, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "swapon": unix.SYS_SWAPON,
		"swapoff": unix.SYS_SWAPOFF, "bpf": unix.SYS_BPF, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "keyctl": unix.SYS_KEYCTL,
		"add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "clock_settime": unix.SYS_CLOCK_SETTIME,
		"clock_adjtime": unix.SYS_CLOCK_ADJTIME, "settimeofday": unix.SYS_SETTIMEOFDAY, "adjtimex": unix.SYS_ADJTIMEX,
		"acct": unix.SYS_ACCT, "quotactl": unix.SYS_QUOTACTL, "syslog": unix.SYS_SYSLOG, "fanotify_init": unix.SYS_FANOTIFY_INIT,
	})
	add("pass", map[string]int{"read": unix.SYS_READ, "execve": unix.SYS_EXECVE, "mount": unix.SYS_MOUNT, "unshare": unix.SYS_UNSHARE, "clone3": unix.SYS_CLONE3})
	add("0", map[string]int{"fsync": unix.SYS_FSYNC, "sync": unix.SYS_SYNC, "syncfs": unix.SYS_SYNCFS, "fdatasync": unix.SYS_FDATASYNC})
	add("38", map[string]int{"openat2": unix.SYS_OPENAT2, "no such call": 5000})
	calls = append(calls,
		call{"audit", own, fmt.Sprintf("call %d %d 3 %d", unix.SYS_SOCKET, unix.AF_NETLINK, unix.NETLINK_AUDIT), "97", ""},
		call{"another netlink", own, fmt.Sprintf("call %d %d 3 0", unix.SYS_SOCKET, unix.AF_NETLINK), "pass", ""},
		call{"another family", own, fmt.Sprintf("call %d %d 3 %d", unix.SYS_SOCKET, unix.AF_UNIX, unix.NETLINK_AUDIT), "pass", ""},
		call{"openat with O_SYNC", own, fmt.Sprintf("call %d 0 0 %d", unix.SYS_OPENAT, unix.O_SYNC), "22", ""},
		call{"openat with O_DSYNC", own, fmt.Sprintf("call %d 0 0 %d", unix.SYS_OPENAT, unix.O_DSYNC), "22", ""},
		call{"openat with O_DIRECT", own, fmt.Sprintf("call %d 0 0 %d", unix.SYS_OPENAT, unix.O_DIRECT), "pass", ""},
		call{"openat with a mode alike", own, fmt.Sprintf("call %d 0 0 0 %d", unix.SYS_OPENAT, unix.O_DSYNC), "pass", ""},
	)
	if own == "amd64" {
		calls = append(calls,
			call{"open with O_SYNC", own, "call 2 0 0x101000", "22", ""},
			// The calls of 32-bit programs have numbers of their own: 283 is
			// kexec_load, and timerfd_create of 64-bit ones.
			call{"kexec_load", "386", "283", "1", ""},
			call{"timerfd_create", own, "283", "pass", ""},
			call{"init_module", "386", "128", "1", ""},
			call{"bpf", "386", "357", "1", ""},
			call{"read", "386", "3", "pass", ""},
			call{"fsync", "386", "118", "0", ""},
			call{"open with O_SYNC", "386", "call 5 0 0x101000", "22", ""},
			call{"audit", "386", fmt.Sprintf("call 359 %d 3 %d", unix.AF_NETLINK, unix.NETLINK_AUDIT), "pass", "97"},
			// x32: 528 is kexec_load, 246 is the one of 64-bit programs.
			call{"x32 read", own, "0x40000000", "pass", "38"},
			call{"x32 kexec_load", own, "0x40000210", "1", "38"},
			call{"x32 with the number of x86_64", own, "0x400000f6", "38", "38"},
		)
	}
	eachSandbox(t, func(t *testing.T, sandbox string) {
		_, b := openHost(t, sandbox)
		for _, c := range calls {
			want := c.want
			if c.native != "" && sandbox == SandboxNative {
				want = c.native
			}
			args := c.args
			if !strings.HasPrefix(args, "call ") {
				args = "call " + args
			}
			for _, got := range asked(t, b, dir, c.arch, args) {
				if got != want {
					t.Errorf("%s of %s: %s, want %s", c.name, c.arch, got, want)
				}
			}
		}
	})
}
