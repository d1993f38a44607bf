// Cache keys: the names of what the steps of a pipeline make.
//
// A stage's key is a digest of its ID, which says what it is asked to do, and of
// all that the ID leaves out and that changes what comes out: the program's
// revision, the runner, the devices, the names of mounts, the order of options, the
// architecture, and the keys of the tree below it, of its build root and of the trees it
// reads. Executables that take part count by a digest of their file, and so do programs of
// the host where that is the build root (hostfiles.go).
package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/runners"
)

// keyVersion changes when the layout of layers does.
const keyVersion = "osbuild-star 1"

// surroundings is raised when stages find something else around them than before, or when
// something else becomes of what they leave. A test ties it to the code of that.
const surroundings = 1

// step is a run of stages that makes one layer.
type step struct {
	from, to int // stages [from, to) of the pipeline
	key      string
}

// plan is a pipeline with its keys.
type plan struct {
	p       *manifest.Pipeline
	ids     *manifest.IDs
	runner  string    // full name, of the build root that its stages run in
	custom  string    // "sha256:…" of a runner of the user's own, "" for one with a name
	setup   runner    // what prepares the build root
	build   *plan     // nil: the host
	network bool      // programs have the host's: of no pipeline, see [Engine.Run]
	vardir  string    // that backs /var of the build root, "" is the engine's; in no key
	progs   []program // per stage
	steps   []step
	inputs  []map[string][]*plan // per stage: by input name, the pipelines it reads
	key     string               // of the last step
}

// looked are plans that were made of a manifest, for whoever asks next.
type looked struct {
	at    *manifest.Manifest
	plans map[string]*plan
}

// look makes the plans of all pipelines, and keeps them: the next one who asks for those
// of the very same manifest gets them. It must not change in between.
func (e *Engine) look(m *manifest.Manifest) (map[string]*plan, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.looked.at == m {
		return e.looked.plans, nil
	}
	all, err := e.plans(m)
	if err == nil {
		e.looked = looked{m, all}
	}
	return all, err
}

// take is look for the last time: for a build. Who asks for what it was made of gets the
// same by taken.
func (e *Engine) take(m *manifest.Manifest) (map[string]*plan, error) {
	all, err := e.look(m)
	e.mu.Lock()
	e.looked, e.built = looked{}, looked{m, all}
	e.mu.Unlock()
	return all, err
}

// taken are the plans that the last build was made of, if it was of that manifest.
func (e *Engine) taken(m *manifest.Manifest) (map[string]*plan, error) {
	e.mu.Lock()
	built := e.built
	e.mu.Unlock()
	if built.at == m && built.plans != nil {
		return built.plans, nil
	}
	return e.plans(m)
}

// Key names the tree of a pipeline by all that it is made from, whether the store has it
// or not.
func (e *Engine) Key(m *manifest.Manifest, pipeline string) (string, error) {
	all, err := e.look(m)
	if err != nil {
		return "", err
	}
	pl := all[pipeline]
	if pl == nil {
		return "", fmt.Errorf("no pipeline %q in the manifest", pipeline)
	}
	return pl.key, nil
}

// plans makes the plans of all pipelines, by name.
func (e *Engine) plans(m *manifest.Manifest) (map[string]*plan, error) {
	ids, err := m.IDs()
	if err != nil {
		return nil, err
	}
	out := map[string]*plan{}
	host := e.files.round(e.cfg.Host.Tree)
	defer e.files.keep()
	for _, p := range m.Pipelines {
		pl := &plan{p: p, ids: ids, runner: e.cfg.Host.Runner}
		if p.Build != nil && p.Build.Pipeline != "" {
			b := out[p.Build.Pipeline]
			if b == nil {
				return nil, fmt.Errorf("pipeline %q is built in %q, which is not before it", p.Name, p.Build.Pipeline)
			}
			if len(b.p.Stages) > 0 {
				pl.build = b
			}
		}
		if p.Build != nil {
			pl.vardir, pl.custom = p.Build.Var, p.Build.Program
		}
		if p.Build != nil && p.Build.Runner != "" {
			pl.runner = p.Build.Runner
			if pl.custom == "" {
				pl.runner = runners.FullName(pl.runner)
			}
		}
		if err := pl.makeKeys(e.cfg, host, out); err != nil {
			return nil, err
		}
		out[p.Name] = pl
	}
	return out, nil
}

