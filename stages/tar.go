// org.osbuild.tar: an archive of a tree.
package stages

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func init() {
	Register(&Stage{
		Name:         "org.osbuild.tar",
		Revision:     1,
		Summary:      "pack a tree into a tar archive",
		Doc:          tarDoc,
		Schema:       tarSchema,
		Capabilities: []string{"MAC_ADMIN"},
		Tools:        []string{"tar"},
		ToolsFor:     func(o map[string]any) []string { return tarTools(o) },
		Run:          runTar,
	})
}

const tarDoc = `Packs the tree of the input "tree" into an archive, with the build root's GNU tar.
POSIX ACLs, SELinux contexts and extended attributes go in unless they are switched off;
with any of them the archive is in POSIX (pax) format whatever "format" says, as tar has
it. The compression is told by the suffix of the file name unless it is set.

    {"filename": "root.tar.zst", "numeric-owner": true, "root-node": "omit"}

Names are in sorted order. With a source epoch the times of access and change, which
differ from build to build, are left out of pax headers.`

const tarSchema = `{
  "inputs": ` + treeInputSchema + `,
  "options": {
    "additionalProperties": false,
    "anyOf": [
      {"required": ["root-node"], "not": {"required": ["paths"]}},
      {"required": ["paths"], "not": {"required": ["root-node"]}},
      {"not": {"required": ["paths", "root-node"]}}
    ],
    "required": ["filename"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the archive in the tree that the stage makes"
      },
      "format": {
        "type": "string",
        "enum": ["gnu", "oldgnu", "posix", "ustar", "v7"],
        "default": "gnu",
        "description": "format of the archive"
      },
      "compression": {
        "type": "string",
        "enum": ["auto", "xz", "gzip", "zstd"],
        "default": "auto",
        "description": "compression; auto goes by the suffix of the file name"
      },
      "acls": {
        "type": "boolean",
        "default": true,
        "description": "store POSIX ACLs"
      },
      "selinux": {
        "type": "boolean",
        "default": true,
        "description": "store SELinux contexts"
      },
      "xattrs": {
        "type": "boolean",
        "default": true,
        "description": "store extended attributes"
      },
      "root-node": {
        "enum": ["include", "omit"],
        "description": "store the root directory itself, and names as ./NAME (include, the default), or only what is in it, as NAME (omit); not together with paths"
      },
      "paths": {
        "type": "array",
        "description": "what to store, in this order, and nothing else",
        "items": {
          "type": "string",
          "description": "path of a file or directory, relative to the root of the tree"
        }
      },
      "sparse": {
        "type": "boolean",
        "default": false,
        "description": "store holes of files as holes"
      },
      "transform": {
        "type": "string",
        "description": "how to change names: an expression of tar's --transform, such as s/^boot/efi/"
      },
      "numeric-owner": {
        "type": "boolean",
        "description": "store user and group IDs without names"
      }
    }
  }
}`

type tarOptions struct {
	Filename     string   `json:"filename"`
	Format       string   `json:"format"`
	Compression  string   `json:"compression"`
	ACLs         *bool    `json:"acls"`
	SELinux      *bool    `json:"selinux"`
	Xattrs       *bool    `json:"xattrs"`
	RootNode     string   `json:"root-node"`
	Paths        []string `json:"paths"`
	Sparse       bool     `json:"sparse"`
	Transform    string   `json:"transform"`
	NumericOwner bool     `json:"numeric-owner"`
}

// compressors are the programs that tar starts by the suffix of an archive.
var compressors = []struct {
	suffixes []string
	program  string
}{
	{[]string{".gz", ".tgz", ".taz"}, "gzip"},
	{[]string{".xz", ".txz"}, "xz"},
	{[]string{".zst", ".tzst"}, "zstd"},
	{[]string{".bz2", ".tbz2", ".tz2", ".tbz"}, "bzip2"},
	{[]string{".lz"}, "lzip"},
	{[]string{".lzma", ".tlz"}, "lzma"},
	{[]string{".lzo"}, "lzop"},
	{[]string{".Z", ".taZ"}, "compress"},
}

// tarTools names the compression program of options.
func tarTools(o map[string]any) []string {
	name, _ := o["filename"].(string)
	how, _ := o["compression"].(string)
	if how != "" && how != "auto" {
		return []string{how}
	}
	for _, c := range compressors {
		for _, s := range c.suffixes {
			if strings.HasSuffix(name, s) {
				return []string{c.program}
			}
		}
	}
	return nil
}

func enabled(b *bool) bool { return b == nil || *b }

// args are the arguments of tar up to the names. reproducible leaves out what
// differs between two builds.
func (o *tarOptions) args(archive, tree string, reproducible bool) []string {
	format := o.Format
	if format == "" {
		format = "gnu"
	}
	args := []string{"--format=" + format}
	pax := format == "posix"
	if enabled(o.ACLs) {
		args, pax = append(args, "--acls"), true
	}
	if enabled(o.SELinux) {
		args, pax = append(args, "--selinux"), true
	}
	if enabled(o.Xattrs) {
		args, pax = append(args, "--xattrs", "--xattrs-include", "*"), true
	}
	if pax && reproducible {
		args = append(args, "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime")
	}
	if o.Sparse {
		args = append(args, "--sparse")
	}
	if o.Transform != "" {
		args = append(args, "--transform", o.Transform)
	}
	if o.NumericOwner {
		args = append(args, "--numeric-owner")
	}
	if o.Compression == "" || o.Compression == "auto" {
		args = append(args, "--auto-compress")
	} else {
		args = append(args, "--"+o.Compression)
	}
	return append(args, "-cf", archive, "-C", tree, "--no-recursion", "--null", "-T", "-")
}

// names lists what goes into the archive, each name ended by a NUL: directories
// before their content, which is sorted. tar itself would take the order in which
// a file system has it.
func (o *tarOptions) names(tree string) ([]byte, error) {
	var b bytes.Buffer
	walk := func(name string) error {
		root := filepath.Join(tree, name)
		return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			b.WriteString(name)
			if rel := strings.TrimPrefix(p[len(root):], "/"); rel != "" {
				if !strings.HasSuffix(name, "/") {
					b.WriteByte('/')
				}
				b.WriteString(rel)
			}
			b.WriteByte(0)
			return nil
		})
	}
	paths := o.Paths
	switch {
	case len(paths) > 0:
	case o.RootNode == "omit":
		entries, err := os.ReadDir(tree)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			paths = append(paths, e.Name())
		}
	default:
		paths = []string{"."}
	}
	for _, p := range paths {
		if p == "" || !filepath.IsLocal(p) {
			return nil, &Error{
				Msg:  fmt.Sprintf("path %q does not lead into the tree", p),
				Hint: `write it relative to the root of the tree, such as "etc/hosts"`,
			}
		}
		err := walk(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, Errorf("path %q is not in the tree of the input", p)
		}
		if err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func runTar(c *Context) error {
	var o tarOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	tree, err := inputDir(c, "tree")
	if err != nil {
		return err
	}
	names, err := o.names(tree)
	if err != nil {
		return err
	}
	archive, err := target(c, o.Filename)
	if err != nil {
		return err
	}
	cmd := c.Cmd("tar", o.args(archive, tree, c.Meta.SourceEpoch != nil)...)
	// All processors for xz and zstd; tar itself in the C locale, as upstream has it.
	cmd.Env = environ(c, "LC_ALL=C", xzOpt(), "ZSTD_NBTHREADS=0")
	cmd.Stdin = bytes.NewReader(names)
	return c.wait(cmd)
}
