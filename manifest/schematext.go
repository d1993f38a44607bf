// The schemas of this package: of whole documents, and of the devices, mounts,
// inputs and sources that the engine serves itself. They mean what upstream
// osbuild's mean.

package manifest

import "sync"

// documentSchemas are those of documents of version 1 and 2, decoded when needed.
var documentSchemas = [2]func() map[string]any{
	sync.OnceValue(func() map[string]any { return mustDecode(document1) }),
	sync.OnceValue(func() map[string]any { return mustDecode(document2) }),
}

func mustDecode(text string) map[string]any {
	m, err := decodeObject([]byte(text))
	if err != nil {
		panic("manifest: " + err.Error()) // a constant of this file
	}
	return m
}

const document2 = `{
  "type": "object",
  "required": ["version"],
  "additionalProperties": false,
  "properties": {
    "version": {"enum": ["2"]},
    "pipelines": {"type": "array", "items": {"$ref": "#/definitions/pipeline"}},
    "sources": {"type": "object", "additionalProperties": {"$ref": "#/definitions/source"}},
    "metadata": {
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "generators": {"type": "array", "items": {
          "type": "object",
          "required": ["name"],
          "additionalProperties": false,
          "properties": {"name": {"type": "string"}, "version": {"type": "string"}}
        }},
        "exports": {"type": "array", "items": {
          "type": "object",
          "required": ["name"],
          "additionalProperties": false,
          "properties": {"name": {"type": "string"}}
        }}
      }
    }
  },
  "definitions": {
    "pipeline": {
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "name": {},
        "build": {"type": "string"},
        "runner": {"type": "string"},
        "source-epoch": {"type": "integer"},
        "stages": {"type": "array", "items": {"$ref": "#/definitions/stage"}}
      }
    },
    "stage": {
      "type": "object",
      "required": ["type"],
      "additionalProperties": false,
      "properties": {
        "type": {"type": "string"},
        "options": {"type": "object"},
        "inputs": {
          "type": "object",
          "additionalProperties": false,
          "patternProperties": {"^[a-zA-Z][a-zA-Z0-9_\\-\\.]{0,254}": {"$ref": "#/definitions/input"}}
        },
        "devices": {"type": "object", "additionalProperties": {"$ref": "#/definitions/device"}},
        "mounts": {"type": "array", "items": {"$ref": "#/definitions/mount"}}
      }
    },
    "input": {
      "type": "object",
      "required": ["type", "origin", "references"],
      "additionalProperties": false,
      "properties": {
        "type": {"type": "string"},
        "origin": {"enum": ["org.osbuild.source", "org.osbuild.pipeline"]},
        "references": {"$ref": "#/definitions/references"},
        "options": {"type": "object"}
      }
    },
    "device": {
      "type": "object",
      "required": ["type"],
      "additionalProperties": false,
      "properties": {"type": {"type": "string"}, "parent": {"type": "string"}, "options": {"type": "object"}}
    },
    "mount": {
      "type": "object",
      "required": ["name", "type"],
      "additionalProperties": false,
      "properties": {
        "name": {"type": "string"},
        "type": {"type": "string"},
        "source": {"type": "string"},
        "partition": {"type": "number"},
        "target": {"type": "string"},
        "options": {"type": "object"}
      }
    },
    "source": {
      "type": "object",
      "required": ["items"],
      "additionalProperties": false,
      "properties": {"items": {"$ref": "#/definitions/references"}, "options": {"type": "object"}}
    },
    "references": {"oneOf": [
      {"type": "object"},
      {"type": "array", "items": {"type": "string"}},
      {"type": "array", "items": {
        "type": "object",
        "required": ["id"],
        "additionalProperties": false,
        "properties": {"id": {"type": "string"}, "options": {"type": "object"}}
      }}
    ]}
  }
}`

const document1 = `{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "pipeline": {"$ref": "#/definitions/pipeline"},
    "sources": {"type": "object", "additionalProperties": {"type": "object"}}
  },
  "definitions": {
    "pipeline": {
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "build": {
          "type": "object",
          "required": ["pipeline", "runner"],
          "additionalProperties": false,
          "properties": {"pipeline": {"$ref": "#/definitions/pipeline"}, "runner": {"type": "string"}}
        },
        "stages": {"type": "array", "items": {"$ref": "#/definitions/step"}},
        "assembler": {"$ref": "#/definitions/step"}
      }
    },
    "step": {
      "type": "object",
      "required": ["name"],
      "additionalProperties": false,
      "properties": {"name": {"type": "string"}, "options": {"type": "object"}}
    }
  }
}`

