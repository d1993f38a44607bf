// The texts that org.osbuild.grub2 writes. They are the same, to the byte, as those
// that upstream osbuild writes from these options: images of both can be compared.
package stages

import (
	"fmt"
	"strings"
)

// config is the text of grub.cfg.
func (o *grub2Options) config() string {
	where := o.RootFS
	if o.BootFS != nil {
		where = o.BootFS
	}
	search := "--label " + where.Label
	if where.UUID != "" {
		search = "--fs-uuid " + where.UUID
	}
	var features []string
	if o.Ignition {
		features = append(features, grub2Ignition(o.home()))
	}
	if o.Greenboot {
		features = append(features, grub2Greenboot)
	}

	var b strings.Builder
	fmt.Fprintf(&b, "\nset timeout=%s\n", jsonNumber(o.Config.Timeout))
	b.WriteString(grub2Entry)
	fmt.Fprintf(&b, "\nsearch --no-floppy --set=root %s\n", search)
	b.WriteString("set boot=${root}\nfunction load_video {\n  insmod all_video\n}\n")
	b.WriteString(strings.Join(features, "\n"))
	unset := jsonNumber(o.CompatVersion) != "2" // leave the name of what is not set
	for _, t := range []struct{ name, command string }{
		{"serial", o.Config.Serial},
		{"terminal_input", grub2Terminal("terminal_input", o.Config.TerminalInput)},
		{"terminal_output", grub2Terminal("terminal_output", o.Config.TerminalOutput)},
	} {
		switch {
		case t.command != "":
			b.WriteString("\n" + t.command)
		case unset:
			b.WriteString("${" + t.name + "}")
		}
	}
	b.WriteString("\nblscfg\n")
	return b.String()
}

func grub2Terminal(name string, devices []string) string {
	if len(devices) == 0 {
		return ""
	}
	return name + " " + strings.Join(devices, " ")
}

// redirect is the text of a grub.cfg that leads to the one in /boot/grub2.
func (o *grub2Options) redirect() string {
	dir := o.home() + "grub2"
	return "\nsearch --no-floppy --set prefix --file " + dir + "/grub.cfg\n" +
		"set prefix=($prefix)" + dir + "\n" +
		"configfile $prefix/grub.cfg\n"
}

// grubenvSize is the size that GRUB wants /boot/grub2/grubenv to have.
const grubenvSize = 1024

// grubenv is the text of grubenv.
func (o *grub2Options) grubenv() (string, error) {
	text := "# GRUB Environment Block\n"
	if enabled(o.WriteCmdline) {
		root := "LABEL=" + o.RootFS.Label
		if o.RootFS.UUID != "" {
			root = "UUID=" + o.RootFS.UUID
		}
		text += fmt.Sprintf("kernelopts=root=%s %s\n", root, o.KernelOpts)
	}
	if o.SavedEntry != "" {
		text += "saved_entry=" + o.SavedEntry + "\n"
	}
	if len(text) > grubenvSize {
		return "", &Error{
			Msg:  fmt.Sprintf("grubenv needs %d bytes, and GRUB reads %d", len(text), grubenvSize),
			Hint: "shorten kernel_opts",
		}
	}
	return text + strings.Repeat("#", grubenvSize-len(text)), nil
}

// defaults is the text of /etc/default/grub.
func (o *grub2Options) defaults() string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s=%s\n", name, value) }
	quoted := func(name, value string) {
		if value != "" {
			line(name, `"`+value+`"`)
		}
	}
	flag := func(name string, v *bool) {
		if v != nil {
			line(name, fmt.Sprint(*v))
		}
	}
	cfg := o.Config
	line("GRUB_CMDLINE_LINUX", `"`+o.KernelOpts+`"`)
	line("GRUB_TIMEOUT", jsonNumber(cfg.Timeout))
	line("GRUB_ENABLE_BLSCFG", "true")
	flag("GRUB_DISABLE_RECOVERY", cfg.DisableRecovery)
	flag("GRUB_DISABLE_SUBMENU", cfg.DisableSubmenu)
	quoted("GRUB_DISTRIBUTOR", cfg.Distributor)
	quoted("GRUB_SERIAL_COMMAND", cfg.Serial)
	quoted("GRUB_TERMINAL", strings.Join(cfg.Terminal, " "))
	quoted("GRUB_TERMINAL_INPUT", strings.Join(cfg.TerminalInput, " "))
	quoted("GRUB_TERMINAL_OUTPUT", strings.Join(cfg.TerminalOutput, " "))
	if cfg.TimeoutStyle != "" {
		line("GRUB_TIMEOUT_STYLE", cfg.TimeoutStyle)
	}
	if cfg.Default != nil {
		line("GRUB_DEFAULT", *cfg.Default)
	}
	return b.String()
}

// grub2Entry chooses what is booted, by grubenv.
const grub2Entry = `
# load the grubenv file
load_env

# selection of the next boot entry via variables 'next_entry' and
# ` + "`saved_entry`" + ` present in the 'grubenv' file. Both variables are
# set by grub tools, like grub2-reboot, grub2-set-default

if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi
`

// grub2Ignition sets the kernel arguments of the first boot, while the file that
// marks it is there.
func grub2Ignition(home string) string {
	return strings.ReplaceAll(`
# Ignition support
set ignition_firstboot=""
if [ -f "@ignition.firstboot" ]; then
    # Default networking parameters to be used with ignition.
    set ignition_network_kcmdline=''

    # Source in the `+"`ignition.firstboot`"+` file which could override the
    # above $ignition_network_kcmdline with static networking config.
    # This override feature is primarily used by coreos-installer to
    # persist static networking config provided during install to the
    # first boot of the machine.
    source "@ignition.firstboot"

    set ignition_firstboot="ignition.firstboot ${ignition_network_kcmdline}"
fi
`, "@", home)
}

// grub2Greenboot counts boots, and takes the entry before when none succeeded.
const grub2Greenboot = `
# greenboot support, aka boot counter and boot success reporting
insmod increment
# Check if boot_counter exists and boot_success=0 to activate this behaviour.
if [ -n "${boot_counter}" -a "${boot_success}" = "0" ]; then
  # if countdown has ended, choose to boot rollback deployment,
  # i.e. default=1 on OSTree-based systems.
  if  [ "${boot_counter}" = "0" -o "${boot_counter}" = "-1" ]; then
    set default=1
    set boot_counter=-1
  # otherwise decrement boot_counter
  else
    decrement boot_counter
  fi
  save_env boot_counter
fi

# Reset boot_success for current boot
set boot_success=0
save_env boot_success
`
