// What builds left that were killed.
package engine

import (
	"os"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/buildroot/binfmt"
	"github.com/osbuild-star/osbuild-star/internal/scratch"
)

// sweep removes what builds left that were killed. Most of it the next one would find
// when it makes the like, but it may have nothing to make.
func (e *Engine) sweep() {
	if os.Geteuid() != 0 {
		return
	}
	e.cfg.Store.Sweep()
	scratch.Sweep(e.workDir(), workPrefix)
	buildroot.Sweep(e.cfg.Var)
	_ = binfmt.Sweep() // without binfmt_misc there is nothing
}

const workPrefix = "osbuild-star-run."

// workDir is below which mount points are.
func (e *Engine) workDir() string {
	if e.cfg.Work != "" {
		return e.cfg.Work
	}
	dir := "/run/osbuild-star"
	if os.MkdirAll(dir, 0o755) != nil {
		dir = os.TempDir()
	}
	return dir
}
