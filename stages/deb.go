// org.osbuild-star.deb: Debian packages, unpacked in parallel.
package stages

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/osbuild-star/osbuild-star/stages/deb"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild-star.deb",
		Revision: 2,
		Summary:  "install Debian packages",
		Doc: `Installs the packages of its input "packages" into the tree, and configures them.

An empty tree becomes a Debian system: the packages have to be a whole one then, with
all that the essential packages need. Into a tree that has packages already, further
ones are added; those that it has in the same version are skipped, and those that it
has in another version are upgraded by its own dpkg.

Archives are read, decompressed (xz, zst, gz, bz2) and unpacked by the stage itself, on
all processors, and dpkg's database is written directly; programs of the build root are
not needed. Then the dpkg of the tree configures the packages. The result is that of
dpkg: conffiles, diversions, statoverrides, triggers, Replaces and file conflicts are
honoured.

Scripts of packages run with the tree as their root, in a mount namespace of their own,
with /proc, /sys and /dev of the build root and empty /run and /tmp. No service is
started, no question is asked (answers come from "debconf"), files of the configuration
that are in the tree already are kept. update-initramfs does nothing: the stage
org.osbuild-star.initramfs makes the initramfs, once.

Packages of another architecture are unpacked the same way, and only their scripts, and
dpkg, are emulated by qemu-user. With the input "native" most of what scripts start is
not: the tree comes out the same, in less time.

What would differ from one machine to the next is not left in the tree: /etc/machine-id
becomes empty, logs and backups of databases are removed, and openssh-server makes no
keys unless "host_keys" is set.

The metadata of the stage is the list of the packages in the tree.`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "exclude": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[/*?\\[][^\\n]*$"},
        "description": "paths that are not unpacked: patterns of dpkg's path-exclude, in which * matches slashes too (/usr/share/doc/*)"
      },
      "include": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[/*?\\[][^\\n]*$"},
        "description": "paths that are unpacked although exclude has them (/usr/share/doc/*/copyright)"
      },
      "keep_filters": {
        "type": "boolean",
        "default": true,
        "description": "write exclude and include into the configuration of dpkg in the tree, so that upgrades follow them too"
      },
      "debconf": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[^\\n]+$"},
        "description": "answers to the questions of packages, as debconf-set-selections takes them: \"PACKAGE QUESTION TYPE VALUE\""
      },
      "configure": {
        "type": "boolean",
        "default": true,
        "description": "false leaves the packages unpacked"
      },
      "arch": {
        "type": "string",
        "pattern": "^[a-z0-9][a-z0-9-]*$",
        "description": "Debian's name of the architecture; by default that of the dpkg among the packages or in the tree"
      },
      "merged_usr": {
        "type": "boolean",
        "default": true,
        "description": "in an empty tree, make /bin, /sbin and /lib* links into /usr, as every Debian since 12 has them"
      },
      "host_keys": {
        "type": "boolean",
        "default": false,
        "description": "let openssh-server make its host keys now; all machines made from the image share them then. Without it, ssh-keygen -A has to run when a machine starts first"
      }
    }
  },
  "inputs": {
    "type": "object",
    "additionalProperties": false,
    "required": ["packages"],
    "properties": {
      "packages": {
        "type": "object",
        "description": "the .deb files: an input of type org.osbuild.files"
      },
      "native": {
        "type": "object",
        "description": "a tree of the build host's architecture and the same release, an input of type org.osbuild.tree: while packages of another architecture are configured, their scripts start its shell, its Perl and its small tools instead of emulated ones, where it has the same versions"
      }
    }
  }
}`,
		Chroot: true,
		Run:    runDeb,
	})
}

type debOptions struct {
	Exclude     []string `json:"exclude"`
	Include     []string `json:"include"`
	KeepFilters *bool    `json:"keep_filters"`
	Debconf     []string `json:"debconf"`
	Configure   *bool    `json:"configure"`
	Arch        string   `json:"arch"`
	MergedUsr   *bool    `json:"merged_usr"`
	HostKeys    bool     `json:"host_keys"`
}

func runDeb(c *Context) error {
	var o debOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	in, ok := c.Inputs["packages"]
	if !ok {
		return &Error{Msg: "the input \"packages\" is missing", Hint: "give it the .deb files, as an input of type org.osbuild.files"}
	}
	isSet := func(b *bool) bool { return b == nil || *b }
	conf := deb.Config{
		Tree: c.Tree, Arch: o.Arch, Preseed: o.Debconf, HostKeys: o.HostKeys,
		KeepFilters: isSet(o.KeepFilters), Unpack: !isSet(o.Configure), SplitUsr: !isSet(o.MergedUsr),
		Epoch: c.Meta.SourceEpoch, Log: c.Log,
	}
	if native, ok := c.Inputs["native"]; ok {
		conf.Native = native.Path
	}
	for _, name := range slices.Sorted(maps.Keys(in.Data.Files)) {
		if name != filepath.Base(name) {
			return Errorf("the input \"packages\" has a file with the name %q", name)
		}
		conf.Archives = append(conf.Archives, filepath.Join(in.Path, name))
	}
	for _, p := range o.Exclude {
		conf.Filters = append(conf.Filters, deb.Filter{Pattern: p})
	}
	for _, p := range o.Include {
		conf.Filters = append(conf.Filters, deb.Filter{Pattern: p, Include: true})
	}
	for _, line := range slices.Concat(o.Exclude, o.Include, o.Debconf) {
		if strings.Contains(line, "\n") {
			return Errorf("an option has a newline: %q", line)
		}
	}
	res, err := deb.Install(c.context(), conf)
	if err != nil {
		return debError(err)
	}
	c.Logf("%d packages installed, %d were there already", res.New, res.Present)
	if c.SetMeta != nil {
		return c.SetMeta(struct {
			Packages []deb.Installed `json:"packages"`
		}{res.Installed})
	}
	return nil
}

// debError says what to do about an error.
func debError(err error) error {
	var conflict *deb.ConflictError
	var script *deb.PackageError
	hint := ""
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &conflict):
		hint = "leave one of the two packages out"
	case errors.Is(err, syscall.ENOEXEC):
		hint = "programs of another architecture need qemu-user, registered in binfmt_misc with the flag F"
	case errors.Is(err, deb.ErrNoDpkg):
		hint = "add the package dpkg, or set configure to false"
	case errors.Is(err, deb.ErrNoDebconf):
		hint = "add the package debconf, or leave out the option debconf"
	case errors.Is(err, deb.ErrNotArchive):
		hint = "every file of the input \"packages\" has to be a .deb"
	case errors.As(err, &script) && len(script.Output) > 0:
		hint = "the lines above are what the package's script, or dpkg, printed last"
	default:
		return err
	}
	return &Error{Msg: err.Error(), Hint: hint}
}
