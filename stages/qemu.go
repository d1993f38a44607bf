// org.osbuild.qemu: a disk image in another format.
package stages

import (
	"encoding/json"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.qemu",
		Revision: 2,
		Summary:  "convert a disk image to another format",
		Doc:      qemuDoc,
		Schema:   qemuSchema,
		Tools:    []string{"qemu-img"},
		Run:      runQemu,
	})
}

const qemuDoc = `Converts the disk image of the input "image", in any format that qemu-img knows, to
the format of the options: qcow2, vdi, vmdk, vpc (VHD), vhdx, or raw.

    {"filename": "disk.qcow2", "format": {"type": "qcow2", "compression_type": "zstd"}}

qcow2 and vmdk are compressed unless that is switched off. "compression_type" and the
format raw are additions to upstream's options. zstd is several times faster than zlib at
the same size, and needs QEMU 5.1 to read the image.

With a source epoch, the random identifiers and the times that the formats hold are
derived from the ID of the stage and from the epoch, so that each build makes the same
bytes.`

const qemuSchema = `{
  "inputs": {
    "type": "object",
    "additionalProperties": false,
    "required": ["image"],
    "properties": {
      "image": {
        "type": "object",
        "additionalProperties": true,
        "description": "the one image that is converted"
      }
    }
  },
  "options": {
    "additionalProperties": false,
    "required": ["filename", "format"],
    "properties": {
      "filename": {
        "type": "string",
        "description": "path of the new image in the tree"
      },
      "format": {
        "description": "the format, and what can be set for it",
        "oneOf": [
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["type"],
            "description": "QEMU and KVM",
            "properties": {
              "type": {"type": "string", "enum": ["qcow2"], "description": "qcow2"},
              "compression": {
                "type": "boolean",
                "default": true,
                "description": "compress the content"
              },
              "compression_type": {
                "type": "string",
                "enum": ["zlib", "zstd"],
                "description": "method of compression; default: zlib"
              },
              "compat": {
                "type": "string",
                "description": "version of the format: 0.10 or 1.1"
              }
            }
          },
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["type"],
            "description": "VirtualBox",
            "properties": {
              "type": {"type": "string", "enum": ["vdi"], "description": "vdi"}
            }
          },
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["type"],
            "description": "VMware",
            "properties": {
              "type": {"type": "string", "enum": ["vmdk"], "description": "vmdk"},
              "adapter_type": {
                "type": "string",
                "enum": ["ide", "lsilogic", "buslogic", "legacyESX"],
                "description": "disk adapter that the image asks for"
              },
              "compat6": {
                "type": "boolean",
                "default": false,
                "description": "make an image of version 6"
              },
              "compression": {
                "type": "boolean",
                "default": true,
                "description": "compress the content, where the subformat can"
              },
              "subformat": {
                "type": "string",
                "enum": ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"],
                "description": "how the content is laid out in files; default: monolithicSparse"
              }
            }
          },
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["type"],
            "description": "Hyper-V and Azure (VHD)",
            "properties": {
              "type": {"type": "string", "enum": ["vpc"], "description": "vpc"},
              "force_size": {
                "type": "boolean",
                "default": true,
                "description": "keep the exact size, rather than the nearest that cylinders, heads and sectors give"
              },
              "subformat": {
                "type": "string",
                "enum": ["fixed", "dynamic"],
                "default": "fixed",
                "description": "fixed: all of the disk is in the file; dynamic: only what is used"
              }
            }
          },
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["type"],
            "description": "Hyper-V",
            "properties": {
              "type": {"type": "string", "enum": ["vhdx"], "description": "vhdx"}
            }
          },
          {
            "type": "object",
            "additionalProperties": false,
            "required": ["type"],
            "description": "the bytes of the disk, as a sparse file",
            "properties": {
              "type": {"type": "string", "enum": ["raw"], "description": "raw"}
            }
          }
        ]
      }
    }
  }
}`

// qemuFormat is the union of what the formats take; the schema keeps them apart.
type qemuFormat struct {
	Type            string `json:"type"`
	Compression     *bool  `json:"compression"`
	CompressionType string `json:"compression_type"`
	Compat          string `json:"compat"`
	AdapterType     string `json:"adapter_type"`
	Compat6         bool   `json:"compat6"`
	Subformat       string `json:"subformat"`
	ForceSize       *bool  `json:"force_size"`
}

// args are the arguments of "qemu-img convert" that make the format.
func (f *qemuFormat) args() []string {
	args := []string{"-O", f.Type}
	var opts []string
	add := func(key, value string) {
		if value != "" {
			opts = append(opts, key+"="+value)
		}
	}
	switch f.Type {
	case "qcow2":
		if enabled(f.Compression) {
			args = append(args, "-c")
		}
		add("compat", f.Compat)
		if f.CompressionType != "zlib" { // which older versions know without the option
			add("compression_type", f.CompressionType)
		}
	case "vmdk":
		if enabled(f.Compression) {
			args = append(args, "-c")
		}
		add("adapter_type", f.AdapterType)
		if f.Compat6 {
			opts = append(opts, "compat6")
		}
		add("subformat", f.Subformat)
	case "vpc":
		subformat := f.Subformat
		if subformat == "" {
			subformat = "fixed"
		}
		add("subformat", subformat)
		if enabled(f.ForceSize) {
			opts = append(opts, "force_size")
		}
	}
	if len(opts) > 0 {
		args = append(args, "-o", strings.Join(opts, ","))
	}
	return args
}

func runQemu(c *Context) error {
	var o struct {
		Filename string          `json:"filename"`
		Format   json.RawMessage `json:"format"`
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	var f qemuFormat
	if err := json.Unmarshal(o.Format, &f); err != nil {
		return Errorf("format: %v", err)
	}
	source, err := inputFile(c, "image")
	if err != nil {
		return err
	}
	image, err := target(c, o.Filename)
	if err != nil {
		return err
	}
	env := environ(c)
	args := append([]string{"convert"}, f.args()...)
	// Some runners ask for one coroutine: qemu-img of RHEL 8 hangs on aarch64 with more.
	for _, kv := range env {
		if n, ok := strings.CutPrefix(kv, "OSBUILD_QEMU_IMG_COROUTINES="); ok && n != "" {
			args = append(args, "-m", n)
		}
	}
	if err := runEnv(c, env, "qemu-img", append(args, source, image)...); err != nil {
		return err
	}
	if c.Meta.SourceEpoch == nil {
		return nil
	}
	return fixImage(image, f.Type, derived(c, "image"), *c.Meta.SourceEpoch)
}
