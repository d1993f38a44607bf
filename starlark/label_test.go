// Tests of labels, patterns and suggestions.

package starlark

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseLabel(t *testing.T) {
	for _, tt := range []struct{ in, pkg, want, err string }{
		{in: "//images:rhel82", want: "//images:rhel82"},
		{in: ":rhel82", pkg: "images", want: "//images:rhel82"},
		{in: "rhel82", pkg: "images", want: "//images:rhel82"},
		{in: "rhel82", want: "//:rhel82"},
		{in: "//:x", pkg: "images", want: "//:x"},
		{in: "//images", want: "//images:images"},
		{in: "//a/b.c/d-e", want: "//a/b.c/d-e:d-e"},
		{in: "//images:server@rhel94-aarch64-aws", want: "//images:server@rhel94-aarch64-aws"},
		{in: ":server@x", pkg: "p", want: "//p:server@x"},
		{in: "//lib:harden.star", want: "//lib:harden.star"},
		{in: "//lib/harden.star", want: "//lib:harden.star"},
		{in: "//harden.star", want: "//:harden.star"},
		{in: ":sub/a.star", pkg: "lib", want: "//lib:sub/a.star"},
		{in: "@osbuild//debian.star", pkg: "images", want: "@osbuild//debian.star"},
		{in: "@osbuild//:debian.star", want: "@osbuild//debian.star"},
		{in: "@osbuild//sub:a.star", want: "@osbuild//sub/a.star"},
		{in: "@osbuild//sub/a.star", want: "@osbuild//sub/a.star"},

		{in: "", err: "its name is empty"},
		{in: "//", err: "it names no target"},
		{in: ":", err: "its name is empty"},
		{in: "//a:", err: "its name is empty"},
		{in: "///a", err: "empty part"},
		{in: "//a/:x", err: "empty part"},
		{in: "//a//b:x", err: "empty part"},
		{in: "//a/../b:x", err: `".." is not allowed`},
		{in: ":../x", err: `".." is not allowed`},
		{in: ":./x", err: `"." is not allowed`},
		{in: "//a:b:c", err: `':' is not allowed`},
		{in: "//a b:c", err: `' ' is not allowed`},
		{in: "//a:ü", err: `'ü' is not allowed`},
		{in: "//a:\x00", err: `'\x00' is not allowed`},
		{in: "//a:-x", err: "begin with"},
		{in: "//a:all", err: "stands for all targets"},
		{in: "//a/...", err: `"..." is not allowed`},
		{in: "//a:x@", err: "no variant"},
		{in: "//a:x@y@z", err: "'@' is not allowed"},
		{in: "//a:x@arch=arm64", err: "several variants"},
		{in: "images:x", err: "begins with //"},
		{in: "@osbuild", err: `"//" is missing`},
		{in: "@other//a.star", err: `there is no repository "@other"`},
		{in: "@osbuild//a.star@x", err: "no variants"},
		{in: "//" + strings.Repeat("a", 2000) + ":x", err: "longer than"},
		{in: ":" + strings.Repeat("a", 300), err: "longer than"},
	} {
		got, err := ParseLabel(tt.in, tt.pkg)
		check(t, "ParseLabel", tt.in, got.String(), err, tt.want, tt.err)
	}
}

func check(t *testing.T, fn, in, got string, err error, want, wantErr string) {
	t.Helper()
	if wantErr != "" {
		var e *Error
		if err == nil || !errors.As(err, &e) || !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s(%q) = %q, %v; want an *Error with %q", fn, in, got, err, wantErr)
		}
		return
	}
	if err != nil || got != want {
		t.Errorf("%s(%q) = %q, %v; want %q", fn, in, got, err, want)
	}
}

func TestParsePattern(t *testing.T) {
	for _, tt := range []struct{ in, pkg, want, err string }{
		{in: "//images:rhel82", want: "//images:rhel82"},
		{in: "//images", want: "//images:images"},
		{in: ":rhel82", pkg: "images", want: "//images:rhel82"},
		{in: "rhel82", pkg: "images", want: "//images:rhel82"},
		{in: "images:rhel82", want: "//images:rhel82"},
		{in: "b:c", pkg: "a", want: "//a/b:c"},
		{in: "//images:all", want: "//images:all"},
		{in: "//images:*", want: "//images:all"},
		{in: ":all", pkg: "images", want: "//images:all"},
		{in: "all", pkg: "images", want: "//images:all"},
		{in: "//images/...", want: "//images/..."},
		{in: "//images/...:all", want: "//images/..."},
		{in: "//...", pkg: "images", want: "//..."},
		{in: "...", pkg: "images", want: "//images/..."},
		{in: "...", want: "//..."},
		{in: "a/...", pkg: "images", want: "//images/a/..."},
		{in: "-//images:x", want: "-//images:x"},
		{in: "-:x", pkg: "images", want: "-//images:x"},
		{in: "-//...", want: "-//..."},
		{in: "//images:server@rhel94-aarch64-aws", want: "//images:server@rhel94-aarch64-aws"},
		{in: "//images:server@arch=aarch64,cloud=aws", want: "//images:server@arch=aarch64,cloud=aws"},
		{in: "//...@arch=aarch64", want: "//...@arch=aarch64"},
		{in: "-server@cloud=aws", pkg: "p", want: "-//p:server@cloud=aws"},

		{in: "", err: "its name is empty"},
		{in: "-", err: "its name is empty"},
		{in: "--x", err: "begin with"},
		{in: "//", err: "it names no target"},
		{in: "images/rhel82", err: "where the package ends"},
		{in: "images/", err: "where the package ends"},
		{in: "//...:x", err: "cannot stand after"},
		{in: "//.../a", err: `"..." is not allowed`},
		{in: "//a...", want: "//a...:a..."}, // an odd name, but one
		{in: "//a:x@", err: "no variant"},
		{in: "//a:x@arch=", err: "not of the form"},
		{in: "//a:x@arch=b,", err: "not of the form"},
		{in: "//a:x@arch=b=c", err: `'=' is not allowed`},
		{in: "//../a:x", err: `".." is not allowed`},
		{in: "../a:x", pkg: "b", err: `".." is not allowed`},
		{in: "@osbuild//...", err: "files, not targets"},
	} {
		got, err := ParsePattern(tt.in, tt.pkg)
		check(t, "ParsePattern", tt.in, got.String(), err, tt.want, tt.err)
	}
}

