// Services: inputs, devices and mounts that programs of the library directory make,
// each for as long as the stage runs. They run on the host's side, in the Space.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/hostapi"
	"github.com/osbuild-star/osbuild-star/libdir"
	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/monitor"
	"github.com/osbuild-star/osbuild-star/sources"
	"golang.org/x/sys/unix"
)

// startService starts a program of the library directory; do is the place that it
// runs in, nil for that of this process.
func (e *Engine) startService(m *libdir.Module, id string, span *monitor.Span, do func(func() error) error) (*hostapi.Service, error) {
	python, err := e.cfg.Programs.Dir.PythonPath()
	if err != nil {
		return nil, err
	}
	return hostapi.StartService(hostapi.ServiceConfig{
		Program: m.Path, ID: id, Do: do,
		Env: append(os.Environ(), "PYTHONPATH="+python, "PYTHONUNBUFFERED=1"),
		Line: func(line string) {
			span.Emit(monitor.Event{Kind: monitor.Output, Text: fmt.Sprintf("%s (%s): %s", id, m.Name, line)})
		},
	})
}

// serve starts the service of one thing of the stage, calls a method of it, and ends
// it when the stage is over.
func (v *environment) serve(m *libdir.Module, id, method string, args map[string]any) (json.RawMessage, error) {
	s, err := v.b.e.startService(m, id, v.span, v.b.e.space.Do)
	if err != nil {
		return nil, err
	}
	v.onClose(s.Close)
	ctx := v.ctx
	if limit := v.b.e.cfg.Limit; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, &buildroot.LimitError{Limit: limit})
		defer cancel()
	}
	return s.Call(ctx, method, args, nil)
}

// rerooted takes the path of something below root, as a service tells it, and says
// what the stage knows it by.
func rerooted(path, root, inside string) (string, error) {
	rel, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsAbs(path) || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fmt.Errorf("the service returned the path %q, which is not below %s", path, root)
	}
	return inside + "/" + rel, nil
}

// orEmpty is what a service gets for options that are not written.
func orEmpty(options map[string]any) map[string]any {
	if options == nil {
		return map[string]any{}
	}
	return options
}

// orNull is what a service gets for a text that is not written.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// serveInput has a service fill the directory target, which is below root, and
// returns what the stage is told of it.
func (v *environment) serveInput(m *libdir.Module, name, target, root string) (any, error) {
	socket, err := v.storeSocket()
	if err != nil {
		return nil, err
	}
	in := v.stage.Inputs[name]
	refs := map[string]any{}
	var sums []string
	for _, ref := range v.pl.ids.References(v.pl.p, v.i, name) {
		id := ref.ID
		sums = append(sums, id)
		if id == "" {
			id = "null" // a pipeline without stages
		}
		refs[id] = orEmpty(ref.Options)
	}
	if in.Origin == manifest.OriginSource {
		if err := v.b.readSources(v.ctx, v.span, sums, func() error { return nil }); err != nil {
			return nil, err
		}
	}
	reply, err := v.serve(m, "input/"+name, "map", map[string]any{
		"origin": in.Origin, "refs": refs, "target": target, "options": orEmpty(in.Options),
		"api": map[string]any{"store": socket},
	})
	if err != nil {
		return nil, err
	}
	var out map[string]any
	if err := decodeReply(reply, &out); err != nil {
		return nil, err
	}
	if err := v.renewLinks(name, target); err != nil {
		return nil, err
	}
	path, _ := out["path"].(string)
	if out["path"], err = rerooted(path, root, insideInputs); err != nil {
		return nil, err
	}
	return out, nil
}

// renewLinks gives the files of sources in a directory of an input the time of now, as
// files that are linked here have: when one was fetched must not show in what is made
// of it.
func (v *environment) renewLinks(name, dir string) error {
	now := time.Now()
	for _, ref := range v.pl.ids.References(v.pl.p, v.i, name) {
		if !filepath.IsLocal(ref.ID) {
			continue
		}
		have, err := os.Lstat(filepath.Join(dir, ref.ID))
		if err != nil {
			continue // the input has other things
		}
		stored, err := os.Lstat(sources.Path(v.b.e.cfg.Store.SourcesDir(), ref.ID))
		if err != nil || !os.SameFile(have, stored) {
			continue
		}
		if err := freshen(filepath.Join(dir, ref.ID), now); err != nil {
			return err
		}
	}
	return nil
}

// decodeReply reads the object that a service returned.
func decodeReply(reply json.RawMessage, into *map[string]any) error {
	err := unmarshal(reply, into)
	if err == nil && *into == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		return fmt.Errorf("the service returned no object: %w", err)
	}
	return nil
}

// unmarshal keeps the digits of numbers.
func unmarshal(b []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	return d.Decode(into)
}

// serveDevice has a service make a block device, with its node below the directory of
// nodes.
func (v *environment) serveDevice(m *libdir.Module, name string, devices map[string]*device) (*device, any, error) {
	d := v.stage.Devices[name]
	var parent any
	if p := devices[d.Parent]; p != nil {
		parent = p.rel
	}
	reply, err := v.serve(m, "device/"+name, "open", map[string]any{
		"dev": v.nodes, "tree": v.tree, "parent": parent, "options": orEmpty(d.Options),
	})
	if err != nil {
		return nil, nil, err
	}
	var out map[string]any
	if err := decodeReply(reply, &out); err != nil {
		return nil, nil, err
	}
	rel, _ := out["path"].(string)
	if rel == "" || !filepath.IsLocal(rel) {
		return nil, nil, fmt.Errorf("the service returned the path %q, which is not below /dev", rel)
	}
	out["path"] = "/dev/" + rel
	return &device{rel: rel, path: v.nodePath(rel)}, out, nil
}

