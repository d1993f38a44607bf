// What a stage has besides its tree: inputs, devices and mounts, opened in that
// order before it and closed in the reverse one after it.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"github.com/osbuild-star/osbuild-star/stages"
	"github.com/osbuild-star/osbuild-star/store"
)

// environment is that of one stage while it runs.
type environment struct {
	ctx   context.Context // of opening
	span  *monitor.Span   // of the stage
	b     *build
	pl    *plan
	i     int
	stage *manifest.Stage
	trees map[*plan]*store.Object
	tree  string // where its tree is mounted
	dir   string // for mount points

	noDevices bool // of a shell behind the last stage, which is none of its own

	links  string // directory in the store with links to source files
	nodes  string // directory of the nodes of devices, "" when no service needs them
	socket string // of the store, for services of inputs
	undo   []func() error
	closed bool
}

func (v *environment) onClose(f func() error) { v.undo = append(v.undo, f) }

// open makes everything and returns what the stage is told of it.
func (v *environment) open() (*arguments, []buildroot.Mount, error) {
	args := &arguments{
		Tree: insideTree, Paths: stages.PathsArg{Devices: "/dev", Inputs: insideInputs, Mounts: insideMounts},
		Options: v.stage.OptionsJSON(), Inputs: map[string]any{}, Devices: map[string]any{}, Mounts: map[string]any{},
	}
	servedInputs, servedNodes, err := v.served()
	if err != nil {
		return nil, nil, err
	}
	for name, needed := range map[string]bool{"inputs": len(v.stage.Inputs) > 0, "mounts": len(v.stage.Mounts) > 0} {
		if !needed {
			continue
		}
		dir := filepath.Join(v.dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, nil, err
		}
		v.onClose(func() error { return scratch.RemoveAll(dir) })
	}
	mounts := []buildroot.Mount{{Path: v.tree, Target: insideTree}}
	if len(v.stage.Inputs) > 0 {
		inputs, err := v.openInputs(args, servedInputs)
		if err != nil {
			return nil, nil, err
		}
		mounts = append(mounts, inputs...)
	}
	if servedNodes {
		if err := v.makeNodes(); err != nil {
			return nil, nil, err
		}
	}
	var devices map[string]*device
	if !v.noDevices {
		if devices, err = v.openDevices(args); err != nil {
			return nil, nil, err
		}
	}
	if len(v.stage.Mounts) > 0 {
		if err := v.openMounts(args, devices); err != nil {
			return nil, nil, err
		}
		mounts = append(mounts, buildroot.Mount{Path: filepath.Join(v.dir, "mounts"), Target: insideMounts})
	}
	if servedNodes {
		nodes, err := v.nodeMounts()
		return args, append(mounts, nodes...), err
	}
	for _, d := range devices {
		mounts = append(mounts, buildroot.Mount{Path: d.path, Target: d.path, Device: [2]uint32{d.loop.Major, d.loop.Minor}})
	}
	return args, mounts, nil
}

// close undoes everything; it goes on after errors.
func (v *environment) close() error {
	if v.closed {
		return nil
	}
	v.closed = true
	var errs []error
	for i := len(v.undo) - 1; i >= 0; i-- {
		errs = append(errs, v.undo[i]())
	}
	if v.links != "" {
		errs = append(errs, scratch.RemoveAll(v.links))
	}
	return errors.Join(errs...)
}

// openInputs makes a directory with one entry for each input, and returns how the
// stage sees them. The directory is a tmpfs in the Space, so that nothing is ever
// mounted on one that is removed later; but services have theirs in the store, since
// they make hard links to its files.
func (v *environment) openInputs(args *arguments, served bool) ([]buildroot.Mount, error) {
	root := filepath.Join(v.dir, "inputs")
	mounts := []buildroot.Mount{{Path: root, Target: insideInputs, Readonly: true}}
	links := ""
	if served {
		var err error
		if links, err = os.MkdirTemp(v.b.e.run.Path, "inputs-"); err != nil {
			return nil, err
		}
		v.onClose(func() error { return scratch.RemoveAll(links) })
		if err := os.Chmod(links, 0o755); err != nil {
			return nil, err
		}
		mounts[0].Path = links
	}
	err := v.b.e.space.Do(func() error {
		if err := buildroot.MountTmpfs(root, "0755"); err != nil {
			return err
		}
		v.onClose(func() error { return v.b.e.space.Do(func() error { return buildroot.Unmount(root) }) })
		for _, name := range names(v.stage.Inputs) {
			in := v.stage.Inputs[name]
			target := filepath.Join(root, name)
			if err := os.Mkdir(target, 0o755); err != nil {
				return err
			}
			if served {
				if err := os.Mkdir(filepath.Join(links, name), 0o755); err != nil {
					return err
				}
				module, err := v.b.e.cfg.Programs.input(in)
				if err == nil && module != nil {
					args.Inputs[name], err = v.serveInput(module, name, filepath.Join(links, name), links)
				}
				if err != nil {
					return fmt.Errorf("input %q: %w", name, err)
				}
				if module != nil {
					continue
				}
				mounts = append(mounts, buildroot.Mount{Path: target, Target: path.Join(insideInputs, name), Readonly: true})
			}
			var err error
			arg := stages.InputArg{Path: path.Join(insideInputs, name)}
			switch {
			case in.Type == "org.osbuild.tree" && in.Origin == manifest.OriginPipeline:
				err = v.treeInput(name, target)
			case in.Type == "org.osbuild.files" && in.Origin == manifest.OriginPipeline:
				arg.Data, err = v.filesOfPipelines(name, in, target)
			case in.Type == "org.osbuild.files":
				arg.Data, err = v.filesOfSources(name, target)
			default:
				err = fmt.Errorf("inputs of type %s with origin %s are not known", in.Type, in.Origin)
			}
			if err != nil {
				return fmt.Errorf("input %q: %w", name, err)
			}
			args.Inputs[name] = arg
		}
		return nil
	})
	return mounts, err
}

