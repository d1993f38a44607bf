// The modules of a tree as checks of manifests see them.
package libdir

import (
	"sync"

	"github.com/osbuild-star/osbuild-star/manifest"
)

// Modules offers the schemas of the tree's modules to checks. A module whose
// description is broken is there too: its schema refuses everything, and says why.
func (d *Dir) Modules() manifest.Modules {
	return &schemas{d: d, made: map[string]*manifest.ModuleSchema{}}
}

// schemas keeps what was asked for, so that a schema is decoded once.
type schemas struct {
	d    *Dir
	mu   sync.Mutex
	made map[string]*manifest.ModuleSchema
}

var kindOf = map[manifest.ModuleKind]Kind{
	manifest.StageModule: Stages, manifest.AssemblerModule: Assemblers, manifest.DeviceModule: Devices,
	manifest.MountModule: Mounts, manifest.InputModule: Inputs, manifest.SourceModule: Sources,
}

func (s *schemas) find(kind manifest.ModuleKind, name string) *manifest.ModuleSchema {
	m, err := s.d.Find(kindOf[kind], name)
	if m == nil && err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := string(kindOf[kind]) + "/" + name
	made := s.made[key]
	switch {
	case made != nil:
	case err != nil:
		made = manifest.BrokenSchema(kind, name, err)
	case len(m.Schema) == 0 && len(m.Schema2) == 0:
		return nil // upstream cannot tell what it takes either
	default:
		made = manifest.NewModuleSchema(kind, name, m.Schema, m.Schema2)
	}
	s.made[key] = made
	return made
}

func (s *schemas) Stage(name string) *manifest.ModuleSchema {
	return s.find(manifest.StageModule, name)
}
func (s *schemas) Assembler(name string) *manifest.ModuleSchema {
	return s.find(manifest.AssemblerModule, name)
}
func (s *schemas) Device(name string) *manifest.ModuleSchema {
	return s.find(manifest.DeviceModule, name)
}
func (s *schemas) Mount(name string) *manifest.ModuleSchema {
	return s.find(manifest.MountModule, name)
}
func (s *schemas) Input(name string) *manifest.ModuleSchema {
	return s.find(manifest.InputModule, name)
}
func (s *schemas) Source(name string) *manifest.ModuleSchema {
	return s.find(manifest.SourceModule, name)
}
