package stages

import "testing"

func TestSSHDConfig(t *testing.T) {
	const file = "/etc/ssh/sshd_config"
	runCases(t, "org.osbuild.sshd.config", []stageCase{
		{
			name:    "replaced and added",
			options: `{"config": {"PermitRootLogin": "prohibit-password", "PasswordAuthentication": false, "ClientAliveInterval": 5}}`,
			tree: map[string]string{file: "[0640] # PasswordAuthentication yes\npasswordauthentication   yes\n" +
				"PasswordAuthentication yes\nClientAliveInterval\t5\nSubsystem sftp /x y\n"},
			want: map[string]string{file: "[0640] # PasswordAuthentication yes\npasswordauthentication no\n" +
				"PasswordAuthentication yes\nClientAliveInterval 5\nSubsystem sftp /x y\nPermitRootLogin prohibit-password\n"},
		},
		{
			name:    "what is so already stays as it is written",
			options: `{"config": {"PermitRootLogin": true, "ChallengeResponseAuthentication": false}}`,
			tree:    map[string]string{file: "  PermitRootLogin\tyes\n"},
			want:    map[string]string{file: "  PermitRootLogin\tyes\nChallengeResponseAuthentication no\n"},
		},
		{
			name:    "no line end",
			options: `{"config": {"PermitRootLogin": false}}`,
			tree:    map[string]string{file: "Port 22"},
			want:    map[string]string{file: "Port 22\nPermitRootLogin no\n"},
		},
		{name: "missing", options: `{"config": {}}`, wantErr: "install the SSH server"},
	})
}

func FuzzEditSSHD(f *testing.F) {
	f.Add("Port 22\nPermitRootLogin yes\n")
	f.Add("permitrootlogin no")
	f.Add("\n\nMatch all\n")
	f.Fuzz(func(t *testing.T, text string) {
		change := func() []*sshdChange { return []*sshdChange{{key: "PermitRootLogin", value: "no"}} }
		once := editSSHD(text, change())
		if again := editSSHD(once, change()); again != once {
			t.Errorf("%q becomes %q, and that %q", text, once, again)
		}
	})
}
