// What a stage sees while it runs: its context, and the helpers to find paths and
// start programs of the build root.
package stages

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Context is what a running stage has. Paths are those inside the build root.
type Context struct {
	context.Context

	Tree    string               // the tree that it changes, "/run/osbuild/tree"
	Options json.RawMessage      // as in the manifest; decode with Decode
	Inputs  map[string]InputArg  // by name
	Devices map[string]DeviceArg // by name
	Mounts  map[string]MountArg  // by name
	Paths   PathsArg             // where all inputs, devices, mounts are
	Meta    MetaArg              // its ID and the source epoch
	Arch    string               // architecture of the tree, "x86_64"
	Log     io.Writer            // everything that the stage and its programs print
	SetMeta func(v any) error    // stores v (an object) as the metadata of the stage
	Env     []string             // environment of programs, nil for the own
}

// InputArg, DeviceArg, MountArg, PathsArg and MetaArg have the shape that upstream
// osbuild gives a stage in /run/osbuild/api/arguments.
type (
	// InputArg is one input: a directory, and data about what is in it.
	InputArg struct {
		Path string    `json:"path"`
		Data InputData `json:"data,omitzero"`
	}
	// InputData says what a files input holds: file name → metadata.
	InputData struct {
		Files map[string]json.RawMessage `json:"files,omitempty"`
	}
	// DeviceArg is one block device: an absolute path.
	DeviceArg struct {
		Path string `json:"path"`
	}
	// MountArg is one mounted file system: an absolute path.
	MountArg struct {
		Path string `json:"path,omitempty"`
	}
	// PathsArg says below which directories things are.
	PathsArg struct {
		Devices string `json:"devices"`
		Inputs  string `json:"inputs"`
		Mounts  string `json:"mounts"`
	}
	// MetaArg names the stage.
	MetaArg struct {
		ID          string `json:"id"`
		SourceEpoch *int64 `json:"source-epoch,omitempty"`
	}
)

// Decode reads the options into v, a pointer to a struct. Unknown members are an
// error, although the schema has refused them before.
func (c *Context) Decode(v any) error {
	if len(c.Options) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(c.Options))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("reading the options: %w", err)
	}
	return nil
}

// Time is the source epoch of the pipeline, or now.
func (c *Context) Time() time.Time {
	if c.Meta.SourceEpoch != nil {
		return time.Unix(*c.Meta.SourceEpoch, 0).UTC()
	}
	return time.Now().UTC()
}

// TreePath joins a path of the image to the tree. It cleans it first, so that ".."
// never leads above the tree; links in the tree are not followed here: see
// [Context.Resolve].
func (c *Context) TreePath(p string) string { return filepath.Join(c.Tree, path.Clean("/"+p)) }

// Locate turns a location of upstream's form into a path: "tree:///etc/hosts",
// "input://NAME/FILE", "mount://NAME/PATH"; without a scheme it is in the tree. A
// trailing slash is kept as "/.", which copying programs take as "the contents".
// Links are not followed here: see [Context.ResolveLocation].
func (c *Context) Locate(loc string) (string, error) {
	root, p, err := c.locate(loc)
	if err != nil {
		return "", err
	}
	out := filepath.Join(root, path.Clean("/"+p))
	if strings.HasSuffix(p, "/") {
		out += "/."
	}
	return out, nil
}

