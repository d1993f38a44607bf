package stages

import "testing"

func TestError(t *testing.T) {
	runCases(t, "org.osbuild.error", []stageCase{
		{name: "default", options: `{}`, wantErr: "return code 255"},
		{name: "given", options: `{"returncode": 3}`, wantErr: "return code 3"},
		{name: "none", options: `{"returncode": 0}`},
	})
}
