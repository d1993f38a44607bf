package stages

import (
	"strings"
	"testing"
)

func TestUnitDropin(t *testing.T) {
	runCases(t, "org.osbuild.systemd.unit", []stageCase{
		{
			name: "list",
			options: `{"unit": "ssh.service", "dropin": "10-x.conf", "config": {"Unit": {"ConditionPathExists": "!/a"},
				"Service": {"Environment": [{"key": "A", "value": "1"}, {"key": "B", "value": "2"}]}}}`,
			want: map[string]string{"/usr/lib/systemd/system/ssh.service.d/10-x.conf": "[Unit]\nConditionPathExists=!/a\n\n[Service]\nEnvironment=\"A=1\"\nEnvironment=\"B=2\"\n\n"},
		},
		{
			name:    "text, of every user",
			options: `{"unit": "a.timer", "dropin": "x.conf", "unit-type": "global", "config": {"Service": {"Environment": "A=1 B=2"}}}`,
			want:    map[string]string{"/usr/lib/systemd/user/a.timer.d/x.conf": "[Service]\nEnvironment=A=1 B=2\n\n"},
		},
		{name: "long name", options: `{"unit": "` + strings.Repeat("a", 250) + `.service", "dropin": "x.conf", "config": {}}`, wantErr: "too long"},
	})
}
