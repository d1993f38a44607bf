package stages

import "testing"

func TestMachineID(t *testing.T) {
	const file = "/etc/machine-id"
	runCases(t, "org.osbuild.machine-id", []stageCase{
		{name: "yes", options: `{"first-boot": "yes"}`, tree: map[string]string{file: "[0444] abc\n"}, want: map[string]string{file: "[0444] uninitialized\n"}},
		{name: "no", options: `{"first-boot": "no"}`, tree: map[string]string{file: "abc\n"}, want: map[string]string{file: ""}},
		{name: "new", options: `{"first-boot": "no"}`, want: map[string]string{file: ""}},
		{name: "preserve", options: `{"first-boot": "preserve"}`, tree: map[string]string{file: "abc\n"}, want: map[string]string{file: "abc\n"}},
		{name: "preserve nothing", options: `{"first-boot": "preserve"}`, wantErr: "cannot be preserved"},
		{name: "unknown", options: `{"first-boot": "maybe"}`, wantErr: "maybe"},
	})
}
