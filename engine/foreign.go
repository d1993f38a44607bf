// Programs of other architectures: those of trees, which stages start with the tree
// as their root. Programs of a build root are its own matter.
package engine

import (
	"errors"
	"strings"

	"github.com/osbuild-star/osbuild-star/buildroot"
	"github.com/osbuild-star/osbuild-star/buildroot/binfmt"
)

// runPrograms makes sure that programs of the tree run, until the engine is closed.
// Its architecture is the one that the pipeline says, and else, or where the programs
// that are in it already are of another one, theirs.
func (e *Engine) runPrograms(pl *plan, tree string) error {
	found := ""
	err := e.space.Do(func() error {
		found = buildroot.Arch(tree)
		return nil
	})
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, arch := range []string{pl.p.Arch, found} {
		if arch == "" || e.runs[arch] != nil {
			continue
		}
		h, err := binfmt.Use(arch)
		var be *binfmt.Error
		if errors.As(err, &be) {
			return &HostError{err, be.Hint}
		}
		if err != nil {
			return err
		}
		e.runs[arch] = h
	}
	return nil
}

// missingEmulation tells what the host lacks for running programs of an architecture.
func missingEmulation(arch, what string) (Missing, bool) {
	var be *binfmt.Error
	if arch == "" || !errors.As(binfmt.Check(arch), &be) {
		return Missing{}, false
	}
	m := Missing{What: be.Error(), Why: "for programs of " + arch + " (" + what + ")", Hint: be.Hint}
	if pkg, ok := strings.CutPrefix(be.Hint, "apt-get install "); ok {
		m.Package, m.Hint = pkg, ""
	}
	return m, true
}
