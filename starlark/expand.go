// Expand: from patterns to targets, and suggestions for labels that name nothing.

package starlark

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
)

// Expand returns the targets that the patterns name, in the order in which they are
// first named: patterns as given, packages by the alphabet, targets as declared. As
// in Bazel a negative pattern takes away from what the patterns before it named. Only
// packages that can matter are run.
//
// A label that does not exist is an *Error whose cause is an *UnknownLabelError; a
// pattern that matches nothing is a *NoMatchError. If several packages are wrong, all
// their errors are told.
func (l *Loader) Expand(ctx context.Context, patterns []Pattern) ([]Target, error) {
	cover := make([][]string, len(patterns)) // the packages of each positive pattern
	var all []string
	for i, p := range patterns {
		if p.negative {
			continue
		}
		var err error
		if cover[i], err = l.packagesOf(ctx, p, patterns[i+1:]); err != nil {
			return nil, err
		}
		all = append(all, cover[i]...)
	}
	pkgs, err := l.packages(ctx, all)
	if err != nil {
		return nil, err
	}
	set := selection{byLabel: map[Label]*selected{}}
	for i, p := range patterns {
		if p.negative {
			if err := l.subtract(ctx, &set, p, pkgs); err != nil {
				return nil, err
			}
			continue
		}
		matched := false
		for _, pkg := range cover[i] {
			if pkgs[pkg] == nil {
				matched = true // taken away again as a whole
				continue
			}
			for _, t := range pkgs[pkg].Targets {
				if !p.Matches(t.Label()) {
					continue
				}
				ok, err := set.add(t, p)
				if err != nil {
					return nil, err
				}
				matched = matched || ok
			}
		}
		if !matched && p.exact() {
			return nil, l.unknownTarget(ctx, pkgs[p.pkg], p.label())
		}
		if !matched {
			return nil, &NoMatchError{Pattern: p.String(), Hint: l.emptyHint(p, cover[i])}
		}
	}
	targets, err := set.targets()
	if err == nil && len(targets) == 0 {
		words := make([]string, len(patterns))
		onlyNegative := len(patterns) > 0
		for i, p := range patterns {
			words[i] = p.String()
			onlyNegative = onlyNegative && p.negative
		}
		none := &NoMatchError{Pattern: strings.Join(words, " ")}
		if onlyNegative {
			none.Hint = "a pattern that takes away needs one before it to take from, as //..."
		}
		return nil, none
	}
	return targets, err
}

// Target returns the one target, or variant, that a label names.
func (l *Loader) Target(ctx context.Context, label Label) (Target, error) {
	if label.Repo != "" {
		return nil, &Error{Msg: fmt.Sprintf("%s is in the rule library, which has no targets", label), Err: &UnknownLabelError{Label: label}}
	}
	p := Pattern{pkg: label.Package, name: label.Name, sel: Selector{Name: label.Variant}}
	targets, err := l.Expand(ctx, []Pattern{p})
	if err != nil {
		return nil, err
	}
	return targets[0], nil
}

// packagesOf lists the packages that a pattern speaks of, without those that later
// patterns take away as a whole, which show as names that are not run.
func (l *Loader) packagesOf(ctx context.Context, p Pattern, later []Pattern) ([]string, error) {
	if err := l.checkInside(p.pkg); err != nil {
		return nil, err
	}
	if !p.recursive {
		if _, err := l.fsRoot(); err == nil && !l.dir(p.pkg).isPackage {
			return nil, l.unknownTarget(ctx, nil, p.label())
		}
		return []string{p.pkg}, nil
	}
	found, err := l.packagesBelow(ctx, p.pkg)
	if err != nil {
		var own *Error
		if errors.As(err, &own) && p.pkg != "" {
			return nil, &NoMatchError{Pattern: p.String(), Hint: fmt.Sprintf("there is no folder %s", p.pkg)}
		}
		return nil, err
	}
	for i, pkg := range found {
		for _, neg := range later {
			if neg.negative && !neg.exact() && neg.sel.IsZero() && neg.covers(pkg) {
				found[i] = skipped(pkg)
				break
			}
		}
	}
	return found, nil
}

// skipped marks a package that need not be run; ":" is in no package's name.
func skipped(pkg string) string { return ":" + pkg }

// packages runs packages at once. The result has no skipped ones.
func (l *Loader) packages(ctx context.Context, names []string) (map[string]*Package, error) {
	pkgs := make(map[string]*Package, len(names))
	var order []string
	for _, n := range names {
		if _, ok := pkgs[n]; !ok && !strings.HasPrefix(n, ":") {
			pkgs[n] = nil
			order = append(order, n)
		}
	}
	results := make([]*Package, len(order))
	errs := make([]error, len(order))
	// Few goroutines: each package that is run has one of its own anyhow.
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(len(order), 2*l.o.Jobs) {
		wg.Go(func() {
			for i := range next {
				results[i], errs[i] = l.Package(ctx, order[i])
			}
		})
	}
	for i := range order {
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		why := l.contextStop(ctx, "loading")
		return nil, &Error{Msg: why.msg, Err: why.err}
	}
	if err := joinErrors(errs...); err != nil {
		return nil, err
	}
	for i, n := range order {
		pkgs[n] = results[i]
	}
	return pkgs, nil
}