// builtinSchemas are those of the modules that are not stages, in the forms that
// [NewModuleSchema] takes.
var builtinSchemas = map[ModuleKind]map[string]string{
	DeviceModule: {"org.osbuild.loopback": `{
  "type": "object",
  "required": ["filename"],
  "additionalProperties": false,
  "properties": {
    "filename": {"type": "string", "description": "file of the tree that backs the device"},
    "start": {"type": "number", "default": 0, "description": "where it begins in the file, in sectors"},
    "size": {"type": "number", "description": "how long it is, in sectors; to the end of the file by default"},
    "sector-size": {"type": "number", "default": 512, "description": "bytes in a sector"},
    "lock": {"type": "boolean", "description": "hold a lock on the device while it is open"},
    "partscan": {"type": "boolean", "description": "have the kernel look for partitions"},
    "read-only": {"type": "boolean", "description": "refuse writing"}
  }
}`},
	MountModule: {
		"org.osbuild.ext4": mountSchema(partition, journal),
		"org.osbuild.xfs":  mountSchema(partition, journal),
		"org.osbuild.btrfs": mountSchema(partition, journal+`,
        "subvol": {"type": "string", "description": "the subvolume to mount"},
        "compress": {"type": "string", "description": "how new data is compressed: zstd, zlib, lzo, with a level as in zstd:1"}`),
		"org.osbuild.fat": mountSchema(partition, readonly+`,
        "uid": {"type": "integer", "description": "owner of all files"},
        "gid": {"type": "integer", "description": "group of all files"},
        "umask": {"type": "string", "pattern": "^[0-7][0-7][0-7]$", "description": "permissions that no file has, in octal"},
        "shortname": {"type": "string", "enum": ["lower", "win95", "winnt", "mixed"], "description": "how short names are shown and made"}`),
		"org.osbuild.squashfs": mountSchema("", ""),
		"org.osbuild.erofs":    mountSchema("", ""),
		"org.osbuild.noop": `{
  "required": ["name", "type", "source", "target"],
  "additionalProperties": false,
  "properties": {
    "name": {"type": "string"},
    "type": {"type": "string"},
    "source": {"type": "string"},
    "partition": {"type": "number"},
    "target": {"type": "string"},
    "options": {"type": "object"}
  }
}`,
		"org.osbuild.bind": `{
  "required": ["name", "type", "target"],
  "additionalProperties": false,
  "properties": {
    "name": {"type": "string"},
    "type": {"type": "string"},
    "target": {"type": "string", "pattern": "^tree://"},
    "options": {
      "required": ["source"],
      "properties": {"source": {"type": "string", "pattern": "^mount://"}}
    }
  }
}`,
	},
	InputModule: {
		"org.osbuild.tree": `{
  "required": ["type", "origin", "references"],
  "additionalProperties": false,
  "properties": {
    "type": {"enum": ["org.osbuild.tree"]},
    "origin": {"type": "string", "enum": ["org.osbuild.pipeline"], "description": "a tree is made by a pipeline"},
    "references": {
      "description": "the one pipeline that makes the tree",
      "oneOf": [
        {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "object", "additionalProperties": false}},
        {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "maxItems": 1, "items": {
          "type": "object",
          "required": ["id"],
          "additionalProperties": false,
          "properties": {"id": {"type": "string"}, "options": {"type": "object", "additionalProperties": false}}
        }}
      ]
    }
  }
}`,
		"org.osbuild.files": `{
  "oneOf": [
    {
      "required": ["type", "origin", "references"],
      "additionalProperties": false,
      "properties": {
        "type": {"enum": ["org.osbuild.files"]},
        "origin": {"enum": ["org.osbuild.source"]},
        "references": {
          "description": "checksums of the files",
          "oneOf": [
            {"type": "array", "items": {"type": "string"}},
            {"type": "array", "minItems": 1, "items": {
              "type": "object",
              "required": ["id"],
              "additionalProperties": false,
              "properties": {"id": {"type": "string"}, "options": {"$ref": "#/definitions/of-source"}}
            }},
            {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/definitions/of-source"}}
          ]
        }
      }
    },
    {
      "required": ["type", "origin", "references"],
      "additionalProperties": false,
      "properties": {
        "type": {"enum": ["org.osbuild.files"]},
        "origin": {"enum": ["org.osbuild.pipeline"]},
        "references": {
          "description": "pipelines, and which file of their trees",
          "oneOf": [
            {"type": "array", "minItems": 1, "items": {
              "type": "object",
              "required": ["id"],
              "additionalProperties": false,
              "properties": {"id": {"type": "string"}, "options": {"$ref": "#/definitions/of-pipeline"}}
            }},
            {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/definitions/of-pipeline"}}
          ]
        }
      }
    }
  ],
  "additionalProperties": true,
  "definitions": {
    "metadata": {
      "type": "object",
      "description": "told to the stage; keys have a prefix, as in rpm.check_gpg",
      "additionalProperties": false,
      "patternProperties": {"^\\w+[.]{1}\\w+$": {"additionalProperties": false}}
    },
    "of-source": {
      "type": "object",
      "additionalProperties": false,
      "properties": {"metadata": {"$ref": "#/definitions/metadata"}}
    },
    "of-pipeline": {
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "metadata": {"$ref": "#/definitions/metadata"},
        "file": {"type": "string", "description": "a file of the tree"}
      }
    }
  }
}`,
	},
	SourceModule: {
		"org.osbuild.curl": `{
  "additionalProperties": false,
  "properties": {"items": {"$ref": "#/definitions/files"}, "urls": {"$ref": "#/definitions/files"}},
  "oneOf": [{"required": ["items"]}, {"required": ["urls"]}],
  "definitions": {"files": {
    "type": "object",
    "description": "where to fetch each file, by its checksum",
    "additionalProperties": false,
    "patternProperties": {"(md5|sha1|sha256|sha384|sha512):[0-9a-f]{32,128}": {"oneOf": [
      {"type": "string", "description": "URL of the file"},
      {
        "type": "object",
        "required": ["url"],
        "additionalProperties": false,
        "properties": {
          "url": {"type": "string", "description": "URL of the file"},
          "mirrors": {"type": "array", "items": {"type": "string"}, "description": "further URLs, tried in order; not upstream's"},
          "insecure": {"type": "boolean", "default": false, "description": "do not check the certificate of the server"},
          "secrets": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": false,
            "properties": {"name": {"type": "string", "description": "what gives the client's key and certificate"}}
          }
        }
      }
    ]}}
  }}
}`,
		"org.osbuild.inline": `{
  "required": ["items"],
  "additionalProperties": false,
  "properties": {"items": {
    "type": "object",
    "description": "content, by its checksum",
    "additionalProperties": false,
    "patternProperties": {"(md5|sha1|sha256|sha384|sha512):[0-9a-f]{32,128}": {
      "type": "object",
      "required": ["encoding", "data"],
      "additionalProperties": false,
      "properties": {
        "encoding": {"enum": ["base64", "lzma+base64"], "description": "how the content is written as text"},
        "data": {"type": "string", "description": "the content in that encoding"}
      }
    }}
  }}
}`,
	},
}

const (
	partition = `
    "partition": {"type": "number", "description": "number of the partition on the device, from 1"},`
	readonly = `
        "readonly": {"type": "boolean", "default": false, "description": "refuse writing"}`
	journal = readonly + `,
        "norecovery": {"type": "boolean", "default": false, "description": "do not replay the journal"}`
)

// mountSchema is that of a file system on a device.
func mountSchema(more, options string) string {
	return `{
  "required": ["name", "type", "source", "target"],
  "additionalProperties": false,
  "properties": {
    "name": {"type": "string", "description": "what the stage calls it"},
    "type": {"type": "string"},
    "source": {"type": "string", "description": "name of a device of the stage"},` + more + `
    "target": {"type": "string", "description": "where below the directory of the mounts"},
    "options": {"type": "object", "additionalProperties": false, "properties": {` + options + `}}
  }
}`
}
