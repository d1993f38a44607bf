package stages

import "testing"

func TestDracutConf(t *testing.T) {
	runCases(t, "org.osbuild.dracut.conf", []stageCase{
		{
			name: "in the order they are given",
			options: `{"filename": "40-x.conf", "config": {"reproducible": true, "early_microcode": false, "compress": "xz",
				"add_drivers": ["nvme", "xen-blkfront"], "drivers": []}}`,
			want: map[string]string{"/usr/lib/dracut/dracut.conf.d/40-x.conf": `reproducible="yes"
early_microcode="no"
compress="xz"
add_drivers+=" nvme xen-blkfront "
drivers+="  "
`},
		},
		{name: "not a list", options: `{"filename": "x.conf", "config": {"drivers": {"a": 1}}}`, wantErr: "drivers"},
	})
}
