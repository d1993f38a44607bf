// Tests of what a manifest's sources become.
package sources

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/osbuild-star/osbuild-star/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runFilter gives a program input and returns its output.
func runFilter(t *testing.T, in []byte, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("%s is missing: %v", argv[0], err)
	}
	return out
}

const (
	sumA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	sumB = "md5:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	sumC = "sha1:cccccccccccccccccccccccccccccccccccccccc"
)

func TestFromManifest(t *testing.T) {
	m := &manifest.Manifest{Sources: map[string]*manifest.Source{
		TypeInline: {Items: map[string]any{sumB: map[string]any{"encoding": "base64", "data": "aGk=\n"}}},
		TypeCurl: {Items: map[string]any{
			sumA: "https://example.org/a b",
			sumB: map[string]any{
				"url": "http://example.org/b", "mirrors": []any{"http://example.com/b"}, "size": json.Number("7"),
				"insecure": true, "secrets": map[string]any{"name": secretsMTLS},
			},
		}},
		"org.osbuild.other": {Items: map[string]any{sumC: nil}},
	}}
	got, err := FromManifest(m, map[string]string{sumC: "/here"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Item{
		{Checksum: sumB, Type: TypeCurl, URLs: []string{"http://example.org/b", "http://example.com/b"}, Size: 7, Insecure: true, Secrets: secretsMTLS},
		{Checksum: sumA, Type: TypeCurl, URLs: []string{"https://example.org/a b"}},
		{Checksum: sumB, Type: TypeInline, Inline: []byte("hi"), Size: 2},
		{Checksum: sumC, Type: "org.osbuild.other", Path: "/here"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}

	m.Pipelines = []*manifest.Pipeline{
		{Name: "a", Stages: []*manifest.Stage{{Inputs: map[string]*manifest.Input{
			"files": {Origin: manifest.OriginSource, References: []manifest.Reference{{ID: sumA}}},
			"tree":  {Origin: manifest.OriginPipeline, References: []manifest.Reference{{ID: sumC}}},
		}}}},
		{Name: "b", Stages: []*manifest.Stage{{Inputs: map[string]*manifest.Input{
			"files": {Origin: manifest.OriginSource, References: []manifest.Reference{{ID: sumC}}},
		}}}},
	}
	if diff := cmp.Diff([]Item{want[1]}, Needed(m, got, "a", "none")); diff != "" {
		t.Errorf("needed (-want +got):\n%s", diff)
	}
}

func TestFromManifestErrors(t *testing.T) {
	tests := []struct {
		name, typ, sum string
		v              any
		want           string
	}{
		{"type", "org.osbuild.ostree", sumA, nil, "cannot be fetched"},
		{"algorithm", TypeCurl, "crc:aa", "http://x/", "not a checksum"},
		{"digits", TypeCurl, "sha1:abcd", "http://x/", "not a checksum"},
		{"upper case", TypeCurl, strings.Replace(sumA, "a", "A", 3), "http://x/", "not a checksum"},
		{"path in checksum", TypeCurl, "../etc", "http://x/", "not a checksum"},
		{"null", TypeCurl, sumA, nil, "neither a URL"},
		{"no url", TypeCurl, sumA, map[string]any{}, "not a string"},
		{"scheme", TypeCurl, sumA, "gopher://x/", "cannot be fetched"},
		{"garbage", TypeCurl, sumA, "http://a b/%zz", "not a URL"},
		{"secrets", TypeCurl, sumA, map[string]any{"url": "http://x/", "secrets": map[string]any{"name": "org.osbuild.rhsm"}}, "not supported"},
		{"encoding", TypeInline, sumA, map[string]any{"encoding": "hex", "data": ""}, "not known"},
		{"base64", TypeInline, sumA, map[string]any{"encoding": "base64", "data": "%"}, "not base64"},
		{"no data", TypeInline, sumA, map[string]any{"encoding": "base64"}, "no data"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := FromManifest(&manifest.Manifest{Sources: map[string]*manifest.Source{
				tt.typ: {Items: map[string]any{tt.sum: tt.v}},
			}}, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzChecksum(f *testing.F) {
	for _, s := range []string{sumA, sumB, sumC, "sha256:", "md5:../../../x", ":", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckChecksum(s) == nil && strings.ContainsAny(s, "/\x00 \n") {
			t.Errorf("%q is taken, and is no file name", s)
		}
	})
}
