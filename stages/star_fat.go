// org.osbuild-star.fat: a FAT file system with files in it, that is part of a disk
// image, without a mount and without a loop device.
package stages

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild-star.fat",
		Revision: 1,
		Summary:  "make a FAT file system with files in a disk image",
		Doc: `Makes a FAT file system in a part of a file of the tree, with mkfs.fat, and copies
files into it, with mtools: no mount, no loop device. It is what an EFI system partition
needs. The file exists before (org.osbuild.truncate).

    {"filename": "disk.img", "start": 4096, "size": 131072, "label": "ESP",
     "files": [{"from": "input://tree/boot/vmlinuz", "to": "/debian/vmlinuz"},
               {"from": "input://efi/", "to": "/"}]}

Directories are made as they are needed; a directory is copied with all that is in it, its
files in sorted order. Links are followed. A file that is there already is replaced. The
volume ID is derived from the ID of the stage where it is not set. With a source epoch,
two builds make the same bytes.`,
		Schema: `{
  "inputs": {
    "type": "object",
    "additionalProperties": true
  },
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["filename"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the disk image in the tree"
      },
      "start": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "first sector of the file system, in units of 512 bytes"
      },
      "size": {
        "type": "integer",
        "minimum": 1,
        "description": "its length in sectors; default: up to the end of the file"
      },
      "label": {
        "type": "string",
        "maxLength": 11,
        "description": "volume label"
      },
      "volid": {
        "type": "string",
        "pattern": "^[0-9A-Fa-f]{1,8}$",
        "description": "volume ID, hexadecimal; default: derived from the ID of the stage"
      },
      "fat-size": {
        "type": "integer",
        "enum": [12, 16, 32],
        "description": "bits of an entry of the allocation table; default: by the size"
      },
      "files": {
        "type": "array",
        "description": "what is copied into it, in this order",
        "items": {
          "type": "object",
          "additionalProperties": false,
          "required": ["from", "to"],
          "description": "a file or a directory",
          "properties": {
            "from": {
              "type": "string",
              "description": "location of the file or directory, such as input://tree/boot/vmlinuz"
            },
            "to": {
              "type": "string",
              "pattern": "^/",
              "description": "its path in the file system"
            }
          }
        }
      }
    }
  }
}`,
		Tools: []string{"mkfs.fat"},
		ToolsFor: func(o map[string]any) []string {
			if files, _ := o["files"].([]any); len(files) == 0 {
				return nil
			}
			return []string{"mmd", "mcopy"}
		},
		InPlace: true,
		Run:     runStarFAT,
	})
}

type starFATOptions struct {
	imagePart
	Label   string      `json:"label"`
	Volid   string      `json:"volid"`
	FATSize json.Number `json:"fat-size"`
	Files   []struct {
		From string `json:"from"`
		To   string `json:"to"`
	} `json:"files"`
}

