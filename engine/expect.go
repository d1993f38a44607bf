// Expectations: how long steps will take and how much memory, from what they took
// before, and how much memory there is.
package engine

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/store"
)

// usual is what stages take that nothing is known of yet. Those that are not here are
// small.
var usual = map[string]store.Cost{
	"org.osbuild-star.deb":       {Wall: 10 * time.Second, MaxRSS: 150 << 20},
	"org.osbuild-star.initramfs": {Wall: 4 * time.Second, MaxRSS: 64 << 20},
	"org.osbuild-star.ext4":      {Wall: 2 * time.Second, MaxRSS: 64 << 20},
	"org.osbuild-star.grub.bios": {Wall: 500 * time.Millisecond},
	"org.osbuild.copy":           {Wall: 500 * time.Millisecond},
	"org.osbuild.dracut":         {Wall: 20 * time.Second, MaxRSS: 300 << 20},
	"org.osbuild.erofs":          {Wall: 5 * time.Second, MaxRSS: 500 << 20},
	"org.osbuild.gzip":           {Wall: 10 * time.Second},
	"org.osbuild.qemu":           {Wall: 2 * time.Second, MaxRSS: 200 << 20},
	"org.osbuild.rpm":            {Wall: 30 * time.Second, MaxRSS: 500 << 20},
	"org.osbuild.selinux":        {Wall: 5 * time.Second, MaxRSS: 200 << 20},
	"org.osbuild.squashfs":       {Wall: 10 * time.Second, MaxRSS: 1 << 30},
	"org.osbuild.tar":            {Wall: 2 * time.Second},
	"org.osbuild.xz":             {Wall: 20 * time.Second, MaxRSS: 2 << 30},
	"org.osbuild.zstd":           {Wall: 5 * time.Second, MaxRSS: 500 << 20},
}

const (
	usualWall   = 20 * time.Millisecond // of a small stage
	usualMemory = 64 << 20              // of one, with the worker that it runs in
	usualSpeed  = 20 << 20              // of a download, bytes in a second
)

// expect fills in what is expected of the steps: nodes are behind what they need.
func (g *graph) expect(h *store.History) {
	for i := len(g.nodes) - 1; i >= 0; i-- {
		n := g.nodes[i]
		for j, s := range n.stages() {
			u, ok := h.Of(n.pl.ids.Stage(n.pl.p, n.st.from+j), s.Type)
			if !ok {
				u = usual[s.Type]
			}
			n.own += max(u.Wall, usualWall)
			n.memory = max(n.memory, u.MaxRSS, usualMemory)
		}
		n.rest = n.own
		for _, u := range n.users {
			n.rest = max(n.rest, n.own+u.rest)
		}
	}
}

// downloads are the files that steps read, in the order in which they should come:
// first what the longest way to an end begins with, its own time with it.
func (g *graph) downloads(m *manifest.Manifest) []string {
	rest := map[string]time.Duration{}
	var out []string
	for _, n := range g.nodes {
		for _, f := range n.files {
			if _, ok := rest[f]; !ok {
				out = append(out, f)
			}
			rest[f] = max(rest[f], n.rest)
		}
	}
	for _, src := range m.Sources {
		for sum, item := range src.Items {
			if v, ok := item.(map[string]any); ok && rest[sum] > 0 {
				size, _ := v["size"].(json.Number)
				if n, err := size.Int64(); err == nil {
					rest[sum] += time.Duration(n) * time.Second / usualSpeed
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(rest[b], rest[a]) })
	return out
}

// availableMemory is what the machine and the cgroups of this process have to give,
// less a margin; root is "/". 0: nothing tells.
func availableMemory(root string) int64 {
	avail := int64(-1)
	take := func(n int64) {
		if n >= 0 && (avail < 0 || n < avail) {
			avail = n
		}
	}
	if kib := statOf(filepath.Join(root, "proc/meminfo"), "MemAvailable:"); kib >= 0 {
		take(kib << 10)
	}
	groups, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	for line := range strings.Lines(string(groups)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		limitFile, usageFile, cacheName, mounts := "memory.max", "memory.current", "inactive_file", []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"}
		if f[1] != "" {
			if !slices.Contains(strings.Split(f[1], ","), "memory") {
				continue
			}
			limitFile, usageFile, cacheName, mounts = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", []string{"sys/fs/cgroup/memory"}
		}
		// Each group above bounds it too. In a container the path may be one that only
		// the host knows: its own group is the root of the mount then.
		for _, mount := range mounts {
			for dir := filepath.Clean("/" + f[2]); ; dir = filepath.Dir(dir) {
				at := filepath.Join(root, mount, dir)
				if limit, used := number(filepath.Join(at, limitFile)), number(filepath.Join(at, usageFile)); limit >= 0 && used >= 0 {
					take(max(1, limit-used+max(0, statOf(filepath.Join(at, "memory.stat"), cacheName))))
				}
				if dir == "/" {
					break
				}
			}
		}
	}
	if avail < 0 {
		return 0
	}
	return avail - min(avail/4, memoryMargin)
}

// memoryMargin is left to others, and to the cache of files.
const memoryMargin = 1 << 30

// number reads a file with one number; -1: there is none.
func number(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// statOf is a number of a file with a name and a number in each line; -1: it is not
// there.
func statOf(path, name string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}
