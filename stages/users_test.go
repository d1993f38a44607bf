package stages

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	testPasswd  = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
	testGroup   = "root:x:0:\ndaemon:x:1:\nwheel:x:10:\n"
	testShadow  = "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"
	testGshadow = "root:*::\ndaemon:*::\nwheel:*::\n"
	testEpoch   = 1700000000 // day 19675
)

// accountTree is a tree with accounts, and what more adds to it.
func accountTree(more map[string]string) map[string]string {
	m := map[string]string{
		"/etc/passwd": testPasswd, "/etc/group": testGroup, "/etc/shadow": testShadow, "/etc/gshadow": testGshadow,
		"/root": "dir", "/home": "dir",
	}
	maps.Copy(m, more)
	maps.DeleteFunc(m, func(_, v string) bool { return v == "none" })
	return m
}

func TestUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	needTools(t, "useradd", "usermod", "passwd")
	lock := map[string]string{"/etc/.pwd.lock": "[0600] ", "/etc/passwd-": testPasswd, "/etc/shadow-": testShadow}
	with := func(m map[string]string) map[string]string {
		out := maps.Clone(lock)
		maps.Copy(out, m)
		return accountTree(out)
	}
	runCases(t, "org.osbuild.users", []stageCase{
		{
			name:    "new, with a home and keys",
			options: `{"users": {"bob": {"uid": 1600, "home": "/home/bob", "shell": "/bin/sh", "key": "ssh-ed25519 C bob", "keys": ["ssh-rsa A", "ssh-rsa B"]}}}`,
			tree:    accountTree(nil),
			epoch:   testEpoch,
			want: with(map[string]string{
				"/etc/passwd":                    testPasswd + "bob:x:1600:100::/home/bob:/bin/sh\n",
				"/etc/shadow":                    testShadow + "bob:!:19675::::::\n",
				"/home":                          "none",
				"/home/bob":                      "[0755 1600:100] dir",
				"/home/bob/.ssh":                 "[0700 1600:100] dir",
				"/home/bob/.ssh/authorized_keys": "[0600 1600:100] ssh-rsa A\nssh-rsa B\nssh-ed25519 C bob\n",
			}),
		},
		{
			name:    "in the order they are given",
			options: `{"users": {"zed": {"home": ""}, "amy": {"home": "", "description": "Amy", "expiredate": 20000, "password": "$6$h"}}}`,
			tree:    accountTree(nil),
			epoch:   testEpoch,
			want: with(map[string]string{
				"/etc/passwd":  testPasswd + "zed:x:1000:100::/home/zed:/bin/bash\namy:x:1001:100:Amy:/home/amy:/bin/bash\n",
				"/etc/passwd-": testPasswd + "zed:x:1000:100::/home/zed:/bin/bash\n",
				"/etc/shadow":  testShadow + "zed:!:19675::::::\namy:$6$h:19675:::::20000:\n",
				"/etc/shadow-": testShadow + "zed:!:19675::::::\n",
			}),
		},
		{
			name:    "changed",
			options: `{"users": {"root": {"uid": 0, "password": "$6$x", "shell": "/bin/bash", "home": "/root", "key": "k"}}}`,
			tree:    accountTree(map[string]string{"/root": "none", "/root/.ssh/authorized_keys": "old\n"}),
			epoch:   testEpoch,
			want: with(map[string]string{
				"/root":                      "none",
				"/root/.ssh/authorized_keys": "[0600] old\nk\n",
				"/etc/passwd":                "root:x:0:0:root:/root:/bin/bash\n" + strings.SplitAfter(testPasswd, "\n")[1],
				"/etc/shadow":                "root:$6$x:19675:0:99999:7:::\n" + strings.SplitAfter(testShadow, "\n")[1],
			}),
		},
		{
			name:    "keys through a link to the home directory",
			options: `{"users": {"root": {"key": "k"}}}`,
			tree:    accountTree(map[string]string{"/root": "-> /var/roothome", "/var/roothome": "dir"}),
			want: accountTree(map[string]string{
				"/root": "-> /var/roothome", "/var/roothome/.ssh": "[0700] dir", "/var/roothome/.ssh/authorized_keys": "[0600] k\n",
			}),
		},
		{name: "another uid", options: `{"users": {"root": {"uid": 5}}}`, tree: accountTree(nil), wantErr: "leave uid out"},
		{name: "unknown group", options: `{"users": {"bob": {"groups": ["nope"]}}}`, tree: accountTree(nil), wantErr: "user bob: useradd bob: exit status"},
		{name: "no home for keys", options: `{"users": {"bob": {"home": "", "key": "k"}}}`, tree: accountTree(nil), wantErr: `set "home"`},
		{name: "no accounts", options: `{"users": {"bob": {}}}`, tree: map[string]string{"/etc": "dir"}, wantErr: "install the base system"},
	})
}

// Neither the error nor the log may hold a password.
func TestUsersHidesPasswords(t *testing.T) {
	needTools(t, "useradd")
	c := testContext(t, map[string]any{"users": map[string]any{"bob": map[string]any{"password": "$6$secret", "groups": []string{"nope"}}}})
	putTree(t, c.Tree, accountTree(nil))
	err := runUsers(c)
	if err == nil {
		t.Fatal("no error")
	}
	if got := fmt.Sprint(err, c.Log); strings.Contains(got, "secret") {
		t.Errorf("the password is in %q", got)
	}
}

func TestUsersResetPassword(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	needTools(t, "useradd", "passwd")
	options := map[string]any{"users": map[string]any{"root": map[string]any{"force_password_reset": true}}}
	c := testContext(t, options)
	putTree(t, c.Tree, accountTree(nil))
	if err := runUsers(c); err != nil {
		t.Fatalf("%v\n%s", err, c.Log)
	}
	if got := listTree(t, c.Tree)["/etc/shadow"]; !strings.Contains(got, "root:*:0:") {
		t.Errorf("shadow is %q", got)
	}
	s := Lookup("org.osbuild.users")
	if got := s.ToolsFor(options); len(got) != 1 || got[0] != "passwd" {
		t.Errorf("it needs %v", got)
	}
}

// A home directory that is missing is made by a program of the tree.
func TestUsersMakesHome(t *testing.T) {
	needTools(t, "mkhomedir_helper")
	dir := inNamespace(t)
	if dir == "" {
		return
	}
	tree := accountTree(map[string]string{"/root": "none", "/etc/skel/.bashrc": "hello\n"})
	c := testContext(t, nil)
	c.Tree = filepath.Join(dir, "tree")
	if err := os.Mkdir(c.Tree, 0o755); err != nil {
		t.Fatal(err)
	}
	hostUsr(t, c.Tree)
	want := maps.Clone(tree)
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		want["/"+d] = "-> usr/" + d
	}
	maps.Copy(want, map[string]string{"/dev": "dir", "/proc": "dir", "/sys": "dir", "/root/.bashrc": "hello\n"})
	runCase(t, c, "org.osbuild.users", stageCase{options: `{"users": {"root": {}}}`, tree: tree, want: want})
}

func TestUsersWithoutHelper(t *testing.T) {
	runCases(t, "org.osbuild.users", []stageCase{{
		name:    "no program in the tree",
		options: `{"users": {"root": {}}}`,
		tree:    accountTree(map[string]string{"/root": "none"}),
		wantErr: "mkhomedir_helper is not in the tree",
	}})
}
