package builtins

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/rules"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// TestDebian12 plans the example of this repository from its real files.
func TestDebian12(t *testing.T) {
	p, _ := openDir(t, "..", nil)
	plan := planOf(t, p, "//images:debian12")
	golden(t, "debian12.golden", plan)

	base, build, tree := plan.Manifest.Pipeline("base"), plan.Manifest.Pipeline("build"), plan.Manifest.Pipeline("os")
	ids, err := plan.Manifest.IDs()
	if err != nil {
		t.Fatal(err)
	}
	if ids.Stage(base, 0) != ids.Stage(build, 0) {
		t.Error("the build root does not start with the same stage as the base, and cannot share its layers")
	}
	if s := tree.Stages[0]; s.Type != "org.osbuild.copy" || s.Inputs["base"].References[0].ID != "name:base" {
		t.Errorf("the tree starts with %s, not with a copy of the base", s.Type)
	}
	for _, pl := range plan.Manifest.Pipelines {
		for _, s := range pl.Stages {
			if s.Origin.File != "images/BUILD.star" || s.Origin.Line == 0 {
				t.Errorf("%s of %s comes from %s, not from the user's file", s.Type, pl.Name, originOf(s.Origin))
			}
		}
	}
}

func TestDebian12Host(t *testing.T) {
	p, _ := openDir(t, "..", nil)
	golden(t, "debian12_host.golden", planOf(t, p, "//images:debian12_host"))
}

// TestDebian12Changes: what people change most leaves what is expensive as it is.
func TestDebian12Changes(t *testing.T) {
	src, err := os.ReadFile("../images/BUILD.star")
	if err != nil {
		t.Fatal(err)
	}
	upTo := func(old, with string) map[string]bool {
		text := strings.Replace(string(src), old, with, 1)
		if old != with && text == string(src) {
			t.Fatalf("%q is not in images/BUILD.star", old)
		}
		p, _ := openArchive(t, "-- images/motd --\nhi\n-- images/BUILD.star --\n"+text, nil)
		plan := planOf(t, p, "//images:debian12")
		ids, err := plan.Manifest.IDs()
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]bool{}
		for _, pl := range plan.Manifest.Pipelines {
			for i, s := range pl.Stages {
				all[pl.Name+" "+s.Type+" "+ids.Stage(pl, i)] = true
			}
		}
		return all
	}
	before := upTo("", "")
	for _, tt := range []struct {
		old, with string
		changed   []string // stages of the tree that are made again
	}{
		{`hostname = "debian12"`, `hostname = "web1"`, []string{"copy", "chmod", "hostname", "users", "mkdir", "copy", "chmod"}},
		{`groups = ["sudo"]`, `groups = ["adm"]`, []string{"users", "mkdir", "copy", "chmod"}},
		{`"PasswordAuthentication no\n"`, `"PasswordAuthentication yes\n"`, []string{"copy", "chmod"}},
	} {
		var changed []string
		for s := range upTo(tt.old, tt.with) {
			if name, ok := strings.CutPrefix(s, "os org.osbuild."); ok && !before[s] {
				name, _, _ = strings.Cut(name, " ")
				changed = append(changed, name)
			}
		}
		slices.Sort(changed)
		slices.Sort(tt.changed)
		if diff := cmp.Diff(tt.changed, changed); diff != "" {
			t.Errorf("after %s, stages made again (-want +got):\n%s", tt.with, diff)
		}
	}
}

func TestDebian12Test(t *testing.T) {
	p, _ := openDir(t, "..", nil)
	plan := planOf(t, p, "//images:debian12_boot")
	if len(plan.Tests) != 1 || len(plan.Artifacts) != 0 {
		t.Fatalf("got %d tests, %d artifacts", len(plan.Tests), len(plan.Artifacts))
	}
	x := plan.Tests[0]
	if x.ImagePipeline != "qcow2" || x.Disk != "disk.qcow2" || !slices.Equal(x.Firmware, []string{"bios", "uefi"}) || x.Login != "debian" {
		t.Errorf("got %+v", x)
	}
}

