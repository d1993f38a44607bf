// The schema of org.osbuild.grub2's options.
package stages

// grub2UUIDSchema takes the UUID of a Linux file system, and the serial number of a
// FAT file system. Upstream takes letters beyond F, and so does it.
const grub2UUIDSchema = `{
            "type": "string",
            "description": "UUID of the file system, or serial number of a FAT file system",
            "oneOf": [
              {"pattern": "^[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}$"},
              {"pattern": "^[0-9A-Za-z]{4}-[0-9A-Za-z]{4}$"}
            ]
          }`

const grub2Schema = `{
  "options": {
    "additionalProperties": false,
    "oneOf": [
      {"required": ["root_fs_uuid"]},
      {"required": ["rootfs"]}
    ],
    "properties": {
      "compat_version": {
        "type": "number",
        "enum": [1, 2],
        "default": 1,
        "description": "2: leave out of grub.cfg what is not set; 1: as it once was"
      },
      "rootfs": {
        "type": "object",
        "description": "the root file system",
        "oneOf": [
          {"required": ["uuid"]},
          {"required": ["label"]}
        ],
        "properties": {
          "label": {
            "type": "string",
            "description": "label of the file system"
          },
          "uuid": ` + grub2UUIDSchema + `
        }
      },
      "bootfs": {
        "type": "object",
        "description": "the file system of /boot, where that is one of its own",
        "oneOf": [
          {"required": ["uuid"]},
          {"required": ["label"]}
        ],
        "properties": {
          "label": {
            "type": "string",
            "description": "label of the file system"
          },
          "uuid": ` + grub2UUIDSchema + `
        }
      },
      "root_fs_uuid": ` + grub2UUIDSchema + `,
      "boot_fs_uuid": ` + grub2UUIDSchema + `,
      "kernel_opts": {
        "type": "string",
        "default": "",
        "description": "kernel arguments, without root="
      },
      "legacy": {
        "description": "GRUB's platform for boot without UEFI, such as i386-pc or powerpc-ieee1275; true is i386-pc",
        "oneOf": [
          {"type": "boolean", "default": false},
          {"type": "string"}
        ]
      },
      "uefi": {
        "type": "object",
        "required": ["vendor"],
        "description": "boot by UEFI",
        "properties": {
          "vendor": {
            "type": "string",
            "pattern": "^(.+)$",
            "description": "directory of the distribution below EFI/, such as fedora"
          },
          "efi_src_dir": {
            "type": "string",
            "default": "/boot/efi/EFI",
            "description": "directory of the build root that install copies from"
          },
          "install": {
            "type": "boolean",
            "default": false,
            "description": "copy EFI/BOOT and EFI/VENDOR from the build root"
          },
          "unified": {
            "type": "boolean",
            "default": false,
            "description": "keep the configuration in /boot/grub2, and let the one in EFI/VENDOR lead to it"
          }
        }
      },
      "saved_entry": {
        "type": "string",
        "description": "the boot loader entry that is booted, set in grubenv"
      },
      "write_defaults": {
        "type": "boolean",
        "default": true,
        "description": "write /etc/default/grub"
      },
      "write_cmdline": {
        "type": "boolean",
        "default": true,
        "description": "write the kernel arguments to grubenv"
      },
      "ignition": {
        "type": "boolean",
        "default": false,
        "description": "set the variable ignition_firstboot while /boot/ignition.firstboot is there"
      },
      "greenboot": {
        "type": "boolean",
        "default": false,
        "description": "count boots, and boot the entry before when none succeeded"
      },
      "config": {
        "type": "object",
        "additionalProperties": false,
        "description": "settings of GRUB itself",
        "properties": {
          "default": {
            "type": "string",
            "description": "the default entry (only in /etc/default/grub)"
          },
          "disable_recovery": {
            "type": "boolean",
            "description": "no entries for recovery"
          },
          "disable_submenu": {
            "type": "boolean",
            "description": "no submenus"
          },
          "distributor": {
            "type": "string",
            "description": "name of the distribution"
          },
          "terminal": {
            "type": "array",
            "description": "terminals for input and output (only in /etc/default/grub)",
            "items": {"type": "string"}
          },
          "terminal_input": {
            "type": "array",
            "description": "terminals for input",
            "items": {"type": "string"}
          },
          "terminal_output": {
            "type": "array",
            "description": "terminals for output",
            "items": {"type": "string"}
          },
          "timeout": {
            "type": "integer",
            "minimum": 0,
            "default": 0,
            "description": "seconds that the menu waits"
          },
          "timeout_style": {
            "type": "string",
            "enum": ["hidden", "menu", "countdown"],
            "description": "what is shown while it waits"
          },
          "serial": {
            "type": "string",
            "description": "command that sets up the serial console, such as serial --speed=115200"
          }
        }
      }
    }
  }
}`
