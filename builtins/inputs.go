// What a stage reads and works on: tree and files, device.loopback, mount.ext4 and
// the others.

package builtins

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	"go.starlark.net/starlark"

	"github.com/osbuild-star/osbuild-star/manifest"
)

var ioTable = []Builtin{
	{
		Name:   "tree",
		Doc:    "The tree that a pipeline ends in, as an input: read-only, at input://NAME/.",
		Result: "input",
		Params: []Param{{Name: "pipeline", Type: "pipeline", Doc: "The pipeline."}},
		run: func(c *call) (starlark.Value, error) {
			in, err := toInput(c.args["pipeline"])
			if err != nil {
				return nil, c.fail("pipeline", "", "%v", err)
			}
			in.origin = c.origin()
			return in, nil
		},
	},
	{
		Name:   "files",
		Doc:    "Files as an input: of sources, each by the name of its checksum (`id`), or one file of the tree of a pipeline, by its path.",
		Result: "input",
		Params: []Param{
			{Name: "from", Type: "pipeline | source | deb_packages | list[source]", Doc: "Where they come from."},
			{Name: "file", Type: "string | None", Default: "None", Doc: "With a pipeline: path of the file in its tree."},
		},
		run: runFiles,
	},
	{
		Name:   "device.loopback",
		Doc:    "A block device made of a file of the tree, or of a part of it.",
		Result: "device",
		Params: []Param{
			{Name: "filename", Type: "string", Doc: "Path of the file in the tree."},
			{Name: "start", Type: "int | None", Default: "None", Doc: "First sector.", Keyword: true},
			{Name: "size", Type: "int | None", Default: "None", Doc: "Number of sectors; None is all up to the end.", Keyword: true},
			{Name: "sector_size", Type: "int | None", Default: "None", Doc: "Bytes of a sector; None is 512.", Keyword: true},
			{Name: "partscan", Type: "bool", Default: "False", Doc: "Make devices of the partitions in it.", Keyword: true},
			{Name: "lock", Type: "bool", Default: "False", Doc: "Lock the device while the stage runs.", Keyword: true},
			{Name: "read_only", Type: "bool", Default: "False", Doc: "Refuse to write to it.", Keyword: true},
		},
		run: runLoopback,
	},
	mountBuiltin("ext4"), mountBuiltin("xfs"), mountBuiltin("btrfs"), mountBuiltin("fat"),
	{
		Name:   "mount.bind",
		Doc:    "A part of a mount, bound to a place in the tree.",
		Result: "mount",
		Params: []Param{
			{Name: "source", Type: "string", Doc: `What to bind: "mount://NAME/PATH".`},
			{Name: "target", Type: "string", Doc: `Where: "tree:///PATH".`},
			{Name: "name", Type: "string | None", Default: "None", Doc: "Name of the mount; None is the target's path.", Keyword: true},
		},
		run: func(c *call) (starlark.Value, error) {
			source, target := c.str("source"), c.str("target")
			if !strings.HasPrefix(source, "mount://") {
				return nil, c.fail("source", "mount://NAME/PATH", "%q is not a location in a mount", source)
			}
			if !strings.HasPrefix(target, "tree://") {
				return nil, c.fail("target", "tree:///PATH", "%q is not a location in the tree", target)
			}
			name := c.str("name")
			if name == "" {
				name = strings.Trim(strings.TrimPrefix(target, "tree://"), "/")
			}
			return newMount(&mountValue{mount: "org.osbuild.bind", name: name, target: target, options: map[string]any{"source": source}}), nil
		},
	},
}

// toInput makes an input of the values that are one without saying so.
func toInput(v starlark.Value) (*inputValue, error) {
	in := &inputValue{}
	switch v := v.(type) {
	case *inputValue:
		return v, nil
	case *pipelineValue:
		in.tree = v
		in.text = fmt.Sprintf("<input tree %q>", v.name)
	case *sourceValue:
		in.sources = []*sourceValue{v}
		in.text = "<input of 1 file>"
	case *packagesValue:
		in.packages = v
		in.text = "<input of packages>"
	case *starlark.List, starlark.Tuple:
		for _, e := range elements(v) {
			in.sources = append(in.sources, e.(*sourceValue))
		}
		if len(in.sources) == 0 {
			return nil, errors.New("there are no files in it")
		}
		in.text = fmt.Sprintf("<input of %d files>", len(in.sources))
	}
	in.typ = "input"
	return in, nil
}

func runFiles(c *call) (starlark.Value, error) {
	p, ok := c.args["from"].(*pipelineValue)
	switch {
	case ok && c.none("file"):
		return nil, c.fail("", `files(p, file = "disk.raw"); the whole tree is tree(p)`, "which file of the pipeline %q?", p.name)
	case !ok && !c.none("file"):
		return nil, c.fail("file", "", "file is for pipelines: a source is one file")
	case !ok:
		in, err := toInput(c.args["from"])
		if err != nil {
			return nil, c.fail("from", "", "%v", err)
		}
		in.origin = c.origin()
		return in, nil
	}
	file := c.str("file")
	if !localPath(file) {
		return nil, c.fail("file", "a path below the root of the tree, without a leading \"/\"", "%q is not the path of a file", file)
	}
	return &inputValue{
		value: value{typ: "input", text: fmt.Sprintf("<input file %q of %q>", file, p.name)},
		tree:  p, file: file, origin: c.origin(),
	}, nil
}