// nodePath is where the node of a device is on the host: by its name in /dev if it
// has one there, since programs look devices up by what is mounted.
func (v *environment) nodePath(rel string) string {
	if p := filepath.Join("/dev", rel); exists(p) {
		return p
	}
	return filepath.Join(v.nodes, rel)
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// serveMount has a service mount something below root, or somewhere in the tree.
func (v *environment) serveMount(m *libdir.Module, root string, mnt *manifest.Mount, devices map[string]*device) (any, error) {
	source := ""
	if d := devices[mnt.Source]; d != nil {
		source = d.path
		if mnt.Partition > 0 {
			source += fmt.Sprintf("p%d", mnt.Partition)
		}
	}
	reply, err := v.serve(m, "mount/"+mnt.Name, "mount", map[string]any{
		"source": orNull(source), "target": orNull(mnt.Target), "root": root, "tree": v.tree, "options": orEmpty(mnt.Options),
	})
	if err != nil {
		return nil, err
	}
	var path *string
	if err := json.Unmarshal(reply, &path); err != nil {
		return nil, fmt.Errorf("the service returned no path: %w", err)
	}
	if path == nil || *path == "" {
		return map[string]any{}, nil // it is in the tree
	}
	at, err := rerooted(*path, root, insideMounts)
	if err != nil {
		return nil, err
	}
	return map[string]any{"path": at}, nil
}

// served tells whether a service makes any of the inputs of a stage (the first), and
// any of its devices or mounts (the second).
func (v *environment) served() (inputs, nodes bool, err error) {
	p := v.b.e.cfg.Programs
	var errs []error
	is := func(m *libdir.Module, err error) bool {
		errs = append(errs, err)
		return m != nil
	}
	for _, in := range v.stage.Inputs {
		inputs = is(p.input(in)) || inputs
	}
	for _, d := range v.stage.Devices {
		nodes = is(p.device(d)) || nodes
	}
	for _, m := range v.stage.Mounts {
		nodes = is(p.mount(m)) || nodes
	}
	return inputs, nodes, errors.Join(errs...)
}

// makeNodes makes the directory that services put nodes of devices into.
func (v *environment) makeNodes() error {
	v.nodes = filepath.Join(v.dir, "dev")
	if err := os.MkdirAll(v.nodes, 0o755); err != nil {
		return err
	}
	return v.b.e.space.Do(func() error {
		if err := buildroot.MountTmpfs(v.nodes, "0755"); err != nil {
			return err
		}
		v.onClose(func() error { return v.b.e.space.Do(func() error { return buildroot.Unmount(v.nodes) }) })
		return nil
	})
}

// addNode makes a node for a device that was made here, so that services find it.
func (v *environment) addNode(l *buildroot.Loop, rel string) error {
	return v.b.e.space.Do(func() error {
		p := filepath.Join(v.nodes, rel)
		if err := unix.Mknod(p, unix.S_IFBLK|0o660, int(unix.Mkdev(l.Major, l.Minor))); err != nil {
			return &os.PathError{Op: "mknod", Path: p, Err: err}
		}
		return nil
	})
}

// nodeMounts shows every node that there is to the stage.
func (v *environment) nodeMounts() (mounts []buildroot.Mount, err error) {
	err = v.b.e.space.Do(func() error {
		return filepath.WalkDir(v.nodes, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			// What is bound on a file of another kind is a node too.
			var st unix.Stat_t
			if err := unix.Lstat(p, &st); err != nil {
				return &os.PathError{Op: "lstat", Path: p, Err: err}
			}
			if st.Mode&unix.S_IFMT != unix.S_IFBLK {
				return nil
			}
			rel, err := filepath.Rel(v.nodes, p)
			mounts = append(mounts, buildroot.Mount{
				Path: p, Target: "/dev/" + rel, Device: [2]uint32{unix.Major(st.Rdev), unix.Minor(st.Rdev)},
			})
			return err
		})
	})
	return mounts, err
}

// storeSocket is the path of the socket that services of inputs call back, which is
// made for the first of them.
func (v *environment) storeSocket() (string, error) {
	if v.socket != "" {
		return v.socket, nil
	}
	s := &storeViews{v: v, at: map[string]string{}, trees: map[string]*plan{}}
	for _, reads := range v.pl.inputs[v.i] {
		for _, q := range reads {
			s.trees[v.pl.ids.Pipeline(q.p.Name)] = q
		}
	}
	path := filepath.Join(v.dir, "store")
	v.onClose(s.close)
	srv, err := hostapi.ServeStore(hostapi.StoreConfig{
		Path: path, ReadTree: s.readTree, ReadTreeAt: s.readTreeAt,
		Mkdtemp: func(_ context.Context, prefix, suffix string) (string, error) {
			if strings.ContainsRune(prefix+suffix, '/') {
				return "", errors.New("a name has no slash")
			}
			return os.MkdirTemp(v.b.e.run.Path, strings.ReplaceAll(prefix, "*", "")+"*"+strings.ReplaceAll(suffix, "*", ""))
		},
		Source: func(_ context.Context, name string) (string, error) {
			if !filepath.IsLocal(name) {
				return "", fmt.Errorf("there are no sources %q", name)
			}
			return filepath.Join(filepath.Dir(v.b.e.cfg.Store.SourcesDir()), name), nil
		},
	})
	if err != nil {
		return "", err
	}
	v.onClose(func() error { return srv.Close(context.Background()) })
	v.socket = path
	return path, nil
}
