// Devices: what is not allowed cannot be allowed from inside.
package buildroot

import "testing"

// The programs of a stage are root and may mount: also the hierarchy that holds the
// rules, where they can write to what is their own.
func TestDeviceRulesHold(t *testing.T) { byBoth(t, testDeviceRulesHold) }

func testDeviceRulesHold(t *testing.T, b *BuildRoot) {
	out, _ := sh(t, b, `
mkdir /tmp/c
if mount -t cgroup -o devices none /tmp/c 2>/dev/null; then
	find /tmp/c -name devices.allow | while read f; do echo a > $f; echo 'b 7:* rwm' > $f; done 2>/dev/null
	mkdir /tmp/c/sub
	echo 'b 7:* rwm' > /tmp/c/sub/devices.allow
	echo 0 > /tmp/c/cgroup.procs
fi 2>/dev/null
for d in /sys/fs/cgroup/devices/devices.allow /sys/fs/cgroup/devices.allow; do
	mount -o remount,rw,bind ${d%/*}
	echo a > $d
done 2>/dev/null
mknod /tmp/d b 7 0 2>/dev/null || echo block refused
mknod /tmp/e c 10 237 2>/dev/null || echo char refused`)
	if out != "block refused\nchar refused" {
		t.Errorf("a program gave itself devices: %q", out)
	}
}