func runStarFAT(c *Context) error {
	var o starFATOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	image, off, n, err := o.resolve(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := clearRange(f, off, n); err != nil { // nothing of what was there shows through
		return err
	}

	volid := o.Volid
	if volid == "" {
		d := derived(c, "volid")
		volid = fmt.Sprintf("%x", d[:4])
	}
	args := []string{"-I", "--invariant", "-i", volid}
	if o.Label != "" {
		args = append(args, "-n", o.Label)
	}
	args = append(args, fatGeometry(jsonNumber(o.FATSize), n)...)
	// The number of hidden sectors says where on the disk the file system begins.
	args = append(args, "-h", fmt.Sprint(off/sectorSize), "--offset", fmt.Sprint(off/sectorSize), image, fmt.Sprint(n/1024))
	if err := runEnv(c, fatEnviron(c), "mkfs.fat", args...); err != nil {
		return err
	}
	return o.copyFiles(c, fmt.Sprintf("%s@@%d", image, off))
}

// fatEnviron makes FAT's local times UTC, and keeps mtools from refusing a size
// that is no multiple of a track.
func fatEnviron(c *Context) []string {
	return environ(c, "TZ=UTC", "MTOOLS_SKIP_CHECK=1", "LC_ALL=C.UTF-8")
}

// fatFile is one file or directory to be made; a directory has no source.
type fatFile struct {
	from, to string
	dir      bool
}

// list expands directories, and adds those that files need.
func (o *starFATOptions) list(c *Context) ([]fatFile, error) {
	var out []fatFile
	made := map[string]bool{"/": true} // FAT does not tell upper from lower case
	var mkdir func(dir string)
	mkdir = func(dir string) {
		if key := strings.ToUpper(dir); !made[key] {
			mkdir(path.Dir(dir))
			made[key] = true
			out = append(out, fatFile{to: dir, dir: true})
		}
	}
	for _, file := range o.Files {
		from, err := c.ResolveLocation(file.From, true)
		if err != nil {
			return nil, err
		}
		from = filepath.Clean(from)
		to := path.Clean("/" + file.To)
		st, err := os.Stat(from)
		if err != nil {
			return nil, &Error{Msg: file.From + " is not there", Hint: "look at the tree of the input with a shell"}
		}
		if !st.IsDir() {
			if strings.HasSuffix(file.To, "/") {
				to = path.Join(to, filepath.Base(from))
			}
			mkdir(path.Dir(to))
			out = append(out, fatFile{from: from, to: to})
			continue
		}
		err = filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(from, p)
			if err != nil {
				return err
			}
			dst := path.Join(to, filepath.ToSlash(rel))
			if d.IsDir() {
				mkdir(dst)
				return nil
			}
			if d.Type()&fs.ModeSymlink != 0 {
				if p, err = resolveIn(from, rel, true); err != nil {
					return err
				}
			}
			st, err := os.Stat(p)
			if err != nil || !st.Mode().IsRegular() {
				return Errorf("%s: %s is neither a file nor a directory, as FAT has them", file.From, rel)
			}
			out = append(out, fatFile{from: p, to: dst})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, f := range out {
		if i := strings.IndexFunc(f.to, func(r rune) bool { return r < ' ' || strings.ContainsRune(`"*:<>?|\`, r) }); i >= 0 {
			return nil, Errorf("%s: FAT has no names with %q", f.to, f.to[i])
		}
	}
	return out, nil
}

// copyFiles runs mtools for the file system at image, "FILE@@OFFSET". Directories
// that are listed one after the other are made by one program.
func (o *starFATOptions) copyFiles(c *Context, image string) error {
	files, err := o.list(c)
	if err != nil {
		return err
	}
	env := fatEnviron(c)
	for len(files) > 0 {
		n := slices.IndexFunc(files, func(f fatFile) bool { return !f.dir })
		if n < 0 {
			n = len(files)
		}
		if n > 0 {
			args := []string{"-D", "s", "-i", image}
			for _, f := range files[:n] {
				args = append(args, "::"+f.to)
			}
			if err := runEnv(c, env, "mmd", args...); err != nil {
				return err
			}
			files = files[n:]
			continue
		}
		f := files[0]
		if err := runEnv(c, env, "mcopy", "-m", "-o", "-i", image, f.from, "::"+f.to); err != nil {
			return fmt.Errorf("copying %s (is the partition large enough?): %w", f.to, err)
		}
		files = files[1:]
	}
	return nil
}

// fatGeometry says how large the entries of the table and the clusters are, for a
// file system of n bytes; bits is "0" where the options leave it open. mkfs.fat
// would go by the size of the whole image. From 34 MiB on it is FAT32, the one that
// UEFI promises to read, and its clusters are as in Microsoft's table.
func fatGeometry(bits string, n int64) []string {
	if bits == "0" {
		switch {
		case n < 12<<20:
			return []string{"-F", "12"}
		case n < 34<<20:
			return []string{"-F", "16"}
		}
		bits = "32"
	}
	if bits == "32" && n <= 260<<20 {
		return []string{"-F", bits, "-s", "1"}
	}
	return []string{"-F", bits}
}
