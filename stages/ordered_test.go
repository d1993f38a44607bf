package stages

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOrderedMap(t *testing.T) {
	var got orderedMap[int]
	if err := json.Unmarshal([]byte(`{"z": 1, "a": 2, "m": 3, "z": 4}`), &got); err != nil {
		t.Fatal(err)
	}
	want := orderedMap[int]{{"z", 4}, {"a", 2}, {"m", 3}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := json.Unmarshal([]byte(`null`), &got); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{`[1]`, `"x"`, `{"a": "x"}`, `3`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	var loose struct {
		List looseList[struct{ A int }]  `json:"list"`
		Map  orderedMap[struct{ A int }] `json:"map"`
	}
	c := &Context{Options: json.RawMessage(`{"list": [{"a": 1, "b": 2}], "map": {"x": {"a": 1, "b": 2}}}`)}
	if err := c.Decode(&loose); err != nil || loose.List[0].A != 1 || loose.Map[0].Value.A != 1 {
		t.Errorf("%+v, %v", loose, err)
	}
}

func FuzzOrderedMap(f *testing.F) {
	f.Add([]byte(`{"a": 1, "b": {"a": [1, {}]}, "a": null}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(` null `))
	f.Add([]byte(`{"\ud800": 1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var want map[string]any
		var got orderedMap[any]
		wantErr, err := json.Unmarshal(b, &want), json.Unmarshal(b, &got)
		if (wantErr == nil) != (err == nil) {
			t.Fatalf("%q: error %v, of a map %v", b, err, wantErr)
		}
		if err != nil {
			return
		}
		if len(got) != len(want) {
			t.Errorf("%q: %d members, a map has %d", b, len(got), len(want))
		}
		for _, e := range got {
			if diff := cmp.Diff(want[e.Name], e.Value); diff != "" {
				t.Errorf("%q: %s (-map +got):\n%s", b, e.Name, diff)
			}
		}
	})
}