// TestOwnRules: the rule library in a folder of the user's own does what it does as
// "@osbuild//": it has no builtin of its own.
func TestOwnRules(t *testing.T) {
	names, err := rules.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	archive := `load("//mine:debian.star", "debian_image")
debian_image(name = "x", packages = ["linux-image-amd64"])
-- theirs/BUILD.star --
load("@osbuild//debian.star", "debian_image")
debian_image(name = "x", packages = ["linux-image-amd64"])
-- mine/BUILD.star --
`
	for _, f := range names {
		src, err := rules.FS.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		archive += "-- mine/" + f.Name() + " --\n" + strings.ReplaceAll(string(src), `load("@osbuild//`, `load("//mine:`)
	}
	p, _ := openArchive(t, archive, nil)
	mine, theirs := planOf(t, p, "//:x"), planOf(t, p, "//theirs:x")
	one, err := json.Marshal(mine.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	other, err := json.Marshal(theirs.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(one), string(other)); diff != "" {
		t.Errorf("plans differ:\n%s", diff)
	}
}

// TestOutputs plans every output.
func TestOutputs(t *testing.T) {
	const src = `load("@osbuild//debian.star", "debian_image")
load("@osbuild//output.star", "output")
KERNEL = ["linux-image-amd64"]
[debian_image(name = n, packages = KERNEL, output = o) for n, o in [
    ("raw", output.raw()),
    ("raw_xz", output.raw(compress = "xz")),
    ("qcow2", output.qcow2(compression = True, compat = "1.1")),
    ("vmdk", output.vmdk(subformat = "streamOptimized", adapter_type = "ide")),
    ("vdi", output.vdi(compress = "zstd")),
    ("vhd", output.vhd()),
    ("vhdx", output.vhdx(compress = "gzip")),
    ("tar", output.tar()),
    ("tar_zstd", output.tar(compress = "zstd")),
    ("squashfs", output.squashfs()),
    ("erofs", output.erofs(compression = "lz4hc", level = 9)),
]]
`
	p, _ := openArchive(t, src, nil)
	plan := planOf(t, p, "//:all")
	got := map[string]string{}
	for _, a := range plan.Artifacts {
		pl := plan.Manifest.Pipeline(a.Pipeline)
		got[a.Label.Name] = strings.TrimPrefix(pl.Stages[len(pl.Stages)-1].Type, "org.osbuild.") + " " + a.Files[0]
	}
	want := map[string]string{
		"raw": "osbuild-star.fat disk.raw", "raw_xz": "xz disk.raw.xz", "qcow2": "qemu disk.qcow2", "vmdk": "qemu disk.vmdk",
		"vdi": "zstd disk.vdi.zst", "vhd": "qemu disk.vhd", "vhdx": "gzip disk.vhdx.gz", "tar": "tar root.tar",
		"tar_zstd": "tar root.tar.zst", "squashfs": "squashfs root.squashfs", "erofs": "erofs root.erofs",
	}
	got["raw"] = strings.TrimPrefix(got["raw"], "org.")
	want["raw"] = strings.TrimPrefix(want["raw"], "org.")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("artifacts (-want +got):\n%s", diff)
	}
	if err := plan.Manifest.Check(manifest.Builtin()); err != nil {
		t.Error(err)
	}
}