// localPath says whether p is a clean path that stays below where it starts.
func localPath(p string) bool {
	return p != "" && p != "." && path.Clean(p) == p && !path.IsAbs(p) && p != ".." && !strings.HasPrefix(p, "../")
}

func runLoopback(c *call) (starlark.Value, error) {
	file := c.str("filename")
	if !localPath(strings.TrimPrefix(file, "/")) {
		return nil, c.fail("filename", "", "%q is not the path of a file in the tree", file)
	}
	d := &deviceValue{device: "org.osbuild.loopback", options: map[string]any{"filename": file}}
	for arg, key := range map[string]string{"start": "start", "size": "size", "sector_size": "sector-size"} {
		if c.none(arg) {
			continue
		}
		lo := int64(1)
		if arg == "start" {
			lo = 0
		}
		if _, err := c.int(arg, lo, math.MaxInt64); err != nil {
			return nil, err
		}
		d.options[key] = json.Number(c.args[arg].String())
	}
	for arg, key := range map[string]string{"partscan": "partscan", "lock": "lock", "read_only": "read-only"} {
		if c.bool(arg) {
			d.options[key] = true
		}
	}
	d.value = value{
		typ: "device", text: fmt.Sprintf("device.loopback(%q)", file),
		attrs: starlark.StringDict{"type": starlark.String(d.device), "options": fromPlain(d.options)},
	}
	return d, nil
}

func mountBuiltin(fs string) Builtin {
	return Builtin{
		Name:   "mount." + fs,
		Doc:    "A file system of type " + fs + " on a device of the stage, mounted while the stage runs, at mount://NAME/.",
		Result: "mount",
		Params: []Param{
			{Name: "device", Type: "string", Doc: "Name of the device, as `devices` of the stage has it."},
			{Name: "target", Type: "string", Doc: `Where it is mounted, seen from the root of the mounts: "/", "/boot".`},
			{Name: "name", Type: "string | None", Default: "None", Doc: "Name of the mount; None is the device's.", Keyword: true},
			{Name: "partition", Type: "int | None", Default: "None", Doc: "Number of the partition on the device, from 1; None: the device has none.", Keyword: true},
			{Name: "readonly", Type: "bool", Default: "False", Doc: "Mount it read-only.", Keyword: true},
			{Name: "options", Type: "dict[string, any]", Default: "{}", Doc: "Further options of osbuild's mount module.", Keyword: true},
		},
		run: func(c *call) (starlark.Value, error) {
			if !path.IsAbs(c.str("target")) {
				return nil, c.fail("target", fmt.Sprintf("write target = %q", "/"+c.str("target")), "%q is not an absolute path", c.str("target"))
			}
			opts, err := toPlain("options", c.args["options"])
			if err != nil {
				return nil, c.fail("options", "", "%v", err)
			}
			m := &mountValue{
				mount: "org.osbuild." + fs, name: c.str("name"), source: c.str("device"),
				target: c.str("target"), options: opts.(map[string]any),
			}
			if m.name == "" {
				m.name = m.source
			}
			if c.bool("readonly") {
				m.options["readonly"] = true
			}
			if !c.none("partition") {
				if m.partition, err = c.int("partition", 1, 256); err != nil {
					return nil, err
				}
			}
			return newMount(m), nil
		},
	}
}

func newMount(m *mountValue) *mountValue {
	m.value = value{
		typ: "mount", text: fmt.Sprintf("<mount %s of %s at %s>", m.name, m.mount, m.target),
		attrs: starlark.StringDict{
			"type": starlark.String(m.mount), "name": starlark.String(m.name), "target": starlark.String(m.target),
		},
	}
	return m
}

// plan is the device as a manifest has it.
func (d *deviceValue) plan() *manifest.Device {
	return &manifest.Device{Type: d.device, Parent: d.parent, Options: d.options}
}

// plan is the mount as a manifest has it.
func (m *mountValue) plan() *manifest.Mount {
	return &manifest.Mount{Name: m.name, Type: m.mount, Source: m.source, Partition: m.partition, Target: m.target, Options: m.options}
}

// probe is the input as far as its shape goes, for the check against a schema
// before pipelines have their final names and packages are known.
func (in *inputValue) probe() *manifest.Input {
	return in.plan("pipeline", []string{"sha256:" + strings.Repeat("0", 64)})
}

// plan is the input as a manifest has it: pipeline is the name of its pipeline,
// ids are its files.
func (in *inputValue) plan(pipeline string, ids []string) *manifest.Input {
	switch {
	case in.tree != nil && in.file != "":
		return &manifest.Input{Type: "org.osbuild.files", Origin: manifest.OriginPipeline,
			References: []manifest.Reference{{ID: "name:" + pipeline, Options: map[string]any{"file": in.file}}}}
	case in.tree != nil:
		return &manifest.Input{Type: "org.osbuild.tree", Origin: manifest.OriginPipeline,
			References: []manifest.Reference{{ID: "name:" + pipeline}}}
	}
	out := &manifest.Input{Type: "org.osbuild.files", Origin: manifest.OriginSource}
	for _, id := range ids {
		out.References = append(out.References, manifest.Reference{ID: id})
	}
	return out
}
