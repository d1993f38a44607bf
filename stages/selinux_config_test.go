package stages

import "testing"

func TestSELinuxConfig(t *testing.T) {
	const file = "/etc/selinux/config"
	tree := map[string]string{file: "[0600] # SELINUX=x\nSELINUX=enforcing\n\nno value\nSELINUXTYPE=targeted \n"}
	runCases(t, "org.osbuild.selinux.config", []stageCase{
		{name: "state", options: `{"state": "permissive"}`, tree: tree, want: map[string]string{file: "[0600] # SELINUX=x\nSELINUX=permissive\n\nno value\nSELINUXTYPE=targeted \n"}},
		{name: "type", options: `{"type": "mls"}`, tree: tree, want: map[string]string{file: "[0600] # SELINUX=x\nSELINUX=enforcing\n\nno value\nSELINUXTYPE=mls\n"}},
		{name: "missing", options: `{"state": "disabled"}`, wantErr: "install the SELinux policy"},
	})
}
