package stages

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestUnitFileRefuses(t *testing.T) {
	for _, bad := range []string{`{"S": {"A": null}}`, `{"S": {"A": {}}}`, `{"S": {"A": [null]}}`, `{"S": {"Environment": ["x"]}}`, `{"S": 1}`} {
		var u unitFile
		err := json.Unmarshal([]byte(bad), &u)
		if err == nil {
			_, err = u.text()
		}
		if err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func FuzzUnitFile(f *testing.F) {
	f.Add([]byte(`{"Unit": {"After": ["a", "b"], "X": true}, "Service": {"Environment": [{"key": "A", "value": 1}]}}`))
	f.Add([]byte(`{"": {"": ""}}`))
	f.Add([]byte(`{"S": {"A": "x\ny"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var u unitFile
		if json.Unmarshal(b, &u) != nil {
			return
		}
		text, err := u.text()
		if err != nil {
			return
		}
		if n := strings.Count(text, "["); n < len(u) {
			t.Errorf("%q: %d brackets for %d sections", b, n, len(u))
		}
		if len(u) > 0 && !strings.HasSuffix(text, "\n\n") {
			t.Errorf("%q: %q does not end with an empty line", b, text)
		}
	})
}
