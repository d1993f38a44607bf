package stages

import (
	"encoding/json"
	"regexp"
	"testing"
)

func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		name, pattern string
		good, bad     []string
	}{
		{
			name: "confName", pattern: confName,
			good: []string{"a.conf", "10-x_y.conf", "ü.conf", "..conf"},
			bad:  []string{"", ".conf", "a", "a/b.conf", "a.conf.bak", "a b.conf"},
		},
		{
			name: "plainPath", pattern: "^/" + plainPath + "$",
			good: []string{"/a", "/a/b", "//a", "/.a", "/a/..b/c", "/a/...", "/a/..", "/./a", "/a//b/", "/."},
			bad:  []string{"", "/", "a", "/..", "/../a", "/..a", "/a/../b", "/a/../../b", "//../a", "/a\nb", "/./../a"},
		},
	} {
		var text string
		if err := json.Unmarshal([]byte(`"`+tc.pattern+`"`), &text); err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile(text)
		for _, s := range tc.good {
			if !re.MatchString(s) {
				t.Errorf("%s refuses %q", tc.name, s)
			}
		}
		for _, s := range tc.bad {
			if re.MatchString(s) {
				t.Errorf("%s takes %q", tc.name, s)
			}
		}
	}
}
