package stages

import "testing"

func TestJournald(t *testing.T) {
	const dir = "/usr/lib/systemd/journald.conf.d/"
	runCases(t, "org.osbuild.systemd-journald", []stageCase{
		{
			name:    "new",
			options: `{"filename": "10-x.conf", "config": {"Journal": {"Storage": "persistent", "Audit": ""}}}`,
			want:    map[string]string{dir + "10-x.conf": "[Journal]\nStorage=persistent\nAudit=\n\n"},
		},
		{
			name:    "exists",
			options: `{"filename": "10-x.conf", "config": {"Journal": {"Storage": "none"}}}`,
			tree:    map[string]string{dir + "10-x.conf": "x"},
			wantErr: "choose another filename",
		},
	})
}
