package stages

import "testing"

func TestCopy(t *testing.T) {
	needTools(t, "cp")
	in := map[string]string{"t/etc/x": "[0600 5:6] secret", "t/etc/l": "-> x", "t/sub/deep/f": "deep"}
	runCases(t, "org.osbuild.copy", []stageCase{
		{
			name:    "a file keeps its mode and owner",
			options: `{"paths": [{"from": "input://t/etc/x", "to": "tree:///y"}]}`,
			inputs:  in,
			want:    map[string]string{"/y": "[0600 5:6] secret"},
		},
		{
			name:    "the contents",
			options: `{"paths": [{"from": "input://t/", "to": "tree:///dst/"}]}`,
			inputs:  in,
			tree:    map[string]string{"/dst/own": "x"},
			want:    map[string]string{"/dst/own": "x", "/dst/etc/x": "[0600 5:6] secret", "/dst/etc/l": "-> x", "/dst/sub/deep/f": "deep"},
		},
		{
			name:    "the directory",
			options: `{"paths": [{"from": "input://t/sub", "to": "tree:///dst"}, {"from": "input://t/sub", "to": "tree:///new"}]}`,
			inputs:  in,
			tree:    map[string]string{"/dst": "dir"},
			want:    map[string]string{"/dst/sub/deep/f": "deep", "/new/deep/f": "deep"},
		},
		{
			name:    "through a link",
			options: `{"paths": [{"from": "input://t/sub/deep/f", "to": "tree:///l"}]}`,
			inputs:  in,
			tree:    map[string]string{"/l": "-> f", "/f": "x"},
			want:    map[string]string{"/l": "-> f", "/f": "deep"},
		},
		{
			name:    "instead of a link",
			options: `{"paths": [{"from": "input://t/sub/deep/f", "to": "tree:///l", "remove_destination": true}]}`,
			inputs:  in,
			tree:    map[string]string{"/l": "-> f", "/f": "x"},
			want:    map[string]string{"/l": "deep", "/f": "x"},
		},
		{
			name:    "links above the place stay in the tree",
			options: `{"paths": [{"from": "input://t/sub/deep/f", "to": "tree:///var/run/f"}]}`,
			inputs:  in,
			tree:    map[string]string{"/var/run": "-> /run", "/run": "dir"},
			want:    map[string]string{"/var/run": "-> /run", "/run/f": "deep"},
		},
		{
			name:       "from the tree to a mount, and back",
			options:    `{"paths": [{"from": "tree:///a", "to": "mount://m/a"}, {"from": "mount://m/q", "to": "tree:///q"}]}`,
			tree:       map[string]string{"/a": "1"},
			mounts:     map[string]string{"m/q": "2"},
			want:       map[string]string{"/a": "1", "/q": "2"},
			wantMounts: map[string]string{"m/a": "1", "m/q": "2"},
		},
		{name: "no source", options: `{"paths": [{"from": "input://t/nope", "to": "tree:///x"}]}`, inputs: in, wantErr: "nothing to copy at input://t/nope"},
		{name: "no input", options: `{"paths": [{"from": "input://u/x", "to": "tree:///x"}]}`, inputs: in, wantErr: `no input "u"`},
		{name: "no directory", options: `{"paths": [{"from": "input://t/etc/x", "to": "tree:///no/x"}]}`, inputs: in, wantErr: "org.osbuild.mkdir"},
	})
}
