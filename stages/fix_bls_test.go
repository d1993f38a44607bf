package stages

import "testing"

func TestFixBLS(t *testing.T) {
	const file = "/boot/loader/entries/a.conf"
	const text = "linux /run/osbuild/tree/boot/vmlinuz\ninitrd /boot/initrd\noptions a=/x b=/boot c\n/ostree/boot/v"
	tree := map[string]string{file: "[0600] " + text, "/boot/loader/entries/b": text}
	want := func(s string) map[string]string {
		return map[string]string{file: "[0600] " + s, "/boot/loader/entries/b": text}
	}
	runCases(t, "org.osbuild.fix-bls", []stageCase{
		{name: "default", options: `{}`, tree: tree, want: want("linux /boot/vmlinuz\ninitrd /boot/initrd\noptions a=/boot c\n/boot/v")},
		{name: "own partition", options: `{"prefix": ""}`, tree: tree, want: want("linux /vmlinuz\ninitrd /boot/initrd\noptions a= c\n/v")},
		{name: "anyhow", options: `{"prefix": "", "require_boot_prefix": false}`, tree: tree, want: want("linux /vmlinuz\ninitrd /initrd\noptions a= c\n/v")},
		{name: "no entries", options: `{}`, tree: map[string]string{"/a": "x"}, want: map[string]string{"/a": "x"}},
	})
}