// A selection is the targets that were named so far.
type selection struct {
	order   []Label
	byLabel map[Label]*selected
}

// selected is a target and, if it was not named as a whole, its variants that were.
type selected struct {
	target   Target
	whole    bool
	variants map[string]bool
}

func (s *selection) add(t Target, p Pattern) (bool, error) {
	label := t.Label()
	var names []string
	if !p.sel.IsZero() {
		vt, ok := t.(VariantTarget)
		if !ok {
			if !p.exact() {
				return false, nil
			}
			return false, &Error{
				Msg:  fmt.Sprintf("%s has no variants: it is %s %s", label, article(t.Kind()), t.Kind()),
				Hint: fmt.Sprintf("ask for %s", label),
				Err:  &UnknownLabelError{Label: Label{Package: label.Package, Name: label.Name, Variant: p.sel.Name}, Nearby: []Label{label}},
			}
		}
		all := vt.Variants()
		for _, v := range all {
			if p.sel.Matches(v) {
				names = append(names, v.Name)
			}
		}
		if len(names) == 0 {
			if !p.exact() {
				return false, nil
			}
			return false, unknownVariant(label, p.sel, all)
		}
	}
	sel := s.byLabel[label]
	if sel == nil {
		sel = &selected{target: t, variants: map[string]bool{}}
		s.byLabel[label] = sel
		s.order = append(s.order, label)
	}
	sel.whole = sel.whole || p.sel.IsZero()
	for _, n := range names {
		sel.variants[n] = true
	}
	return true, nil
}

func article(noun string) string {
	if noun != "" && strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an"
	}
	return "a"
}

// subtract takes away what a negative pattern names.
func (l *Loader) subtract(ctx context.Context, s *selection, p Pattern, pkgs map[string]*Package) error {
	if p.exact() && pkgs[p.pkg] != nil && pkgs[p.pkg].Target(p.name) == nil {
		return l.unknownTarget(ctx, pkgs[p.pkg], p.label())
	}
	for label, sel := range s.byLabel {
		if !p.Matches(label) {
			continue
		}
		if p.sel.IsZero() {
			delete(s.byLabel, label)
			s.order = slices.DeleteFunc(s.order, func(l Label) bool { return l == label })
			continue
		}
		vt, ok := sel.target.(VariantTarget)
		if !ok {
			continue
		}
		if sel.whole {
			for _, v := range vt.Whole() {
				sel.variants[v.Name] = true
			}
		}
		for _, v := range vt.Variants() {
			if p.sel.Matches(v) {
				sel.whole = false
				delete(sel.variants, v.Name)
			}
		}
	}
	return nil
}

// targets makes the list.
func (s *selection) targets() ([]Target, error) {
	var out []Target
	for _, label := range s.order {
		sel := s.byLabel[label]
		if sel.whole {
			out = append(out, sel.target)
			continue
		}
		vt := sel.target.(VariantTarget)
		for _, v := range vt.Variants() {
			if !sel.variants[v.Name] {
				continue
			}
			t, err := vt.Variant(v.Name)
			if err != nil {
				return nil, err
			}
			out = append(out, t)
		}
	}
	return out, nil
}

func unknownVariant(label Label, sel Selector, all []Variant) error {
	e := &Error{Msg: fmt.Sprintf("%s has no variant %q", label, sel.String())}
	unknown := &UnknownLabelError{Label: label}
	unknown.Label.Variant = sel.Name
	e.Err = unknown
	if sel.Name != "" {
		names := make([]string, len(all))
		for i, v := range all {
			names[i] = v.Name
		}
		var hints []string
		for _, n := range nearest(sel.Name, names, 2) {
			l := label
			l.Variant = n
			unknown.Nearby = append(unknown.Nearby, l)
			hints = append(hints, l.String())
		}
		e.Hint = didYouMean(hints...)
		if e.Hint == "" {
			e.Hint = "it has: " + some(names)
		}
		return e
	}
	values := map[string][]string{}
	var axes []string
	for _, v := range all {
		for _, a := range v.Axes {
			if values[a.Name] == nil {
				axes = append(axes, a.Name)
			}
			if !slices.Contains(values[a.Name], a.Value) {
				values[a.Name] = append(values[a.Name], a.Value)
			}
		}
	}
	for _, a := range sel.Axes {
		known, ok := values[a.Name]
		if !ok {
			e.Msg = fmt.Sprintf("%s has no axis %q", label, a.Name)
			if e.Hint = didYouMean(Suggest(a.Name, axes)); e.Hint == "" {
				e.Hint = "its axes are: " + some(axes)
			}
			return e
		}
		if !slices.Contains(known, a.Value) {
			e.Msg = fmt.Sprintf("%s has no %s %q", label, a.Name, a.Value)
			if e.Hint = didYouMean(Suggest(a.Value, known)); e.Hint == "" {
				e.Hint = fmt.Sprintf("its %s is one of: %s", a.Name, some(known))
			}
			return e
		}
	}
	e.Hint = "each of these values exists, but the matrix excludes them together"
	return e
}

