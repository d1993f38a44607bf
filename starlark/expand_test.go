// Tests of Expand: which targets, in which order, and what is said when there are none.

package starlark

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"
)

const expandText = `
-- BUILD.star --
target(name = "top")
-- images/BUILD.star --
target(name = "rhel82")
target(name = "images")
target(name = "debian12")
matrix(name = "server", arch = ["arm", "x86"], cloud = ["aws", "azure"])
-- images/old/BUILD.star --
target(name = "rhel6")
-- cloud/BUILD.star --
target(name = "rhel94")
-- empty/BUILD.star --
x = 1
-- nothing/readme --
-- broken/BUILD.star --
x = 1 // 0
-- .hidden/BUILD.star --
target(name = "hidden")
-- out/BUILD.star --
target(name = "out")
-- images/out/BUILD.star --
target(name = "fine")
-- inner/MODULE.star --
-- inner/BUILD.star --
target(name = "inner")
-- inner/deep/BUILD.star --
target(name = "inner")
`

func TestExpand(t *testing.T) {
	const all = "//:top //cloud:rhel94 //images:rhel82 //images:images //images:debian12 //images:server //images/old:rhel6 //images/out:fine"
	for _, tt := range []struct {
		pkg, patterns string
		want          string
		err, hint     string
		made          int // variants
	}{
		{patterns: "//... -//broken:all", want: all},
		{patterns: "//... -//broken/...", want: all},
		{patterns: "//...", err: "division by zero"},
		{patterns: "//images:all", want: "//images:rhel82 //images:images //images:debian12 //images:server"},
		{patterns: "//images/...", want: "//images:rhel82 //images:images //images:debian12 //images:server //images/old:rhel6 //images/out:fine"},
		{patterns: "//images", want: "//images:images"},
		{patterns: "//images:debian12 //images:rhel82 //images:debian12", want: "//images:debian12 //images:rhel82"},
		{patterns: "//images:debian12 //images/old/... //images:rhel82", want: "//images:debian12 //images/old:rhel6 //images:rhel82"},
		{pkg: "images", patterns: "rhel82 :debian12 old:rhel6 //cloud:rhel94", want: "//images:rhel82 //images:debian12 //images/old:rhel6 //cloud:rhel94"},
		{pkg: "images", patterns: "...", want: "//images:rhel82 //images:images //images:debian12 //images:server //images/old:rhel6 //images/out:fine"},
		{patterns: "//images:all -//images:rhel82 -//images:server", want: "//images:images //images:debian12"},
		{patterns: "//images:all -//images:all //images:rhel82", want: "//images:rhel82"},
		{patterns: "//images:rhel82 -//images:debian12", want: "//images:rhel82"},
		{patterns: "-//images:rhel82 //images:rhel82", want: "//images:rhel82"},
		{patterns: "//out:out", want: "//out:out"},

		{patterns: "//images:server", want: "//images:server"},
		{patterns: "//images:server@arm-aws", want: "//images:server@arm-aws", made: 1},
		{patterns: "//images:server@all", want: "//images:server@arm-aws //images:server@arm-azure //images:server@x86-aws //images:server@x86-azure", made: 4},
		{patterns: "//images:server@all -//images:server@arch=arm", want: "//images:server@x86-aws //images:server@x86-azure", made: 2},
		{patterns: "//images:server@arch=arm", want: "//images:server@arm-aws //images:server@arm-azure", made: 2},
		{patterns: "//images:server@arch=arm,cloud=azure", want: "//images:server@arm-azure", made: 1},
		{patterns: "//images:server@x86-aws //images:server@arm-aws", want: "//images:server@arm-aws //images:server@x86-aws", made: 2},
		{patterns: "//images:server //images:server@arm-aws", want: "//images:server"},
		{patterns: "//images:server -//images:server@arm-aws", want: "//images:server@arm-azure //images:server@x86-aws //images:server@x86-azure", made: 3},
		{patterns: "//images:server -//images:server@nosuch", want: "//images:server"},
		{patterns: "//images:all@cloud=aws", want: "//images:server@arm-aws //images:server@x86-aws", made: 2},
		{patterns: "//images/... -//images:all@cloud=aws -//images/old/...", want: "//images:rhel82 //images:images //images:debian12 //images:server@arm-azure //images:server@x86-azure //images/out:fine", made: 2},
		{patterns: "//images:server@cloud=aws -//images:server@arch=arm,arch=x86", err: "no target matches"},
		{patterns: "//images:server@arm-awz", err: `//images:server has no variant "arm-awz"`, hint: `did you mean "//images:server@arm-aws"`},
		{patterns: "//images:server@zzzzzzzz", err: "has no variant", hint: "it has: arm-aws, arm-azure, x86-aws, x86-azure"},
		{patterns: "//images:server@arhc=arm", err: `//images:server has no axis "arhc"`, hint: `did you mean "arch"?`},
		{patterns: "//images:server@arch=s390x", err: `//images:server has no arch "s390x"`, hint: "one of: arm, x86"},
		{patterns: "//images:rhel82@x", err: "//images:rhel82 has no variants: it is a target", hint: "ask for //images:rhel82"},
		{patterns: "//cloud/...@arch=arm", err: "no target matches //cloud/...@arch=arm", hint: "no target there has such variants"},

		{patterns: "//images:rhel8", err: "there is no target //images:rhel8", hint: `did you mean "//images:rhel82"`},
		{patterns: "//images:rhel94", err: "there is no target //images:rhel94", hint: `"//cloud:rhel94"`},
		{patterns: "//images:xyzzyxy", err: "there is no target", hint: "//images has: rhel82, images, debian12, server"},
		{patterns: "//empty:x", err: "there is no target", hint: "//empty declares no targets"},
		{patterns: "//imges:rhel82", err: "there is no package //imges", hint: `did you mean "//images:rhel82"?`},
		{patterns: "//debian12", err: "there is no package //debian12", hint: `did you mean "//images:debian12"?`},
		{patterns: "//nothing:x", err: "there is no package //nothing: no BUILD.star is in that folder", hint: "the packages are: //"},
		{patterns: "//inner:inner", err: "inner is a workspace of its own"},
		{patterns: "//inner/...", err: "inner is a workspace of its own"},
		{patterns: "//empty:all", err: "no target matches //empty:all", hint: "declare no targets"},
		{patterns: "//nothing/...", err: "no target matches //nothing/...", hint: "neither nothing nor a folder below it has a BUILD.star"},
		{patterns: "//nosuch/...", err: "no target matches //nosuch/...", hint: "there is no folder nosuch"},
		{patterns: "-//images:all", err: "no target matches -//images:all", hint: "needs one before it"},
		{patterns: "//images:all -//images:rhel8", err: "there is no target //images:rhel8"},
		{patterns: "//images:rhel82 -//images:rhel82", err: "no target matches //images:rhel82 -//images:rhel82"},
	} {
		t.Run(tt.pkg+" "+tt.patterns, func(t *testing.T) {
			made := []string{}
			l := newLoader(t, expandText, func(o *Options) { o.Predeclared = testBuiltins(&made) })
			got, err := expand(l, tt.pkg, strings.Fields(tt.patterns)...)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, %v; want %s", got, err, tt.err)
				}
				hint := asError(err).Hint
				if !strings.Contains(hint, tt.hint) {
					t.Errorf("hint %q, want %q", hint, tt.hint)
				}
				if none := (*NoMatchError)(nil); strings.Contains(tt.err, "no target matches") != errors.As(err, &none) {
					t.Errorf("%T", err)
				}
				if unknown := (*UnknownLabelError)(nil); strings.HasPrefix(tt.err, "there is no") && !errors.As(err, &unknown) {
					t.Errorf("%T has no *UnknownLabelError", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
			if len(made) != tt.made {
				t.Errorf("made the variants %v", made)
			}
		})
	}
}

// Only what is needed is read.
func TestExpandReads(t *testing.T) {
	l := newLoader(t, expandText)
	if _, err := expand(l, "", "//images:rhel82", "//cloud/..."); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"cloud/BUILD.star", "images/BUILD.star"}, l.Files()); d != "" {
		t.Error(d)
	}
	label := Label{Package: "images", Name: "server", Variant: "x86-aws"}
	if got, err := l.Target(context.Background(), label); err != nil || got.Label() != label {
		t.Errorf("Target: %v, %v", got, err)
	}
	if _, err := l.Target(context.Background(), Label{Repo: "osbuild", Name: "debian.star"}); err == nil {
		t.Error("the library has a target")
	}
	if _, err := l.Package(context.Background(), "../x"); err == nil || !strings.Contains(err.Error(), "bad package") {
		t.Errorf("a package outside: %v", err)
	}
	// A loader that is closed says so.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Package(context.Background(), "images/old"); err == nil {
		t.Error("a closed loader reads")
	}
	unused := NewLoader(l.w, Options{Predeclared: func(FileKind) starlark.StringDict { return nil }})
	if err := unused.Close(); err != nil {
		t.Error(err)
	}
	if _, err := unused.Package(context.Background(), "images"); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("got %v", err)
	}
}
