// Making initramfs-tools start fewer programs.
package stages

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// The library of shell functions of initramfs-tools. For each module it starts about
// eight programs, four more when it comes across the module again; of the four
// seconds that an initramfs takes, three go there.
const hookFunctions = "/usr/share/initramfs-tools/hook-functions"

// knownFunctions are the SHA-256 sums of the functions that fastFunctions stands in
// for, as initramfs-tools has them: those of another version are left alone.
var knownFunctions = map[string]map[string]bool{
	"copy_file": {
		"51544bd45a9588e55bc4e0360c984bffb32384200502abecb9dfd99d068d0aa1": true, // 0.142
	},
	"manual_add_modules": {
		"ddd59238c00c2aa60cfd712f12a8a7004641ac86508124ff7b81b22f6d43c825": true, // 0.142
	},
}

// fastFunctions follow the functions of initramfs-tools, of which the one for files has
// been given another name. They do the same, but for a plain module ask the shell
// itself what they can, and ask modinfo for the firmware of many modules at once: only
// if there is any, the modules are gone through one by one.
const fastFunctions = `
manual_add_modules() {
	if [ $# -eq 0 ]; then
		return
	fi
	_star_check
	{ /sbin/modprobe --all --set-version="${version?}" --ignore-install --quiet --show-depends "$@";
	  /sbin/modprobe --all --set-version="${version}" --quiet --show-depends "$@"; } | sort -u | {
		_star_new=
		_star_list=
		_star_last=
		while read -r _star_word _star_kmod _star_rest; do
			[ "$_star_word" = insmod ] && [ "$_star_kmod" != "$_star_last" ] || continue
			_star_last="$_star_kmod"
			if _star_simple "$_star_kmod"; then
				[ -f "$_star_kmod" ] && [ ! -e "${DESTDIR}/usr$_star_kmod" ] || continue
				[ "${verbose}" = "y" ] && echo "Adding module /usr$_star_kmod"
				_star_list="${_star_list}usr$_star_kmod
"
			else
				copy_file module "$_star_kmod" || continue
			fi
			_star_new="$_star_new $_star_kmod"
		done
		[ -z "$_star_list" ] || printf '%s' "$_star_list" | (cd / && cpio --pass-through --make-directories --preserve-modification-time --quiet "${DESTDIR}/")
		[ -n "$_star_new" ] || exit 0
		# shellcheck disable=SC2086
		modinfo -k "$version" $_star_new | grep -E '^(filename|firmware):' | while read -r _star_word _star_rest; do
			if [ "$_star_word" = filename: ]; then
				_star_kmod="$_star_rest"
				continue
			fi
			add_firmware "$_star_rest" && continue
			[ -e /proc/modules ] || continue
			_star_kmod="${_star_kmod##*/}"
			_star_kmod="${_star_kmod%%.*}"
			if grep -q "^$_star_kmod\\>" /proc/modules "${CONFDIR}/modules"; then
				echo "W: Possible missing firmware /lib/firmware/$_star_rest for module $_star_kmod" >&2
			fi
		done
	}
}

# True for the path of a module that can be copied as it is.
_star_simple() {
	case "$1" in
	*/./*|*/../*|*//*) return 1 ;;
	/lib/modules/*) [ "${_star_plain-}" = "$version" ] && [ ! -L "$1" ] && [ ! -d "${DESTDIR}/$1" ] ;;
	*) return 1 ;;
	esac
}

# Sets _star_plain to the version if its modules are plain files, and no directory
# before them is a link besides /lib.
_star_check() {
	[ "${_star_checked-}" != "$version" ] || return 0
	_star_checked="$version"
	_star_plain=
	if [ "$(readlink -f /bin)" = /usr/bin ] &&
		[ "$(readlink -f "/lib/modules/$version")" = "/usr/lib/modules/$version" ] &&
		[ -z "$(find "/usr/lib/modules/$version" -type l ! -name build ! -name source)" ]; then
		_star_plain="$version"
	fi
}
`

// initramfsCovers returns the files to see in place of those of the tree while an
// initramfs is made, and a function that removes them afterwards.
func initramfsCovers(c *Context) (covers map[string]string, remove func(), err error) {
	remove = func() {}
	text, err := os.ReadFile(c.TreePath(hookFunctions))
	if errors.Is(err, os.ErrNotExist) {
		return nil, remove, nil
	}
	if err != nil {
		return nil, nil, err
	}
	fast, ok := quicken(string(text))
	if !ok {
		return nil, remove, nil
	}
	dir, err := os.MkdirTemp("", "osbuild-star-initramfs-")
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, "hook-functions")
	if err := os.WriteFile(path, []byte(fast), 0o644); err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	return map[string]string{hookFunctions: path}, func() { os.RemoveAll(dir) }, nil
}

// quicken returns the functions with those of this file in place of what it knows; ok
// is false if one is not known.
func quicken(text string) (fast string, ok bool) {
	for name, sums := range knownFunctions {
		body, found := shellFunction(text, name)
		sum := sha256.Sum256([]byte(body))
		if !found || !sums[hex.EncodeToString(sum[:])] {
			return "", false
		}
	}
	return text + fastFunctions, true
}

// shellFunction returns the text of a function that begins and ends at the start of a
// line.
func shellFunction(text, name string) (body string, ok bool) {
	_, rest, ok := strings.Cut("\n"+text, "\n"+name+"()")
	if !ok {
		return "", false
	}
	body, _, ok = strings.Cut(rest, "\n}\n")
	return name + "()" + body + "\n}\n", ok
}
