// What stages have besides their tree: inputs, devices, mounts; the source epoch;
// and a shell where a stage would run.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources"
)

// saw is what the last stage of a build, a readStage, saw.
func saw(t *testing.T, r *Result) seen {
	t.Helper()
	var s seen
	last := r.Stages[len(r.Stages)-1]
	if err := json.Unmarshal(last.Metadata, &s); err != nil {
		t.Fatalf("%s: %v", last.Type, err)
	}
	return s
}

func read(inputs map[string]*manifest.Input) *manifest.Stage {
	s := stage(readStage, `{}`)
	s.Inputs = inputs
	return s
}

func ref(id, opts string) manifest.Reference {
	return manifest.Reference{ID: id, Options: options(opts)}
}

func TestInputs(t *testing.T) { eachSandbox(t, testInputs) }

func testInputs(t *testing.T, sandbox func(*Config)) {
	st := newStore(t)
	e := newEngine(t, st, sandbox)
	const sumY = "sha256:a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa"
	for sum, text := range map[string]string{sum: "x", sumY: "y"} {
		if err := os.WriteFile(sources.Path(st.SourcesDir(), sum), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	osTree := pipe("os", note("etc/motd", "1"), stage(shStage, `{"script":"ln -s motd etc/link; ln -s /etc abs; chmod 600 etc/motd"}`))
	more := pipe("more", note("boot/vmlinuz", "kernel"), note("boot/sub/initrd", "ram"))
	source := func(refs ...manifest.Reference) *manifest.Input {
		return &manifest.Input{Type: "org.osbuild.files", Origin: manifest.OriginSource, References: refs}
	}
	files := func(refs ...manifest.Reference) *manifest.Input {
		return &manifest.Input{Type: "org.osbuild.files", Origin: manifest.OriginPipeline, References: refs}
	}
	type in = map[string]*manifest.Input
	for _, c := range []struct {
		name   string
		inputs in
		want   seen
		err    string
	}{
		{"files of sources, with metadata", in{"a": source(ref(sum, `{"metadata":{"name":"x.deb"}}`), ref(sumY, `{}`)), "b": source(ref(sumY, `{}`))}, seen{
			Inputs: map[string]map[string]string{"a": {sum: "x", sumY: "y"}, "b": {sumY: "y"}},
			Data:   map[string]map[string]json.RawMessage{"a": {sum: json.RawMessage(`{"name":"x.deb"}`), sumY: json.RawMessage(`{}`)}, "b": {sumY: json.RawMessage(`{}`)}},
		}, ""},
		{"one file named twice", in{"a": source(ref(sum, `{}`), ref(sum, `{}`))}, seen{
			Inputs: map[string]map[string]string{"a": {sum: "x"}}, Data: map[string]map[string]json.RawMessage{"a": {sum: json.RawMessage(`{}`)}},
		}, ""},
		{"a tree", in{"t": treeOf("os")}, seen{Inputs: map[string]map[string]string{"t": {"etc/motd": "1"}}}, ""},
		{"two trees and files", in{"t": treeOf("os"), "u": treeOf("more"), "f": source(ref(sum, `{}`))}, seen{
			Inputs: map[string]map[string]string{"t": {"etc/motd": "1"}, "u": {"boot/vmlinuz": "kernel", "boot/sub/initrd": "ram"}, "f": {sum: "x"}},
			Data:   map[string]map[string]json.RawMessage{"f": {sum: json.RawMessage(`{}`)}},
		}, ""},
		{"a tree without stages", in{"t": treeOf("empty")}, seen{Inputs: map[string]map[string]string{"t": {}}}, ""},
		{"files of pipelines", in{"f": files(ref("name:os", `{"file":"/etc/motd"}`), ref("name:more", `{"file":"boot/vmlinuz","metadata":{"k":1}}`))}, seen{
			Inputs: map[string]map[string]string{"f": {"etc/motd": "1", "boot/vmlinuz": "kernel"}},
			Data:   map[string]map[string]json.RawMessage{"f": {"etc/motd": json.RawMessage(`{}`), "boot/vmlinuz": json.RawMessage(`{"k":1}`)}},
		}, ""},
		{"a file by a link inside the tree", in{"f": files(ref("name:os", `{"file":"abs/link"}`))}, seen{
			Inputs: map[string]map[string]string{"f": {"abs/link": "1"}}, Data: map[string]map[string]json.RawMessage{"f": {"abs/link": json.RawMessage(`{}`)}},
		}, ""},
		{"a directory of a pipeline", in{"f": files(ref("name:more", `{"file":"boot"}`))}, seen{
			Inputs: map[string]map[string]string{"f": {"boot/vmlinuz": "kernel", "boot/sub/initrd": "ram"}}, Data: map[string]map[string]json.RawMessage{"f": {"boot": json.RawMessage(`{}`)}},
		}, ""},
		{"a file that is not in the tree", in{"f": files(ref("name:os", `{"file":"/etc/passwd"}`))}, seen{}, `input "f": `},
		{"no file", in{"f": files(ref("name:os", `{}`))}, seen{}, `its option "file" is missing`},
		{"a source that was not fetched", in{"f": source(ref("sha256:"+strings.Repeat("0", 64), `{}`))}, seen{}, "is not in the store"},
		{"a type that is not known", in{"f": {Type: "org.osbuild.ostree", Origin: manifest.OriginSource, References: []manifest.Reference{{ID: sum}}}}, seen{}, `org.osbuild.ostree`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := plan1(osTree, more, pipe("empty"), pipe("p", note("n", c.name), read(c.inputs)))
			res, err := e.Build(context.Background(), m, []string{"p"}, nil)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				checkIdle(t, e)
				return
			}
			if err != nil {
				t.Fatal(explain(err))
			}
			if diff := cmp.Diff(c.want, saw(t, res), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	checkIdle(t, e)
	if b, err := os.ReadFile(sources.Path(st.SourcesDir(), sum)); err != nil || string(b) != "x" {
		t.Errorf("the source: %q %v", b, err)
	}
}

// Each file system is made on a part of an image, filled through a mount, and read
// again by a later stage.
func TestDevicesAndMounts(t *testing.T) { eachSandbox(t, testDevicesAndMounts) }

func testDevicesAndMounts(t *testing.T, sandbox func(*Config)) {
	e := newEngine(t, newStore(t), sandbox)
	for _, c := range []struct{ fs, size, options string }{
		{"ext4", "40M", `{"uuid":"6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}`},
		{"xfs", "330M", `{"uuid":"6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}`},
		{"btrfs", "130M", `{"uuid":"6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}`},
	} {
		t.Run(c.fs, func(t *testing.T) {
			if _, err := exec.LookPath("mkfs." + c.fs); err != nil {
				t.Skip(err)
			}
			if b, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(b), "\t"+c.fs+"\n") {
				t.Skip("not in this kernel")
			}
			device := loopback(`{"filename":"disk.img","start":2048}`)
			mount := func(opts string) []*manifest.Mount {
				return []*manifest.Mount{
					{Name: "root", Type: "org.osbuild." + c.fs, Source: "device", Target: "/", Options: options(opts)},
					{Name: "none", Type: "org.osbuild.noop", Target: "/below/nothing"},
				}
			}
			mkfs := stage("org.osbuild.mkfs."+c.fs, c.options)
			fill := stage("org.osbuild.copy", `{"paths":[{"from":"input://os/","to":"mount://root/"}]}`)
			fill.Inputs = map[string]*manifest.Input{"os": treeOf("os")}
			fill.Mounts = mount(`{}`)
			check := stage(readStage, `{}`)
			check.Mounts = mount(`{"readonly":true}`)
			check.Mounts = check.Mounts[:1]
			for _, s := range []*manifest.Stage{mkfs, fill, check} {
				s.Devices = map[string]*manifest.Device{"device": device}
			}
			m := plan1(pipe("os", note("etc/motd", "hello"), note("boot/k", "kernel")),
				pipe("p", stage("org.osbuild.truncate", fmt.Sprintf(`{"filename":"disk.img","size":%q}`, c.size)), mkfs, fill, note("between", "1"), check))
			res := mustBuild(t, e, m, "p")
			got := saw(t, res)
			if diff := cmp.Diff(map[string]string{"etc/motd": "hello", "boot/k": "kernel"}, got.Mounts["root"]); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := len(res.Trees["p"].Layers); n != 3 {
				t.Errorf("%d layers", n)
			}
			checkIdle(t, e)
		})
	}
}

func TestBindMount(t *testing.T) {
	e := newEngine(t, newStore(t))
	mkfs := stage("org.osbuild.mkfs.ext4", `{"uuid":"6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}`)
	s := stage(shStage, `{"script":"echo inside > mnt/f; echo outside > f"}`)
	s.Mounts = []*manifest.Mount{
		{Name: "root", Type: "org.osbuild.ext4", Source: "device", Target: "/"},
		{Name: "bind", Type: "org.osbuild.bind", Target: "tree:///mnt", Options: options(`{"source":"mount:///"}`)},
	}
	check := stage(readStage, `{}`)
	check.Mounts = s.Mounts[:1]
	for _, s := range []*manifest.Stage{mkfs, s, check} {
		s.Devices = map[string]*manifest.Device{"device": loopback(`{"filename":"disk.img"}`)}
	}
	m := plan1(pipe("p", stage("org.osbuild.mkdir", `{"paths":[{"path":"/mnt"}]}`), stage("org.osbuild.truncate", `{"filename":"disk.img","size":"16M"}`), mkfs, s, check))
	res := mustBuild(t, e, m, "p")
	if diff := cmp.Diff(map[string]string{"f": "inside\n"}, saw(t, res).Mounts["root"]); diff != "" {
		t.Errorf("on the device (-want +got):\n%s", diff)
	}
	files, err := e.Files(res.Trees["p"])
	if diff := cmp.Diff([]string{"disk.img", "f"}, files); diff != "" || err != nil {
		t.Errorf("in the tree: %v (-want +got):\n%s", err, diff)
	}
	checkIdle(t, e)
}

func TestDevicesAndMountsThatFail(t *testing.T) {
	e := newEngine(t, newStore(t))
	kernel, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	with := func(d *manifest.Device, m ...*manifest.Mount) *manifest.Stage {
		s := stage(readStage, `{}`)
		s.Devices, s.Mounts = map[string]*manifest.Device{"disk": d}, m
		return s
	}
	good := loopback(`{"filename":"disk.img"}`)
	for _, c := range []struct {
		name  string
		stage *manifest.Stage
		err   string
		skip  bool
	}{
		{name: "device of another type", stage: with(&manifest.Device{Type: "org.osbuild.lvm2.lv"}), err: "org.osbuild.lvm2.lv"},
		{name: "no such file", stage: with(loopback(`{"filename":"nothing"}`)), err: "no such file"},
		{name: "a directory", stage: with(loopback(`{"filename":"/"}`)), err: "is a directory"},
		{name: "a file out of the tree", stage: with(loopback(`{"filename":"../../../../../dev/null"}`)), err: "no such file"},
		{name: "options of another kind", stage: with(loopback(`{"filename":"disk.img","start":"x"}`)), err: `device "disk"`},
		{name: "mount of another type", stage: with(good, &manifest.Mount{Name: "m", Type: "org.osbuild.zfs", Source: "disk", Target: "/"}), err: `mount "m"`},
		{name: "nothing on it", stage: with(good, &manifest.Mount{Name: "m", Type: "org.osbuild.ext4", Source: "disk", Target: "/"}), err: "mounting ext4"},
		{name: "no partition", stage: with(good, &manifest.Mount{Name: "m", Type: "org.osbuild.ext4", Source: "disk", Partition: 3, Target: "/"}), err: "p3"},
		{name: "without a device", stage: with(good, &manifest.Mount{Name: "m", Type: "org.osbuild.ext4", Target: "/"}), err: `mount "m"`},
		{name: "the second of two", stage: with(good, &manifest.Mount{Name: "n", Type: "org.osbuild.noop", Target: "/a"}, &manifest.Mount{Name: "m", Type: "org.osbuild.xfs", Source: "disk", Target: "/b"}), err: "mounting xfs"},
		{name: "a file system that the kernel has not", stage: with(good, &manifest.Mount{Name: "m", Type: "org.osbuild.fat", Source: "disk", Target: "/"}), err: "this kernel has no vfat",
			skip: strings.Contains(string(kernel), "\tvfat\n")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.skip {
				t.Skip("this kernel has it")
			}
			_, err := e.Build(context.Background(), plan1(pipe("p", stage("org.osbuild.truncate", `{"filename":"disk.img","size":"8M"}`), c.stage)), []string{"p"}, nil)
			var se *StageError
			if !errors.As(err, &se) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			var he *HostError
			if strings.Contains(c.err, "kernel") && (!errors.As(err, &he) || he.Hint == "") {
				t.Errorf("no hint: %#v", err)
			}
			checkIdle(t, e)
		})
	}
}

// Times that a stage leaves are clamped to the source epoch; older ones, and those
// of files that the stage did not touch, stay.
func TestSourceEpoch(t *testing.T) { eachSandbox(t, testSourceEpoch) }

func testSourceEpoch(t *testing.T, sandbox func(*Config)) {
	e := newEngine(t, newStore(t), sandbox)
	epoch := int64(1700000000)
	p := pipe("p",
		stage(shStage, `{"script":"mkdir -p d/e; echo 1 > d/new; echo 1 > old; touch -d @1000 old; echo 1 > future; touch -d '2100-01-01' future; ln -s x link; echo 1 > later"}`),
		stage(shStage, `{"script":"chmod 600 later; echo 2 > d/second; mv old moved"}`))
	p.SourceEpoch = &epoch
	dir := exported(t, e, mustBuild(t, e, plan1(p), "p").Trees["p"])
	got := map[string]int64{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		got[rel] = st.ModTime().Unix()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{
		".": epoch, "d": epoch, "d/e": epoch, "d/new": epoch, "d/second": epoch, "moved": 1000, "future": epoch, "link": epoch, "later": epoch,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// runShell runs a script in the shell before a stage.
func runShell(t *testing.T, e *Engine, m *manifest.Manifest, sh Shell, script string) (string, int, error) {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(inW, script)
		inW.Close()
	}()
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(outR)
		text <- string(b)
	}()
	sh.Stdin, sh.Stdout = inR, outW
	status, err := e.Shell(context.Background(), m, sh, nil)
	inR.Close()
	outW.Close()
	out := <-text
	outR.Close()
	return out, status, err
}

func TestShell(t *testing.T) { eachSandbox(t, testShell) }

func testShell(t *testing.T, sandbox func(*Config)) {
	st := newStore(t)
	e := newEngine(t, st, sandbox)
	mounted := stage(readStage, `{}`)
	mounted.Devices = map[string]*manifest.Device{"device": loopback(`{"filename":"disk.img"}`)}
	mounted.Mounts = []*manifest.Mount{{Name: "root", Type: "org.osbuild.ext4", Source: "device", Target: "/"}}
	mounted.Inputs = map[string]*manifest.Input{"in": treeOf("os")}
	mkfs := stage("org.osbuild.mkfs.ext4", `{"uuid":"6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"}`)
	mkfs.Devices = mounted.Devices
	m := plan1(pipe("os", note("etc/motd", "hello"), note("etc/motd", "bye")), pipe("empty"),
		pipe("p", stage("org.osbuild.truncate", `{"filename":"disk.img","size":"8M"}`), mkfs, mounted, note("never", "1")))
	ids, err := m.IDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		sh     Shell
		script string
		out    string
		status int
		err    string
	}{
		{name: "before the first", sh: Shell{Pipeline: "os", Stage: noteStage}, script: "ls /run/osbuild/tree; exit 5", status: 5},
		{name: "after the last", sh: Shell{Pipeline: "os"}, script: "cat /run/osbuild/tree/etc/motd; echo x > /run/osbuild/tree/etc/motd", out: "bye"},
		{name: "what it changed is gone", sh: Shell{Pipeline: "os"}, script: "cat /run/osbuild/tree/etc/motd", out: "bye"},
		{name: "by the beginning of an ID", sh: Shell{Pipeline: "os", Stage: ids.Stage(m.Pipelines[0], 1)[:12]}, script: "cat /run/osbuild/tree/etc/motd", out: "hello"},
		{name: "with devices, mounts and inputs", sh: Shell{Pipeline: "p", Stage: "test.read"}, out: "etc lost+found block special file\n",
			script: "echo $(ls /run/osbuild/inputs/in /run/osbuild/mounts | grep -v :) $(stat -c %F /dev/loop*)\n"},
		{name: "after the last, of one with devices", sh: Shell{Pipeline: "p"}, script: "ls /run/osbuild/tree; ls /dev | grep loop", out: "disk.img\nnever\n", status: 1},
		{name: "of nothing", sh: Shell{Pipeline: "empty"}, script: "ls -A /run/osbuild/tree | wc -l", out: "0\n"},
		{name: "a program", sh: Shell{Pipeline: "os", Argv: []string{"/bin/cat", "/run/osbuild/tree/etc/motd"}}, out: "bye"},
		{name: "not a program", sh: Shell{Pipeline: "os", Argv: []string{"nothing-like-this"}}, err: "is not in the build root"},
		{name: "no such stage", sh: Shell{Pipeline: "os", Stage: "nothing"}, err: `pipeline "os" has no stage "nothing"; it has ` + noteStage},
		{name: "no such pipeline", sh: Shell{Pipeline: "nothing"}, err: `no pipeline "nothing"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status, err := runShell(t, e, m, c.sh, c.script)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(explain(err))
			}
			if out != c.out || status != c.status {
				t.Errorf("status %d, output %q, want %d, %q", status, out, c.status, c.out)
			}
			if e.run != nil {
				checkIdle(t, e)
			}
		})
	}
	// What came before the stages was kept for the build.
	if got := ran(mustBuild(t, e, m, "os")); len(got) != 0 {
		t.Errorf("built again: %v", got)
	}
}

func TestPreflight(t *testing.T) {
	needRoot(t)
	st := newStore(t)
	e := newEngine(t, st)
	m := plan1(pipe("p", note("a", "1")), pipe("q", copyOf("p")), pipe("r", stage("org.osbuild.qemu", `{"filename":"x","format":{"type":"qcow2"}}`)))
	missing := func(names ...string) []string {
		t.Helper()
		out := []string{}
		ms, err := e.Preflight(m, names)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			if m.Why == "" || m.Package == "" && m.Hint == "" {
				t.Errorf("it does not say what to do: %+v", m)
			}
			if !strings.HasPrefix(m.What, "space ") {
				out = append(out, m.What+" in "+m.Package)
			}
		}
		return out
	}
	if got := missing("p", "q"); len(got) != 0 {
		t.Errorf("missing: %v", got)
	}
	want := []string{}
	if !hostHas("/", "qemu-img") {
		want = append(want, "qemu-img in qemu-utils")
	}
	if diff := cmp.Diff(want, missing("r")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A sandbox is missing only when it is asked for by name.
	t.Setenv("PATH", "/nowhere")
	if got := missing("p"); len(got) != 0 {
		t.Errorf("without PATH: %v", got)
	}
	e.cfg.Sandbox = "nspawn"
	if got := missing("p"); strings.Join(got, " ") != "systemd-nspawn in systemd-container" {
		t.Errorf("without PATH, by nspawn: %v", got)
	}
	e.cfg.Sandbox = "bottle"
	if got := missing("p"); strings.Join(got, " ") != `there is no sandbox "bottle" in ` {
		t.Errorf("a sandbox that is not known: %v", got)
	}
	e.cfg.Sandbox = ""
	t.Run("foreign", func(t *testing.T) { testPreflightForeign(t, e) })
	// Nothing is needed for what is there.
	t.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	mustBuild(t, e, m, "q")
	t.Setenv("PATH", "/nowhere")
	if got := missing("p", "q"); len(got) != 0 {
		t.Errorf("of what is built: %v", got)
	}
	if _, err := e.Preflight(m, []string{"nothing"}); err == nil {
		t.Error("a pipeline that is not there")
	}
}

// testPreflightForeign: programs of a tree are started by some stages only, those of a
// build root by all.
func testPreflightForeign(t *testing.T, e *Engine) {
	users, foreign, inside := pipe("s", stage("org.osbuild.users", `{"users":{"a":{}}}`)), pipe("f", note("a", "1")), pipe("t", note("b", "1"))
	inside.Build = &manifest.BuildRoot{Runner: "org.osbuild.linux", Pipeline: "f"}
	users.Arch, foreign.Arch = "z80", "z80"
	m := plan1(users, foreign, inside)
	for name, want := range map[string]string{"s": "(org.osbuild.users)", "t": "(build root f)", "f": ""} {
		ms, err := e.Preflight(m, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range ms {
			if strings.HasPrefix(m.What, `programs of architecture "z80" cannot be run`) {
				got = strings.TrimPrefix(m.Why, "for programs of z80 ")
			}
		}
		if got != want {
			t.Errorf("programs of %s: %q, want %q", name, got, want)
		}
	}
}

func TestClosedEngine(t *testing.T) {
	e := newEngine(t, newStore(t))
	if err := e.Close(); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	mustBuild(t, e, plan1(pipe("p", note("a", "1"))), "p")
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	settled := func() int {
		ents, _ := filepath.Glob(filepath.Join(e.cfg.Store.Dir, "objects", "*", "settled"))
		return len(ents)
	}
	if settled() != 1 {
		t.Errorf("%d objects are settled after Close, not 1", settled())
	}
	mustBuild(t, e, plan1(pipe("p", note("a", "2"))), "p")
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if settled() != 2 {
		t.Errorf("%d objects are settled after Close, not 2", settled())
	}
}
