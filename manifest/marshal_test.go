// Tests of writing manifests and of what --inspect prints.

package manifest

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The files beside the manifests are what upstream's --inspect printed.
func TestInspect(t *testing.T) {
	for _, path := range glob(t, "testdata/inspect/*.json") {
		t.Run(path, func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(path, ".json") + ".inspect")
			if err != nil {
				t.Fatal(err)
			}
			got, err := mustLoad(t, path).Inspect(HostRunner("org.osbuild.debian"))
			if err != nil {
				t.Fatal(err)
			}
			compareJSON(t, want, got)
		})
	}
}

func TestInspectNamesTheHostsRunner(t *testing.T) {
	const text = `{"version":"2","pipelines":[{"name":"b","stages":[{"type":"x"}]},{"name":"os","build":"name:b"}]}`
	m, err := Load([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"", "org.osbuild.debian"} {
		got, err := m.Inspect(HostRunner(host))
		if err != nil {
			t.Fatal(err)
		}
		if has := strings.Contains(string(got), `"runner":"org.osbuild.debian"`); has != (host != "") {
			t.Errorf("host %q: %s", host, got)
		}
	}
}

func TestFormat(t *testing.T) {
	epoch := int64(5)
	m := &Manifest{
		Metadata: map[string]any{"exports": []any{map[string]any{"name": "os"}}},
		Pipelines: []*Pipeline{
			{Name: "build", Stages: []*Stage{{Type: "org.osbuild.noop", Origin: Origin{File: "x", Line: 1}}}},
			{Name: "os", SourceEpoch: &epoch, Arch: "s390x", Build: &BuildRoot{Runner: "org.osbuild.linux", Pipeline: "build", Var: "/v"}, Stages: []*Stage{{
				Type:    "org.osbuild.copy",
				Options: map[string]any{"z": json.Number("1.50"), "a": "<é&\u2028>", "list": []string{"x"}, "n": 7},
				Inputs: map[string]*Input{
					"b": {Type: "t", Origin: OriginSource, References: []Reference{{ID: "y"}, {ID: "x"}}},
					"a": {Type: "t", Origin: OriginPipeline, Options: map[string]any{"o": true}, References: []Reference{
						{ID: "name:build", Options: map[string]any{"file": "f"}}, {ID: "name:build"},
					}},
				},
				Devices: map[string]*Device{"d": {Type: "l", Options: map[string]any{"filename": "f"}}, "c": {Type: "l", Parent: "d"}},
				Mounts:  []*Mount{{Name: "m", Type: "e", Source: "c", Partition: 2, Target: "/", Options: map[string]any{"ro": true}}, {Name: "l", Type: "e"}},
			}}},
		},
		Sources: map[string]*Source{"s": {Items: map[string]any{"y": "u", "x": nil}, Options: map[string]any{"p": "q"}}},
	}
	const want = `{
  "version": "2",
  "metadata": {
    "exports": [
      {
        "name": "os"
      }
    ]
  },
  "pipelines": [
    {
      "name": "build",
      "runner": "org.osbuild.linux",
      "stages": [
        {
          "type": "org.osbuild.noop"
        }
      ]
    },
    {
      "name": "os",
      "build": "name:build",
      "source-epoch": 5,
      "stages": [
        {
          "type": "org.osbuild.copy",
          "options": {
            "a": "<é&` + "\u2028" + `>",
            "list": [
              "x"
            ],
            "n": 7,
            "z": 1.50
          },
          "inputs": {
            "a": {
              "type": "t",
              "origin": "org.osbuild.pipeline",
              "references": {
                "name:build": {}
              },
              "options": {
                "o": true
              }
            },
            "b": {
              "type": "t",
              "origin": "org.osbuild.source",
              "references": {
                "x": {},
                "y": {}
              }
            }
          },
          "devices": {
            "c": {
              "type": "l",
              "parent": "d"
            },
            "d": {
              "type": "l",
              "options": {
                "filename": "f"
              }
            }
          },
          "mounts": [
            {
              "name": "m",
              "type": "e",
              "source": "c",
              "partition": 2,
              "target": "/",
              "options": {
                "ro": true
              }
            },
            {
              "name": "l",
              "type": "e"
            }
          ]
        }
      ]
    }
  ],
  "sources": {
    "s": {
      "items": {
        "x": null,
        "y": "u"
      },
      "options": {
        "p": "q"
      }
    }
  }
}
`
	got, err := m.Format()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := Load(got); err != nil {
		t.Error(err)
	}
}

func TestFormatRefusesTwoRunnersOfOneTree(t *testing.T) {
	m := &Manifest{Pipelines: []*Pipeline{
		{Name: "b"},
		{Name: "x", Build: &BuildRoot{Pipeline: "b", Runner: "org.osbuild.linux"}},
		{Name: "y", Build: &BuildRoot{Pipeline: "b", Runner: "org.osbuild.arch"}},
	}}
	_, err := m.Format()
	var e *Error
	if !errors.As(err, &e) || e.Hint == "" || !strings.Contains(e.Msg, `"x" and "y"`) {
		t.Errorf("got %v", err)
	}
}

func TestLoadOfFormat(t *testing.T) {
	for _, pattern := range []string{conformance + "/cases/*.json", conformance + "/images/*.json", conformance + "/bench/*.json"} {
		for _, path := range glob(t, pattern) {
			m := mustLoad(t, path)
			text, err := m.Format()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Load(text)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if diff := cmp.Diff(m, again); diff != "" {
				t.Errorf("%s: (-want +got):\n%s", path, diff)
			}
		}
	}
}
