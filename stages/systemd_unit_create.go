// org.osbuild.systemd.unit.create: a unit of one's own.
package stages

import (
	"path"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.systemd.unit.create",
		Revision: 1,
		Summary:  "write a systemd unit",
		Doc: `Writes a service, mount, socket or swap unit, see systemd.unit(5): sections and
options in the order they are given, a list as a line for each item. It is not
enabled: that is org.osbuild.systemd.

    {"filename": "hello.service", "unit-path": "etc", "config": {
      "Unit": {"Description": "Hello", "After": ["network.target"]},
      "Service": {"Type": "oneshot", "ExecStart": ["/usr/bin/echo hello"],
                  "Environment": [{"key": "LANG", "value": "C"}]},
      "Install": {"WantedBy": ["multi-user.target"]}
    }}`,
		Schema: `{
  "options": {
    "type": "object",
    "additionalProperties": false,
    "required": ["filename", "config"],
    "properties": {
      "filename": {
        "type": "string",
        "pattern": "^[\\p{L}\\p{N}_:.\\\\-]+@?[\\p{L}\\p{N}_:.\\\\-]*[.](service|mount|socket|swap)$",
        "description": "name of the unit, with its type at the end"
      },
      "unit-type": {
        "type": "string",
        "enum": ["system", "global"],
        "default": "system",
        "description": "a unit of the system, or of every user"
      },
      "unit-path": {
        "type": "string",
        "enum": ["usr", "etc"],
        "default": "usr",
        "description": "write it below /usr/lib/systemd or /etc/systemd"
      },
      "config": {
        "type": "object",
        "additionalProperties": false,
        "description": "the sections; one of Service, Mount, Socket and Swap, and a service needs Unit and Install",
        "oneOf": [
          {"required": ["Unit", "Service", "Install"], "not": {"anyOf": [{"required": ["Mount"]}, {"required": ["Socket"]}, {"required": ["Swap"]}]}},
          {"required": ["Socket"], "not": {"anyOf": [{"required": ["Mount"]}, {"required": ["Service"]}, {"required": ["Swap"]}]}},
          {"required": ["Mount"], "not": {"anyOf": [{"required": ["Service"]}, {"required": ["Socket"]}, {"required": ["Swap"]}]}},
          {"required": ["Swap"], "not": {"anyOf": [{"required": ["Service"]}, {"required": ["Socket"]}, {"required": ["Mount"]}]}}
        ],
        "properties": {
          "Unit": {
            "type": "object",
            "additionalProperties": false,
            "description": "section [Unit]: what every unit has",
            "properties": {
              "Description": {"type": "string", "description": "its name for people"},
              "Wants": {"type": "array", "items": {"type": "string"}, "description": "units that are started with it"},
              "After": {"type": "array", "items": {"type": "string"}, "description": "units that it starts after"},
              "Before": {"type": "array", "items": {"type": "string"}, "description": "units that it starts before"},
              "Requires": {"type": "array", "items": {"type": "string"}, "description": "units without which it fails"},
              "ConditionPathExists": {"type": "array", "items": {"type": "string"}, "description": "paths that must exist, or with ! must not"},
              "ConditionPathIsDirectory": {"type": "array", "items": {"type": "string"}, "description": "paths that must be directories"},
              "DefaultDependencies": {"type": "boolean", "description": "whether it has the dependencies of its type"}
            }
          },
          "Service": {
            "type": "object",
            "additionalProperties": false,
            "description": "section [Service], see systemd.service(5) and systemd.exec(5)",
            "properties": {
              "Type": {
                "type": "string",
                "enum": ["simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"],
                "description": "when the service counts as started"
              },
              "RemainAfterExit": {"type": "boolean", "description": "it counts as active after its program ended"},
              "ExecStartPre": {"type": "array", "items": {"type": "string"}, "description": "command lines before it starts"},
              "ExecStopPost": {"type": "array", "items": {"type": "string"}, "description": "command lines after it stopped"},
              "ExecStart": {"type": "array", "items": {"type": "string"}, "description": "command lines of the service"},
              "Environment": {
                "type": "array",
                "description": "variables of its environment",
                "items": ` + environmentSchema + `
              },
              "EnvironmentFile": {"type": "array", "items": {"type": "string"}, "description": "files with more variables"},
              "StandardOutput": {
                "type": "string",
                "pattern": "^(inherit|null|tty|journal|kmsg|journal[+]console|kmsg[+]console|(file|append|truncate):/` + plainPath + `|socket|fd:.+)$",
                "description": "where its output goes: \"journal\", \"file:/var/log/x\""
              }
            }
          },
          "Mount": {
            "type": "object",
            "additionalProperties": false,
            "required": ["What", "Where"],
            "description": "section [Mount], see systemd.mount(5)",
            "properties": {
              "What": {"type": "string", "description": "the device"},
              "Where": {"type": "string", "description": "the mount point; the unit has its name"},
              "Type": {"type": "string", "description": "type of the file system"},
              "Options": {"type": "string", "description": "mount options"}
            }
          },
          "Socket": {
            "type": "object",
            "additionalProperties": false,
            "description": "section [Socket], see systemd.socket(5)",
            "properties": {
              "Service": {"type": "string", "description": "the service that is started"},
              "ListenStream": {"type": "string", "description": "address of a stream socket"},
              "ListenDatagram": {"type": "string", "description": "address of a datagram socket"},
              "ListenSequentialPacket": {"type": "string", "description": "address of a sequential packet socket"},
              "ListenFifo": {"type": "string", "description": "path of a named pipe"},
              "SocketUser": {"type": "string", "description": "owner of the socket"},
              "SocketGroup": {"type": "string", "description": "group of the socket"},
              "SocketMode": {"type": "string", "description": "mode of the socket, in octal"},
              "DirectoryMode": {"type": "string", "description": "mode of directories made for it, in octal"},
              "Accept": {"type": "boolean", "description": "start a service for each connection"},
              "RuntimeDirectory": {"type": "string", "description": "directory below /run that is made for it"},
              "RemoveOnStop": {"type": "boolean", "description": "remove the socket when the unit stops"}
            }
          },
          "Swap": {
            "type": "object",
            "additionalProperties": false,
            "required": ["What"],
            "description": "section [Swap], see systemd.swap(5)",
            "properties": {
              "What": {"type": "string", "description": "the device or file"},
              "Priority": {"type": "integer", "description": "priority: higher is used first"},
              "Options": {"type": "string", "description": "options as in /etc/fstab"},
              "TimeoutSec": {"type": "string", "description": "how long swapon may take"}
            }
          },
          "Install": {
            "type": "object",
            "additionalProperties": false,
            "description": "section [Install]: what enabling it does",
            "properties": {
              "WantedBy": {"type": "array", "items": {"type": "string"}, "description": "units that start it"},
              "RequiredBy": {"type": "array", "items": {"type": "string"}, "description": "units that fail without it"}
            }
          }
        }
      }
    }
  }
}`,
		Run: runUnitCreate,
	})
}

type unitCreateOptions struct {
	Filename string   `json:"filename"`
	UnitType string   `json:"unit-type"`
	UnitPath string   `json:"unit-path"`
	Config   unitFile `json:"config"`
}

func runUnitCreate(c *Context) error {
	var o unitCreateOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	if len(o.Filename) > 255 {
		return Errorf("the unit name %.20s… has more than 255 bytes", o.Filename)
	}
	kind := strings.TrimPrefix(path.Ext(o.Filename), ".")
	if kind != "" {
		section := strings.ToUpper(kind[:1]) + kind[1:]
		if !o.Config.has(section) {
			return &Error{Msg: o.Filename + " has no section " + section, Hint: "the type of a unit is that of its name"}
		}
	}
	dir := "/usr/lib/systemd"
	if o.UnitPath == "etc" {
		dir = "/etc/systemd"
	}
	text, err := o.Config.text()
	if err != nil {
		return err
	}
	return c.WriteFile(path.Join(dir, unitDir(o.UnitType), o.Filename), text)
}
