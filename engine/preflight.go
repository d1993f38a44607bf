// Preflight: what a build will need from the host, found out before any work.
package engine

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"golang.org/x/sys/unix"
)

// Missing is one thing that the host lacks.
type Missing struct {
	What    string `json:"what"`
	Why     string `json:"why"`
	Package string `json:"package,omitempty"` // the Debian package that has it
	Hint    string `json:"hint,omitempty"`
}

// packageOf says which Debian package a program is in, where that is not its name.
var packageOf = map[string]string{
	"mkfs.ext4": "e2fsprogs", "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs",
	"tune2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "dumpe2fs": "e2fsprogs", "chattr": "e2fsprogs",
	"mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "mkfs.fat": "dosfstools",
	"mkfs.vfat": "dosfstools", "mcopy": "mtools", "mmd": "mtools", "sfdisk": "fdisk", "mkswap": "util-linux",
	"mksquashfs": "squashfs-tools", "mkfs.erofs": "erofs-utils", "qemu-img": "qemu-utils",
	"grub-mkimage": "grub-common", "grub2-mkimage": "grub-common", "xz": "xz-utils", "cp": "coreutils", "chroot": "coreutils",
	"useradd": "passwd", "usermod": "passwd", "groupadd": "passwd", "systemctl": "systemd", "systemd-firstboot": "systemd",
	"systemd-sysusers": "systemd", "dpkg-deb": "dpkg", "gzip": "gzip", "zstd": "zstd", "tar": "tar", "dd": "coreutils",
}

// diskNeeded is what should be free for a build: trees, layers and an image.
const diskNeeded = 2 << 30

