// runner, buildroot, stage, pipeline: one for one what the engine knows.

package builtins

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/osbuild-star/osbuild-star/manifest"
	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// hostRoot is buildroot.host: stages run in the tree of the host.
var hostRoot = &buildrootValue{value: value{
	typ: "buildroot", text: "buildroot.host",
	attrs: starlark.StringDict{"name": starlark.String("host"), "pipeline": starlark.None, "runner": starlark.None},
}}

var lowLevel = []Builtin{
	{
		Name: "runner",
		Doc: "The program that sets up a build root for its operating system before any other program runs in it. Those for " +
			"the usual systems are part of osbuild-star, and a name is enough. With `program` it is one of your own, an executable that runs in " +
			"the build root: once when it is prepared, with a program that does nothing, so that what it makes in /etc and /var is there for " +
			"every stage; and before every program that is no stage of osbuild-star, as `/run/osbuild/runner/NAME PROGRAM ARGUMENTS…`, " +
			"where it has to start that program and to end with its exit status.",
		Result: "runner",
		Params: []Param{
			{Name: "name", Type: "string | None", Default: "None", Doc: `Name of the runner: "org.osbuild.debian12", or "debian12" for short. None is the name of the program's file.`},
			{Name: "program", Type: "source | string | None", Default: "None", Doc: `The runner itself, a file or its label: file("my-runner"), "//tools:my-runner".`, Keyword: true},
		},
		run: func(c *call) (starlark.Value, error) {
			if !c.none("program") {
				return c.ownRunner()
			}
			if c.none("name") {
				return nil, c.fail("", `for example runner("debian12"), or runner(program = file("my-runner"))`, "give a name, a program, or both")
			}
			name, err := c.runnerName("name")
			if err != nil {
				return nil, err
			}
			return newRunner(name), nil
		},
	},
	{
		Name: "buildroot",
		Doc: "The file system tree that stages run in, and its runner. Give it `stages`, which then are built on the host, " +
			"or a `pipeline` that makes the tree. `buildroot.host` is the tree of the host. A call at the top of a BUILD.star " +
			"is a target too, whose label `--build-env` takes; it must have a name of its own there.",
		Result: "buildroot",
		Params: []Param{
			{Name: "name", Type: "string", Doc: "Name of the pipeline that `stages` become."},
			{Name: "runner", Type: "runner | string", Doc: "The runner of the operating system in the tree."},
			{Name: "stages", Type: "list[stage] | None", Default: "None", Doc: "The stages that make the tree.", Keyword: true},
			{Name: "pipeline", Type: "pipeline | None", Default: "None", Doc: "The pipeline that makes the tree.", Keyword: true},
			{Name: "arch", Type: "string | None", Default: "None", Doc: "Architecture of `stages`; None is the host's.", Keyword: true},
			{Name: "var", Type: "string | None", Default: "None", Doc: "Directory of the host that backs /var, on a disk and not in memory; relative to the workspace, unless absolute. None is what `--var-dir` says, else /var/tmp. What is built does not depend on it.", Keyword: true},
		},
		run: runBuildroot,
	},
	{
		Name: "pipeline",
		Doc: "A sequence of stages that makes one tree. Two pipelines of the same content are one, whatever their names, and " +
			"pipelines that start with the same stages share what these made.",
		Result: "pipeline",
		Params: []Param{
			{Name: "name", Type: "string", Doc: "Name, as messages and `--export` have it. A clash inside of one plan gets a suffix."},
			{Name: "stages", Type: "list[stage]", Doc: "The stages, in order."},
			{Name: "build", Type: "buildroot | None", Default: "None", Doc: "The build root that the stages run in; None is the host's tree.", Keyword: true},
			{Name: "source_epoch", Type: "int | None", Default: "None", Doc: "Seconds since 1970: newer time stamps become this one. None is what MODULE.star says.", Keyword: true},
			{Name: "arch", Type: "string | None", Default: "None", Doc: "Architecture of the tree; None is that of the trees that go into it, or else of the build root, or else the host's.", Keyword: true},
		},
		run: runPipeline,
	},
	{
		Name: "stage",
		Doc: "One step of a pipeline. Options are checked against the schema of the stage at the line of the call. " +
			"Every stage is there as a function too: `stage.hostname(hostname = \"x\")` is `stage(\"org.osbuild.hostname\", hostname = \"x\")`; " +
			"in these names, and in the names of options, dots and dashes are underscores.",
		Result: "stage",
		Params: append([]Param{
			{Name: "type", Type: "string", Doc: `Full name of the stage: "org.osbuild.hostname".`},
		}, stageParams...),
		Rest: "The options of the stage.",
		run: func(c *call) (starlark.Value, error) {
			return c.makeStage(c.str("type"), c.rest)
		},
	},
}

var ownRunnerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

// ownRunner makes a runner of a program that the rule file names.
func (c *call) ownRunner() (starlark.Value, error) {
	src, ok := c.args["program"].(*sourceValue)
	if !ok {
		v, err := c.fileSource("program", c.str("program"))
		if err != nil {
			return nil, err
		}
		src = v.(*sourceValue)
	}
	if src.path != "" {
		fi, err := os.Stat(src.path)
		if err != nil {
			return nil, c.fail("program", "", "%v", err)
		}
		if fi.Mode()&0o111 == 0 {
			return nil, c.fail("program", "chmod +x "+filepath.Base(src.path), "%s is not executable", filepath.Base(src.path))
		}
	}
	name := c.str("name")
	if c.none("name") {
		if own, ok := src.attrs["name"].(starlark.String); ok {
			name = path.Base(string(own))
		}
	}
	if !ownRunnerName.MatchString(name) {
		return nil, c.fail("name", "letters, digits and . _ + -", "%q is not the name of a runner", name)
	}
	r := newRunner(name)
	r.program = src
	r.text = fmt.Sprintf("runner(%q, program = %q)", name, src.id)
	return r, nil
}

