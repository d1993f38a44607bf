// Package stages holds the stages that ship with osbuild-star: small programs in
// Go that the agent runs inside a build root, each in a file of its own with its
// options, its schema, its documentation and its test.
//
// A stage registers itself with [Register]; [Lookup] finds it by the name that
// manifests use. It sees the world only through its [Context]: the tree that it
// changes, its inputs, devices and mounts, and programs of the build root. It
// never reaches the host, the network, the store or Starlark: a test over
// `go list -deps` holds that.
package stages

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Stage describes one stage.
type Stage struct {
	// Name as manifests write it: "org.osbuild.hostname" where upstream osbuild has
	// the stage, with its options and results; "org.osbuild-star.…" where not.
	Name string

	// Revision is part of the cache key of everything that the stage makes. It is
	// raised whenever the stage would make another tree from the same options; a
	// test ties it to a hash of the sources.
	Revision int

	Summary string // one line, lower case, no full stop
	Doc     string // Markdown: what it does, facts about its options

	// Schema is JSON: an object with the members "options" (JSON Schema, draft 4,
	// of the options object) and, where the stage takes them, "inputs" and
	// "devices" (likewise of those objects). Every option has a "description".
	Schema string

	// Capabilities that the stage needs beyond those that every stage has, without
	// the CAP_ prefix: "MAC_ADMIN".
	Capabilities []string

	// Tools are the programs that it may start from the build root, by name
	// ("mkfs.ext4"): what a preflight check looks for. A tool that depends on the
	// options is told by ToolsFor.
	Tools    []string
	ToolsFor func(options map[string]any) []string

	// Reads are the files and directories of the build root, beside Tools, that it reads
	// with such options, by absolute paths; nil: none. Where the host is the build root,
	// they count by what is in them, as tools do.
	Reads func(options map[string]any) []string

	// InPlace marks a stage that changes a large file of the tree where it is (a
	// disk image): the engine makes one layer of a run of such stages, since
	// copying the file for each is not free.
	InPlace bool

	// Chroot marks a stage that starts programs of the tree itself.
	Chroot bool

	Run func(c *Context) error
}

var registry = make(map[string]*Stage, 128)

// lazyRegexp compiles an expression when it is needed first: a worker is started for
// each stage, with this whole package in it.
func lazyRegexp(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// Register adds a stage; each file of a stage calls it from init. A name that is
// taken is a mistake in the program, and panics.
func Register(s *Stage) {
	if _, dup := registry[s.Name]; dup {
		panic("stages: " + s.Name + " is registered twice")
	}
	registry[s.Name] = s
}

// Lookup finds a stage by its full name, or returns nil.
func Lookup(name string) *Stage { return registry[name] }

// All returns every stage, sorted by name.
func All() []*Stage {
	all := make([]*Stage, 0, len(registry))
	for _, s := range registry {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Stage) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Error is a failure that a stage explains to the person who wrote its options.
type Error struct {
	Msg  string
	Hint string // what to do, or ""
}

func (e *Error) Error() string { return e.Msg }

// Errorf makes an Error without a hint.
func Errorf(format string, args ...any) error { return &Error{Msg: fmt.Sprintf(format, args...)} }
