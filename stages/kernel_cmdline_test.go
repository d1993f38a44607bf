package stages

import (
	"strings"
	"testing"
)

func TestKernelCmdline(t *testing.T) {
	const file = "/etc/kernel/cmdline"
	long := strings.Repeat("x", 2049)
	runCases(t, "org.osbuild.kernel-cmdline", []stageCase{
		{name: "both", options: `{"root_fs_uuid": "6699-AFB5", "kernel_opts": "ro quiet"}`, tree: map[string]string{file: "old"}, want: map[string]string{file: "root=UUID=6699-AFB5 ro quiet"}},
		{name: "nothing", options: `{}`, want: map[string]string{file: ""}},
		{name: "too long here", options: `{"kernel_opts": "` + long + `"}`, arch: "x86_64", wantErr: "more than the 2048"},
		{name: "but not there", options: `{"kernel_opts": "` + long + `"}`, arch: "s390x", want: map[string]string{file: long}},
		{name: "own limit", options: `{"kernel_opts": "` + long + `", "kernel_cmdline_size": 3000}`, arch: "x86_64", want: map[string]string{file: long}},
		{name: "own lower limit", options: `{"kernel_opts": "` + long[:257] + `", "kernel_cmdline_size": 256}`, wantErr: "kernel_cmdline_size"},
	})
}
