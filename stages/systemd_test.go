package stages

import (
	"maps"
	"testing"
)

func TestSystemd(t *testing.T) {
	needTools(t, "systemctl")
	const lib, etc = "/usr/lib/systemd/system/", "/etc/systemd/system/"
	units := map[string]string{
		lib + "demo.service":      "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\n",
		lib + "demo.timer":        "[Timer]\nOnBootSec=1\n[Install]\nWantedBy=timers.target\n",
		lib + "other.service":     "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\n",
		lib + "multi-user.target": "[Unit]\n",
	}
	with := func(m map[string]string) map[string]string {
		out := maps.Clone(units)
		maps.Copy(out, m)
		return out
	}
	runCases(t, "org.osbuild.systemd", []stageCase{
		{
			name: "everything",
			options: `{"enabled_services": ["demo", "demo.timer"], "disabled_services": ["other.service"],
				"masked_services": ["gone.service"], "masked_generators": ["systemd-sysv-generator"],
				"default_target": "multi-user.target"}`,
			tree: with(map[string]string{etc + "multi-user.target.wants/other.service": "-> " + lib + "other.service"}),
			want: with(map[string]string{
				etc + "multi-user.target.wants/demo.service":            "-> " + lib + "demo.service",
				etc + "timers.target.wants/demo.timer":                  "-> " + lib + "demo.timer",
				etc + "gone.service":                                    "-> /dev/null",
				etc + "default.target":                                  "-> " + lib + "multi-user.target",
				"/etc/systemd/system-generators/systemd-sysv-generator": "-> /dev/null",
			}),
		},
		{name: "nothing", options: `{}`, tree: units, want: units},
		{name: "unknown unit", options: `{"enabled_services": ["nope.service"]}`, tree: units, wantErr: "nope.service does not exist"},
		{name: "generator twice", options: `{"masked_generators": ["x", "x"]}`, tree: units, wantErr: "take it out of masked_generators"},
		{
			name:    "a generator is a name",
			options: `{"masked_generators": ["../../../x"]}`,
			tree:    units,
			want:    with(map[string]string{"/etc/systemd/system-generators/x": "-> /dev/null"}),
		},
	})
}

func TestSystemdTools(t *testing.T) {
	tools := Lookup("org.osbuild.systemd").ToolsFor
	if got := tools(map[string]any{"masked_generators": []any{"x"}}); got != nil {
		t.Errorf("masking generators needs %v", got)
	}
	if got := tools(map[string]any{"default_target": "x"}); len(got) != 1 {
		t.Errorf("a default target needs %v", got)
	}
}
