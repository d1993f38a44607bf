package edit

import "testing"

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		limit int
		want  int
	}{
		{"", "", 3, 0},
		{"image", "image", 3, 0},
		{"imag", "image", 3, 1},
		{"hostnme", "hostname", 3, 1},
		{"bulid", "build", 3, 1}, // two letters swapped
		{"systemd", "sytsemd", 3, 1},
		{"curl", "wget", 9, 4},
		{"kitten", "sitting", 9, 3},
		{"kitten", "sitting", 2, 3}, // past the limit it is not counted
		{"a", "abcdef", 2, 3},
	} {
		if got := Distance(c.a, c.b, c.limit); got != c.want {
			t.Errorf("Distance(%q, %q, %d) = %d, want %d", c.a, c.b, c.limit, got, c.want)
		}
		if got := Distance(c.b, c.a, c.limit); got != c.want {
			t.Errorf("Distance(%q, %q, %d) = %d, want %d", c.b, c.a, c.limit, got, c.want)
		}
	}
}
