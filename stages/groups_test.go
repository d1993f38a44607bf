package stages

import (
	"os"
	"testing"
)

func TestGroups(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	needTools(t, "groupadd")
	runCases(t, "org.osbuild.groups", []stageCase{
		{
			name:    "in the order they are given",
			options: `{"groups": {"testgroup": {"gid": 1010}, "auto": {}}}`,
			tree:    accountTree(nil),
			want: accountTree(map[string]string{
				"/etc/.pwd.lock": "[0600] ",
				"/etc/group":     testGroup + "testgroup:x:1010:\nauto:x:1011:\n",
				"/etc/group-":    testGroup + "testgroup:x:1010:\n",
				"/etc/gshadow":   testGshadow + "testgroup:!::\nauto:!::\n",
				"/etc/gshadow-":  testGshadow + "testgroup:!::\n",
			}),
		},
		{name: "exists", options: `{"groups": {"wheel": {}}}`, tree: accountTree(nil), wantErr: "group 'wheel' already exists"},
		{name: "exists, which is fine", options: `{"force": true, "groups": {"wheel": {"gid": 4242}}}`, tree: accountTree(nil), want: accountTree(nil)},
	})
}