// Preflight finds what the host lacks for building these pipelines, as far as
// their steps are not in the store. It starts nothing.
func (e *Engine) Preflight(m *manifest.Manifest, names []string) ([]Missing, error) {
	all, err := e.look(m)
	if err != nil {
		return nil, err
	}
	g, err := e.newGraph(all, names)
	if err != nil || len(g.nodes) == 0 {
		return nil, err
	}
	var out []Missing
	add := func(m Missing) {
		if !slices.ContainsFunc(out, func(o Missing) bool { return o.What == m.What }) {
			out = append(out, m)
		}
	}
	if os.Geteuid() != 0 {
		add(Missing{What: "root privileges", Why: "to start build roots", Hint: "start it as root: sudo osbuild-star …"})
	} else if err := canUnshare(); err != nil {
		add(Missing{What: "the capability to make namespaces (CAP_SYS_ADMIN)", Why: "to start build roots", Hint: "in a container, give it --privileged"})
	}
	var se *buildroot.SandboxError
	if _, err := buildroot.Sandbox(e.cfg.Sandbox); errors.As(err, &se) {
		add(Missing{What: cmp.Or(se.Missing, se.Msg), Why: "to run stages in", Package: se.Package, Hint: se.Hint})
	}
	if e.cfg.Layers == LayersOverlay && !hasOverlay() {
		add(Missing{What: "overlayfs in the kernel", Why: "for the layers of trees", Hint: "load the module: modprobe overlay; or let stages copy their trees: --layers=copy"})
	}
	var st unix.Statfs_t
	if unix.Statfs(e.cfg.Store.Dir, &st) == nil {
		if free := int64(st.Bavail) * int64(st.Bsize); free < diskNeeded {
			add(Missing{
				What: fmt.Sprintf("space in the store %s: %s are free", e.cfg.Store.Dir, monitor.Bytes(free)),
				Why:  "a build needs about " + monitor.Bytes(diskNeeded), Hint: "free some, or use another place: --store DIR",
			})
		}
	}
	hostTools := map[string]string{}
	foreign := map[string]string{"": ""}
	checked := map[string]bool{}
	for _, n := range g.nodes {
		pl := n.pl
		if dir := cmp.Or(pl.vardir, e.cfg.Var); !checked[dir] {
			checked[dir] = true
			var ve *buildroot.VarError
			if err := buildroot.CheckVar(dir); errors.As(err, &ve) {
				add(Missing{What: "a directory on a disk: " + ve.Dir + " is in memory (" + ve.FS + ")", Why: "for /var of build roots", Hint: ve.Hint()})
			} else if err != nil {
				return nil, err
			}
		}
		if pl.adopted(n.st) != nil {
			continue // nothing runs
		}
		if pl.build != nil {
			foreign[pl.build.p.Arch] = "build root " + pl.build.p.Name
		}
		for i, s := range n.stages() {
			prog := pl.progs[n.st.from+i]
			if prog.startsTree() {
				foreign[pl.p.Arch] = s.Type
			}
			if len(s.Devices) > 0 {
				if _, err := os.Stat("/dev/loop-control"); err != nil {
					add(Missing{What: "loop devices (/dev/loop-control)", Why: "for " + s.Type, Hint: "load the module: modprobe loop"})
				}
			}
			if pl.build == nil {
				for _, tool := range prog.tools(s) {
					hostTools[tool] = s.Type
				}
			}
			// Its own program runs in the build root, and services on the host.
			modules, err := e.cfg.Programs.executables(s, program{})
			if err != nil {
				return nil, err
			}
			for _, m := range modules {
				if tool := interpreter(m); tool != "" && !hostHas("/", tool) {
					add(Missing{What: tool, Why: fmt.Sprintf("to run %s, a service of %s", m.Path, s.Type), Package: cmp.Or(packageOf[path.Base(tool)], path.Base(tool))})
				}
			}
		}
	}
	for tool, stage := range hostTools {
		if !hostHas(e.cfg.Host.Tree, tool) {
			first, _, _ := strings.Cut(tool, "|")
			pkg := cmp.Or(packageOf[first], path.Base(first))
			add(Missing{What: strings.ReplaceAll(tool, "|", " or "), Why: "the host is the build root of " + stage, Package: pkg})
		}
	}
	if os.Geteuid() != 0 || canUnshare() != nil {
		clear(foreign) // who may not do anything cannot tell
	}
	for arch, what := range foreign {
		if m, ok := missingEmulation(arch, what); ok {
			add(m)
		}
	}
	slices.SortFunc(out, func(a, b Missing) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.What, b.What))
	})
	return out, nil
}

// Cached tells whether the store has the trees of all these pipelines.
func (e *Engine) Cached(m *manifest.Manifest, names []string) bool {
	all, err := e.look(m)
	if err != nil {
		return false
	}
	for _, name := range names {
		if pl := all[name]; pl == nil {
			return false
		} else if _, ok := e.lookup(pl.key); !ok {
			return false
		}
	}
	return true
}

// tools are the programs that a stage starts from its build root, as far as they are
// known.
func (p program) tools(s *manifest.Stage) []string {
	switch {
	case p.native == nil:
		if tool := interpreter(p.module); tool != "" {
			return []string{tool}
		}
		return nil
	case p.native.ToolsFor != nil:
		return append(slices.Clone(p.native.Tools), p.native.ToolsFor(s.Options)...)
	}
	return p.native.Tools
}

// hostHas looks, in the tree at root, where programs of a build root are looked for. Names with
// alternatives, "grub2-mkimage|grub-mkimage", are there when one is.
func hostHas(root, tool string) bool {
	for name := range strings.SplitSeq(tool, "|") {
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			if st, err := os.Stat(filepath.Join(root, dir, name)); err == nil && !st.IsDir() {
				return true
			}
		}
		if strings.HasPrefix(name, "/") {
			if _, err := os.Stat(filepath.Join(root, name)); err == nil {
				return true
			}
		}
	}
	return false
}

// canUnshare tells whether this process may make a mount namespace, by its
// capabilities.
func canUnshare() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return errors.New("no CAP_SYS_ADMIN")
	}
	return nil
}