// some lists the first of the names.
func some(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (l *Loader) emptyHint(p Pattern, pkgs []string) string {
	switch {
	case len(pkgs) == 0 && p.pkg == "":
		return "no folder of the workspace has a " + buildFile
	case len(pkgs) == 0:
		return fmt.Sprintf("neither %s nor a folder below it has a %s", p.pkg, buildFile)
	case !p.sel.IsZero():
		return "no target there has such variants"
	}
	return "the packages there declare no targets"
}

// unknownPackage makes the error for a package that has no BUILD.star.
func (l *Loader) unknownPackage(ctx context.Context, pkg string) error {
	return l.unknownTarget(ctx, nil, Label{Package: pkg})
}

// unknownTarget makes the error for a label that names nothing, with the nearest
// labels of its package and of the workspace. p is nil if there is no such package.
// Other packages are not run for it: what they seem to declare is good enough.
func (l *Loader) unknownTarget(ctx context.Context, p *Package, label Label) error {
	unknown := &UnknownLabelError{Label: label}
	e := &Error{Err: unknown}
	add := func(found Label) {
		if len(unknown.Nearby) < 3 && found != label && !slices.Contains(unknown.Nearby, found) {
			unknown.Nearby = append(unknown.Nearby, found)
		}
	}
	known, err := l.packagesBelow(ctx, "")
	if err != nil && ctx.Err() != nil {
		return err
	}
	if p != nil {
		e.Msg = fmt.Sprintf("there is no target %s", label)
		for _, n := range nearest(label.Name, p.names(), 2) {
			add(Label{Package: label.Package, Name: n})
		}
	} else {
		e.Msg = fmt.Sprintf("there is no package //%s: no %s is in that folder", label.Package, buildFile)
		for _, n := range nearest(label.Package, known, 2) {
			names := l.seemsToDeclare(n)
			found := Label{Package: n, Name: label.Name}
			if !slices.Contains(names, found.Name) {
				found.Name = Suggest(found.Name, names)
			}
			add(found)
		}
	}
	// the same name, or nearly, in another package; for an unknown package the last
	// part of its path may have been meant as a target's name
	names := []string{label.Name}
	if p == nil {
		names = append(names, path.Base(label.Package))
	}
	var others []Label
	for _, pkg := range known {
		if pkg == label.Package {
			continue
		}
		for _, n := range l.seemsToDeclare(pkg) {
			others = append(others, Label{Package: pkg, Name: n})
		}
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		var near []string
		for _, o := range others {
			if o.Name == name {
				add(o)
			}
			near = append(near, o.Name)
		}
		if len(unknown.Nearby) > 0 {
			continue // names that are merely alike would be noise
		}
		for _, n := range nearest(name, near, 2) {
			for _, o := range others {
				if o.Name == n {
					add(o)
				}
			}
		}
	}
	hints := make([]string, len(unknown.Nearby))
	for i, n := range unknown.Nearby {
		hints[i] = n.String()
		if n.Name == "" {
			hints[i] = packageLabel(n.Repo, n.Package)
		}
	}
	e.Hint = didYouMean(hints...)
	if e.Hint == "" && p != nil {
		if names := p.names(); len(names) > 0 {
			e.Hint = fmt.Sprintf("//%s has: %s", p.Name, some(names))
		} else {
			e.Hint = fmt.Sprintf("//%s declares no targets", p.Name)
		}
	}
	if e.Hint == "" {
		if len(known) == 0 {
			e.Hint = "no folder of the workspace has a " + buildFile
		} else {
			labels := make([]string, len(known))
			for i, k := range known {
				labels[i] = packageLabel("", k)
			}
			e.Hint = "the packages are: " + some(labels)
		}
	}
	return e
}

// seemsToDeclare lists the targets of a package: those it has if it was run, else
// those that its BUILD.star seems to have.
func (l *Loader) seemsToDeclare(pkg string) []string {
	name := path.Join(pkg, buildFile)
	l.mu.Lock()
	e := l.entries[name]
	l.mu.Unlock()
	if e != nil {
		select {
		case <-e.done:
			if e.pkg != nil {
				return e.pkg.names()
			}
		default:
		}
	}
	f, err := l.open(name)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // read only
	src, err := readBounded(f)
	if err != nil {
		return nil
	}
	return declaredNames(src)
}
