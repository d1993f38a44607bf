// KVM or TCG: what to try, and what is remembered of it until the host's next
// boot.

package vm

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// KVMPatience is how long a guest may take under KVM for the first byte on its
// console, and where nobody looks at it for each further one until a system is heard,
// before it is started again under TCG. Firmwares write theirs within a second under
// KVM, and kernels go on at once.
const KVMPatience = 8 * time.Second

// These are variables for the tests.
var (
	kvmPatience = KVMPatience
	kvmDevice   = "/dev/kvm"
	bootIDFile  = "/proc/sys/kernel/random/boot_id"
)

// kvmBroken remembers for this process what kvmVerdict remembers on disk.
var kvmBroken struct {
	sync.Mutex
	yes bool
}

// pickAccel returns what to start with, and whether TCG is to be tried after it.
func pickAccel(c Config) (accel string, fallback bool) {
	if c.Accel != "auto" {
		return c.Accel, false
	}
	if machines[c.Arch].goarch != runtime.GOARCH || !kvmOpens() || kvmKnownBroken() {
		return "tcg", false
	}
	return "kvm", true
}

func kvmOpens() bool {
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

func kvmKnownBroken() bool {
	kvmBroken.Lock()
	defer kvmBroken.Unlock()
	if kvmBroken.yes {
		return true
	}
	file, id := verdictFile(), bootID()
	if file == "" || id == "" {
		return false
	}
	data, err := os.ReadFile(file)
	return err == nil && strings.TrimSpace(string(data)) == id
}

// rememberKVMBroken keeps the verdict; that it cannot be kept is no error: the
// next start pays with a few seconds.
func rememberKVMBroken() {
	kvmBroken.Lock()
	kvmBroken.yes = true
	kvmBroken.Unlock()
	file, id := verdictFile(), bootID()
	if file == "" || id == "" {
		return
	}
	if os.MkdirAll(filepath.Dir(file), 0o700) != nil {
		return
	}
	// All write the same, and so the name can be: what a crash leaves is written over.
	tmp := file + ".new"
	if os.WriteFile(tmp, []byte(id+"\n"), 0o600) != nil || os.Rename(tmp, file) != nil {
		os.Remove(tmp)
	}
}

// verdictFile is where the verdict of this boot is kept; "" = nowhere.
func verdictFile() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" && os.Geteuid() == 0 {
		dir = "/run"
	}
	if !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Join(dir, "osbuild-star", "kvm-does-not-work")
}

// bootID is different after each boot of the host.
func bootID() string {
	data, err := os.ReadFile(bootIDFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
