package stages

import "testing"

func TestMkdir(t *testing.T) {
	runCases(t, "org.osbuild.mkdir", []stageCase{
		{name: "plain", options: `{"paths": [{"path": "/a"}, {"path": "/a/b"}, {"path": "relative"}]}`, want: map[string]string{"/a/b": "dir", "/relative": "dir"}},
		{name: "the umask counts", options: `{"paths": [{"path": "/a", "mode": 511}, {"path": "/b", "mode": 1023}]}`, want: map[string]string{"/a": "dir", "/b": "[1755] dir"}},
		{
			name:    "parents have the usual mode",
			options: `{"paths": [{"path": "/a/b/c", "parents": true, "mode": 448}]}`,
			want:    map[string]string{"/a/b/c": "[0700] dir"},
		},
		{name: "parent missing", options: `{"paths": [{"path": "/a/b"}]}`, wantErr: `add "parents": true`},
		{name: "exists", options: `{"paths": [{"path": "/a"}]}`, tree: map[string]string{"/a": "dir"}, wantErr: `add "exist_ok": true`},
		{
			name:    "the mode of what is there stays",
			options: `{"paths": [{"path": "/a", "exist_ok": true, "mode": 493}, {"path": "/a", "exist_ok": true, "parents": true}]}`,
			tree:    map[string]string{"/a": "[0700] dir"},
			want:    map[string]string{"/a": "[0700] dir"},
		},
		{
			name:    "a link to a directory will do",
			options: `{"paths": [{"path": "/var/run", "exist_ok": true, "parents": true}, {"path": "/var/run/x"}]}`,
			tree:    map[string]string{"/var/run": "-> /run", "/run": "dir"},
			want:    map[string]string{"/var/run": "-> /run", "/run/x": "dir"},
		},
		{name: "a file will not", options: `{"paths": [{"path": "/a", "exist_ok": true, "parents": true}]}`, tree: map[string]string{"/a": "x"}, wantErr: "no directory"},
		{
			name:       "in a mount",
			options:    `{"paths": [{"path": "mount://m/x/y", "parents": true}, {"path": "mount:///m/z"}, {"path": "tree:///t"}]}`,
			mounts:     map[string]string{"m/q": "x"},
			want:       map[string]string{"/t": "dir"},
			wantMounts: map[string]string{"m/q": "x", "m/x/y": "dir", "m/z": "dir"},
		},
		{name: "unknown mount", options: `{"paths": [{"path": "mount://n/x"}]}`, wantErr: `no mount "n"`},
		{name: "slash at the end", options: `{"paths": [{"path": "/a/"}, {"path": "/a/", "exist_ok": true}]}`, want: map[string]string{"/a": "dir"}},
		{name: "upwards stays inside", options: `{"paths": [{"path": "mount:///../../../a"}]}`, mounts: map[string]string{"m/q": "x"}, wantMounts: map[string]string{"m/q": "x", "a": "dir"}},
	})
}