// TestPlan plans the values of the low level, with everything in it.
func TestPlan(t *testing.T) {
	const src = `
B = buildroot("build", runner("rhel82"), stages = [stage.noop()])
OTHER = buildroot("other", "rhel94", stages = [stage.noop()])
OS = pipeline("os", [
    stage.hostname(hostname = "a"),
    stage("org.osbuild.copy", paths = [{"from": "input://f/" + file("motd").id, "to": "tree:///etc/motd"}], inputs = {"f": file("motd")}),
    stage.keymap(keymap = "de", x11_keymap = {"layouts": ["de"]}),
], build = B, source_epoch = 5)
SAME = pipeline("another name", [
    stage.hostname(hostname = "a"),
    stage("org.osbuild.copy", paths = [{"from": "input://f/" + source.inline("hello\n").id, "to": "tree:///etc/motd"}], inputs = {"f": source.inline("hello\n")}),
    stage.keymap(keymap = "de", x11_keymap = struct(layouts = ("de",))),
], build = B, source_epoch = 5)
def disk(build, tree):
    return pipeline("disk", [
        stage.truncate(filename = "d", size = "1048576"),
        stage.mkfs_ext4(uuid = uuid5("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "x"), devices = {"device": device.loopback("d", start = 0, size = 2048)}),
        stage.copy(
            paths = [{"from": "input://t/", "to": "mount://root/"}],
            inputs = {"t": tree},
            devices = {"d": device.loopback("d", read_only = True, sector_size = 512)},
            mounts = [mount.ext4("d", "/", name = "root", readonly = True)],
        ),
    ], build = build, arch = arch.x86_64)
image("a", disk(B, OS))
image("b", disk(OTHER, SAME), files = ["d"])
image("unused", pipeline("unused", [stage.noop()]))
group("both", [":a", "//:b"])
-- motd --
hello
`
	p, _ := openArchive(t, src, nil)
	plan := planOf(t, p, "//:both")
	golden(t, "low.golden", plan)
	if got := len(plan.LocalFiles); got != 1 {
		t.Errorf("%d local files, want the motd", got)
	}
	for id, file := range plan.LocalFiles {
		sum := sha256.Sum256([]byte("hello\n"))
		if id != "sha256:"+hex.EncodeToString(sum[:]) || !filepath.IsAbs(file) || filepath.Base(file) != "motd" {
			t.Errorf("local file %s: %s", id, file)
		}
	}
}

// TestForeign: the architecture of an image reaches everything that is made of it, and
// what it is made with is of the host's, unless the caller says otherwise.
func TestForeign(t *testing.T) {
	p, _ := openArchive(t, `load("@osbuild//debian.star", "debian_image")
debian_image(name = "a", arch = "aarch64", packages = ["linux-image-arm64"], boot = "uefi")
debian_image(name = "b", arch = "aarch64", packages = ["linux-image-arm64"], build = buildroot.host)
debian_image(name = "c", arch = "aarch64", packages = ["linux-image-arm64"], build_arch = "aarch64")
`, nil)
	plan := planOf(t, p, "//:all")
	got := map[string]string{}
	for _, tt := range plan.Artifacts {
		for pl := plan.Manifest.Pipeline(tt.Pipeline); pl != nil; {
			got[tt.Label.Name] += pl.Name + ":" + pl.Arch + " "
			if pl.Build == nil || pl.Build.Pipeline == "" {
				break
			}
			pl = plan.Manifest.Pipeline(pl.Build.Pipeline)
		}
	}
	want := map[string]string{"a": "qcow2:aarch64 build: ", "b": "qcow2-b:aarch64 ", "c": "qcow2-c:aarch64 build-c:aarch64 "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("architectures of images and their build roots (-want +got):\n%s", diff)
	}
	var arches []string
	for _, pl := range plan.Manifest.Pipelines {
		for _, s := range pl.Stages {
			if s.Type == "org.osbuild-star.deb" {
				arches = append(arches, pl.Name+":"+pl.Arch)
			}
		}
	}
	slices.Sort(arches)
	arches = slices.Compact(arches)
	if diff := cmp.Diff([]string{"base-a:aarch64", "base:", "build-c:aarch64", "build:", "grub:aarch64", "os-b:aarch64", "os-c:aarch64", "os:aarch64"}, arches); diff != "" {
		t.Errorf("architectures of the trees of packages (-want +got):\n%s", diff)
	}
	for _, a := range plan.Artifacts {
		if a.Arch != "aarch64" {
			t.Errorf("artifact %s is for %q", a.Label, a.Arch)
		}
	}
}