func TestPatternMatches(t *testing.T) {
	labels := []string{"//:top", "//a:x", "//a:y", "//a/b:x", "//ab:x", "//a:m@arm-aws", "//a:m@x86-aws"}
	for _, tt := range []struct {
		pattern string
		want    string
	}{
		{"//...", "//:top //a:x //a:y //a/b:x //ab:x //a:m@arm-aws //a:m@x86-aws"},
		{"//a/...", "//a:x //a:y //a/b:x //a:m@arm-aws //a:m@x86-aws"},
		{"//a:all", "//a:x //a:y //a:m@arm-aws //a:m@x86-aws"},
		{"//a:x", "//a:x"},
		{"-//a:x", "//a:x"},
		{"//:all", "//:top"},
		{"//a:m", "//a:m@arm-aws //a:m@x86-aws"},
		{"//a:m@arm-aws", "//a:m@arm-aws"},
	} {
		p, err := ParsePattern(tt.pattern, "")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range labels {
			l, err := ParseLabel(s, "")
			if err != nil {
				t.Fatal(err)
			}
			if p.Matches(l) {
				got = append(got, s)
			}
		}
		if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%s: %s", tt.pattern, d)
		}
		if p.Matches(Label{Repo: "osbuild", Package: "a", Name: "x"}) {
			t.Errorf("%s matches a label of the library", tt.pattern)
		}
	}
}

func TestSelector(t *testing.T) {
	v := Variant{"rhel94-arm-aws", []Axis{{"os", "rhel94"}, {"arch", "arm"}, {"cloud", "aws"}}}
	for in, want := range map[string]bool{
		"rhel94-arm-aws":              true,
		"rhel94-arm":                  false,
		"arch=arm":                    true,
		"arch=arm,cloud=aws":          true,
		"arch=arm,cloud=azure":        false,
		"arch=x86,arch=arm":           true,
		"arch=x86,arch=s390x":         false,
		"nosuch=arm":                  false,
		"cloud=azure,cloud=aws,os=el": false,
	} {
		s, err := ParseSelector(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(v); got != want {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
	if !(Selector{}).Matches(v) {
		t.Error("the zero selector must match everything")
	}
}

func TestSuggest(t *testing.T) {
	for _, tt := range []struct{ name, known, want string }{
		{"hostnme", "hostname locale", "hostname"},
		{"hsotname", "hostname hosts", "hostname"},
		{"HostName", "hostname", "hostname"},
		{"min-version", "min_version", "min_version"},
		{"imag", "image matrix", "image"},
		{"rhel8", "rhel9 rhel82", "rhel82"}, // equally near: the first by the alphabet
		{"a", "b c", ""},
		{"zzz", "hostname", ""},
		{"hostname", "hostname", ""},
		{"", "a", ""},
	} {
		if got := Suggest(tt.name, strings.Fields(tt.known)); got != tt.want {
			t.Errorf("Suggest(%q, %s) = %q, want %q", tt.name, tt.known, got, tt.want)
		}
	}
}

func FuzzParseLabel(f *testing.F) {
	for _, s := range []string{"//images:rhel82", ":x", "x", "//images", "@osbuild//debian.star", "//a:b@c", "//a/b/c.star", "//:x", "//a:x@k=v", "@osbuild//a/b:c/d.star"} {
		f.Add(s, "pkg/sub")
	}
	f.Fuzz(func(t *testing.T, s, pkg string) {
		if checkPackage(pkg) != nil {
			pkg = ""
		}
		l, err := ParseLabel(s, pkg)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Msg == "" {
				t.Fatalf("%q: %#v is no *Error", s, err)
			}
			return
		}
		again, err := ParseLabel(l.String(), "other")
		if err != nil || again != l {
			t.Fatalf("%q gives %q, which gives %#v, %v and not %#v", s, l, again, err, l)
		}
		if strings.Contains("/"+l.File()+"/", "/../") {
			t.Fatalf("%q leads to %q", s, l.File())
		}
	})
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"//images:rhel82", ":x", "x", "//images", "//...", "//a/...", ":all", "-//a:x", "//a:m@k=v,k=w", "a:b", "...", "//a:*@v"} {
		f.Add(s, "pkg/sub")
	}
	f.Fuzz(func(t *testing.T, s, pkg string) {
		if checkPackage(pkg) != nil {
			pkg = ""
		}
		p, err := ParsePattern(s, pkg)
		if err != nil {
			return
		}
		again, err := ParsePattern(p.String(), "other")
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%q gives %q, which gives %#v, %v and not %#v", s, p, again, err, p)
		}
		if p.exact() && !p.Matches(p.label()) {
			t.Fatalf("%q does not match its own label", s)
		}
	})
}