func (c *call) runnerName(arg string) (string, error) {
	if r, ok := c.args[arg].(*runnerValue); ok {
		return r.name, nil
	}
	name := c.str(arg)
	if name == "" || strings.ContainsAny(name, "/ \t\n") {
		return "", c.fail(arg, `for example "debian12", or buildroot.host for the tree of the host`, "%q is not the name of a runner", name)
	}
	if !strings.Contains(name, ".") {
		name = "org.osbuild." + name
	}
	return name, nil
}

func runBuildroot(c *call) (starlark.Value, error) {
	runner, err := c.runnerName("runner")
	if err != nil {
		return nil, err
	}
	b := &buildrootValue{runner: runner, setup: newRunner(runner)}
	if r, ok := c.args["runner"].(*runnerValue); ok {
		b.setup = r
	}
	if !c.none("var") {
		if b.varDir = c.str("var"); b.varDir == "" || strings.Contains(b.varDir, "\n") {
			return nil, c.fail("var", `leave it out, or write for example "/var/tmp"`, "%q is not a directory", b.varDir)
		}
		if !filepath.IsAbs(b.varDir) {
			b.varDir = filepath.Join(c.p.cfg.Workspace.Root, b.varDir)
		}
	}
	name := c.str("name")
	switch {
	case c.none("pipeline") == c.none("stages"):
		return nil, c.fail("", "stages = […] makes a tree, pipeline = p takes one that is there", "give either stages or pipeline")
	case !c.none("pipeline"):
		if !c.none("arch") {
			return nil, c.fail("arch", "give it to the pipeline", "arch goes with stages, the pipeline has its own")
		}
		b.pipeline = c.args["pipeline"].(*pipelineValue)
	default:
		if b.pipeline, err = c.makePipeline(name); err != nil {
			return nil, err
		}
	}
	b.value = value{
		typ: "buildroot", text: fmt.Sprintf("<buildroot %q>", name),
		attrs: starlark.StringDict{"name": starlark.String(name), "pipeline": b.pipeline, "runner": b.setup},
	}
	return b, c.declareBuildroot(b)
}

// declareBuildroot makes the call a target when it stands at the top of a BUILD.star.
// In functions it is none: rules make build roots, one for each image.
func (c *call) declareBuildroot(b *buildrootValue) error {
	scope, err := c.scope()
	if err != nil || scope.Kind != rulefile.BuildFile || c.t.CallStackDepth() != 2 {
		return nil //nolint:nilerr // a value then
	}
	t := &buildrootTarget{root: b}
	return c.declare(&t.target, t, "buildroot")
}

func runPipeline(c *call) (starlark.Value, error) {
	p, err := c.makePipeline(c.str("name"))
	if err != nil {
		return nil, err
	}
	if b, ok := c.args["build"].(*buildrootValue); ok {
		p.build = b
		p.attrs["build"] = b
	}
	if p.arch == "" {
		p.arch = inheritedArch(p)
	}
	if !c.none("source_epoch") {
		epoch, err := c.int("source_epoch", 0, math.MaxInt64)
		if err != nil {
			return nil, err
		}
		p.epoch = &epoch
	}
	return p, nil
}

// inheritedArch is the architecture of what goes into the pipeline, or else of the
// build root: a disk with an s390x tree on it is one for s390x, whatever makes it.
func inheritedArch(p *pipelineValue) string {
	for _, s := range p.stages {
		for _, name := range slices.Sorted(maps.Keys(s.inputs)) {
			if t := s.inputs[name].tree; t != nil && t.arch != "" {
				return t.arch
			}
		}
	}
	if b := p.build.pipeline; b != nil {
		return b.arch
	}
	return ""
}

// makePipeline makes a pipeline on the host of the arguments stages and arch.
func (c *call) makePipeline(name string) (*pipelineValue, error) {
	if name == "" || strings.ContainsAny(name, "/:\n") || name == "." || name == ".." {
		return nil, c.fail("name", "", "%q cannot be the name of a pipeline: it is a folder's name when it is exported, without \"/\" and \":\"", name)
	}
	arch, err := c.archName("arch")
	if err != nil {
		return nil, err
	}
	var stages []*stageValue
	for _, v := range c.items("stages") {
		stages = append(stages, v.(*stageValue))
	}
	if len(stages) == 0 {
		return nil, c.fail("stages", "stage.noop() makes an empty tree", "a pipeline needs at least one stage")
	}
	p := newPipeline(name, stages, hostRoot)
	p.arch, p.origin = arch, c.origin()
	return p, nil
}

// architectures are those that trees can be of, by the names that osbuild has.
var architectures = []string{"aarch64", "armv7hl", "i686", "loongarch64", "ppc64le", "riscv64", "s390x", "x86_64"}

func (c *call) archName(arg string) (string, error) {
	name := c.str(arg)
	if name == "" {
		return "", nil
	}
	for _, a := range architectures {
		if a == name {
			return name, nil
		}
	}
	hint := didYouMean(name, architectures)
	for debian, a := range map[string]string{"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le", "i386": "i686", "armhf": "armv7hl"} {
		if name == debian {
			hint = fmt.Sprintf("write %q", a)
		}
	}
	return "", c.fail(arg, hint, "%q is not an architecture", name)
}

func archModule(host string) *value {
	members := starlark.StringDict{"host": starlark.String(host)}
	for _, a := range architectures {
		members[a] = starlark.String(a)
	}
	return newModule("arch", members)
}

// originOf is a position as messages write it.
func originOf(o manifest.Origin) string {
	if o.Line == 0 {
		return o.File
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}