// A stage that would install what is there already is left out: that a tool belongs to
// the base is nothing that a rule knows. It is an error where nothing would be left.
func TestPackagesOfTheBase(t *testing.T) {
	const src = `load("@osbuild//debian.star", "debian_image")
load("@osbuild//output.star", "output")
R = [deb_repo("bookworm")]
BASE = deb_packages(R, ["tar"])
debian_image(name = "archive", output = output.tar(), build_packages = ["dpkg", "libc6"])
image("more", pipeline("p", [stage.deb(inputs = {"packages": BASE}), stage.deb(inputs = {"packages": deb_packages(R, ["dpkg"], base = BASE, variant = "none")})]))
image("nothing", pipeline("p", [stage.deb(inputs = {"packages": deb_packages(R, ["tar"], base = BASE, variant = "none")})]))
`
	p, _ := openArchive(t, src, nil)
	if stages := planOf(t, p, "//:more").Manifest.Pipeline("p").Stages; len(stages) != 1 {
		t.Errorf("%d stages, want the one that installs something", len(stages))
	}
	if stages := planOf(t, p, "//:archive").Manifest.Pipeline("build").Stages; len(stages) != 2 {
		t.Errorf("the build root has %d stages, want the base and tar", len(stages))
	}
	targets, err := p.Match(context.Background(), []string{"//:nothing"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Plan(context.Background(), targets, fakeResolve); err == nil || !strings.Contains(formatted(err), "set of no packages") {
		t.Errorf("a pipeline of nothing: %v", err)
	}
}

func TestLargeFile(t *testing.T) {
	p, _ := openArchive(t, `image("a", pipeline("p", [stage.noop(), stage.copy(paths = [{"from": "input://f/x", "to": "tree:///x"}], inputs = {"f": file("big")})]))`+
		"\n-- big --\n"+strings.Repeat("x", maxInline+1), nil)
	plan := planOf(t, p, "//:a")
	item, _ := plan.Manifest.Sources["org.osbuild.curl"].Items["sha256:6a0fe28e0ae77b85ee37ea3ec31e4c6f9b0a4c9b7d4a34ef57d6c4a2b7c7c7b5"].(string)
	for id, url := range plan.Manifest.Sources["org.osbuild.curl"].Items {
		item = url.(string)
		if item != "file://"+plan.LocalFiles[id] {
			t.Errorf("%s is at %s, the file at %s", id, item, plan.LocalFiles[id])
		}
	}
	if item == "" || plan.Manifest.Sources["org.osbuild.inline"] != nil {
		t.Errorf("a large file is not named by its path: %v", plan.Manifest.Sources)
	}
}

func TestRequests(t *testing.T) {
	const src = `
R = [deb_repo("bookworm")]
BASE = deb_packages(R, ["b", "a", "b"])
def tree(name, set):
    return pipeline(name, [stage.xz(filename = "x", inputs = {"file": set})])
image("one", tree("one", deb_packages(R, ["x"], base = BASE, variant = "none")))
image("two", tree("two", deb_packages(R, ["a", "b"])))
image("three", tree("three", BASE))
image("four", tree("four", deb_packages([deb_repo("trixie", mirror = "https://deb.example.org/debian/")], [], arch = "s390x")))
`
	p, _ := openArchive(t, src, nil)
	targets, err := p.Match(context.Background(), []string{"//:all"}, "")
	if err != nil {
		t.Fatal(formatted(err))
	}
	reqs, err := p.Requests(context.Background(), targets)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range reqs {
		got = append(got, r.Repos[0].Suite+" "+r.Repos[0].Mirror+" "+r.Arch+" "+r.Variant+" "+strings.Join(r.Names, ","))
	}
	want := []string{"bookworm   essential a,b", "bookworm   none x", "trixie https://deb.example.org/debian s390x essential "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if reqs[1].Base != reqs[0] && requestKey(reqs[1].Base) != requestKey(reqs[0]) {
		t.Error("the second request does not stand on the first")
	}

	boom := errors.New("boom")
	_, err = p.Plan(context.Background(), targets, func(context.Context, []*manifest.PackageRequest) ([][]manifest.Package, error) { return nil, boom })
	if !errors.Is(err, boom) {
		t.Errorf("got %v, want the resolver's error", err)
	}
	if _, err := p.Plan(context.Background(), targets, nil); err == nil {
		t.Error("a plan without packages")
	}
}

func TestEmptyPackageSet(t *testing.T) {
	p, _ := openArchive(t, `image("a", pipeline("p", [stage.xz(filename = "x", inputs = {"file": deb_packages([deb_repo("x")], [], variant = "none")})]))`, nil)
	targets, err := p.Match(context.Background(), []string{"//:a"}, "")
	if err != nil {
		t.Fatal(formatted(err))
	}
	_, err = p.Plan(context.Background(), targets, func(context.Context, []*manifest.PackageRequest) ([][]manifest.Package, error) {
		return [][]manifest.Package{nil}, nil
	})
	var e *rulefile.Error
	if !errors.As(err, &e) || e.Pos.Line != 1 {
		t.Errorf("got %v, want an error at the stage", err)
	}
}
