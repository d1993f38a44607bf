package stages

import (
	"strings"
	"testing"
)

func TestUnitCreate(t *testing.T) {
	runCases(t, "org.osbuild.systemd.unit.create", []stageCase{
		{
			name: "service",
			options: `{"filename": "x@.service", "unit-path": "etc", "config": {
				"Unit": {"Description": "An x", "DefaultDependencies": true, "After": ["a", "b", "a"], "Wants": []},
				"Service": {"Type": "oneshot", "RemainAfterExit": false, "ExecStart": ["/bin/a b", "/bin/c"],
					"Environment": [{"key": "A", "value": "b c"}, {"key": "D", "value": ""}]},
				"Install": {"WantedBy": ["multi-user.target"]}}}`,
			want: map[string]string{"/etc/systemd/system/x@.service": `[Unit]
Description=An x
DefaultDependencies=True
After=a
After=b

[Service]
Type=oneshot
RemainAfterExit=False
ExecStart=/bin/a b
ExecStart=/bin/c
Environment="A=b c"
Environment="D="

[Install]
WantedBy=multi-user.target

`},
		},
		{
			name: "sections as they are given",
			options: `{"filename": "srv.mount", "config": {
				"Install": {"WantedBy": ["x.target"]}, "Mount": {"Where": "/srv", "What": "/dev/vdb"}}}`,
			want: map[string]string{"/usr/lib/systemd/system/srv.mount": "[Install]\nWantedBy=x.target\n\n[Mount]\nWhere=/srv\nWhat=/dev/vdb\n\n"},
		},
		{
			name:    "of every user",
			options: `{"filename": "a.socket", "unit-type": "global", "config": {"Socket": {"ListenStream": "/run/a", "Accept": true}}}`,
			want:    map[string]string{"/usr/lib/systemd/user/a.socket": "[Socket]\nListenStream=/run/a\nAccept=True\n\n"},
		},
		{
			name:    "numbers and lines",
			options: `{"filename": "a.swap", "unit-path": "etc", "unit-type": "global", "config": {"Swap": {"What": "/a\nb", "Priority": -1}}}`,
			want:    map[string]string{"/etc/systemd/user/a.swap": "[Swap]\nWhat=/a\n\tb\nPriority=-1\n\n"},
		},
		{name: "wrong type", options: `{"filename": "a.mount", "config": {"Service": {}}}`, wantErr: "no section Mount"},
		{name: "half a variable", options: `{"filename": "a.service", "config": {"Service": {"Environment": [{"key": "A"}]}}}`, wantErr: `"value"`},
		{name: "long name", options: `{"filename": "` + strings.Repeat("a", 250) + `.service", "config": {"Service": {}}}`, wantErr: "255"},
	})
}