// locate splits a location into the directory that its scheme stands for and the
// path below that.
func (c *Context) locate(loc string) (root, p string, err error) {
	scheme, rest, ok := strings.Cut(loc, "://")
	if !ok {
		return c.Tree, loc, nil
	}
	name, sub, slash := strings.Cut(rest, "/")
	if !slash {
		return "", "", Errorf("location %q: no path; write %s/ for the directory itself", loc, loc)
	}
	switch scheme {
	case "tree":
		if name != "" {
			return "", "", Errorf("location %q: tree:// takes no name, write tree:///%s", loc, rest)
		}
		root = c.Tree
	case "mount":
		root = c.Paths.Mounts
		if name != "" {
			if root = c.Mounts[name].Path; root == "" {
				return "", "", Errorf("location %q: the stage has no mount %q", loc, name)
			}
		}
	case "input":
		if root = c.Inputs[name].Path; root == "" {
			return "", "", Errorf("location %q: the stage has no input %q", loc, name)
		}
	default:
		return "", "", Errorf("location %q: unknown scheme %q (tree, mount, input)", loc, scheme)
	}
	return root, "/" + sub, nil
}

// Run starts a program of the build root, with its output in the log, and waits
// for it. The error names the program and how it ended.
func (c *Context) Run(name string, args ...string) error {
	return c.wait(c.Cmd(name, args...))
}

// Output is Run, and returns what the program wrote to its standard output.
func (c *Context) Output(name string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := c.Cmd(name, args...)
	cmd.Stdout = &out
	err := c.wait(cmd)
	return out.Bytes(), err
}

// Input is Run with data as the standard input of the program.
func (c *Context) Input(data []byte, name string, args ...string) error {
	cmd := c.Cmd(name, args...)
	cmd.Stdin = bytes.NewReader(data)
	return c.wait(cmd)
}

// Chroot runs a program of the tree, with the tree as its root.
func (c *Context) Chroot(name string, args ...string) error {
	return c.wait(c.ChrootCmd(name, args...))
}

// ChrootCmd makes a command of the tree. /proc, /sys and /dev of the stage are
// there while it runs: the agent binds them into the tree's own directories, where
// it has them.
func (c *Context) ChrootCmd(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.context(), "/usr/sbin/chroot") // replaced below
	cmd.Path, cmd.Args, cmd.Err = name, append([]string{name}, args...), nil
	if !strings.HasPrefix(name, "/") {
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			at, err := c.Resolve(dir + "/" + name)
			if err != nil {
				continue
			}
			if _, err := os.Stat(at); err == nil {
				cmd.Path = dir + "/" + name
				break
			}
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.Tree}
	cmd.Dir = "/"
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env(), c.Log, c.Log
	return cmd
}

// Cmd makes a command of the build root, for the stages that need more than Run.
func (c *Context) Cmd(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.context(), name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env(), c.Log, c.Log
	return cmd
}

// env is the environment of programs: the one of the stage, in which
// SOURCE_DATE_EPOCH says the source epoch of the pipeline, if it has one.
func (c *Context) env() []string {
	const epoch = "SOURCE_DATE_EPOCH="
	if c.Meta.SourceEpoch == nil {
		return c.Env
	}
	env := c.Env
	if env == nil {
		env = os.Environ()
	}
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, epoch) {
			out = append(out, kv)
		}
	}
	return append(out, epoch+strconv.FormatInt(*c.Meta.SourceEpoch, 10))
}

func (c *Context) context() context.Context {
	if c.Context == nil {
		return context.Background()
	}
	return c.Context
}

func (c *Context) wait(cmd *exec.Cmd) error {
	return c.waitAs(cmd, strings.Join(cmd.Args, " "))
}

// waitAs is wait with a name for the command in the error: one that leaves out
// what must not be seen in a log.
func (c *Context) waitAs(cmd *exec.Cmd, label string) error {
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: %w", label, err)
	case cmd.SysProcAttr != nil && cmd.SysProcAttr.Chroot != "":
		return &Error{
			Msg:  cmd.Args[0] + " is not in the tree",
			Hint: "add the package that holds it to the image, before this stage",
		}
	}
	return &Error{
		Msg:  cmd.Args[0] + " is not in the build root",
		Hint: "add the package that holds it to the build root",
	}
}

// Logf writes one line to the log of the stage.
func (c *Context) Logf(format string, args ...any) {
	fmt.Fprintf(c.Log, format+"\n", args...)
}
