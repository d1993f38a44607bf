package stages

import "testing"

func TestTimezone(t *testing.T) {
	const db = "/usr/share/zoneinfo/"
	tree := map[string]string{db + "Mars/Olympus": "TZif2", db + "zone.tab": "#", "/etc/localtime": "data"}
	runCases(t, "org.osbuild.timezone", []stageCase{
		{
			name:    "a zone of the image",
			options: `{"zone": "Mars/Olympus"}`,
			tree:    tree,
			want: map[string]string{
				db + "Mars/Olympus": "TZif2", db + "zone.tab": "#",
				"/etc/localtime": "-> ../usr/share/zoneinfo/Mars/Olympus",
			},
		},
		{
			name:    "UTC needs no database",
			options: `{"zone": "UTC"}`,
			tree:    map[string]string{"/etc/localtime": "-> ../usr/share/zoneinfo/Europe/Berlin"},
			want:    map[string]string{"/etc/localtime": "-> ../usr/share/zoneinfo/UTC"},
		},
		{name: "unknown", options: `{"zone": "Mars/Nowhere"}`, tree: tree, wantErr: `unknown time zone "Mars/Nowhere"`},
		{name: "a directory", options: `{"zone": "Mars"}`, tree: tree, wantErr: "unknown time zone"},
		{name: "no zone", options: `{"zone": "zone.tab"}`, tree: tree, wantErr: "unknown time zone"},
		{name: "above a file", options: `{"zone": "Mars/Olympus/x"}`, tree: tree, wantErr: "unknown time zone"},
		{name: "empty", options: `{"zone": ""}`, wantErr: "tzdata"},
		{name: "absolute", options: `{"zone": "/UTC"}`, wantErr: "unknown time zone"},
		{name: "upwards", options: `{"zone": "../../etc/passwd"}`, wantErr: "unknown time zone"},
	})
}