func (v *environment) treeInput(name, target string) error {
	reads := v.pl.inputs[v.i][name]
	if len(reads) != 1 {
		return fmt.Errorf("it needs exactly one pipeline, and has %d", len(reads))
	}
	o := v.trees[reads[0]]
	if o == nil {
		return nil // a pipeline without stages: an empty tree
	}
	return v.b.e.mountObject(o, target)
}

// filesOfPipelines shows single files of trees, at the paths they have there.
func (v *environment) filesOfPipelines(name string, in *manifest.Input, target string) (data stages.InputData, err error) {
	data.Files = map[string]json.RawMessage{}
	for n, ref := range in.References {
		q := v.pipelineOf(name, ref)
		if q == nil || v.trees[q] == nil {
			return data, fmt.Errorf("reference %q has no tree", ref.ID)
		}
		view := fmt.Sprintf("%s/.%s-%d", filepath.Dir(target), name, n)
		if err := os.Mkdir(view, 0o700); err != nil {
			return data, err
		}
		if err := v.b.e.mountObject(v.trees[q], view); err != nil {
			return data, err
		}
		// What is shown is bound from the view, which then is not needed any more.
		err := func() error {
			defer func() { buildroot.Unmount(view); os.Remove(view) }()
			file, _ := ref.Options["file"].(string)
			rel := strings.TrimPrefix(path.Clean("/"+file), "/")
			if file == "" || rel == "" {
				return fmt.Errorf("reference %q: its option \"file\" is missing", ref.ID)
			}
			from, err := buildroot.InRoot(view, rel)
			if err != nil {
				return err
			}
			to := filepath.Join(target, rel)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			st, err := os.Stat(from)
			if err != nil {
				return err
			}
			if st.IsDir() {
				err = os.Mkdir(to, 0o755)
			} else {
				err = os.WriteFile(to, nil, 0o600)
			}
			if err != nil {
				return err
			}
			data.Files[rel] = metadataOf(ref)
			return buildroot.Bind(from, to, true)
		}()
		if err != nil {
			return data, err
		}
	}
	return data, nil
}

func (v *environment) pipelineOf(name string, ref manifest.Reference) *plan {
	n, _ := strings.CutPrefix(ref.ID, "name:")
	for _, q := range v.pl.inputs[v.i][name] {
		if q.p.Name == n {
			return q
		}
	}
	return nil
}

// filesOfSources shows the files of a source by hard links to those in the store.
func (v *environment) filesOfSources(name, target string) (data stages.InputData, err error) {
	data.Files = map[string]json.RawMessage{}
	dir, err := os.MkdirTemp(v.b.e.run.Path, "files-")
	if err != nil {
		return data, err
	}
	if v.links == "" {
		v.links = dir
	} else {
		v.onClose(func() error { return scratch.RemoveAll(dir) })
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return data, err
	}
	var sums []string
	for _, ref := range v.pl.ids.References(v.pl.p, v.i, name) {
		if _, dup := data.Files[ref.ID]; !dup {
			sums = append(sums, ref.ID)
			data.Files[ref.ID] = metadataOf(ref)
		}
	}
	store := v.b.e.cfg.Store.SourcesDir()
	err = v.b.readSources(v.ctx, v.span, sums, func() error {
		now := time.Now()
		for _, sum := range sums {
			if err := os.Link(sources.Path(store, sum), filepath.Join(dir, sum)); err != nil {
				return fmt.Errorf("source file %s is not in the store: %w", sum, err)
			}
			// When it was fetched must not show in what is made of it: like everything
			// that is new in the tree, its copies are clamped to the source epoch.
			if err := freshen(filepath.Join(dir, sum), now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return data, err
	}
	return data, buildroot.Bind(dir, target, true)
}

// freshen makes a file of a source one that does not tell when it was fetched, and by
// whom: like everything that is new in the tree, its copies are clamped to the source
// epoch.
func freshen(p string, now time.Time) error {
	if err := os.Chmod(p, 0o644); err != nil {
		return err
	}
	return os.Chtimes(p, now, now)
}

// metadataOf is what a reference passes on to the stage.
func metadataOf(ref manifest.Reference) json.RawMessage {
	if m, ok := ref.Options["metadata"]; ok {
		if b, err := json.Marshal(m); err == nil {
			return b
		}
	}
	return json.RawMessage("{}")
}
