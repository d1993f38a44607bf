package stages

import "testing"

func TestLogind(t *testing.T) {
	runCases(t, "org.osbuild.systemd-logind", []stageCase{{
		name:    "both",
		options: `{"filename": "x.conf", "config": {"Login": {"ReserveVT": 6, "NAutoVTs": 0}}}`,
		want:    map[string]string{"/usr/lib/systemd/logind.conf.d/x.conf": "[Login]\nReserveVT=6\nNAutoVTs=0\n\n"},
	}})
}