func (pl *plan) makeKeys(cfg Config, host *hostRound, all map[string]*plan) (err error) {
	if pl.custom != "" {
		pl.setup = runner{custom: pl.custom}
	} else if pl.setup, err = cfg.Programs.runner(pl.runner); err != nil {
		return fmt.Errorf("pipeline %q: %w", pl.p.Name, err)
	}
	arch := pl.p.Arch
	if arch == "" {
		arch = HostArch()
	}
	build := "host " + hostIdentity(cfg.Host.Tree)
	if pl.build != nil {
		build = pl.build.key
	}
	prev := ""
	inPlace := false
	for i, s := range pl.p.Stages {
		prog, err := cfg.Programs.stage(s)
		if err != nil {
			return fmt.Errorf("pipeline %q: %w", pl.p.Name, err)
		}
		pl.progs = append(pl.progs, prog)
		reads := map[string][]*plan{}
		var inputKeys []string
		for name, in := range s.Inputs {
			if in.Origin != manifest.OriginPipeline {
				continue
			}
			for _, ref := range in.References {
				n, ok := strings.CutPrefix(ref.ID, "name:")
				if !ok {
					continue
				}
				q := all[n]
				if q == nil {
					return fmt.Errorf("pipeline %q reads %q, which is not before it", pl.p.Name, n)
				}
				reads[name] = append(reads[name], q)
				inputKeys = append(inputKeys, name+"="+q.key)
			}
		}
		pl.inputs = append(pl.inputs, reads)
		slices.Sort(inputKeys)
		tools := ""
		if pl.build == nil && (i > 0 || pl.adopted(step{to: 1}) == nil) {
			tools = pl.hostKey(host, i)
		}
		if prev, err = pl.stageKey(cfg.Programs, i, build, tools, arch, inputKeys, prev); err != nil {
			return fmt.Errorf("pipeline %q: stage %s: %w", pl.p.Name, s.Type, err)
		}
		now := prog.inPlace(s.Type) || len(s.Devices) > 0
		if n := len(pl.steps); n > 0 && now && inPlace {
			pl.steps[n-1].to, pl.steps[n-1].key = i+1, prev
		} else {
			pl.steps = append(pl.steps, step{from: i, to: i + 1, key: prev})
		}
		inPlace = now
	}
	pl.key = prev
	return nil
}

// stageKey is the key of one stage on the tree of the key prev.
func (pl *plan) stageKey(programs Programs, i int, build, tools, arch string, inputs []string, prev string) (string, error) {
	s, prog := pl.p.Stages[i], pl.progs[i]
	program, err := prog.key()
	if err != nil {
		return "", err
	}
	runner, err := pl.setup.key(prog)
	if err != nil {
		return "", err
	}
	parts := []any{keyVersion, surroundings, pl.ids.Stage(pl.p, i), program, runner, build, tools, arch, s.Devices, s.Mounts, string(s.Text), inputs, prev}
	services, err := programs.servicesKey(s, prog)
	if err != nil {
		return "", err
	}
	if services != "" {
		parts = append(parts, services)
	}
	return digest(parts...), nil
}

// hostKey is what of the host's programs and files goes into the key of a stage that runs
// there.
func (pl *plan) hostKey(host *hostRound, i int) string {
	s, prog := pl.p.Stages[i], pl.progs[i]
	tools := prog.tools(s)
	if _, through := pl.setup.of(prog, pl.runner); through != nil {
		if t := interpreter(through); t != "" {
			tools = append(slices.Clip(tools), t)
		}
	}
	var reads []string
	switch {
	case prog.native == nil:
		reads = []string{"/etc/mke2fs.conf", "/etc/containers", "/etc/selinux"} // what it can see of /etc
	case prog.native.Reads != nil:
		reads = prog.native.Reads(s.Options)
	}
	return host.key(tools, reads)
}

func digest(parts ...any) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, p := range parts {
		// Everything that is given is plain data.
		if err := enc.Encode(p); err != nil {
			fmt.Fprintf(h, "%v\n", p)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hostIdentity stands for the host's tree, at root, when it is the build root: what
// system it is. Of its files those count that a stage names, see hostKey.
func hostIdentity(root string) string {
	b, err := os.ReadFile(filepath.Join(root, "etc/os-release"))
	if err != nil {
		return runners.Host(root)
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// HostArch is this machine's architecture by the name that manifests and rule files
// use: "x86_64".
func HostArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	default:
		return runtime.GOARCH
	}
}
