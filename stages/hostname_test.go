package stages

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostname(t *testing.T) {
	c := testContext(t, map[string]any{"hostname": "web-1.example.org"})
	writeTree(t, c.Tree, map[string]string{"/etc/hostname": "old\n"})
	if err := runHostname(c); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"/etc/hostname": "web-1.example.org\n"}
	if diff := cmp.Diff(want, readTree(t, c.Tree)); diff != "" {
		t.Errorf("tree differs (-want +got):\n%s", diff)
	}
}

func TestHostnameRefuses(t *testing.T) {
	for _, bad := range []string{"", "a b", "a/b", "a\nb", strings.Repeat("x", 65)} {
		if err := runHostname(testContext(t, map[string]any{"hostname": bad})); err == nil {
			t.Errorf("hostname %q was taken", bad)
		}
	}
}
