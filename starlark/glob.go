// Glob: the files of a package by pattern.

package starlark

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Glob lists the files of the scope's package that match a pattern of include and
// none of exclude, relative to the package and sorted. Patterns are paths in which
// "*", "?" and "[a-z]" stand for characters other than "/", and "**" for any number
// of folders. As in a shell, what begins with a dot is matched only by a pattern
// that says so; exclude matches it anyhow. Folders that are packages or workspaces
// of their own are not entered, nor are symbolic links to folders. Each pattern of
// include must match something unless allowEmpty. Errors are *Error without a
// position.
func (s *Scope) Glob(include, exclude []string, allowEmpty bool) ([]string, error) {
	if s.Repo != "" {
		return nil, &Error{Msg: "glob is for files of the workspace, not of @" + s.Repo}
	}
	g := globber{s: s, found: make([]bool, len(include))}
	for _, p := range include {
		segs, err := globSegments(p)
		if err != nil {
			return nil, err
		}
		g.include = append(g.include, segs)
	}
	for _, p := range exclude {
		segs, err := globSegments(p)
		if err != nil {
			return nil, err
		}
		g.exclude = append(g.exclude, segs)
	}
	states := make([]globState, len(include))
	for i := range states {
		states[i].pattern = i
	}
	if err := g.visit("", states); err != nil {
		return nil, err
	}
	if !allowEmpty {
		for i, ok := range g.found {
			if !ok {
				return nil, &Error{
					Msg:  fmt.Sprintf("glob: no file in //%s matches %q", s.Package, include[i]),
					Hint: "correct the pattern, or say allow_empty = True",
				}
			}
		}
		if len(g.files) == 0 {
			return nil, &Error{
				Msg:  fmt.Sprintf("glob: every file in //%s that matches is excluded, or there is no pattern", s.Package),
				Hint: "correct the patterns, or say allow_empty = True",
			}
		}
	}
	slices.Sort(g.files)
	return g.files, nil
}

func globSegments(p string) ([]string, error) {
	bad := func(why string) ([]string, error) {
		return nil, &Error{Msg: fmt.Sprintf("glob: bad pattern %q: %s", p, why), Hint: `patterns are as "conf/*.conf" or "files/**"`}
	}
	segs := strings.Split(p, "/")
	for _, seg := range segs {
		switch {
		case seg == "" || seg == ".":
			return bad("a part of the path is empty")
		case seg == "..":
			return bad(`".." is not allowed`)
		case seg != "**" && strings.Contains(seg, "**"):
			return bad(`"**" stands alone between slashes`)
		}
		if _, err := path.Match(seg, ""); err != nil {
			return bad(err.Error())
		}
	}
	return segs, nil
}

type globber struct {
	s                *Scope
	include, exclude [][]string
	found            []bool // by include pattern
	files            []string
}

// A globState is a place in a pattern: its segments before next are matched.
type globState struct{ pattern, next int }

func (g *globber) visit(dir string, states []globState) error {
	l := g.s.Loader
	if err := g.s.Ctx.Err(); err != nil {
		return &Error{Msg: "glob was interrupted", Err: context.Cause(g.s.Ctx)}
	}
	full := path.Join(g.s.Package, dir)
	root, err := l.fsRoot()
	if err != nil {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), path.Clean("./"+full))
	if err != nil {
		return l.fileError(full, err)
	}
	for _, e := range entries {
		rel := path.Join(dir, e.Name())
		below, matched := g.step(states, e.Name())
		switch {
		case e.IsDir():
			if len(below) == 0 || full == "" && e.Name() == "out" {
				continue
			}
			if d := l.dir(path.Join(full, e.Name())); d.isPackage || d.isWorkspace {
				continue
			}
			if err := g.visit(rel, below); err != nil {
				return err
			}
		case len(matched) > 0:
			if e.Type()&fs.ModeSymlink != 0 {
				info, err := root.Stat(path.Join(full, e.Name()))
				if err != nil {
					return l.fileError(path.Join(full, e.Name()), err)
				}
				if !info.Mode().IsRegular() {
					continue
				}
			} else if !e.Type().IsRegular() {
				continue
			}
			for _, p := range matched {
				g.found[p] = true
			}
			if !g.excluded(rel) {
				g.files = append(g.files, rel)
			}
		}
	}
	return nil
}

// step says which states an entry of a folder leads to, and which patterns it
// matches whole.
func (g *globber) step(states []globState, name string) (below []globState, matched []int) {
	add := func(st globState) {
		if !slices.Contains(below, st) {
			below = append(below, st)
		}
	}
	match := func(p int) {
		if !slices.Contains(matched, p) {
			matched = append(matched, p)
		}
	}
	hidden := strings.HasPrefix(name, ".")
	for _, st := range states {
		segs := g.include[st.pattern]
		for i := st.next; i < len(segs); i++ {
			if segs[i] != "**" {
				if ok, _ := path.Match(segs[i], name); ok && (!hidden || segs[i][0] == '.') {
					if i == len(segs)-1 {
						match(st.pattern)
					} else {
						add(globState{st.pattern, i + 1})
					}
				}
				break
			}
			if !hidden {
				add(globState{st.pattern, i})
				if i == len(segs)-1 {
					match(st.pattern)
				}
			}
			// "**" also stands for no folder at all: see what follows it.
		}
	}
	return below, matched
}

func (g *globber) excluded(rel string) bool {
	parts := strings.Split(rel, "/")
	return slices.ContainsFunc(g.exclude, func(segs []string) bool { return globMatch(segs, parts) })
}

// globMatch matches a whole path; the time is bounded by the product of the lengths.
func globMatch(segs, parts []string) bool {
	// reach[j]: the segments so far can match the first j parts.
	reach := make([]bool, len(parts)+1)
	reach[0] = true
	for _, seg := range segs {
		next := make([]bool, len(parts)+1)
		for j := range reach {
			if seg == "**" {
				next[j] = reach[j] || j > 0 && next[j-1]
			} else if j > 0 && reach[j-1] {
				next[j], _ = path.Match(seg, parts[j-1])
			}
		}
		reach = next
	}
	return reach[len(parts)]
}
