package stages

import "testing"

func TestSysctld(t *testing.T) {
	runCases(t, "org.osbuild.sysctld", []stageCase{
		{
			name: "lines",
			options: `{"filename": "90-x.conf", "config": [
				{"key": "net.ipv4.conf.*.rp_filter", "value": "2"}, {"key": "-net.ipv4.conf.lo.rp_filter"}]}`,
			want: map[string]string{"/usr/lib/sysctl.d/90-x.conf": "net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.lo.rp_filter\n"},
		},
	})
}
